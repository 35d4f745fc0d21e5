"""Writes an export after it was verified, with a report beside it."""

from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from ppo_agent.deployment import verification
from ppo_agent.deployment.runs import Exported
from ppo_agent.export import files, metadata
from ppo_agent.export.formats import FORMATS, Format
from ppo_agent.export.runners import SavedModelRunner

REPORT = "export.json"


def export(
    source: Exported, format_name: str, output: Path, *, seed: int, num_observations: int, num_episodes: int
) -> dict[str, Any]:
    """Writes a policy in a format, and export.json: in the folder that is written, or beside the file.

    Nothing is written unless all of it succeeds.

    Args:
        source: the policy.
        format_name: one of `FORMATS`.
        output: file or folder.
        seed: of the episodes.
        num_observations: how many to compare with the SavedModel on.
        num_episodes: how many to evaluate in.

    Returns:
        The report.

    Raises:
        UnsupportedError: the policy holds an operation that the format has no words for.
        ValueError: the environment does not exist or does not fit.
        OSError: it cannot be written.
    """
    chosen = FORMATS[format_name]
    with files.scratch_folder() as scratch:
        made = scratch / output.name
        chosen.export(source.directory, made)
        reference, run = SavedModelRunner(source.directory), chosen.load(made)
        if source.environment:
            verified = verification.in_environment(
                reference, run, source.environment, seed, num_observations, num_episodes
            )
        else:
            verified = verification.on_random_inputs(reference, run, seed, num_observations)
        report = {**_describe(source, format_name, made), **verified}
        _place(chosen, made, output, report)
    return report


def _describe(source: Exported, format_name: str, made: Path) -> dict[str, Any]:
    parts = [path for path in made.rglob("*") if path.is_file()] if made.is_dir() else [made]
    return {
        "format": format_name,
        "output": made.name,
        "size_bytes": sum(path.stat().st_size for path in parts),
        "environment": source.environment,
        "checkpoint": source.checkpoint,
        "packages": {
            "ppo_agent": metadata.version("ppo_agent"),
            "tensorflow": tf.__version__,
            "numpy": np.__version__,
        },
    }


def _place(chosen: Format, made: Path, output: Path, report: dict[str, Any]) -> None:
    if chosen.is_folder:
        (made / REPORT).write_bytes(_as_json(report))
        files.write_folder(output, partial(shutil.copytree, made))
        return
    files.write_file(output, made.read_bytes())
    files.write_file(output.with_name(REPORT), _as_json(_with_earlier(output, report)))


def _with_earlier(output: Path, report: dict[str, Any]) -> dict[str, Any]:
    """The report, with those of other files in the same folder under `others`, by the name of the file."""
    try:
        before = json.loads(output.with_name(REPORT).read_text(encoding="utf-8"))
        others = {**before.pop("others", {}), before["output"]: before}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return report
    others = {name: other for name, other in others.items() if name != output.name and output.with_name(name).exists()}
    return {**report, "others": others} if others else report


def _as_json(document: dict[str, Any]) -> bytes:
    return (json.dumps(document, indent=1) + "\n").encode()
