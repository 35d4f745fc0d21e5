"""The training loop as an object."""

import functools
import json
import os
import signal
import threading
from pathlib import Path
from typing import Any

import gymnasium as gym
import helpers
import numpy as np
import pytest
import tensorflow as tf
from reliability import corruptions
from toy_environments import Counter

import ppo_agent
from ppo_agent import Trainer
from ppo_agent.callbacks import CallbackError, StopAfterEpisodes
from ppo_agent.drivers import GymnasiumEnvironment, TFCartPole
from ppo_agent.drivers.array_policies import array_policy, numpy_program

TINY = {
    "num_environments": 2, "collect_steps_per_iteration": 20, "minibatch_size": 20, "num_epochs": 1,
    "actor_fc_layers": (4,), "value_fc_layers": (4,), "preset": "none", "num_eval_episodes": 2,
}  # fmt: skip


@pytest.fixture(autouse=True)
def _without_compilation():
    with corruptions.without_compilation():
        yield


def make(env="CartPole-v1", **settings) -> Trainer:
    return Trainer(env, **{**TINY, **settings})


class DictEnv(gym.Env):
    """Dict observations and Discrete actions that start at 3."""

    observation_space = gym.spaces.Dict({"x": gym.spaces.Box(-1, 1, (2,), np.float64), "kind": gym.spaces.Discrete(3)})
    action_space = gym.spaces.Discrete(2, start=3)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.count = 0
        return self._observe(), {}

    def step(self, action):
        assert action in (3, 4)
        self.count += 1
        return self._observe(), float(action == 4), self.count == 5, False, {}

    def _observe(self):
        return {"x": self.np_random.uniform(-1, 1, 2), "kind": self.count % 3}


def test_training_continues_and_counts_on() -> None:
    with make() as trainer:
        assert trainer.train(100) is trainer
        assert trainer.environment_steps in range(60, 101)
        first = trainer.environment_steps
        trainer.train(50)
        assert first < trainer.environment_steps <= first + 50
        assert trainer.loop.tally.iterations >= 3
        trainer.train(40, reset_counter=True)
        assert 20 <= trainer.environment_steps <= 40
        assert trainer.experience.reward.shape[0] == 2
        # A budget below an iteration is used too.
        before = trainer.environment_steps
        trainer.train(30)
        assert trainer.environment_steps > before


def test_training_that_is_too_short_for_a_step_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    with make(minibatch_size=40, collect_steps_per_iteration=40) as trainer:
        trainer.train(39)
        assert "no step was taken: 39 are left" in capsys.readouterr().err
        trainer.train(81)
        assert 70 <= trainer.environment_steps <= 81
        assert "no step" not in capsys.readouterr().err


def test_nothing_is_written_without_a_folder(in_tmp_path: Path) -> None:
    with make(eval_interval=1) as trainer:
        trainer.train(60)
        assert len(trainer.evaluations) == 1
    assert not any(in_tmp_path.iterdir())


def test_everything_is_written_with_one(tmp_path: Path) -> None:
    with make(root_dir=tmp_path / "run", eval_interval=1, log_interval=1) as trainer:
        trainer.train(120)
        assert trainer.result["environment_steps"] == trainer.environment_steps
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert names >= {
        "settings.json", "metrics.csv", "evaluations.csv", "result.json", "train", "eval", "checkpoints", "policy",
        "policy_saver", "learning_curve.png",
    }  # fmt: skip
    saved = json.loads((tmp_path / "run" / "settings.json").read_text())
    assert saved["settings"]["num_environments"] == 2
    with pytest.raises(ValueError, match="already holds a run"):
        make(root_dir=tmp_path / "run")


ENVIRONMENTS = {
    "callable": lambda: functools.partial(Counter, length=4),
    "vector": lambda: gym.make_vec("CartPole-v1", num_envs=2, vectorization_mode="sync"),
    "gymnasium": lambda: GymnasiumEnvironment("CartPole-v1", num_environments=2),
    "tensorflow": lambda: TFCartPole(num_environments=2, seed=0),
    "dict": lambda: DictEnv,
}


