"""Action distributions as tensors and words, for those who have no TensorFlow Probability."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

# Names that say more than those of the classes.
_KINDS = {"OffsetCategorical": "categorical", "ShiftedCategorical": "categorical"}
# What a distribution has beside tensors and what belongs to TensorFlow Probability.
_INTERNAL = {"name", "dtype", "validate_args", "allow_nan_stats", "parameters", "force_probs_to_zero_outside_support"}


class Kind(NamedTuple):
    """What an action leaf is drawn from.

    Attributes:
        kind: `categorical`, `normal`, `squashed_normal`, or another class's name in lower case.
        parameters: names of the tensors that depend on the observation.
        constants: numbers that do not, such as `offset`, `low` and `high`.
    """

    kind: str
    parameters: list[str]
    constants: dict[str, Any]


def parameters_of(distribution: tfp.distributions.Distribution) -> dict[str, tf.Tensor]:
    """The tensors that a distribution was made of, [B, ...] by name; independent components count as one."""
    return {name.replace("/", "_"): value for name, value in _walk(_inner(distribution)) if tf.is_tensor(value)}


def kind_of(distribution: tfp.distributions.Distribution) -> Kind:
    """Tells what a distribution is."""
    inner = _inner(distribution)
    class_name = type(inner).__name__.removeprefix("_").removesuffix("_ACTTypeSpec")
    kind = _KINDS.get(class_name, re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", class_name).lower())
    constants = {name.replace("/", "_"): _listed(value) for name, value in _walk(inner) if _is_constant(value)}
    return Kind(kind, list(parameters_of(distribution)), constants)


def _inner(distribution: Any) -> Any:
    while isinstance(distribution, tfp.distributions.Independent):
        distribution = distribution.distribution
    return distribution


def _walk(distribution: Any, prefix: str = "") -> list[tuple[str, Any]]:
    """The parameters of a distribution and of those inside it, by their path."""
    found: list[tuple[str, Any]] = []
    parameters: Mapping[str, Any] = distribution.parameters
    for name, value in parameters.items():
        if isinstance(value, tfp.distributions.Distribution):
            found += _walk(value, f"{prefix}{name}/")
        elif name not in _INTERNAL and value is not None:
            found.append((prefix + name, value))
    return found


def _is_constant(value: Any) -> bool:
    if isinstance(value, (bool, str)) or not isinstance(value, (int, float, tuple, np.ndarray, np.generic)):
        return False
    return np.asarray(value).dtype.kind in "iuf"


def _listed(value: Any) -> Any:
    return np.asarray(value).tolist()
