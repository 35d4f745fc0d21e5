"""The runner of learning results and its report, with a tiny run and made-up ones."""

import ast
import json
import sys
from pathlib import Path

import numpy as np
import pytest

# Behind all others, and not for long: the sources of ppo_agent lie there too.
sys.path.append(str(Path(__file__).parent.parent))
from benchmarks import estimates, feature_report, learning, learning_report

sys.path.pop()

TINY = ("--total_environment_steps=120", "--collect_episodes_per_iteration=2", "--num_environments=2", "--num_epochs=1",
        "--minibatch_size=16")  # fmt: skip


def test_a_run_is_done_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learning, "RUNS", tmp_path)
    assert learning.train(learning.PRESETS, "CartPole-v1", 4, TINY) == "presets, CartPole-v1 4: exit status 0"
    (run,) = learning_report.read_runs(tmp_path / "presets")["CartPole-v1"]
    assert (run.environment, run.result["seed"], run.result["num_eval_episodes"]) == ("CartPole-v1", 4, 20)
    assert len(run.steps) == len(run.returns) >= 1
    assert run.result["commit"]
    assert f"numpy {np.__version__}" in run.result["versions"]
    assert learning.train(learning.PRESETS, "CartPole-v1", 4, TINY) == "presets, CartPole-v1 4: done before"


def test_a_run_that_fails_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learning, "RUNS", tmp_path)
    assert learning.train(learning.PRESETS, "NoSuch-v1", 0, ()).endswith("exit status 2")
    assert "NoSuch" in (tmp_path / "presets" / "NoSuch-v1" / "0.log").read_text()


def test_interquartile_mean_leaves_out_the_best_and_worst_quarter() -> None:
    assert estimates.interquartile_mean([-100, 1, 2, 3, 4, 5, 6, 900]) == pytest.approx(3.5)


def test_interval_holds_the_mean_nineteen_times_of_twenty(rng: np.random.Generator) -> None:
    hits = 0
    for _ in range(40):
        low, high = estimates.interval(rng.normal(5.0, 2.0, 20))
        assert 0.3 < high - low < 5
        hits += low <= 5.0 <= high
    assert 32 <= hits <= 40
    assert estimates.interval([3.0]) == (3.0, 3.0)
    assert estimates.interval([500.0] * 3) == (500.0, 500.0)


def write_run(folder: Path, environment: str, seed: int, mean: float) -> None:
    """As `ppo-train` writes it; the returns grow as the steps do."""
    root_dir = folder / environment.replace("/", "_") / str(seed)
    root_dir.mkdir(parents=True)
    result = {"env_name": environment, "seed": seed, "environment_steps": 1000 + seed, "eval_return_mean": mean,
              "wall_time_s": 90.0, "steps_per_second": 12.0}  # fmt: skip
    (root_dir / "result.json").write_text(json.dumps(result))
    (root_dir / "evaluations.csv").write_text(f"environment_steps,return_mean\n500,{mean + seed}\n1000,{mean}\n")
    rows = "\n".join(f"{steps},{steps / 2}" for steps in range(100, 5000, 100))
    (root_dir / "metrics.csv").write_text(f"environment_steps,episode_return_mean\n50,nan\n{rows}\n")


