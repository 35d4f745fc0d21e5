"""From a name on the command line to environments."""

from __future__ import annotations

from ppo_agent.drivers import GymnasiumEnvironment, atari, vector_envs

# Atari games have a vectorised form of their own and no other.
_OF_GAMES = ("auto", "vector_entry_point")


def make_environment(
    env_name: str,
    *,
    num_environments: int = 1,
    seed: int | None = None,
    vectorization: str = "auto",
    is_training: bool = False,
) -> GymnasiumEnvironment:
    """Makes the environments that a name stands for.

    Args:
        env_name: a gymnasium id. Atari games (`ALE/Name-v5`) come with the preprocessing of `drivers.atari`.
        num_environments: how many.
        seed: of the first episodes.
        vectorization: see `GymnasiumEnvironment`.
        is_training: whether an agent learns in them, rather than being evaluated.

    Raises:
        ValueError: there is no such environment, a package is missing, or it is of no use for PPO.
    """
    if env_name.startswith(atari.PREFIX):
        if vectorization not in _OF_GAMES:
            raise ValueError(f"vectorization is {vectorization}, expected auto: Atari games are stepped in threads.")
        games = vector_envs.make_named(
            lambda: atari.make_atari_env(env_name, num_environments, ends_with_life=is_training), env_name
        )
        return GymnasiumEnvironment(games, seed=seed)
    return GymnasiumEnvironment(env_name, num_environments=num_environments, seed=seed, vectorization=vectorization)