@pytest.mark.parametrize("kind", ENVIRONMENTS)
def test_any_environment_will_do(kind: str, tmp_path: Path) -> None:
    with make(ENVIRONMENTS[kind]()) as trainer:
        trainer.train(60)
        found = trainer.evaluate(num_episodes=3)
        assert len(found.returns) == 3
        assert found.mean == pytest.approx(np.mean(found.returns))
        assert found.std == pytest.approx(np.std(found.returns))
        trainer.train(40)
        assert trainer.environment_steps > 60
        trainer.save(tmp_path / "saved")
        observation = tf.nest.map_structure(
            lambda s: np.zeros(s.shape, s.dtype.as_numpy_dtype), trainer.agent.time_step_spec.observation
        )
        action = trainer.predict(observation)[0]
        values = trainer.get_parameters()
    loaded = Trainer.load(tmp_path / "saved")
    np.testing.assert_array_equal(loaded.predict(observation)[0], action)
    for name, array in loaded.get_parameters().items():
        np.testing.assert_array_equal(array, values[name])
    with pytest.raises(ValueError, match="env is None, expected an environment"):
        loaded.train(10)
    loaded = Trainer.load(tmp_path / "saved", env=ENVIRONMENTS[kind]())
    loaded.train(60)
    loaded.close()


def test_own_agent(tmp_path: Path) -> None:
    env = GymnasiumEnvironment("CartPole-v1", num_environments=2)

    class Own(ppo_agent.PPOClipAgent):
        calls = 0

        def policy_gradient_loss(self, *args, **kwargs):
            Own.calls += 1
            return super().policy_gradient_loss(*args, **kwargs)

    def make_own():
        spec = env.time_step_spec()
        nets = helpers.make_networks("ours", env.action_spec(), spec.observation)
        return helpers.make_agent(
            cls=Own, nets=nets, time_step_spec=spec, action_spec=env.action_spec(), eager=False, minibatch_size=16
        )

    with Trainer(env, agent=make_own(), collect_steps_per_iteration=20) as trainer:
        trainer.train(80)
        assert Own.calls > 0
        trainer.save(tmp_path / "own")
    with pytest.raises(ValueError, match="agent is None, expected one"):
        Trainer.load(tmp_path / "own")
    with pytest.raises(ValueError, match="learning_rate is given with a ready agent"):
        Trainer(env, agent=make_own(), learning_rate=0.1)


def test_a_function_makes_the_agent_with_an_optimiser_and_schedules_of_its_own(tmp_path: Path) -> None:
    calls = []

    def make_own(time_step_spec, action_spec):
        calls.append(action_spec)
        rate = tf.keras.optimizers.schedules.PolynomialDecay(0.5, 8, 0.1)
        return helpers.make_agent(
            cls=ppo_agent.PPOClipAgent,
            nets=helpers.make_networks("ours", action_spec, time_step_spec.observation),
            time_step_spec=time_step_spec,
            action_spec=action_spec,
            eager=False,
            minibatch_size=10,
            num_epochs=1,
            optimizer=tf.keras.optimizers.SGD(rate),
            importance_ratio_clipping=lambda: 0.1 * len(rates) + 0.1,
        )

    rates, clips = [], []
    first = []
    for _ in range(2):
        with Trainer("CartPole-v1", agent=make_own, num_environments=2, collect_steps_per_iteration=20) as trainer:
            first.append(trainer.get_parameters())
    assert all(np.array_equal(first[0][name], first[1][name]) for name in first[0])

    def note(trainer: Trainer) -> None:
        clips.append(trainer.metrics["importance_ratio_clipping"])
        rates.append(trainer.metrics["learning_rate"])

    with Trainer("CartPole-v1", agent=make_own, num_environments=2, collect_steps_per_iteration=20) as trainer:
        trainer.train(130, callbacks=[note])
        trainer.save(tmp_path / "own")
        action = trainer.predict(np.ones(4))[0]
    taken = trainer.metrics["gradient_steps"]
    expected = [max(0.1, 0.5 - 0.4 * taken * i / 8) for i in range(1, len(rates) + 1)]
    np.testing.assert_allclose(rates, expected, rtol=1e-5)
    np.testing.assert_allclose(clips, [0.1 * i + 0.1 for i in range(len(rates))], rtol=1e-5)
    assert len(rates) == 3
    assert Trainer.load(tmp_path / "own", agent=make_own).predict(np.ones(4))[0] == action
    with pytest.raises(TypeError, match="agent is NoneType, expected a PPOAgent"):
        Trainer("CartPole-v1", agent=lambda time_step_spec, action_spec: None)