def test_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs, docs = tmp_path / "runs", tmp_path / "docs"
    for seed, mean in enumerate((480.0, 500.0)):
        write_run(runs / "presets", "CartPole-v1", seed, mean)
    write_run(runs / "presets", "ALE/Pong-v5", 0, -20.0)
    write_run(runs / "stable_baselines3", "CartPole-v1", 0, 470.0)
    write_run(runs / "without_2", "CartPole-v1", 0, 460.0)
    write_run(runs / "with_dual_clipping", "CartPole-v1", 0, 410.0)
    write_run(runs / "with_nothing", "Hopper-v5", 0, 400.0)
    write_run(runs / "critic_sees_velocities", "benchmarks.environments:HopperParts-v5", 0, 300.0)
    docs.mkdir()
    markers = "".join(
        f"<!-- {name} -->\nold\n<!-- end -->\n" for name in ("results", "games", "ablations", "features", "velocities")
    )
    (docs / "README.md").write_text(f"# Title\n{markers}the end\n")
    monkeypatch.setattr(learning, "RUNS", runs)
    monkeypatch.setattr(learning_report, "DOCS", docs)
    learning_report.main()
    text = (docs / "README.md").read_text()
    assert (
        "| CartPole-v1 | 1,001 | 2 | 490.0 ± 10.0 | 490.0 [480.0, 500.0] | 490.5 ± 10.5 | 1.5 |  | 500.0 ± 0.0 |  | "
        "470.0 ± 0.0 (1) |" in text
    )
    assert "| ALE/Pong-v5 | 0 | 1,000 | 525.00 | 1975.00 | -20.00 | 12 |" in text
    assert "| 2 | 1,250.0 [1,250.0, 1,250.0] (1) |" in text
    assert "| turned on | CartPole-v1 | Hopper-v5 | probability that it helps |" in text
    assert "| nothing |  | 400.0 [400.0, 400.0] (1) |  |\n| dual clipping | 410.0 [410.0, 410.0] (1) |  |  |" in text
    assert "| velocities | HopperParts-v5 |" in text
    assert "| critic sees velocities | 300.0 [300.0, 300.0] (1) |" in text
    assert text.startswith("# Title\n")
    assert text.endswith("the end\n")
    assert "old" not in text
    assert len((docs / "results.csv").read_text().splitlines()) == 9
    for name in ("CartPole-v1", "ALE_Pong-v5"):
        assert (docs / f"{name}.png").stat().st_size < 200_000


def test_rows_of_earlier_reports_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs, docs = tmp_path / "runs", tmp_path / "docs"
    docs.mkdir()
    (docs / "README.md").write_text("<!-- results -->\n<!-- end -->\n")
    monkeypatch.setattr(learning_report, "DOCS", docs)
    for name, environments in (("before", ("Hopper-v5", "Ant-v5")), ("now", ("Ant-v5",))):
        monkeypatch.setattr(learning, "RUNS", runs / name)
        for environment in environments:
            for seed in range(2 if name == "before" else 1):
                write_run(runs / name / "presets", environment, seed, 1000.0 if name == "before" else 2000.0)
        learning_report.main()
    text = (docs / "README.md").read_text()
    assert "| Hopper-v5 | 1,001 | 2 | 1,000.0 ± 0.0 |" in text
    assert "| Ant-v5 | 1,000 | 1 | 2,000.0 ± 0.0 |" in text
    assert "| 3,258.0 | 1,327.0 ± 452.0 |" in text
    assert len((docs / "results.csv").read_text().splitlines()) == 4


def test_tasks_are_suites_and_environments() -> None:
    assert learning.tasks("classic, Hopper-v5 Ant-v5") == [*learning.SUITES["classic"], "Hopper-v5", "Ant-v5"]
    assert learning.tasks("") == []


def test_names_of_ablations_are_those_of_the_script() -> None:
    source = (Path(learning.__file__).parent / "ablation.py").read_text()
    (dictionary,) = [node.value for node in ast.parse(source).body if isinstance(node, ast.AnnAssign)]
    assert isinstance(dictionary, ast.Dict)
    assert tuple(ast.literal_eval(key) for key in dictionary.keys if key) == learning.ABLATIONS


def test_probability_of_improvement_counts_pairs_in_each_task() -> None:
    """Against a loop over all pairs; tasks with other numbers of runs weigh the same."""
    rng = np.random.default_rng(0)
    pairs = [(list(rng.normal(1.0, 1.0, 5)), list(rng.normal(0.0, 1.0, 5))), ([1.0, 2.0, 3.0], [0.0, 2.0])]
    expected = [np.mean([(a > b) + 0.5 * (a == b) for a in changed for b in same]) for changed, same in pairs]
    estimate = estimates.probability_of_improvement(pairs)
    assert estimate.value == pytest.approx(np.mean(expected))
    assert estimate.low < estimate.value < estimate.high


def test_table_and_picture_compare_with_nothing(tmp_path: Path) -> None:
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
