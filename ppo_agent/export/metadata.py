"""What an exported policy takes and returns, where it comes from and how well it did: metadata.json."""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tf_agents.policies import tf_policy

from ppo_agent.export import naming
from ppo_agent.export.distribution_kinds import Kind

FILE = "metadata.json"
FORMAT_VERSION = 1


def describe(
    policy: tf_policy.TFPolicy,
    signatures: Mapping[str, Any],
    kinds: Sequence[Kind],
    environment: str | None,
    evaluation: Mapping[str, Any] | None,
) -> str:
    """The document, in JSON.

    Args:
        policy: what is exported.
        signatures: concrete functions by name.
        kinds: what each leaf of the action is drawn from; none if the policy does not tell.
        environment: id of the environment, if known.
        evaluation: how well it did there, if known.
    """
    specs = {
        "observation": policy.time_step_spec.observation,
        "action": policy.action_spec,
        "policy_state": policy.policy_state_spec,
    }
    leaves = naming.flat("distribution", policy.action_spec) if kinds else {}
    document = {
        "format_version": FORMAT_VERSION,
        "packages": {name: version(name) for name in ("ppo_agent", "tensorflow")},
        "environment": environment,
        "evaluation": None if evaluation is None else dict(evaluation),
        **{name: {key: spec_of(leaf) for key, leaf in naming.flat(name, spec).items()} for name, spec in specs.items()},
        "distribution": {name: kind._asdict() for name, kind in zip(leaves, kinds, strict=True)},
        "signatures": {name: _signature(function) for name, function in signatures.items()},
    }
    return json.dumps(document, indent=1) + "\n"


def read(directory: Path) -> dict[str, Any]:
    """The document in the folder of a SavedModel; empty if there is none, or none that can be read."""
    try:
        document = json.loads((directory / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return document if isinstance(document, dict) else {}


def spec_of(spec: Any) -> dict[str, Any]:
    """Shape, dtype and bounds of a spec, as JSON knows them."""
    found = {"shape": spec.shape.as_list(), "dtype": spec.dtype.name}
    for bound in ("minimum", "maximum"):
        value = np.asarray(getattr(spec, bound, np.nan))
        # Bounds that are the ends of the dtype's range say nothing, and JSON knows no infinity.
        if np.isfinite(value).all() and (np.abs(value) < np.finfo(np.float32).max).all():
            found[bound] = value.tolist()
    return found


def _signature(function: Any) -> dict[str, Any]:
    inputs = function.structured_input_signature[1]
    return {
        "inputs": {name: spec_of(spec) for name, spec in inputs.items()},
        "outputs": {name: spec_of(spec) for name, spec in function.structured_outputs.items()},
    }


def version(name: str) -> str:
    """The version of an installed package, `unknown` if there is none."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"
