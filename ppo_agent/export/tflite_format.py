"""Policies for phones, boards and other languages: TFLite, with built-in operators alone."""

from __future__ import annotations

import os
import re
from pathlib import Path

import tensorflow as tf

from ppo_agent.common import stderr_noise
from ppo_agent.export import files, sources
from ppo_agent.export.program.steps import UnsupportedError


def export_tflite(policy: sources.Source, file: str | os.PathLike[str], *, quantize: bool = False) -> None:
    """Writes a policy as a TFLite file with the signatures `action` and `distribution`, which share their weights.

    Names are those of the SavedModel's signatures, see `ppo_agent.export.saved_model`; the state of a policy with
    memory goes in and comes out, all zeros where an episode starts. The batch size is 1, and any other after the inputs
    were resized.

    Args:
        policy: a policy, or the folder of one that `export_policy` wrote.
        file: where to write; an earlier file is replaced in one step.
        quantize: store large weights in 8 bits (dynamic range quantisation), which makes the file four times smaller
            and changes what the policy does a little.

    Raises:
        UnsupportedError: the policy holds an operation that is none of TFLite's own.
        ValueError: `file` is a folder, or `policy` no exported one.
        OSError: it cannot be written.
    """
    target = files.check_file(file)
    with sources.saved(policy) as directory:
        data = _convert(directory, quantize)
    files.write_file(target, data)


def _convert(directory: Path, quantize: bool) -> bytes:
    keys = list(sources.acting_signatures(tf.saved_model.load(str(directory))))
    with stderr_noise.without_warnings():  # What the converter says on its way.
        converter = tf.lite.TFLiteConverter.from_saved_model(str(directory), signature_keys=keys)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
        converter.optimizations = [tf.lite.Optimize.DEFAULT] if quantize else []
        try:
            return bytes(converter.convert())
        # The class of the error lies at another place in each version.
        except Exception as error:
            raise UnsupportedError(_reason(str(error))) from error


def _reason(text: str) -> str:
    """The operations that the converter complains about, else its first line."""
    names = sorted(set(re.findall(r"'(tfl?\.\w+)' op ", text)))
    if names:
        return f"the policy holds {', '.join(names)}, expected built-in operations of TFLite only."
    return f"the policy cannot be converted to TFLite: {text.strip().splitlines()[0][:200]}"
