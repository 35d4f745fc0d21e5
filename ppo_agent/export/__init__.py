"""Takes policies to where they are needed: SavedModel, TFLite, ONNX, and NumPy alone.

Every other format is made from the SavedModel that `export_policy` writes, so that they all compute the same; see
docs/deployment.md.
"""

from __future__ import annotations

from ppo_agent.export.numpy_format import export_numpy
from ppo_agent.export.onnx_format import export_onnx
from ppo_agent.export.saved_model import export_policy, export_policy_saver
from ppo_agent.export.tflite_format import export_tflite

__all__ = ["export_numpy", "export_onnx", "export_policy", "export_policy_saver", "export_tflite"]
