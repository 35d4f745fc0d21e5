"""Every argument, method and logged name of stable-baselines' PPO2 has its counterpart here.

The tables are made from the source of PPO2 (stable-baselines 2.10, `stable_baselines/ppo2/ppo2.py`): the signatures of
its constructor, of `learn` and of what its base class offers, and the names that it writes to TensorBoard and to its
logger. Each entry is called or compared here.
"""

import inspect
import json
import math
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from reliability import corruptions

import ppo_agent
from ppo_agent import Trainer, callbacks
from ppo_agent.maths.schedules import make_schedule

CONSTRUCTOR = (
    "policy", "env", "gamma", "n_steps", "ent_coef", "learning_rate", "vf_coef", "max_grad_norm", "lam", "nminibatches",
    "noptepochs", "cliprange", "cliprange_vf", "verbose", "tensorboard_log", "_init_setup_model", "policy_kwargs",
    "full_tensorboard_log", "seed", "n_cpu_tf_sess",
)  # fmt: skip
LEARN = ("total_timesteps", "callback", "log_interval", "tb_log_name", "reset_num_timesteps")
HOOKS = ("on_training_start", "on_rollout_start", "on_step", "on_rollout_end", "on_training_end")
METHODS = (
    "setup_model", "learn", "_train_step", "_run", "save", "load", "predict", "action_probability", "get_parameters",
    "load_parameters", "pretrain", "get_env", "set_env", "step", "proba_step", "value", "initial_state",
)  # fmt: skip

# What it writes to TensorBoard, and where that is in the events of a run here.
TENSORBOARD = {
    "entropy_loss": "Losses/entropy",
    "policy_gradient_loss": "Losses/policy_gradient_loss",
    "value_function_loss": "Losses/value_estimation_loss",
    "approximate_kullback-leibler": "Diagnostics/approx_kl",
    "clip_factor": "Diagnostics/clip_fraction",
    "loss": "Losses/loss",
    "discounted_rewards": "Diagnostics/return_mean",
    "learning_rate": "LearningRate/learning_rate",
    "advantage": "Diagnostics/advantage_mean",
    "clip_range": "Schedules/importance_ratio_clipping",
    "clip_range_vf": "Schedules/value_clipping",
    "old_value_pred": "Diagnostics/value_mean",
    "episode_reward": "Metrics/AverageReturn",
}
# With full_tensorboard_log, histograms: see `HistogramCallback`, and debug_summaries for those of an update.
HISTOGRAMS = {
    "discounted_rewards": "Experience/reward_0",
    "observation": "Experience/observation_0",
    "model parameters": "Variables/_actor_net",
}
# What it logs, and the column of metrics.csv and of `Trainer.metrics`.
LOGGER = {
    "total_timesteps": "environment_steps",
    "fps": "steps_per_second",
    "explained_variance": "explained_variance",
    "ep_reward_mean": "episode_return_mean",
    "ep_len_mean": "episode_length_mean",
    "time_elapsed": "wall_time_s",
    "policy_loss": "policy_gradient_loss",
    "value_loss": "value_estimation_loss",
    "policy_entropy": "entropy",
    "approxkl": "approx_kl",
    "clipfrac": "clip_fraction",
}

# The constructor's arguments as keywords of `Trainer`.
KEYWORDS = {
    "gamma": {"discount_factor": 0.98},
    "n_steps": {"collect_steps_per_iteration": 32},
    "ent_coef": {"entropy_regularization": 0.02},
    "learning_rate": {"learning_rate": 0.004, "learning_rate_schedule": "linear"},
    "vf_coef": {"value_pred_loss_coef": 0.4},
    "max_grad_norm": {"gradient_clipping": 0.6},
    "lam": {"lambda_value": 0.9},
    "nminibatches": {"nminibatches": 4},
    "noptepochs": {"num_epochs": 3},
    "cliprange": {"importance_ratio_clipping": 0.25, "importance_ratio_clipping_schedule": "linear"},
    "cliprange_vf": {"value_clipping": 0.3, "value_clipping_schedule": "linear"},
    "verbose": {"log_interval": 1},
    "policy_kwargs": {"actor_fc_layers": (7,), "value_fc_layers": (6, 5), "activation": "relu"},
    "seed": {"seed": 3},
}


@pytest.fixture(scope="module", autouse=True)
def _without_compilation():
    with corruptions.without_compilation():
        yield


# Four iterations of 64 steps, and room for what boundary rows take of the last one.
TOTAL = 300


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A trainer with an argument for each of PPO2's, trained; and its folder."""
    folder = tmp_path_factory.mktemp("ppo2")
    keywords = {name: value for part in KEYWORDS.values() for name, value in part.items()}
    histograms = callbacks.HistogramCallback(folder / "histograms", every=64)
    with Trainer(
        "CartPole-v1", root_dir=folder / "PPO2_1", num_environments=2, preset="none", total_environment_steps=TOTAL,
        num_eval_episodes=1, callbacks=[histograms], debug_summaries=True, **keywords,
    ) as trainer:  # fmt: skip
        trainer.train()
        yield trainer, folder


