"""Distributions that TensorFlow Probability lacks."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp


class OffsetCategorical(tfp.distributions.Categorical):
    """Categorical over the integers `offset`, `offset + 1`, ... instead of 0, 1, ...

    TF-Agents' `ShiftedCategorical` does the same, but logs a page of warnings and loses its shift when TensorFlow
    Probability copies it. Values may be of any integer dtype; TensorFlow Probability's own class has log-probabilities
    of few.

    Args:
        logits: [..., categories], unnormalised log-probabilities.
        offset: smallest value; an integer, or nested tuples of integers, one for each of the last batch dimensions.
        dtype: of the values.
        name: of the operations.
    """

    def __init__(
        self,
        logits: tf.Tensor,
        offset: Any = 0,
        dtype: tf.DType = tf.int32,
        name: str = "OffsetCategorical",
    ) -> None:
        parameters = dict(locals())
        super().__init__(logits=logits, dtype=dtype, name=name)
        self._parameters = parameters
        self._offset = offset

    @classmethod
    def _parameter_properties(cls, dtype: tf.DType | None, num_classes: int | None = None) -> dict[str, Any]:
        return {"logits": super()._parameter_properties(dtype, num_classes)["logits"]}

    @property
    def offset(self) -> Any:
        """Smallest value of each component."""
        return self._offset

    def _shift(self) -> tf.Tensor:
        return tf.constant(self._offset, self.dtype)

    def _sample_n(self, n: Any, seed: Any = None) -> tf.Tensor:
        return super()._sample_n(n, seed) + self._shift()

    def _log_prob(self, k: tf.Tensor) -> tf.Tensor:
        return super()._log_prob(self._index(k))

    def _cdf(self, k: tf.Tensor) -> tf.Tensor:
        return super()._cdf(self._index(k))

    def _index(self, k: tf.Tensor) -> tf.Tensor:
        """The categories of values; the distance of two int8 may be no int8."""
        return tf.cast(tf.cast(k, tf.int64) - tf.constant(self._offset, tf.int64), tf.int32)

    def _mode(self) -> tf.Tensor:
        # In whole numbers that runtimes of exported policies compute in.
        wide = tf.int64 if self.dtype.size > 4 else tf.int32
        best = tf.argmax(self.logits, axis=-1, output_type=wide)
        return tf.cast(best + tf.constant(self._offset, wide), self.dtype)


# The density of the logistic distribution of scale 1/2, sech(x)^2 / 2, as a mixture of centred normals: weights and
# standard deviations, fitted by us so that the largest error of 2 log(2 cosh x) in `_expected_log_cosh` is 1e-5.
_MIXTURE_WEIGHTS = (0.1462270250418965, 0.5004760493223388, 0.31609963081572195, 0.03719729482004287)
_MIXTURE_SCALES = (0.5091763992925935, 0.7568944997285941, 1.1205137119362079, 1.6473966635845096)

# Actions are taken to be at least this share of the range away from its bounds: half a rounding error of float32
# between -1 and 1. Where numbers lie further apart, because the bounds are far from zero, it is half their distance.
_MARGIN = 2.0**-26


def num_steps(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """How many steps of the size that numbers near the bounds have lie between them, shape and dtype of the bounds."""
    below, above = np.nextafter(low, high) - low, high - np.nextafter(high, low)
    return (high - low) / np.maximum(np.maximum(below, above), np.finfo(low.dtype).tiny)


class SquashedNormal(tfp.distributions.AutoCompositeTensorDistribution):
    """The distribution of low + (high - low) (1 + tanh x) / 2 for normal x.

    The log-probability is that of the action as it is stored. At the bounds, which floating-point samples reach, it is
    that of the nearest point inside: finite, and so are its gradients. Where the bounds are so far from zero that many
    samples are rounded to them, it is the mean over what is rounded there, so that importance ratios have a mean of 1.

    Args:
        loc: [...], mean of x.
        scale: [...], standard deviation of x.
        low: lower bound of the values; a number, or nested tuples of numbers, for the last batch dimensions.
        high: upper bound.
        validate_args: unused.
        allow_nan_stats: unused.
        name: of the operations.
    """

    def __init__(
        self,
        loc: tf.Tensor,
        scale: tf.Tensor,
        low: Any = -1.0,
        high: Any = 1.0,
        validate_args: bool = False,
        allow_nan_stats: bool = True,
        name: str = "SquashedNormal",
    ) -> None:
        parameters = dict(locals())
        self._loc, self._scale = tf.convert_to_tensor(loc), tf.convert_to_tensor(scale)
        self._low, self._high = low, high
        super().__init__(
            dtype=self._loc.dtype,
            reparameterization_type=tfp.distributions.FULLY_REPARAMETERIZED,
            validate_args=validate_args,
            allow_nan_stats=allow_nan_stats,
            parameters=parameters,
            name=name,
        )

    @classmethod
    def _parameter_properties(cls, dtype: tf.DType | None, num_classes: int | None = None) -> dict[str, Any]:
        del dtype, num_classes
        properties = tfp.util.ParameterProperties
        return {"loc": properties(), "scale": properties(default_constraining_bijector_fn=tfp.bijectors.Softplus)}

    @property
    def loc(self) -> tf.Tensor:
        """Mean of the normal."""
        return self._loc

    @property
    def scale(self) -> tf.Tensor:
        """Standard deviation of the normal."""
        return self._scale

    @property
    def low(self) -> Any:
        """Lower bound."""
        return self._low

    @property
    def high(self) -> Any:
        """Upper bound."""
        return self._high

    def _event_shape(self) -> tf.TensorShape:
        return tf.TensorShape([])

    def _event_shape_tensor(self) -> tf.Tensor:
        return tf.constant([], tf.int32)

    def _bounds(self) -> tuple[np.ndarray, np.ndarray]:
        dtype = self.dtype.as_numpy_dtype
        return np.asarray(self._low, dtype), np.asarray(self._high, dtype)

    def _squash(self, x: tf.Tensor) -> tf.Tensor:
        low, high = self._bounds()
        return tf.clip_by_value(low + (high - low) * tf.sigmoid(2.0 * x), low, high)

    def _sample_n(self, n: Any, seed: Any = None) -> tf.Tensor:
        return self._squash(self._normal().sample(n, seed=seed))

    def _normal(self) -> tfp.distributions.Normal:
        return tfp.distributions.Normal(self._loc, self._scale)

    def _log_prob(self, value: tf.Tensor) -> tf.Tensor:
        # By the distances from both bounds as shares of the range, which floating-point numbers give without loss near
        # them: x = log(below / above) / 2 and d value / dx = 2 (high - low) below above.
        low, high = self._bounds()
        extent = high - low
        margins = _margins(low, high)
        below, above = (value - low) / extent, (high - value) / extent
        log_below, log_above = (tf.math.log(tf.maximum(x, m)) for x, m in zip((below, above), margins, strict=True))
        log_extent = np.log(extent)
        log_slope = log_below + log_above + (log_extent + extent.dtype.type(math.log(2.0)))
        log_density = self._normal().log_prob(0.5 * (log_below - log_above)) - log_slope
        if (np.maximum(*margins) <= _MARGIN).all():
            return log_density
        # Rounding gathers a share of the actions at the bounds that matters.
        at_low, at_high = (log_p - log_extent for log_p in self._log_tails(*margins))
        return tf.where(below < margins[0], at_low, tf.where(above < margins[1], at_high, log_density))

    def _log_tails(self, below: np.ndarray, above: np.ndarray) -> tuple[tf.Tensor, tf.Tensor]:
        """Mean log-densities of the share of the range within two margins from its lower and its upper bound."""
        x_low, x_high = 0.5 * (np.log(below) - np.log1p(-below)), 0.5 * (np.log1p(-above) - np.log(above))
        normal = self._normal()
        return normal.log_cdf(x_low) - np.log(below), normal.log_survival_function(x_high) - np.log(above)

    def _mode(self) -> tf.Tensor:
        """The normal's mode, squashed; it is the median, and does not jump to a bound where the scale is large."""
        return self._squash(self._loc)

    def _entropy(self) -> tf.Tensor:
        low, high = self._bounds()
        log_extent = np.log(high - low) + low.dtype.type(math.log(2.0))
        return self._normal().entropy() + log_extent - _expected_log_cosh(self._loc, self._scale)

    def _default_event_space_bijector(self, *args: Any, **kwargs: Any) -> Any:
        del args, kwargs
        low, high = self._bounds()
        return tfp.bijectors.Sigmoid(low, high)


