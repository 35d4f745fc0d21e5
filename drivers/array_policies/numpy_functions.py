"""Functions that TensorFlow has and NumPy has not, element by element; each writes into `out` if it is given.

`out` may be the argument itself.
"""

from __future__ import annotations

import numpy as np

from ppo_agent.common.types import Array

# Klambauer et al., 2017, https://arxiv.org/abs/1706.02515.
_SELU_SCALE, _SELU_ALPHA = 1.0507009873554805, 1.6732632423543772


def sigmoid(x: Array, out: Array | None = None) -> Array:
    """Returns 1 / (1 + exp(-x)), by way of tanh, which does not overflow."""
    half = x.dtype.type(0.5)
    out = np.multiply(x, half, out)
    out = np.tanh(out, out)
    out = np.multiply(out, half, out)
    return np.add(out, half, out)


def softplus(x: Array, out: Array | None = None) -> Array:
    """Returns log(1 + exp(x))."""
    return np.logaddexp(x, x.dtype.type(0), out)


def relu(x: Array, out: Array | None = None) -> Array:
    """Returns max(x, 0)."""
    return np.maximum(x, x.dtype.type(0), out)


def relu6(x: Array, out: Array | None = None) -> Array:
    """Returns min(max(x, 0), 6)."""
    return np.minimum(np.maximum(x, x.dtype.type(0), out), x.dtype.type(6), out)


def softsign(x: Array, out: Array | None = None) -> Array:
    """Returns x / (1 + |x|)."""
    return np.divide(x, 1 + np.abs(x), out)


def reciprocal_root(x: Array, out: Array | None = None) -> Array:
    """Returns 1 / sqrt(x)."""
    out = np.sqrt(x, out)
    return np.divide(x.dtype.type(1), out, out)


def squared_difference(a: Array, b: Array, out: Array | None = None) -> Array:
    """Returns (a - b)^2."""
    return np.square(np.subtract(a, b, out), out)


def clip(x: Array, low: Array, high: Array, out: Array | None = None) -> Array:
    """Returns min(max(x, low), high)."""
    return np.minimum(np.maximum(x, low, out), high, out)


def elu(x: Array) -> Array:
    """Returns x where it is positive, exp(x) - 1 elsewhere."""
    return np.where(x > 0, x, np.expm1(np.minimum(x, 0)))


def selu(x: Array) -> Array:
    """Returns the scaled exponential linear unit (Klambauer et al., 2017)."""
    kind = x.dtype.type
    return kind(_SELU_SCALE) * np.where(x > 0, x, kind(_SELU_ALPHA) * np.expm1(np.minimum(x, 0)))


def softmax(x: Array) -> Array:
    """Returns exp(x) / sum(exp(x)) along the last axis."""
    exponentials = np.exp(x - x.max(-1, keepdims=True))
    return exponentials / exponentials.sum(-1, keepdims=True)


def log_softmax(x: Array) -> Array:
    """Returns log(softmax(x)) along the last axis."""
    shifted = x - x.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def erf(x: Array) -> Array:
    """Abramowitz and Stegun, Handbook of Mathematical Functions, formula 7.1.26, to 1.5e-7."""
    t = 1.0 / (1.0 + 0.3275911 * np.abs(x, dtype=np.float64))
    series = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))))
    return (np.sign(x) * (1.0 - series * np.exp(-np.square(x, dtype=np.float64)))).astype(x.dtype)


def erfc(x: Array) -> Array:
    """Returns 1 - erf(x)."""
    return 1 - erf(x)
