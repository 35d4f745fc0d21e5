"""What the other formats are made from: the SavedModel of a policy, in a folder or on the way to one."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib import util
from pathlib import Path
from typing import Any, TypeAlias

from tf_agents.policies import tf_policy

from ppo_agent.export import files, saved_model

# A policy, or the folder of one that `export_policy` wrote.
Source: TypeAlias = tf_policy.TFPolicy | str | os.PathLike[str]


class MissingPackageError(ImportError):
    """A format needs a package that is not installed; the message tells how to install it."""


def check_packages(names: Iterable[str], extra: str) -> None:
    """Raises MissingPackageError if a package, which an extra of ppo-agent brings, is not installed."""
    for name in names:
        if util.find_spec(name) is None:
            raise MissingPackageError(f'{name} is not installed, expected it: run pip install "ppo-agent[{extra}]".')


@contextmanager
def saved(policy: Source) -> Iterator[Path]:
    """The folder of a policy's SavedModel.

    Raises:
        TypeError: it is neither a policy nor a path.
        ValueError: there is no SavedModel in the folder.
    """
    if not isinstance(policy, (str, os.PathLike)):
        with files.scratch_folder() as scratch:
            saved_model.export_policy(policy, scratch / "policy")
            yield scratch / "policy"
        return
    directory = Path(policy)
    if not (directory / "saved_model.pb").is_file():
        raise ValueError(f"policy is {str(directory)!r}, expected a policy or the folder of an exported one.")
    yield directory


def acting_signatures(loaded: Any) -> dict[str, Any]:
    """What acts in a loaded SavedModel: `action`, and `distribution` if the policy tells it.

    Raises:
        ValueError: it was not written by `export_policy`.
    """
    found = {name: loaded.signatures[name] for name in ("action", "distribution") if name in loaded.signatures}
    if "action" not in found:
        raise ValueError(f"policy has the signatures {list(loaded.signatures)}, expected action: see export_policy.")
    return found
