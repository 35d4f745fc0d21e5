"""The report of what can be turned on, from made-up returns."""

from __future__ import annotations

import pathlib

import numpy as np
import pytest

from benchmarks import estimates, feature_report


def test_probability_of_improvement_counts_pairs_in_each_task() -> None:
    """Against a loop over all pairs; tasks with other numbers of runs weigh the same."""
    rng = np.random.default_rng(0)
    pairs = [(list(rng.normal(1.0, 1.0, 5)), list(rng.normal(0.0, 1.0, 5))), ([1.0, 2.0, 3.0], [0.0, 2.0])]
    expected = [np.mean([(a > b) + 0.5 * (a == b) for a in changed for b in same]) for changed, same in pairs]
    estimate = estimates.probability_of_improvement(pairs)
    assert estimate.value == pytest.approx(np.mean(expected))
    assert estimate.low < estimate.value < estimate.high


def test_table_and_picture_compare_with_nothing(tmp_path: pathlib.Path) -> None:
    means = {
        "nothing": {"A-v0": [1.0, 2.0, 3.0], "B-v0": [-1.0, -2.0]},
        "dual_clipping": {"A-v0": [4.0, 5.0, 6.0], "B-v0": [-3.0, -4.0]},
        "target_kl": {"A-v0": [4.0]},
    }
    head, nothing, dual, alone = feature_report.table(means)
    assert head == ["turned on", "A-v0", "B-v0", "probability that it helps"]
    assert nothing[-1] == ""
    assert nothing[1] == "2.0 [1.0, 3.0] (3)"
    assert dual[-1] == "0.50 [0.50, 0.50]"  # Better in every pair of one task, worse in every pair of the other.
    assert alone[2:] == ["", ""]
    feature_report.draw(means, tmp_path / "features.png")
    assert (tmp_path / "features.png").stat().st_size > 10_000
