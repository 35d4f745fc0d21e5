"""What a checkpoint holds, and the sums by which it is believed."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import json
import math
import platform
import sys
from collections.abc import Mapping
from typing import Any, cast

FORMAT_VERSION = 1
_PACKAGES = ("tensorflow", "tf-agents", "tensorflow-probability", "numpy", "gymnasium")


class DamagedError(Exception):
    """A checkpoint is not what was written; the message says where."""


class NewerFormatError(Exception):
    """A later version of this package has written a checkpoint; the message says so."""


@dataclasses.dataclass(frozen=True)
class Manifest:
    """The contents of manifest.json.

    Attributes:
        number: of the checkpoint; a later one has a larger one.
        step: how far training had come, in the unit of whoever saves, such as environment steps.
        evaluation: the mean return of the policy in the checkpoint; None if it was not evaluated.
        specs: of time steps and actions, see `descriptions.describe`.
        hyper_parameters: what JSON knows.
        variables: dtype and shape by name.
        packages: versions by name.
        files: SHA-256 by file name.
        format_version: of the files.
    """

    number: int
    step: int
    evaluation: float | None
    specs: Mapping[str, Any]
    hyper_parameters: Mapping[str, Any]
    variables: Mapping[str, Any]
    packages: Mapping[str, str]
    files: Mapping[str, str]
    format_version: int = FORMAT_VERSION

    def to_bytes(self) -> bytes:
        """The manifest as a file, with a sum of itself."""
        content = dataclasses.asdict(self)
        document = {"sha256": sha256(_canonical(content)), "content": content}
        return (json.dumps(document, indent=1) + "\n").encode()


def read_manifest(data: bytes) -> Manifest:
    """The manifest in a file.

    Raises:
        DamagedError: the file is not what was written, or of a format that is unknown here.
        NewerFormatError: it is of a later format.
    """
    try:
        document = json.loads(data)
        content, expected = document["content"], document["sha256"]
        found = sha256(_canonical(content))
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise DamagedError("manifest.json cannot be read") from error
    if found != expected:
        raise DamagedError("manifest.json does not have the contents that were written")
    version = content.get("format_version") if isinstance(content, dict) else None
    if type(version) is int and version > FORMAT_VERSION:
        raise NewerFormatError(f"has format version {version}, expected at most {FORMAT_VERSION}")
    if version != FORMAT_VERSION:
        raise DamagedError(f"manifest.json has format version {version!r}, expected {FORMAT_VERSION}")
    try:
        manifest = Manifest(**content)
    except TypeError as error:
        raise DamagedError("manifest.json lacks an entry or has one that is unknown") from error
    _check_forms(manifest)
    return manifest


def _check_forms(manifest: Manifest) -> None:
    """Raises DamagedError for an entry of another kind than was written."""
    for name in ("number", "step"):
        value = getattr(manifest, name)
        if type(value) is not int or value < 0:
            raise DamagedError(f"manifest.json has {name} {value!r:.80}, expected a count")
    value = manifest.evaluation
    is_number = type(value) in (int, float) and math.isfinite(cast("float", value))
    if not (value is None or is_number):
        raise DamagedError(f"manifest.json has evaluation {value!r:.80}, expected a number")
    for name in ("specs", "hyper_parameters", "variables", "packages", "files"):
        if not isinstance(getattr(manifest, name), dict):
            raise DamagedError(f"manifest.json has {name} {getattr(manifest, name)!r:.80}, expected entries by name")


def read_state(data: bytes) -> dict[str, Any]:
    """The state in a file, by part.

    Raises:
        DamagedError: the file is no such state.
    """
    try:
        state = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise DamagedError("state.json cannot be read") from error
    if not isinstance(state, dict):
        raise DamagedError(f"state.json holds {type(state).__name__}, expected parts by name")
    return state


def sha256(data: bytes) -> str:
    """The SHA-256 of bytes, hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def package_versions() -> dict[str, str]:
    """Versions of Python and of the packages that numbers depend on."""
    versions = {"python": platform.python_version()}
    for name in _PACKAGES:
        module = sys.modules.get(name.replace("-", "_"))
        version = getattr(module, "__version__", None)
        try:
            versions[name] = version or importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "unknown"
    return versions


def _canonical(content: Any) -> bytes:
    return json.dumps(content, sort_keys=True, separators=(",", ":")).encode()
