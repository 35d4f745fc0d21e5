"""Policies for robots and notebooks that have NumPy and nothing else."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from ppo_agent.export import files, metadata, numpy_policy, sources
from ppo_agent.export.program.graph_reader import read_saved_model
from ppo_agent.export.program.steps import Program

FORMAT_VERSION = 1


def export_numpy(policy: sources.Source, directory: str | os.PathLike[str]) -> None:
    """Writes a folder of policy.json, policy.npz and numpy_policy.py, which reads them and acts.

    Args:
        policy: a policy, or the folder of one that `export_policy` wrote.
        directory: where to write; an earlier export there is replaced in one step.

    Raises:
        UnsupportedError: the policy holds an operation that is not known here.
        ValueError: `directory` is a file or holds something else, or `policy` is no exported one.
        OSError: it cannot be written.
    """
    target = files.check_folder(directory)
    with sources.saved(policy) as saved:
        program = read_saved_model(saved)
        document = _document(program, metadata.read(saved))
    contents = {
        "policy.json": (json.dumps(document, indent=1) + "\n").encode(),
        "policy.npz": _archive(program),
        "numpy_policy.py": Path(numpy_policy.__file__).read_bytes(),
    }

    def write(path: str) -> None:
        Path(path).mkdir()
        for name, data in contents.items():
            (Path(path) / name).write_bytes(data)

    files.write_folder(target, write)


def _document(program: Program, described: dict[str, Any]) -> dict[str, Any]:
    return {
        "format_version": FORMAT_VERSION,
        "metadata": described,
        "inputs": {name: metadata.spec_of(spec) for name, spec in program.inputs.items()},
        "outputs": program.outputs,
        "steps": [list(step) for step in program.steps],
    }


def _archive(program: Program) -> bytes:
    buffer = io.BytesIO()
    constants: dict[str, Any] = program.constants
    np.savez(buffer, **constants)
    return buffer.getvalue()
