"""Names for what TensorFlow has no types for."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np

# A tensor, or any nesting of tuples, lists and dicts of tensors; likewise of arrays or of specs.
Nest: TypeAlias = Any
# What TensorFlow takes for a tensor: tensors, variables, arrays, numbers.
Tensor: TypeAlias = Any
Array: TypeAlias = np.ndarray
