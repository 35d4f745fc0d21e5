"""Searches hyper-parameters with Optuna, and writes the best ones as a preset file.

    python examples/optuna_search.py --env_name=CartPole-v1 --trials=50 --jobs=2 --output=best.json
    ppo-train --env_name=CartPole-v1 --preset=best.json

Trials lie in a SQLite file (--storage): the same command continues a search that was ended, and processes on machines
that share the file work on the same search. Trials that evaluate worse than the median of the others are pruned.
"""

import subprocess
import sys
from typing import Any

import ppo_agent  # Before tensorflow: it chooses the Keras that TF-Agents needs.
from ppo_agent.callbacks import OptunaPruning
from ppo_agent.training import preset_files

import numpy as np
import optuna
from absl import app, flags

flags.DEFINE_string("env_name", "CartPole-v1", "Any gymnasium id, such as LunarLander-v3.")
flags.DEFINE_integer("trials", 50, "How many, those of earlier calls included.", lower_bound=1)
flags.DEFINE_integer("jobs", 1, "Processes that search at the same time.", lower_bound=1)
flags.DEFINE_integer("total_environment_steps", 50_000, "Of a trial.", lower_bound=1)
flags.DEFINE_integer("num_evaluations", 8, "Of a trial; each may prune it.", lower_bound=1)
flags.DEFINE_integer("num_eval_episodes", 20, "Of an evaluation.", lower_bound=1)
flags.DEFINE_string("storage", "optuna.db", "SQLite file.")
flags.DEFINE_string("output", "best.json", "Preset file to write.")
flags.DEFINE_integer("seed", 0, "Of the search.", lower_bound=0)

FLAGS = flags.FLAGS
# A trial whose process has not been heard of for twice this time is given up.
HEARTBEAT_S = 60


def suggest(trial: optuna.Trial) -> dict[str, Any]:
    """Settings of a trial."""
    steps = trial.suggest_categorical("collect_steps_per_iteration", [32, 64, 128, 256])
    return {
        "num_environments": 8,
        "collect_steps_per_iteration": steps,
        "minibatch_size": trial.suggest_categorical("minibatch_size", [64, 128, 256]),
        "num_epochs": trial.suggest_categorical("num_epochs", [4, 10, 20]),
        "learning_rate": trial.suggest_float("learning_rate", 1e-4, 1e-2, log=True),
        "learning_rate_schedule": trial.suggest_categorical("learning_rate_schedule", ["constant", "linear"]),
        "discount_factor": 1.0 - trial.suggest_float("one_minus_discount_factor", 1e-3, 0.1, log=True),
        "lambda_value": trial.suggest_categorical("lambda_value", [0.8, 0.9, 0.95, 0.98]),
        "entropy_regularization": trial.suggest_categorical("entropy_regularization", [0.0, 1e-3, 1e-2]),
        "importance_ratio_clipping": trial.suggest_categorical("importance_ratio_clipping", [0.1, 0.2, 0.3]),
        "normalize_observations": trial.suggest_categorical("normalize_observations", [False, True]),
        "normalize_rewards": False,
    }


def objective(trial: optuna.Trial) -> float:
    """Trains with the settings of a trial; returns the mean return of the last evaluation."""
    settings = suggest(trial)
    iterations = FLAGS.total_environment_steps // (8 * settings["collect_steps_per_iteration"])
    trial.set_user_attr("settings", settings)
    with ppo_agent.Trainer(
        FLAGS.env_name,
        seed=trial.number,
        preset="none",
        callbacks=[OptunaPruning(trial)],
        total_environment_steps=FLAGS.total_environment_steps,
        eval_interval=max(1, iterations // FLAGS.num_evaluations),
        num_eval_episodes=FLAGS.num_eval_episodes,
        **settings,
    ) as trainer:
        trainer.train()
        return float(trainer.evaluate(FLAGS.num_eval_episodes).mean)


def make_study(seed: int) -> optuna.Study:
    """The search in the SQLite file, a new one if there is none."""
    storage = optuna.storages.RDBStorage(f"sqlite:///{FLAGS.storage}", heartbeat_interval=HEARTBEAT_S)
    study = optuna.create_study(
        study_name=FLAGS.env_name,
        storage=storage,
        direction="maximize",
        pruner=optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=FLAGS.total_environment_steps // 4),
        load_if_exists=True,
    )
    # A search that continues draws on, instead of drawing its first trials again.
    of_sampler = np.random.SeedSequence([seed, len(study.get_trials(deepcopy=False))]).generate_state(1)
    study.sampler = optuna.samplers.TPESampler(seed=int(of_sampler[0]))
    return study


def search(study: optuna.Study) -> None:
    """Makes trials until there are enough; those that other processes are making count."""
    counted = (optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED, optuna.trial.TrialState.RUNNING)
    optuna.storages.fail_stale_trials(study)
    while len(study.get_trials(deepcopy=False, states=counted)) < FLAGS.trials:
        study.optimize(objective, n_trials=1)


def start_process(seed: int) -> subprocess.Popen[bytes]:
    """Another process of the same search, whose sampler has another seed."""
    names = ("env_name", "trials", "total_environment_steps", "num_evaluations", "num_eval_episodes", "storage")
    same = [f"--{name}={FLAGS[name].value}" for name in names]
    return subprocess.Popen([sys.executable, __file__, *same, f"--output={FLAGS.output}", f"--seed={seed}"])  # noqa: S603


def main(_: list[str]) -> None:
    """Searches, and writes the best settings."""
    study = make_study(FLAGS.seed)
    others = [start_process(FLAGS.seed + job) for job in range(1, FLAGS.jobs)]
    search(study)
    if any(other.wait() for other in others):
        raise RuntimeError("another process of the search has failed; what it said is above.")
    best = study.best_trial
    source = f"Optuna: trial {best.number} of {len(study.trials)}, return {best.value:.1f} in {FLAGS.env_name}"
    preset_files.write(FLAGS.output, best.user_attrs["settings"], source)
    print(f"{source}; ppo-train --env_name={FLAGS.env_name} --preset={FLAGS.output}")


if __name__ == "__main__":
    app.run(main)
