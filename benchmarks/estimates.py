"""Estimates from few runs, as Agarwal et al. (2021, https://arxiv.org/abs/2108.13264) recommend them.

All intervals are 95 % bootstrap intervals: percentiles of 10,000 resamples.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy.stats

_BOOTSTRAP: dict[str, Any] = {"n_resamples": 10_000, "method": "percentile", "rng": 0}


class Estimate(NamedTuple):
    """A number with its interval."""

    value: float
    low: float
    high: float


def interquartile_mean(values: Any, axis: int = -1) -> Any:
    """The mean of the middle half."""
    return scipy.stats.trim_mean(values, 0.25, axis=axis)


def interval(values: Iterable[float]) -> tuple[float, float]:
    """The interval of the interquartile mean; one value has none."""
    sample = np.asarray(list(values))
    if len(sample) < 2 or np.ptp(sample) == 0:
        return float(sample.min()), float(sample.max())
    found = scipy.stats.bootstrap((sample,), interquartile_mean, **_BOOTSTRAP).confidence_interval
    return float(found.low), float(found.high)


def interquartile_estimate(values: Sequence[float]) -> Estimate:
    """The interquartile mean with its interval."""
    return Estimate(float(interquartile_mean(values)), *interval(values))


def described(values: Sequence[float]) -> str:
    """The interquartile mean, its interval and the number of runs, for a table; empty if there are none."""
    if not values:
        return ""
    value, low, high = interquartile_estimate(values)
    return f"{value:,.1f} [{low:,.1f}, {high:,.1f}] ({len(values)})"


def probability_of_improvement(pairs: Sequence[tuple[Sequence[float], Sequence[float]]]) -> Estimate:
    """How probable it is that a run with a change is better than one without, in the mean over tasks.

    Args:
        pairs: for each task the results of the runs with the change and of those without it.

    Returns:
        The mean over tasks of P(with > without) + P(with = without) / 2, and its interval, in which the runs of each
        task are resampled by themselves (Agarwal et al., 2021, section 4.3).
    """
    samples = [np.asarray(runs, float) for pair in pairs for runs in pair]
    found = scipy.stats.bootstrap(samples, _probability, vectorized=True, **_BOOTSTRAP).confidence_interval
    return Estimate(float(_probability(*samples)), float(found.low), float(found.high))


def _probability(*samples: np.ndarray, axis: int = -1) -> Any:
    del axis  # The last one, always.
    tasks = zip(samples[::2], samples[1::2], strict=True)
    signs = [np.sign(changed[..., :, None] - same[..., None, :]).mean(axis=(-2, -1)) for changed, same in tasks]
    return (np.mean(signs, axis=0) + 1) / 2