def _margins(low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How near to its bounds an action is taken to be at most, as shares of the range."""
    extent = high - low
    steps = (np.nextafter(low, high) - low, high - np.nextafter(high, low))
    below, above = (np.maximum(step / extent / 2, low.dtype.type(_MARGIN)) for step in steps)
    return below, above


def _expected_log_cosh(loc: tf.Tensor, scale: tf.Tensor) -> tf.Tensor:
    """E[2 log(2 cosh x)] for normal x, to 1e-5.

    2 log(2 cosh x) is the mean of 2 |x + z| over logistic z of scale 1/2. With z as a mixture of normals, x + z is a
    mixture of normals too, and the mean of |.| of a normal has a closed form. Gauss-Hermite quadrature would need
    hundreds of nodes where the scale is large.
    """
    dtype = loc.dtype.as_numpy_dtype
    loc, scale = loc[..., tf.newaxis], scale[..., tf.newaxis]
    width = tf.sqrt(2.0 * tf.square(scale) + 2.0 * np.square(_MIXTURE_SCALES).astype(dtype))
    ratio = loc / width
    means = width * dtype(1 / math.sqrt(math.pi)) * tf.exp(-tf.square(ratio)) + loc * tf.math.erf(ratio)
    return tf.reduce_sum(means * (2.0 * np.array(_MIXTURE_WEIGHTS)).astype(dtype), axis=-1)


@tfp.distributions.RegisterKL(SquashedNormal, SquashedNormal)
def _kl_squashed(a: SquashedNormal, b: SquashedNormal, name: str | None = None) -> tf.Tensor:
    """KL(a || b), that of the normals, because both are squashed in the same way."""
    if (a.low, a.high) != (b.low, b.high):
        raise ValueError(f"KL divergence: bounds {a.low} to {a.high} and {b.low} to {b.high} must be equal.")
    return a._normal().kl_divergence(b._normal(), name=name or "kl_squashed")
