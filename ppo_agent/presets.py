"""Settings that are known to train an environment well, each with its source, and general ones for all others.

A preset is found by the environment's name without namespace and version: `CartPole-v1` and `CartPole-v0` share one,
and all Atari games do.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Mapping
from typing import Any

from ppo_agent.common.environment_options import ATARI_PREFIX

AUTO, NONE = "auto", "none"


@dataclasses.dataclass(frozen=True)
class Preset:
    """Tuned settings.

    Attributes:
        source: where they come from.
        settings: values by name, see `ppo_agent.training.settings.Settings`.
    """

    source: str
    settings: Mapping[str, Any]


_RL_ZOO = "rl-baselines3-zoo, hyperparams/ppo.yml"
_TF_AGENTS = "TF-Agents' own MuJoCo runs (tf_agents/examples/ppo/schulman17)"
_RAW = {"normalize_observations": False, "normalize_rewards": False}
# By the returns' deviation: after 10^6 steps HalfCheetah has 6,051 with it and 1,825 with that of the rewards, Hopper
# 3,304 and 2,620 (one run each).
_NORMALIZED = {"normalize_observations": True, "normalize_rewards": True, "normalize_rewards_by": "return"}


def _mujoco(**settings: Any) -> Preset:
    """TF-Agents' settings, but for those that are given."""
    source = f"{_TF_AGENTS}, but for {', '.join(settings)}" if settings else _TF_AGENTS
    return Preset(source, {**_MUJOCO, **settings})


# Schulman et al., 2017, table 3, as TF-Agents runs it.
_MUJOCO = {
    "num_environments": 1,
    "total_environment_steps": 1_000_000,
    "collect_steps_per_iteration": 2048,
    "minibatch_size": 64,
    "num_epochs": 10,
    "learning_rate": 3e-4,
    "learning_rate_schedule": "linear",
    "discount_factor": 0.99,
    "lambda_value": 0.95,
    "importance_ratio_clipping": 0.2,
    "gradient_clipping": 0.5,
    **_NORMALIZED,
}

# Tianshou's MuJoCo runs (its examples/mujoco): rollouts of many environments, so that few steps follow one another. Its
# learning rate, 3e-4, makes steps with a KL divergence of 0.1 and more where actions have many components.
_MANY_ENVIRONMENTS = {**_MUJOCO, "num_environments": 64, "collect_steps_per_iteration": 32}

# There actions are scaled to [-1, 1] and log deviations begin with -0.5; these environments' reach from -0.4 to 0.4.
_HUMANOID = {
    **_MANY_ENVIRONMENTS,
    "learning_rate": 1e-4,
    "value_pred_loss_coef": 0.25,
    "initial_log_std": -1.5,
}

# Schulman et al., 2017, table 5, as rl-zoo runs it, with one torso.
_ATARI = {
    "num_environments": 8,
    "total_environment_steps": 10_000_000,
    "collect_steps_per_iteration": 128,
    "minibatch_size": 256,
    "num_epochs": 4,
    "learning_rate": 2.5e-4,
    "learning_rate_schedule": "linear",
    "importance_ratio_clipping": 0.1,
    "importance_ratio_clipping_schedule": "linear",
    "entropy_regularization": 0.01,
    "shared_torso": True,
    "actor_fc_layers": (512,),
    "activation": "relu",
    **_NORMALIZED,
}

_LUNAR_LANDER = {
    "num_environments": 16,
    "total_environment_steps": 1_000_000,
    "collect_steps_per_iteration": 1024,
    "minibatch_size": 64,
    "num_epochs": 4,
    "discount_factor": 0.999,
    "lambda_value": 0.98,
    "entropy_regularization": 0.01,
    **_RAW,
}