def layers_of(net):
    return [v.shape.as_list()[-1] for v in net.trainable_variables if v.name.endswith("kernel:0") or "kernel" in v.name]


# What shows in the trainer that an argument has arrived.
ARRIVED = {
    "policy": lambda t, _: isinstance(t.agent, ppo_agent.PPOClipAgent),
    "env": lambda t, _: t.env.batch_size == 2 and t.env_name == "CartPole-v1",
    "gamma": lambda t, _: t.agent._config.discount_factor == 0.98,
    "n_steps": lambda t, _: 2 * 32 <= t.loop.collector.last_steps < 2 * 33,
    "ent_coef": lambda t, _: t.agent._config.entropy_regularization == 0.02,
    "learning_rate": lambda t, _: math.isclose(t.metrics["learning_rate"], last(t, 0.004), rel_tol=1e-5),
    "vf_coef": lambda t, _: t.agent._config.value_pred_loss_coef == 0.4,
    "max_grad_norm": lambda t, _: t.agent._config.gradient_clipping == 0.6,
    "lam": lambda t, _: t.agent._config.lambda_value == 0.9,
    "nminibatches": lambda t, _: t.agent._config.minibatch_size == 2 * 32 // 4,
    "noptepochs": lambda t, _: t.agent._config.num_epochs == 3,
    "cliprange": lambda t, _: math.isclose(t.metrics["importance_ratio_clipping"], last(t, 0.25), rel_tol=1e-5),
    "cliprange_vf": lambda t, _: math.isclose(t.metrics["value_clipping"], last(t, 0.3), rel_tol=1e-5),
    "verbose": lambda t, _: t.settings.log_interval == 1,
    "tensorboard_log": lambda _, folder: any((folder / "PPO2_1" / "train").iterdir()),
    "_init_setup_model": lambda t, _: Trainer("CartPole-v1", preset="none").agent.trainable_variables is not None,
    "policy_kwargs": lambda t, _: layers_of(t.agent.actor_net) == [7, 2] and layers_of(t.agent.value_net) == [6, 5, 1],
    "full_tensorboard_log": lambda _, folder: any((folder / "histograms").iterdir()),
    "seed": lambda t, _: t.seed == 3,
    "n_cpu_tf_sess": lambda *_: threads_are_set(),
}


def threads_are_set():
    """TensorFlow's threads are told before its first operation, or not at all."""
    with pytest.raises(ValueError, match="num_threads is 77, expected it before TensorFlow's first operation"):
        Trainer("CartPole-v1", num_threads=77)
    return True


def last(trainer, first):
    """A linear schedule's value in the last iteration, whose start is what counts."""
    steps = len(trainer.recorder._table.read()["environment_steps"])
    before = trainer.recorder._table.read()["environment_steps"][steps - 2]
    return make_schedule("linear", first)(before / TOTAL)


@pytest.mark.parametrize("argument", CONSTRUCTOR)
def test_an_argument_of_the_constructor(argument, run):
    assert ARRIVED[argument](*run)


def test_the_tables_are_complete():
    assert set(ARRIVED) == set(CONSTRUCTOR)
    assert set(KEYWORDS) <= set(CONSTRUCTOR)
    assert set(CALLS) == set(METHODS)
    assert set(OF_LEARN) == set(LEARN)


def tags(folder: Path) -> set[str]:
    paths = [str(path) for path in folder.rglob("*tfevents*")]
    return {v.tag for path in paths for e in tf.compat.v1.train.summary_iterator(path) for v in e.summary.value}


def test_names_in_tensorboard(run):
    _, folder = run
    found = tags(folder / "PPO2_1" / "train")
    assert set(TENSORBOARD.values()) <= found
    # Its scalar `old neglog action probability` is a histogram of the log-probabilities here.
    assert any(tag.endswith("action_log_prob_sample") for tag in found)
    histograms = tags(folder / "histograms")
    for tag in HISTOGRAMS.values():
        assert any(found.startswith(tag) for found in histograms), tag


def test_names_of_the_logger(run):
    trainer, folder = run
    metrics = trainer.metrics
    assert all(math.isfinite(metrics[name]) for name in LOGGER.values())
    header = (folder / "PPO2_1" / "metrics.csv").read_text().splitlines()[0].split(",")
    assert set(LOGGER.values()) <= set(header)
    # `serial_timesteps` and `n_updates`.
    updates = trainer.loop.tally.iterations
    assert updates == len(trainer.recorder._table.read()["environment_steps"]) > 1
    assert updates * 32 <= trainer.environment_steps / 2 < updates * 33


def learns(callback=(), **keywords):
    with Trainer("CartPole-v1", preset="none", num_environments=2, collect_steps_per_iteration=16) as trainer:
        trainer.train(64, **keywords, callbacks=callback)
        return trainer


