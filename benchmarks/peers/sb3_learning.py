"""stable-baselines3 with rl-zoo's settings, which writes the same files as `ppo-train`: see `benchmarks.learning`."""

from __future__ import annotations

import argparse
import csv
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import VecEnv, VecNormalize

_RELU = {"net_arch": [256, 256], "activation_fn": torch.nn.ReLU, "log_std_init": -2, "ortho_init": False}
_LUNAR_LANDER = {"n_envs": 16, "n_steps": 1024, "batch_size": 64, "n_epochs": 4, "gamma": 0.999, "gae_lambda": 0.98,
                 "ent_coef": 0.01}  # fmt: skip


def _falling(first: float) -> Any:
    """A schedule in stable-baselines3's manner, of what is left of the run."""
    return lambda left: first * left


# rl-baselines3-zoo, hyperparams/ppo.yml; `n_envs`, `steps` and `normalize` are for this script, the rest for PPO.
SETTINGS: dict[str, dict[str, Any]] = {
    "CartPole": {"n_envs": 8, "steps": 100_000, "n_steps": 32, "batch_size": 256, "n_epochs": 20, "gamma": 0.98,
                 "gae_lambda": 0.8, "learning_rate": _falling(1e-3), "clip_range": _falling(0.2)},
    "LunarLander": _LUNAR_LANDER,
    "LunarLanderContinuous": _LUNAR_LANDER,
    "HalfCheetah": {"normalize": True, "n_steps": 512, "batch_size": 64, "n_epochs": 20, "gamma": 0.98,
                    "gae_lambda": 0.92, "learning_rate": 2.0633e-5, "clip_range": 0.1, "ent_coef": 0.000401762,
                    "max_grad_norm": 0.8, "vf_coef": 0.58096, "policy_kwargs": _RELU},
    "Hopper": {"normalize": True, "n_steps": 512, "batch_size": 32, "n_epochs": 5, "gamma": 0.999, "gae_lambda": 0.99,
               "learning_rate": 9.80828e-5, "ent_coef": 0.00229519, "max_grad_norm": 0.7, "vf_coef": 0.835671,
               "policy_kwargs": _RELU},
    "Walker2d": {"normalize": True, "n_steps": 512, "batch_size": 32, "n_epochs": 20, "learning_rate": 5.05041e-5,
                 "clip_range": 0.1, "ent_coef": 0.000585045, "max_grad_norm": 1.0, "vf_coef": 0.871923},
    "Swimmer": {"normalize": True, "gamma": 0.9999},
    "Ant": {"normalize": True},
}  # fmt: skip


class Table(BaseCallback):
    """Writes a row of metrics.csv after each rollout."""

    def __init__(self, path: Path) -> None:
        """Names the file, which is written anew."""
        super().__init__()
        self._path, self._start = path, time.perf_counter()
        with path.open("w", newline="") as file:
            csv.writer(file).writerow(["environment_steps", "wall_time_s", "episode_return_mean"])
        self._returns: list[float] = []

    def _on_step(self) -> bool:
        self._returns += [info["episode"]["r"] for info in self.locals["infos"] if "episode" in info]
        return True

    def _on_rollout_end(self) -> None:
        mean = np.mean(self._returns) if self._returns else "nan"
        with self._path.open("a", newline="") as file:
            csv.writer(file).writerow([self.num_timesteps, round(time.perf_counter() - self._start, 3), mean])
        self._returns = []


def make_env(env_name: str, settings: dict[str, Any], seed: int, *, training: bool) -> VecEnv:
    """The environments of training or of evaluation."""
    env = make_vec_env(env_name, n_envs=settings.get("n_envs", 1) if training else 1, seed=seed)
    if not settings.get("normalize"):
        return env
    return VecNormalize(env, gamma=settings.get("gamma", 0.99), training=training, norm_reward=training)


def train(env_name: str, seed: int, root_dir: Path, num_episodes: int, steps: int | None) -> dict[str, Any]:
    """Trains and evaluates; returns what result.json holds."""
    settings = SETTINGS[env_name.rsplit("-v", 1)[0]]
    steps = steps or settings.get("steps", 1_000_000)
    own = {key: value for key, value in settings.items() if key not in ("n_envs", "steps", "normalize")}
    env, start = make_env(env_name, settings, seed, training=True), time.perf_counter()
    model = PPO("MlpPolicy", env, seed=seed, device="cpu", **own)
    model.learn(steps, callback=Table(root_dir / "metrics.csv"))
    seconds = time.perf_counter() - start
    final = [episode["r"] for episode in model.ep_info_buffer]
    other = make_env(env_name, settings, seed + 1_000_003, training=False)
    if isinstance(env, VecNormalize):
        other.obs_rms = env.obs_rms
    returns, _ = evaluate_policy(model, other, num_episodes, deterministic=True, return_episode_rewards=True)
    return {
        "env_name": env_name,
        "seed": seed,
        "environment_steps": model.num_timesteps,
        "wall_time_s": round(seconds, 3),
        "steps_per_second": round(model.num_timesteps / seconds, 1),
        "final_train_return_mean": float(np.mean(final)),
        "eval_return_mean": float(np.mean(returns)),
        "eval_return_std": float(np.std(returns)),
        "num_eval_episodes": num_episodes,
    }


def main() -> None:
    """Runs what the command line asks for."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--env_name", required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--root_dir", type=Path, required=True)
    parser.add_argument("--num_eval_episodes", type=int, default=100)
    parser.add_argument("--total_environment_steps", type=int, help="rl-zoo's, if it is not given")
    parser.add_argument("--progress", help="for the likeness with ppo-train")
    values = parser.parse_args()
    torch.set_num_threads(1)
    values.root_dir.mkdir(parents=True, exist_ok=True)
    result = train(
        values.env_name, values.seed, values.root_dir, values.num_eval_episodes, values.total_environment_steps
    )
    (values.root_dir / "result.json").write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