PRESETS: dict[str, Preset] = {
    "CartPole": Preset(
        f"{_RL_ZOO} (gamma, lambda, learning rate and its schedule), with whole episodes and smaller minibatches",
        {
            "num_environments": 8,
            "total_environment_steps": 100_000,
            "collect_episodes_per_iteration": 8,
            "minibatch_size": 64,
            "num_epochs": 10,
            "learning_rate": 1e-3,
            "learning_rate_schedule": "linear",
            "discount_factor": 0.98,
            "lambda_value": 0.8,
            **_RAW,
        },
    ),
    "Pendulum": Preset(
        f"{_RL_ZOO}, without its state-dependent exploration, but with more steps and a learning rate that falls; "
        "20 episodes have 4,000 steps",
        {
            "num_environments": 4,
            "total_environment_steps": 300_000,
            "collect_episodes_per_iteration": 20,
            "minibatch_size": 64,
            "num_epochs": 10,
            "learning_rate": 1e-3,
            "learning_rate_schedule": "linear",
            "discount_factor": 0.9,
            "lambda_value": 0.95,
            **_RAW,
        },
    ),
    "MountainCarContinuous": Preset(
        f"{_RL_ZOO} (discount), with a large first standard deviation in place of its state-dependent exploration",
        {
            "num_environments": 4,
            "total_environment_steps": 100_000,
            "collect_steps_per_iteration": 256,
            "minibatch_size": 64,
            "num_epochs": 10,
            "discount_factor": 0.999,
            "lambda_value": 0.98,
            "initial_log_std": 1.0,
            **_NORMALIZED,
        },
    ),
    # With rl-zoo's short rollouts and constant learning rate, two seeds of four end above -110 steps, which counts as
    # solved.
    "MountainCar": Preset(
        f"{_RL_ZOO} (environments, lambda), with longer rollouts and a learning rate that falls",
        {
            "num_environments": 16,
            "total_environment_steps": 1_000_000,
            "collect_steps_per_iteration": 64,
            "minibatch_size": 256,
            "num_epochs": 10,
            "learning_rate": 1e-3,
            "learning_rate_schedule": "linear",
            "discount_factor": 0.99,
            "lambda_value": 0.98,
            **_NORMALIZED,
        },
    ),
    "Acrobot": Preset(
        _RL_ZOO,
        {
            "num_environments": 16,
            "total_environment_steps": 1_000_000,
            "collect_steps_per_iteration": 256,
            "minibatch_size": 64,
            "num_epochs": 4,
            "discount_factor": 0.99,
            "lambda_value": 0.94,
            **_NORMALIZED,
        },
    ),
    "LunarLander": Preset(_RL_ZOO, _LUNAR_LANDER),
    "LunarLanderContinuous": Preset(_RL_ZOO, _LUNAR_LANDER),
    "BipedalWalker": Preset(
        f"{_RL_ZOO}, with shorter rollouts and a learning rate that falls, so that fewer steps do",
        {
            "num_environments": 8,
            "total_environment_steps": 1_000_000,
            "collect_steps_per_iteration": 512,
            "minibatch_size": 64,
            "num_epochs": 10,
            "learning_rate_schedule": "linear",
            "discount_factor": 0.99,
            "lambda_value": 0.95,
            "importance_ratio_clipping": 0.18,
            **_NORMALIZED,
        },
    ),
    # Discount and lambda of rl-zoo; its deviation, log -2, learns less here.
    "HalfCheetah": _mujoco(discount_factor=0.98, lambda_value=0.92, initial_log_std=-1.0),
    "Hopper": _mujoco(),
    "Walker2d": _mujoco(),
    "Ant": Preset(
        "Tianshou's MuJoCo runs, rl-zoo's discount and lambda for HalfCheetah, half the learning rate",
        {
            **_MANY_ENVIRONMENTS,
            "learning_rate": 1.5e-4,
            "discount_factor": 0.98,
            "lambda_value": 0.92,
            "initial_log_std": -1.0,
        },
    ),
    "Humanoid": Preset(
        "Tianshou's MuJoCo runs (examples/mujoco), a smaller learning rate, a deviation for its range of actions",
        _HUMANOID,
    ),
    "HumanoidStandup": Preset("that of Humanoid", _HUMANOID),
    # What the arm does pays within a few steps.
    "Reacher": _mujoco(learning_rate=1e-3, discount_factor=0.95, initial_log_std=-1.0),
    "InvertedPendulum": _mujoco(),
    # Divided by the returns' deviation, rewards teach it policies that now and then fall.
    "InvertedDoublePendulum": _mujoco(normalize_rewards_by="reward"),
    "Atari": Preset(
        f"{_RL_ZOO}, but rewards divided by the returns' deviation instead of clipped to their sign", _ATARI
    ),
    # Discount and lambda are what lets it leave its local optimum, a return of about 130.
    "Swimmer": Preset(
        f"{_RL_ZOO} (discount), with several environments and a larger lambda",
        {
            **_MUJOCO,
            "num_environments": 4,
            "collect_steps_per_iteration": 512,
            "learning_rate_schedule": "constant",
            "discount_factor": 0.9999,
            "lambda_value": 0.99,
        },
    ),
}


def check_name(name: str) -> None:
    """Raises ValueError unless `name` is `auto`, `none` or the name of a preset or of its environment."""
    if name in (AUTO, NONE) or find(name) is not None:
        return
    close = difflib.get_close_matches(family(name), PRESETS, n=1)
    hint = f" (did you mean {close[0]}?)" if close else ""
    raise ValueError(f"preset is {name!r}, expected {AUTO}, {NONE} or one of {', '.join(PRESETS)}{hint}.")


def family(env_name: str) -> str:
    """`module:namespace/Name-v1` -> `Name`; all games of the Arcade Learning Environment, `ALE/Name-v5` -> `Atari`."""
    if env_name.startswith(ATARI_PREFIX):
        return "Atari"
    return re.sub(r"-v\d+$", "", env_name.rsplit(":", 1)[-1].rsplit("/", 1)[-1])


def find(env_name: str) -> Preset | None:
    """The preset of an environment or of that name, None if there is none."""
    return PRESETS.get(family(env_name))


def general(*, continuous_actions: bool, images: bool) -> Preset:
    """Settings for an environment that nothing is known of.

    Args:
        continuous_actions: whether an action has a floating-point part.
        images: whether an observation has images in it.

    Returns:
        Those of `_MUJOCO` for continuous actions; else several environments and short rollouts, which suit most
        discrete tasks. Numbers in observations are normalised, categories and images are not.
    """
    if images:
        return Preset("general, images: those of Atari games", {**_ATARI, "total_environment_steps": 1_000_000})
    if continuous_actions:
        return Preset(f"general, continuous actions: {_TF_AGENTS}", _MUJOCO)
    discrete = {
        "num_environments": 8,
        "total_environment_steps": 500_000,
        "collect_steps_per_iteration": 256,
        "minibatch_size": 64,
        "num_epochs": 4,
        "entropy_regularization": 0.01,
    }
    return Preset("general, discrete actions", {**discrete, **_NORMALIZED})
