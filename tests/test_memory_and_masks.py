"""One seed of the comparisons in docs/memory_and_masks."""

import importlib.util
import pathlib
from typing import Any

import pytest

SCRIPT = pathlib.Path(__file__).parent.parent / "benchmarks" / "memory_and_masks.py"


@pytest.fixture(name="script", scope="module")
def load_script() -> Any:
    spec = importlib.util.spec_from_file_location("memory_and_masks", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_tasks_and_their_pictures_fit_together(script: Any, tmp_path: pathlib.Path) -> None:
    for key, task in script.TASKS.items():
        runs = {name: [script.Run([1, 2, 3], [0.0, seed, 1.0], 1.0) for seed in range(2)] for name in task.variants}
        script.draw(task, runs, tmp_path / f"{key}.png")
        assert 1_000 < (tmp_path / f"{key}.png").stat().st_size < 200_000


def _train(script: Any, task: str, variant: str, steps: int | None = None) -> Any:
    extra = [] if steps is None else [f"--total_environment_steps={steps}"]
    return script.train(script.TASKS[task].variants[variant], seed=11, extra=extra)


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["LSTM", "GRU"])
def test_networks_with_memory_recall_the_cue(script: Any, variant: str) -> None:
    assert _train(script, "recall_cue", variant).eval_return_mean >= 0.95


@pytest.mark.slow
def test_networks_without_memory_are_at_chance(script: Any) -> None:
    run = _train(script, "recall_cue", "no memory")
    assert run.eval_return_mean == pytest.approx(0.25, abs=0.15)


@pytest.mark.slow
def test_masks_open_doors_that_stay_shut_without_them(script: Any) -> None:
    assert _train(script, "doors", "masked", steps=20_000).eval_return_mean >= 0.95 * 8
    assert _train(script, "doors", "not masked", steps=20_000).eval_return_mean < 2.0
