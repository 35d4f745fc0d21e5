"""Behaviour cloning."""

import types
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import tensorflow as tf

from ppo_agent import Trainer, pretraining
from ppo_agent.drivers import DynamicEpisodeDriver, UniformReplayBuffer

TINY = {"num_environments": 2, "preset": "none", "actor_fc_layers": (16,), "value_fc_layers": (8,)}


def expert_episodes(num_episodes: int = 20) -> dict[str, np.ndarray]:
    """CartPole balanced by a linear rule."""
    env = gym.make("CartPole-v1")
    rows: list[tuple] = []
    for seed in range(num_episodes):
        observation, _ = env.reset(seed=seed)
        done, first = False, True
        while not done:
            action = int(observation @ [0.1, 0.3, 1.0, 1.0] > 0)
            rows.append((observation, action, first))
            observation, _, terminated, truncated, _ = env.step(action)
            done, first = terminated or truncated, False
    observations, actions, starts = zip(*rows, strict=True)
    return {"obs": np.array(observations), "actions": np.array(actions), "episode_starts": np.array(starts)}


def test_an_expert_is_imitated(tmp_path: Path) -> None:
    np.savez(tmp_path / "expert.npz", **expert_episodes(), rewards=np.ones(len(expert_episodes()["obs"])))
    with Trainer("CartPole-v1", **{**TINY, "actor_fc_layers": (64, 64)}) as trainer:
        report = trainer.pretrain(
            tmp_path / "expert.npz", num_epochs=12, learning_rate=3e-3, validation_fraction=0.2, value=True
        )
        assert report.losses[-1] < report.losses[0]
        assert report.accuracies[-1] > 0.95
        assert report.validation_accuracies[-1] > 0.9
        assert report.value_losses[-1] < report.value_losses[0]
        assert trainer.evaluate(num_episodes=20).mean >= 475
        assert "accuracy" in str(report)


def test_faults_are_told_before_anything_changes() -> None:
    arrays = {"obs": np.ones((3, 4)), "actions": np.zeros(3, int), "rewards": np.ones(3)}
    faults: list[tuple[dict, dict]] = [
        ({"rewards": np.array([1, np.nan, 1])}, {"value": True}), ({"rewards": np.ones(2)}, {"value": True}),
        ({"actions": np.full(3, 0.5)}, {}),
        ({}, {"learning_rate": np.inf}), ({}, {"learning_rate": "1e-3"}), ({}, {"validation_fraction": "x"}),
        ({}, {"validation_fraction": np.nan}),
    ]  # fmt: skip
    with Trainer("CartPole-v1", **TINY) as trainer:
        before = trainer.get_parameters()
        for change, options in faults:
            with pytest.raises(ValueError, match=r"^\w+ (of the episodes (has|holds)|is) .*, expected [^;]*\.$"):
                trainer.pretrain({**arrays, **change}, 1, **options)
        for name, array in trainer.get_parameters().items():
            np.testing.assert_array_equal(array, before[name])


def test_another_seed_shuffles_in_another_order_and_nothing_is_said_of_tracing(
    rng: np.random.Generator, caplog: pytest.LogCaptureFixture
) -> None:
    arrays = {"obs": rng.normal(size=(30, 4)), "actions": rng.integers(0, 2, 30)}
    with Trainer("CartPole-v1", **TINY) as trainer:
        before, found = trainer.get_parameters(), []
        for seed in (0, 0, 1, 2, 3, 4, 5):
            trainer.load_parameters(before)
            found.append(trainer.pretrain(arrays, 1, seed=seed, batch_size=7).losses[0])
    assert found[0] == found[1]
    assert len(set(found)) > 2
    assert "retracing" not in caplog.text


def test_continuous_actions_from_trajectories() -> None:
    with Trainer("Pendulum-v1", **TINY) as trainer:
        buffer = UniformReplayBuffer(trainer.agent.collect_data_spec, 2, 500)
        driver = DynamicEpisodeDriver(trainer.env, trainer.agent.collect_policy, [buffer.add_batch], num_episodes=2)
        driver.run()
        rows = buffer.gather_all()
        target = tf.clip_by_value(-2 * rows.observation[..., 1:2], -2, 2)
        report = trainer.pretrain(rows._replace(action=target), num_epochs=30, learning_rate=3e-3)
        assert report.losses[-1] < report.losses[0] - 0.5
        assert np.isnan(report.accuracies).all()
        observation = np.array([[0.6, 0.8, 0.0]], np.float32)
        assert trainer.predict(observation)[0][0, 0] < -0.8


