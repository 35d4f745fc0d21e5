import sys

import gymnasium as gym
import pytest
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from toy_environments import Counter, Spaces

from ppo_agent.drivers import GymnasiumEnvironment


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"env_name": "Nope-v0"}, ValueError, r"env_name is 'Nope-v0', expected an environment .*doesn't exist"),
        ({"env_name": "CartPole-v99"}, ValueError, r"env_name is 'CartPole-v99', .*version `v99`.* doesn't exist"),
        ({"env_name": "not an id"}, ValueError, r"env_name is 'not an id', .*Malformed"),
        ({"env_name": "nomodule:X-v0"}, ValueError, r"env_name is 'nomodule:X-v0', .*No module named 'nomodule'"),
        ({"env_name": 3}, TypeError, r"env_name is 3, expected a gymnasium id"),
        ({"env_name": lambda: 3}, TypeError, r"the callable given as env_name returned 3"),
        ({"num_environments": 0}, ValueError, r"num_environments is 0, expected a positive int"),
        ({"num_environments": 2.0}, ValueError, r"num_environments is 2.0, expected a positive int"),
        ({"seed": -1}, ValueError, r"seed is -1, expected None or an int of at least 0"),
        ({"seed": "a"}, ValueError, r"seed is 'a', expected None or an int of at least 0"),
        ({"vectorization": "threads"}, ValueError, r"vectorization is 'threads', expected one of auto, sync, async"),
        ({"env_kwargs": {"nothing": 1}}, ValueError, r"env_kwargs do not fit env_name 'CartPole-v1': .*'nothing'"),
        ({"env_name": "Acrobot-v1", "vectorization": "vector_entry_point"}, ValueError, r"vector entry point"),
        ({"env_name": Counter, "vectorization": "vector_entry_point"}, ValueError, r"which needs a gymnasium id"),
    ],
)
def test_bad_arguments(arguments, error, text):
    with pytest.raises(error, match=text) as info:
        GymnasiumEnvironment(**{"env_name": "CartPole-v1", **arguments})
    assert "\n" not in str(info.value)
    assert str(info.value).endswith(".")


@pytest.mark.parametrize(
    ("env_name", "extra", "modules"),
    [
        ("LunarLander-v3", "box2d", ["Box2D"]),
        ("HalfCheetah-v5", "mujoco", ["mujoco"]),
        ("HalfCheetah-v5", "mujoco", ["imageio"]),
        ("ALE/Pong-v5", "atari", ["ale_py"]),
    ],
)
def test_a_missing_extra_is_named(env_name, extra, modules, monkeypatch):
    """Whether or not the extra is installed here."""
    for module in list(sys.modules):
        if module.startswith(("gymnasium.envs.box2d", "gymnasium.envs.mujoco")):
            monkeypatch.delitem(sys.modules, module)
    for module in modules:
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ValueError, match=rf"'{env_name}', .* run pip install \"ppo-agent\[{extra}\]\"\.$"):
        GymnasiumEnvironment(env_name)


def test_another_missing_package_is_named(monkeypatch):
    def make():
        raise ModuleNotFoundError("No module named 'jax'")

    gym.register("NeedsMore-v0", make)
    try:
        with pytest.raises(ValueError, match=r"env_name is 'NeedsMore-v0', which cannot be imported: .*'jax'"):
            GymnasiumEnvironment("NeedsMore-v0")
    finally:
        del gym.registry["NeedsMore-v0"]


def test_errors_of_the_environment_itself_pass():
    def make():
        raise RuntimeError("no licence")

    with pytest.raises(RuntimeError, match="no licence"):
        GymnasiumEnvironment(make)


@pytest.mark.parametrize("space", [spaces.Text(5), spaces.Sequence(spaces.Discrete(2))])
def test_unsupported_spaces(space):
    box = spaces.Box(-1, 1, [2])
    with pytest.raises(ValueError, match=r"the environment's observation space is .*, expected Box, Discrete"):
        GymnasiumEnvironment(lambda: Spaces(space, box))
    with pytest.raises(ValueError, match=r"the environment's action/1 space is .*, expected Box, Discrete"):
        GymnasiumEnvironment(lambda: Spaces(box, spaces.Tuple([box, space])))


def test_a_ready_vector_environment_has_decided():
    with pytest.raises(ValueError, match=r"num_environments is 3, but the vector environment has 2\."):
        GymnasiumEnvironment(SyncVectorEnv([Counter] * 2), num_environments=3)
    with pytest.raises(ValueError, match=r"have no meaning for a ready vector environment"):
        GymnasiumEnvironment(SyncVectorEnv([Counter] * 2), vectorization="async")


def test_a_vector_environment_without_autoreset():
    with pytest.raises(ValueError, match=r"AutoresetMode.DISABLED, expected AutoresetMode.NEXT_STEP or SAME_STEP"):
        GymnasiumEnvironment(SyncVectorEnv([Counter], autoreset_mode=AutoresetMode.DISABLED))


def test_render_without_frames():
    with (
        GymnasiumEnvironment(Counter) as env,
        pytest.raises(ValueError, match=r"render_mode is None, expected 'rgb_array'"),
    ):
        env.render()


def test_arguments_of_an_environment_are_a_dict() -> None:
    with pytest.raises(TypeError, match=r"env_kwargs is 'text', expected a dict of keyword arguments\."):
        GymnasiumEnvironment("CartPole-v1", env_kwargs="text")  # type: ignore[arg-type]
