"""What predict, action_probability and value take, and what they say of the rest."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from ppo_agent import Trainer

SETTINGS = {
    "preset": "none", "num_environments": 2, "collect_steps_per_iteration": 8, "minibatch_size": 8,
    "actor_fc_layers": (4,), "value_fc_layers": (),
}  # fmt: skip


class Fixed(gym.Env):
    """Has spaces."""

    def __init__(self, observation_space, action_space):
        self.observation_space, self.action_space = observation_space, action_space


def trainer_of(observation_space, action_space, **settings):
    return Trainer(lambda: Fixed(observation_space, action_space), **{**SETTINGS, **settings})


@pytest.fixture(scope="module")
def plain():
    with trainer_of(spaces.Box(-9, 9, (3,)), spaces.Discrete(3, start=5)) as trainer:
        yield trainer


@pytest.fixture(scope="module")
def nested():
    observations = spaces.Dict({
        "pixels": spaces.Box(0, 255, (4,), np.uint8), "kind": spaces.Discrete(3, start=-1),
        "x": spaces.Box(-1, 1, (2,)),
    })  # fmt: skip
    actions = spaces.Dict({"on": spaces.Box(0, 1, (2,), bool), "dial": spaces.Box(1, 200, (), np.uint8)})
    with trainer_of(observations, actions) as trainer:
        yield trainer


@pytest.fixture(scope="module")
def remembering():
    space = spaces.Box(-9, 9, (3,))
    with trainer_of(space, spaces.Discrete(2), recurrent=True, memory_units=3, sequence_length=4) as trainer:
        yield trainer


@pytest.fixture(scope="module")
def masked():
    space = spaces.Dict({"observation": spaces.Box(-1, 1, (2,)), "action_mask": spaces.MultiBinary(5)})
    with trainer_of(space, spaces.MultiDiscrete([2, 3])) as trainer:
        yield trainer


def test_lists_stand_for_arrays(plain):
    x = np.array([0.1, 0.2, 0.3])
    action, _ = plain.predict(x)
    assert action in (5, 6, 7)
    for same in ([0.1, 0.2, 0.3], (0.1, 0.2, 0.3)):
        assert plain.predict(same)[0] == action
        np.testing.assert_allclose(plain.value(same), plain.value(x), rtol=1e-6)
    assert plain.predict([x, x])[0].tolist() == [action, action]
    probabilities = plain.action_probability(x)
    for actions in (6, [6], np.uint8(6), 6.0):
        np.testing.assert_allclose(plain.action_probability(x, actions), probabilities[1], rtol=1e-5)
    found = plain.action_probability([x, x], [7, 5])
    np.testing.assert_allclose(found, probabilities[[2, 0]], rtol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"observation": np.array([np.nan, 0, 0])}, "observation holds NaN or infinity, expected finite numbers"),
        ({"observation": np.array([1e39, 0, 0])}, "observation holds 1e.39, expected numbers that float32 can hold"),
        ({"observation": "abc"}, "observation has dtype <U3, expected float32"),
        ({"observation": None}, "observation is None, expected an array of numbers"),
        ({"observation": np.zeros((2, 2, 3))}, r"observation has shape \(2, 2, 3\), expected \(3,\), or a batch of .*"),
        ({"observation": 1.0}, r"observation has shape \(\), expected \(3,\), or a batch of them"),
        ({"deterministic": "yes"}, "deterministic is 'yes', expected True or False"),
        ({"deterministic": None}, "deterministic is None, expected True or False"),
        ({"episode_start": [True, False]}, r"episode_start has shape \(2,\), expected \(\) or \(1,\)"),
        ({"episode_start": "no"}, "episode_start has dtype <U2, expected bool"),
        ({"episode_start": 0.5}, "episode_start holds 0.5, expected whole numbers"),
        ({"state": np.zeros(3)}, "state is given, expected None: the policy has no memory"),
    ],
)  # fmt: skip
def test_what_predict_does_not_take(plain, arguments, message):
    with pytest.raises(ValueError, match=f"^{message}\\.$"):
        plain.predict(**{"observation": np.zeros(3), **arguments})


@pytest.mark.parametrize(
    ("actions", "message"),
    [
        (4, "actions goes from 4 to 4, expected 5 to 7"),
        (np.int64(2**40), "actions goes from 1099511627776 to 1099511627776, expected 5 to 7"),
        (6.5, "actions holds 6.5, expected whole numbers"),
        (np.nan, "actions holds NaN or infinity, expected finite numbers"),
        ("6", "actions has dtype <U1, expected int64"),
        ([5, 6], r"actions has shape \(2,\), expected \(\)"),
        ({"a": 5}, "actions is a dict, expected an array of numbers"),
    ],
)
def test_actions_without_a_probability(plain, actions, message):
    with pytest.raises(ValueError, match=f"^{message}\\.$"):
        plain.action_probability(np.zeros(3), actions)


def test_several_actions_for_a_batch_of_another_size(plain):
    with pytest.raises(ValueError, match=r"actions has shape \(2,\), expected \(\) or \(4,\)\."):
        plain.action_probability(np.zeros((4, 3)), [5, 6])


GOOD = {"pixels": np.array([1, 2, 3, 255], np.uint8), "kind": -1, "x": [0.5, 1]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pixels": np.array([256, 0, 0, 0])}, "observation/pixels goes from 0 to 256, expected 0 to 255"),
        ({"pixels": [-1, 0, 0, 0]}, "observation/pixels goes from -1 to 0, expected 0 to 255"),
        ({"pixels": [0.5, 0, 0, 0]}, "observation/pixels holds 0.5, expected whole numbers"),
        ({"kind": 2}, "observation/kind goes from 2 to 2, expected -1 to 1"),
        ({"x": np.zeros((3, 2))}, r"observation/x has shape \(3, 2\), expected \(2,\)"),
        ({"kind": [0, 1, 1], "pixels": np.zeros((3, 4))}, r"observation/x has shape \(2,\), expected \(3, 2\)"),
        ({"more": 1}, r"observation is a mapping with the keys \['kind', 'more', 'pixels', 'x'\], expected .*"),
    ],
)
def test_values_that_a_dtype_would_change_or_an_embedding_does_not_have(nested, change, message):
    nested.predict(GOOD)
    with pytest.raises(ValueError, match=f"^{message}\\.$"):
        nested.predict({**GOOD, **change})


def test_probabilities_of_bools_and_of_small_whole_numbers(nested):
    action, _ = nested.predict(GOOD, deterministic=False)
    assert action["on"].dtype == bool
    found = nested.action_probability(GOOD)
    expected = found["dial"][int(action["dial"]) - 1] * np.prod(found["on"][np.arange(2), action["on"].astype(int)])
    np.testing.assert_allclose(nested.action_probability(GOOD, action), expected, rtol=1e-5)
    with pytest.raises(ValueError, match="actions/dial goes from 0 to 0, expected 1 to 200"):
        nested.action_probability(GOOD, {**action, "dial": np.uint8(0)})


def test_a_state_of_another_batch_or_policy(remembering):
    _, state = remembering.predict(np.zeros((2, 3)))
    _, single = remembering.predict(np.zeros(3))
    remembering.predict(np.zeros(3), {part: {k: x.tolist() for k, x in s.items()} for part, s in single.items()})
    shapes = r"has shape \({}\) and dtype float32, expected \({}\) and float32, as the last predict returned it"
    cases = [
        (np.zeros((4, 3)), state, shapes.format("2, 3", "4, 3")),
        (np.zeros(3), state, shapes.format("2, 3", "3,")),
        (np.zeros((4, 3)), single, shapes.format("3,", "4, 3")),
        (np.zeros(3), (), "state is a tuple, expected a mapping"),
        (np.zeros(3), {"a": 1}, r"state is a mapping with the keys \['a'\], expected"),
    ]
    for observation, kept, message in cases:
        with pytest.raises(ValueError, match=message):
            remembering.predict(observation, kept)


def test_a_mask_that_allows_nothing(masked):
    good, bad = np.array([1, 0, 0, 0, 1]), np.array([1, 1, 0, 0, 0])
    x = {"observation": np.zeros(2), "action_mask": good}
    assert masked.predict(x)[0].tolist() == [0, 2]
    message = "the action mask of observation allows no action at all{}, expected one for every component"
    for ask in (masked.predict, masked.action_probability):
        with pytest.raises(ValueError, match=message.format("")):
            ask({**x, "action_mask": bad})
        with pytest.raises(ValueError, match=message.format(" in row 1")):
            ask({"observation": np.zeros((2, 2)), "action_mask": [good, bad]})
    masked.value({**x, "action_mask": bad})  # Behind an episode's end nothing is allowed.
    forbidden = {"observations/observation": np.zeros((3, 2)), "observations/action_mask": [good] * 3}
    for actions, message in (([[0, 2]] * 3, None), ([[0, 2], [0, 1], [0, 2]], r"\[0, 1\] in step 1, expected what")):
        if message is None:
            masked.pretrain({**forbidden, "actions": actions}, 1)
            continue
        with pytest.raises(ValueError, match=message):
            masked.pretrain({**forbidden, "actions": actions}, 1)


def test_values_of_many_trainers_are_no_retracing(caplog):
    for size in range(1, 7):
        with trainer_of(spaces.Box(-9, 9, (3,)), spaces.Discrete(2)) as trainer:
            assert trainer.value(np.zeros((size, 3))).shape == (size,)
    assert "retracing" not in caplog.text
