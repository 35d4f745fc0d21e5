"""What others have published of PPO in the environments of `benchmarks.learning`."""

from __future__ import annotations

from typing import NamedTuple


class Published(NamedTuple):
    """Mean returns that others have published; for other versions of the environments, see the report.

    Attributes:
        zoo: of rl-zoo's PPO (stable-baselines3, one run), None if there is none.
        zoo_std: standard deviation over the episodes of its evaluation.
        tf_agents: of TF-Agents' own PPO (three runs, one million steps), None if there is none.
        tianshou: of Tianshou's PPO, the best of a training of one million steps (ten runs), None if there is none.
        tianshou_long: the same of three million steps.
    """

    zoo: float | None
    zoo_std: float | None = None
    tf_agents: float | None = None
    tianshou: float | None = None
    tianshou_long: float | None = None


PUBLISHED = {
    "CartPole": Published(500.0, 0.0),
    "Acrobot": Published(-73.5, 18.2),
    "MountainCar": Published(-110.4, 19.5),
    "MountainCarContinuous": Published(88.3, 2.6),
    "Pendulum": Published(-172.2, 104.0),
    "LunarLander": Published(242.0, 32.0),
    "LunarLanderContinuous": Published(271.0, 32.0),
    "BipedalWalker": Published(213.0, 129.0),
    "HalfCheetah": Published(5819.0, 664.0, 4239.0, 5784.0, 7337.0),
    "Hopper": Published(2410.0, 10.0, 2530.0, 2609.0),
    "Walker2d": Published(3479.0, 822.0, 2971.0, 3589.0),
    "Swimmer": Published(281.6, 9.7, 46.87, 67.0),
    "Reacher": Published(None, None, -7.71, -4.1),
    "InvertedPendulum": Published(None, None, 1000.0, 1000.0),
    "InvertedDoublePendulum": Published(None, None, 9353.0, 9231.0),
    "Ant": Published(1327.0, 452.0, None, 3258.0, 4079.0),
    "Humanoid": Published(None, None, None, 787.0, 1360.0),
}


def of(environment: str) -> Published:
    """What is known of an environment, a gymnasium id with its version."""
    return PUBLISHED.get(environment.rsplit("-v", 1)[0], Published(None))
