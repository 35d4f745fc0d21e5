"""stable-baselines3 in CartPole-v1 with rl-zoo's settings, until the last 100 training episodes have a mean of 475."""

from __future__ import annotations

import tempfile
from typing import Any

import numpy as np
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.logger import configure

from benchmarks import measure

THRESHOLD, EPISODES, TOTAL_STEPS = 475.0, 100, 100_000


class Watch(BaseCallback):
    """Ends the run when the threshold is reached."""

    def __init__(self) -> None:
        """Nothing is reached yet."""
        super().__init__()
        self.seconds: float | None = None
        self._reached = False

    def mean_return(self) -> float:
        """Of the last 100 episodes; 0 while there are fewer."""
        episodes = self.model.ep_info_buffer
        return float(np.mean([episode["r"] for episode in episodes])) if len(episodes) == EPISODES else 0.0

    def _on_rollout_end(self) -> None:
        self._reached = self.mean_return() >= THRESHOLD

    def _on_rollout_start(self) -> None:
        # After the update: this package is asked then, too.
        if self._reached:
            self.seconds = measure.seconds_since_start()

    def _on_step(self) -> bool:
        return self.seconds is None


def main() -> None:
    """Runs what the command line asks for."""
    arguments = measure.parse()
    torch.set_num_threads(arguments.threads or 1)
    env, watch = make_vec_env("CartPole-v1", n_envs=8, seed=arguments.seed), Watch()
    model = PPO(
        "MlpPolicy",
        env,
        n_steps=32,
        batch_size=256,
        n_epochs=20,
        gamma=0.98,
        gae_lambda=0.8,
        ent_coef=0.0,
        learning_rate=lambda left: 1e-3 * left,
        clip_range=lambda left: 0.2 * left,
        seed=arguments.seed,
        device="cpu",
    )
    with tempfile.TemporaryDirectory() as folder:
        model.set_logger(configure(folder, ["tensorboard"]))
        model.learn(TOTAL_STEPS, callback=watch)
    result: dict[str, Any] = {
        # A run that does not get there in rl-zoo's 100,000 steps counts with the time that it took.
        "seconds_to_475": watch.seconds or measure.seconds_since_start(),
        "reached": watch.seconds is not None,
        "steps_to_475": model.num_timesteps,
        "return_mean": watch.mean_return(),
        "peak_memory_mb": measure.peak_memory_mb(),
        "other_cores": 0.0,
    }
    measure.emit({"peer": "stable-baselines3", **result}, arguments, "stable-baselines3", "torch", "gymnasium", "numpy")


if __name__ == "__main__":
    main()
