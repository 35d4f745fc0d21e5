"""A policy's signature as a short list of array operations, from which ONNX and NumPy exports are written."""

from __future__ import annotations