def told(capsys):
    with Trainer("CartPole-v1", preset="none", collect_steps_per_iteration=16, log_interval=2) as trainer:
        trainer.train(16 * 8 * 4)
    return capsys.readouterr().out.count("episode_return_mean")


class Notes:
    def __init__(self):
        self.called = set()
        for hook in HOOKS:
            setattr(self, hook, lambda _, hook=hook: self.called.add(hook))


def stops(_):
    """All of PPO2's hooks are called, and False ends the training."""
    notes = Notes()
    assert learns([notes]).environment_steps > 20
    assert notes.called == set(HOOKS)
    return learns([lambda trainer: False]).loop.tally.iterations == 1


def counts(_):
    with Trainer("CartPole-v1", preset="none", num_environments=2, collect_steps_per_iteration=16) as trainer:
        trainer.train(64)
        first = trainer.environment_steps
        trainer.train(64)
        assert first < trainer.environment_steps <= first + 64
        trainer.train(64, reset_counter=True)
        return trainer.environment_steps <= 64


OF_LEARN = {
    "total_timesteps": lambda _: 32 <= learns().environment_steps <= 64,
    "callback": stops,
    "log_interval": lambda capsys: told(capsys) in (1, 2),
    "tb_log_name": lambda _: "root_dir" in inspect.signature(Trainer).parameters,  # The name is that of the folder.
    "reset_num_timesteps": counts,
}


@pytest.mark.parametrize("argument", LEARN)
def test_an_argument_of_learn(argument, capsys):
    assert OF_LEARN[argument](capsys)


def trained_once(trainer, _):
    """`_train_step`: a gradient step is part of an update."""
    before = int(trainer.agent.train_step_counter)
    loss = trainer.agent.train(trainer.experience)
    assert np.isfinite(loss.loss)
    return int(trainer.agent.train_step_counter) == before + 3 * 4


def collected(trainer, _):
    """`Runner.run`: observations, actions, values and log-probabilities of a rollout."""
    experience = trainer.experience
    names = {"observation", "action", "reward", "discount", "policy_info", "step_type", "next_step_type"}
    return names == set(experience._fields) and "dist_params" in experience.policy_info


def saved(trainer, folder):
    trainer.save(folder / "saved")
    return json.loads((folder / "saved" / "settings.json").read_text())["seed"] == 3


def loaded(trainer, folder):
    trainer.save(folder / "saved")
    other = Trainer.load(folder / "saved")
    observation = np.zeros(4, np.float32)
    assert other.predict(observation)[0] == trainer.predict(observation)[0]
    return other.settings == trainer.settings


def given_another(trainer, folder):
    trainer.save(folder / "saved")
    env = ppo_agent.drivers.GymnasiumEnvironment("CartPole-v1", num_environments=2)
    with Trainer.load(folder / "saved", env=env) as other:
        return other.env is env


def predicted(trainer, _):
    action, state = trainer.predict(np.zeros((3, 4), np.float32), deterministic=False)
    return action.shape == (3,) and set(action) <= {0, 1} and state is None


def weighed(trainer, _):
    observation = np.zeros((3, 4), np.float32)
    probabilities = trainer.action_probability(observation)
    np.testing.assert_allclose(probabilities.sum(-1), 1.0, rtol=1e-5)
    chosen = trainer.action_probability(observation, actions=np.array([0, 1, 0]), logp=True)
    np.testing.assert_allclose(chosen, np.log(probabilities[[0, 1, 2], [0, 1, 0]]), rtol=1e-5)
    return True


def parameters(trainer, _):
    values = trainer.get_parameters()
    with Trainer("CartPole-v1", seed=9, preset="none", actor_fc_layers=(7,), value_fc_layers=(6, 5)) as other:
        other.load_parameters(values)
        return all(np.array_equal(array, values[name]) for name, array in other.get_parameters().items())


def cloned(trainer, _):
    observations = np.random.default_rng(0).normal(size=(200, 4)).astype(np.float32)
    episodes = {"obs": observations, "actions": (observations[:, 2] > 0).astype(np.int64)}
    with Trainer("CartPole-v1", preset="none") as other:
        found = other.pretrain(episodes, num_epochs=20)
        return found.accuracies[-1] > 0.6


CALLS = {
    "setup_model": lambda t, _: t.agent.policy is not None,
    "learn": lambda t, _: t.environment_steps > 0,
    "_train_step": trained_once,
    "_run": collected,
    "save": saved,
    "load": loaded,
    "predict": predicted,
    "action_probability": weighed,
    "get_parameters": parameters,
    "load_parameters": parameters,
    "pretrain": cloned,
    "get_env": lambda t, _: t.env.batch_size == 2,
    "set_env": given_another,
    "step": predicted,
    "proba_step": weighed,
    "value": lambda t, _: t.value(np.zeros((3, 4), np.float32)).shape == (3,),
    "initial_state": lambda t, _: t.predict(np.zeros(4, np.float32), state=None)[1] is None,
}


@pytest.mark.parametrize("method", METHODS)
def test_a_method(method, run):
    assert CALLS[method](*run)
