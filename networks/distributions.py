"""Distributions that TensorFlow Probability lacks."""

from typing import Any

import tensorflow as tf
import tensorflow_probability as tfp


class OffsetCategorical(tfp.distributions.Categorical):
    """Categorical over the integers `offset`, `offset + 1`, ... instead of 0, 1, ...

    TF-Agents' `ShiftedCategorical` does the same, but logs a page of warnings and loses its shift when TensorFlow
    Probability copies it.

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
        return super()._log_prob(k - self._shift())

    def _cdf(self, k: tf.Tensor) -> tf.Tensor:
        return super()._cdf(k - self._shift())

    def _mode(self) -> tf.Tensor:
        return super()._mode() + self._shift()