def test_recurrent_networks_take_whole_episodes() -> None:
    with Trainer("CartPole-v1", **TINY, recurrent=True, memory_units=8, sequence_length=10) as trainer:
        report = trainer.pretrain(expert_episodes(6), num_epochs=4, learning_rate=0.01)
        assert report.losses[-1] < report.losses[0]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"actions": np.full(3, 2)}, "actions of the episodes goes from 2 to 2, expected 0 to 1"),
        ({"obs": np.zeros((3, 5))}, r"observations of the episodes has shape \(3, 5\)"),
        ({"obs": np.full((3, 4), np.nan)}, "holds NaN or infinity"),
        ({"obs": None}, "expected observations"),
    ],
)
def test_episodes_that_do_not_fit_are_told(change: dict, words: str) -> None:
    arrays = {"obs": np.zeros((3, 4)), "actions": np.zeros(3, int), **change}
    arrays = {name: array for name, array in arrays.items() if array is not None}
    with Trainer("CartPole-v1", **TINY) as trainer:
        before = trainer.get_parameters()
        with pytest.raises(ValueError, match=words):
            trainer.pretrain(arrays)
        for name, array in trainer.get_parameters().items():
            np.testing.assert_array_equal(array, before[name])
    with pytest.raises(TypeError, match="episodes is int, expected"):
        pretraining.read_episodes(3, None, None)


def test_episodes_of_every_form_are_the_same(tmp_path: Path) -> None:
    from tf_agents.specs import tensor_spec
    from tf_agents.utils import example_encoding_dataset

    with Trainer("CartPole-v1", **TINY) as trainer:
        buffer = UniformReplayBuffer(trainer.agent.collect_data_spec, 2, 500)
        DynamicEpisodeDriver(trainer.env, trainer.agent.collect_policy, [buffer.add_batch], num_episodes=5).run()
        rows = buffer.gather_all()._replace(policy_info=())
        specs = (trainer.agent.time_step_spec.observation, trainer.agent.action_spec)
        spec = tensor_spec.from_spec(trainer.agent.collect_data_spec._replace(policy_info=()))
    expected = pretraining.read_episodes(rows, *specs)
    sources = []
    # TF-Agents' encoder asks for what NumPy 2 no longer has.
    if np.lib.NumpyVersion(np.__version__) < "2.0.0":
        sources.append(str(tmp_path / "episodes.tfrecord"))
        observer = example_encoding_dataset.TFRecordObserver(sources[0], spec, py_mode=True)
        for row in range(2):
            for step in range(rows.step_type.shape[1]):
                observer(tf.nest.map_structure(lambda x, b=row, t=step: x[b, t].numpy(), rows))
        observer.flush()
        observer.close()
    arrays = {"observations": expected.observations, "actions": expected.actions, "rewards": expected.rewards}
    ends = np.append(expected.is_first[1:], True)
    sources += [{**arrays, "episode_starts": expected.is_first}, {**arrays, "terminations": ends}]
    for source in sources:
        found = pretraining.read_episodes(source, *specs)
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_array_equal(one, other)


class Panel(gym.Env):
    """Actions that count from 4 and from 1; the first one belongs to the sign of the observation."""

    observation_space = gym.spaces.Box(-1, 1, (1,), np.float32)
    action_space = gym.spaces.Dict(
        {"key": gym.spaces.Discrete(2, start=4), "dials": gym.spaces.MultiDiscrete([3, 2], start=[1, 1])}
    )

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(1, np.float32), {}


def panel_episodes(rng: np.random.Generator) -> dict:
    observations = rng.uniform(-1, 1, (120, 1)).astype(np.float32)
    dials = np.stack([rng.integers(1, 4, 120), rng.integers(1, 3, 120)], axis=-1)
    actions = {"actions/key": np.where(observations[:, 0] > 0, 5, 4), "actions/dials": dials}
    return {"observations": observations, "rewards": np.ones(120), "terminations": np.arange(120) % 12 == 11, **actions}


def test_recorded_actions_are_those_of_the_environment(tmp_path: Path, rng: np.random.Generator) -> None:
    arrays = panel_episodes(rng)
    np.savez(tmp_path / "panel.npz", **arrays)
    actions = {"key": arrays["actions/key"], "dials": arrays["actions/dials"]}
    # As Minari's episodes: one observation more than actions.
    episodes = [
        types.SimpleNamespace(
            observations=arrays["observations"][[*range(i, i + 12), 0]], rewards=arrays["rewards"][i : i + 12],
            actions={key: values[i : i + 12] for key, values in actions.items()},
        )
        for i in range(0, 120, 12)
    ]  # fmt: skip
    with Trainer(Panel, **TINY) as trainer:
        report = trainer.pretrain(tmp_path / "panel.npz", num_epochs=40, learning_rate=0.02)
        assert report.losses[-1] < report.losses[0] - 0.5
        assert trainer.predict(np.array([0.7]))[0]["key"] == 5
        assert trainer.predict(np.array([-0.7]))[0]["key"] == 4
        specs = (trainer.agent.time_step_spec.observation, trainer.agent.action_spec, trainer._encoding())
        found, same = (pretraining.read_episodes(source, *specs) for source in (arrays, episodes))
        tf.nest.map_structure(np.testing.assert_array_equal, found, same)
        np.testing.assert_array_equal(found.actions["key"], actions["key"] - 4)
        np.testing.assert_array_equal(found.actions["dials"], actions["dials"] - 1)
        # What is the agent's already is taken as it is.
        again = pretraining.read_episodes([found, same], *specs)
        assert again.actions["key"].tolist() == 2 * found.actions["key"].tolist()
        actions["dials"][3, 1] = 3  # In the range of the first dial alone.
        with pytest.raises(ValueError, match=r"actions of the episodes goes from 0 to 2, expected 0 to \[2, 1\]"):
            trainer.pretrain(arrays)