def test_predictions_take_one_observation_or_a_batch(rng: np.random.Generator) -> None:
    with make("Pendulum-v1", squash_actions=False) as trainer:
        batch = rng.normal(size=(5, 3)).astype(np.float32)
        actions, state = trainer.predict(batch)
        assert actions.shape == (5, 1)
        assert state is None
        np.testing.assert_allclose(actions[2], trainer.predict(batch[2])[0], rtol=1e-5)
        np.testing.assert_allclose(trainer.value(batch)[1], trainer.value(batch[1]), rtol=1e-5)
        mean, std = trainer.action_probability(batch)
        np.testing.assert_allclose(np.clip(mean, -2, 2), actions, rtol=1e-4, atol=1e-6)
        found = trainer.action_probability(batch, mean, logp=True)
        np.testing.assert_allclose(found, -np.log(std[:, 0] * np.sqrt(2 * np.pi)), rtol=1e-5)
        np.testing.assert_allclose(trainer.action_probability(batch, mean), np.exp(found), rtol=1e-6)
        samples = np.concatenate([trainer.predict(batch, deterministic=False)[0] for _ in range(40)])
        assert np.abs(samples).max() <= 2
        assert samples.std() > 0.3
        with pytest.raises(ValueError, match=r"has shape \(2,\), expected \(3,\)"):
            trainer.predict(np.zeros(2))
        with pytest.raises(ValueError, match="observation is"):
            trainer.predict({"x": np.zeros(3)})


def test_probabilities_of_several_discrete_actions(rng: np.random.Generator) -> None:
    class Panel(gym.Env):
        observation_space = gym.spaces.Box(-1, 1, (3,))
        action_space = gym.spaces.Dict(
            {"dial": gym.spaces.MultiDiscrete([3, 2], start=[1, 0]), "keys": gym.spaces.MultiBinary(2)}
        )

    with make(Panel) as trainer:
        weights = {k: v for k, v in trainer.get_parameters().items() if k.startswith("_actor_net")}
        trainer.load_parameters({k: rng.normal(size=v.shape) for k, v in weights.items()}, exact_match=False)
        batch = rng.normal(size=(4, 3))
        found = trainer.action_probability(batch)
        assert found["dial"].shape == (4, 2, 3)
        assert found["keys"].shape == (4, 2, 2)
        assert (found["dial"][:, 1, 2] == 0).all()  # The second dial has two positions.
        for leaf in found.values():
            np.testing.assert_allclose(leaf.sum(-1), 1, rtol=1e-5)
            assert leaf.std() > 0.05
        tf.nest.map_structure(
            lambda one, all_of_them: np.testing.assert_allclose(one, all_of_them[2], rtol=1e-5),
            trainer.action_probability(batch[2]), found,
        )  # fmt: skip
        dial, keys = np.array([3, 1]), np.array([0, 1])
        product = found["dial"][:, 0, 2] * found["dial"][:, 1, 1] * found["keys"][:, 0, 0] * found["keys"][:, 1, 1]
        np.testing.assert_allclose(trainer.action_probability(batch, {"dial": dial, "keys": keys}), product, rtol=1e-4)


def test_the_spread_of_squashed_actions_draws_nobodys_random_numbers() -> None:
    with make("Pendulum-v1", squash_actions=True) as trainer:
        first = trainer.action_probability(np.ones(3))
        tf.random.set_seed(3)
        expected = tf.random.uniform([3]).numpy()
        tf.random.set_seed(3)
        np.testing.assert_array_equal(trainer.action_probability(np.ones(3)), first)
        np.testing.assert_array_equal(tf.random.uniform([3]), expected)


def test_predictions_with_memory(rng: np.random.Generator) -> None:
    with make(recurrent=True, memory_units=3, sequence_length=5, minibatch_size=20) as trainer:
        observation = rng.normal(size=(2, 4)).astype(np.float32)
        _, state = trainer.predict(observation)
        _, later = trainer.predict(observation, state, episode_start=[False, True])
        _, again = trainer.predict(observation)
        for one, two, three in zip(*map(tf.nest.flatten, (later, again, state)), strict=True):
            assert not np.allclose(one[0], three[0])
            np.testing.assert_allclose(one[1], two[1], rtol=1e-5)
        _, single = trainer.predict(observation[0])
        assert all(leaf.ndim == 1 for leaf in tf.nest.flatten(single))
        trainer.predict(observation[0], single)


