"""The formats by name."""

from __future__ import annotations

import functools
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from ppo_agent.export import files, numpy_format, onnx_format, runners, saved_model, sources, tflite_format


class Format(NamedTuple):
    """How a format is written and run.

    Attributes:
        export: takes a policy, or the folder of an exported one, and where to write.
        load: makes a `runners.Runner` of what was written.
        is_folder: whether a folder is written rather than a file.
        packages: what writing and running it needs, by the name of the import.
        extra: the extra of ppo-agent that brings them.
    """

    export: Callable[[sources.Source, Path], None]
    load: Callable[..., Any]
    is_folder: bool
    packages: tuple[str, ...] = ()
    extra: str = ""

    def check_target(self, path: str | os.PathLike[str], argument: str) -> Path:
        """The absolute path to write to, see `files.check_folder` and `files.check_file`."""
        return files.check_folder(path, argument) if self.is_folder else files.check_file(path, argument)


def _export_saved_model(policy: sources.Source, directory: Path) -> None:
    """As `export_policy`; an exported policy is copied."""
    if not isinstance(policy, (str, os.PathLike)):
        saved_model.export_policy(policy, directory)
        return
    target = files.check_folder(directory)
    with sources.saved(policy) as saved:
        files.write_folder(target, functools.partial(shutil.copytree, saved))


FORMATS = {
    "saved_model": Format(_export_saved_model, runners.SavedModelRunner, is_folder=True),
    "tflite": Format(tflite_format.export_tflite, runners.tflite_runner, is_folder=False),
    "tflite_int8": Format(
        functools.partial(tflite_format.export_tflite, quantize=True), runners.tflite_runner, is_folder=False
    ),
    "onnx": Format(
        onnx_format.export_onnx, runners.onnx_runner, is_folder=False, packages=("onnx", "onnxruntime"), extra="onnx"
    ),
    "numpy": Format(numpy_format.export_numpy, runners.numpy_runner, is_folder=True),
}
