"""Names of variables that stay the same from process to process, which TensorFlow's and Keras' own do not."""

from __future__ import annotations

import collections
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from ppo_agent.common.types import Array
from ppo_agent.learner import optimizers

Variables = dict[str, tf.Variable]

# Statistics of normalisers that are counts, of at least one entry's part, or sums of squares.
_POSITIVE = ("_normalizer/_count/",)
_NOT_NEGATIVE = ("_normalizer/_m2/", "_value_scale/_count", "_value_scale/_variance")


def named_variables(root: Any, leave_out: Iterable[Any] = ()) -> Variables:
    """The variables of an object by the attributes that lead to them, such as `_actor_net/encoder/layers/0/kernel`.

    The shortest way counts where several lead to one.

    Args:
        root: a `tf.Module`, a Keras layer, or whatever `tf.train.Checkpoint` takes.
        leave_out: objects that are not looked into.
    """
    found: Variables = {}
    seen = {id(root), *map(id, leave_out)}
    queue: collections.deque[tuple[tuple[str, ...], Any]] = collections.deque([((), root)])
    while queue:
        way, thing = queue.popleft()
        if isinstance(thing, tf.Variable):
            found["/".join(way)] = thing
            continue
        for name, child in tf.train.TrackableView.children(thing).items():
            if id(child) not in seen:
                seen.add(id(child))
                queue.append(((*way, name), child))
    return found


def optimizer_variables(optimizer: Any, trained: Mapping[str, tf.Variable]) -> Variables:
    """The variables of an optimiser, its slots by the names of the variables that they belong to.

    Args:
        optimizer: a tf.keras, legacy tf.keras or tf.compat.v1 optimizer whose slots exist.
        trained: what it is applied to, by name.
    """
    if hasattr(optimizer, "get_slot_names"):
        slots = {
            f"{slot}/{name}": optimizer.get_slot(variable, slot)
            for slot in optimizer.get_slot_names()
            for name, variable in trained.items()
        }
        known = {id(variable) for variable in slots.values()}
        return {**slots, **{_plain(v.name): v for v in optimizers.variables(optimizer) if id(v) not in known}}
    names = {_plain(variable.name): name for name, variable in trained.items()}
    found: Variables = {}
    for variable in optimizers.variables(optimizer):
        name = _by_owner(_plain(variable.name), names)
        # Two networks of one name have variables of one name.
        found[name if name not in found else f"{name}#{len(found)}"] = variable
    return found


def unsound(name: str, array: Array) -> str | None:
    """What nothing can continue from in the value of a variable, and what is expected; None if it is sound.

    Args:
        name: of the variable, see `named_variables`.
        array: its value.
    """
    if array.dtype.kind in "fc" and not np.isfinite(array).all():
        return "NaN or infinity, expected finite numbers"
    if any(part in name for part in _POSITIVE) and (array <= 0).any():
        return f"{array.min()}, expected positive numbers"
    if any(part in name for part in _NOT_NEGATIVE) and (array < 0).any():
        return f"{array.min()}, expected numbers of at least 0"
    return None


def _by_owner(name: str, owners: Mapping[str, str]) -> str:
    """`Adam/m/NAME` -> `Adam/m/OWNER` where NAME is that of a trained variable."""
    parts = name.split("/")
    for start in range(1, len(parts)):
        if (owner := owners.get("/".join(parts[start:]))) is not None:
            return "/".join([*parts[:start], owner])
    return name


def _plain(name: str) -> str:
    return name.removesuffix(":0")