def test_parameters_in_part(tmp_path: Path) -> None:
    with make() as trainer, make(seed=1, value_fc_layers=(7,)) as other:
        values = trainer.get_parameters()
        with pytest.raises(ValueError, match="expected"):
            other.load_parameters(values)
        loaded, skipped = other.load_parameters(values, exact_match=False)
        assert loaded
        assert any("has shape" in reason for reason in skipped.values())
        assert not set(loaded) & set(skipped)
        for name in loaded:
            np.testing.assert_array_equal(other.get_parameters()[name], values[name])
        bad = {name: np.full_like(array, np.nan) for name, array in values.items()}
        with pytest.raises(ValueError, match="finite"):
            trainer.load_parameters(bad)


def test_ctrl_c_leaves_a_trainer_that_continues() -> None:
    with make(total_environment_steps=10**6) as trainer:
        threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
        with pytest.raises(KeyboardInterrupt):
            trainer.train()
        steps, iterations = trainer.environment_steps, trainer.loop.tally.iterations
        # Every step that counts was trained on.
        assert steps > 0
        assert trainer.metrics["environment_steps"] == steps
        trainer.train(80)
        assert trainer.loop.tally.iterations > iterations
        assert steps < trainer.environment_steps <= steps + 80


def test_an_environment_that_is_interrupted_itself() -> None:
    count = []

    class Interrupting(Counter):
        def step(self, action):
            count.append(1)
            if len(count) == 70:
                raise KeyboardInterrupt
            return super().step(action)

    with make(functools.partial(Interrupting, length=6), total_environment_steps=10**6) as trainer:
        with pytest.raises(KeyboardInterrupt):
            trainer.train()
        steps = trainer.environment_steps
        assert 0 < steps < 70
        trainer.train(60)
        assert trainer.environment_steps > steps


def test_a_wrong_argument_is_told() -> None:
    for arguments, words in (
        ({"learning_rat": 1}, "learning_rat is no setting, .*did you mean learning_rate"),
        ({"num_epochs": 0}, "num_epochs is 0, expected"),
        ({"seed": -1}, "seed is -1, expected"),
        ({"gae": True}, "gae is no setting"),
    ):
        with pytest.raises(ValueError, match=words):
            make(**arguments)
    with pytest.raises(TypeError, match="callback is 3, expected"):
        make(callbacks=[3])
    with pytest.raises(TypeError, match=r"callback is the class StopAfterEpisodes, expected an object"):
        make(callbacks=[StopAfterEpisodes])


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"preset": 3}, "preset is 3, expected a name or the path of a JSON file"),
        ({"root_dir": 3}, "the folder is 3, expected a path"),
    ],
)
def test_an_argument_of_another_kind_is_told(keywords: dict, message: str) -> None:
    with pytest.raises(TypeError, match=f"^{message}\\.$"):
        Trainer("CartPole-v1", **keywords)


def test_whether_evaluations_take_the_most_likely_action_is_a_bool() -> None:
    with make() as trainer, pytest.raises(ValueError, match="deterministic is 'no', expected None, True or False"):
        trainer.evaluate(1, deterministic="no")


def test_evaluations_of_either_kind_prepare_the_policy_once(monkeypatch: pytest.MonkeyPatch) -> None:
    prepared = []

    def counted(*arguments: Any) -> Any:
        prepared.append(arguments)
        return numpy_program.numpy_program(*arguments)

    monkeypatch.setattr(array_policy, "numpy_program", counted)
    with make(greedy_eval=False) as trainer:
        for _ in range(3):
            trainer.evaluate(1, deterministic=True)
            trainer.evaluate(1, deterministic=False)
    assert len(prepared) == 2


def test_its_text_has_the_settings() -> None:
    with make(learning_rate=0.125) as trainer:
        assert "CartPole-v1" in repr(trainer)
        assert "learning_rate=0.125" in repr(trainer)


def test_a_failing_callback_loses_nothing(tmp_path: Path) -> None:
    calls = []

    def fails(trainer: Trainer) -> None:
        calls.append(trainer.environment_steps)
        if len(calls) == 2:
            raise ZeroDivisionError("by 0")

    with make(root_dir=tmp_path / "run") as trainer:
        with pytest.raises(CallbackError, match="callback fails raised ZeroDivisionError in on_update_end: by 0"):
            trainer.train(200, callbacks=[fails])
        assert trainer.environment_steps == calls[-1]
    with Trainer.load(tmp_path / "run", root_dir=tmp_path / "run") as trainer:
        assert trainer.environment_steps == calls[-1]
        trainer.train(60)
    assert json.loads((tmp_path / "run" / "result.json").read_text())["environment_steps"] > calls[-1]
