"""stable-baselines3 (PyTorch) with its vectorised environments, Monitor, VecNormalize and TensorBoard logger."""

from __future__ import annotations

import tempfile
from typing import Any

import numpy as np
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.logger import configure
from stable_baselines3.common.vec_env import SubprocVecEnv, VecEnv, VecNormalize

from benchmarks import environments, measure, workloads
from benchmarks.workloads import Workload

_ENDLESS = 10**9


class Laps(BaseCallback):
    """Tells the meter where an iteration's parts end, and ends the run."""

    def __init__(self, meter: measure.Meter) -> None:
        """Takes the meter."""
        super().__init__()
        self._meter, self._is_first, self._goes_on = meter, True, True

    def _on_rollout_start(self) -> None:
        # The previous update, and the log behind it, end here.
        if not self._is_first:
            self._goes_on = self._meter.updated()
        self._is_first = False

    def _on_rollout_end(self) -> None:
        self._meter.collected()

    def _on_step(self) -> bool:
        return self._goes_on


def make_environment(arguments: measure.Arguments) -> VecEnv:
    """The workload's environments, each with a Monitor."""
    workload = arguments.workload
    env = make_vec_env(
        environments.maker(workload),
        n_envs=workload.num_environments,
        seed=arguments.seed,
        vec_env_cls=SubprocVecEnv if arguments.option == "async" else None,
    )
    return VecNormalize(env, gamma=workloads.DISCOUNT) if workload.normalize and workload.env_name else env


def make_model(arguments: measure.Arguments, env: VecEnv, algorithm: Any) -> Any:
    """The agent of a workload; `algorithm` is a class with the signature of stable-baselines3's PPO."""
    workload = arguments.workload
    policy, policy_kwargs = _policy(workload)
    return algorithm(
        policy,
        env,
        learning_rate=workload.learning_rate,
        n_steps=workload.num_steps,
        batch_size=workload.minibatch_size,
        n_epochs=workload.num_epochs,
        gamma=workloads.DISCOUNT,
        gae_lambda=workloads.LAMBDA,
        clip_range=workloads.CLIPPING,
        ent_coef=workload.entropy,
        vf_coef=workloads.VALUE_COEFFICIENT,
        max_grad_norm=workloads.GRADIENT_CLIPPING,
        policy_kwargs=policy_kwargs,
        seed=arguments.seed,
        device="cpu",
    )


def _policy(workload: Workload) -> tuple[str, dict[str, Any]]:
    """Policy and its arguments; the defaults are tanh layers and Adam with epsilon 1e-5."""
    if workload.images:
        return "CnnPolicy", {"net_arch": []}
    if workload.lstm_units:
        # The LSTM comes first there, the hidden layer behind it.
        return "MlpLstmPolicy", {"net_arch": list(workload.hidden), "lstm_hidden_size": workload.lstm_units}
    return "MlpPolicy", {"net_arch": list(workload.hidden)}


def train(arguments: measure.Arguments, algorithm: Any) -> dict[str, Any]:
    """Runs a workload with an environment."""
    meter = measure.Meter(arguments)
    env = make_environment(arguments)
    model = make_model(arguments, env, algorithm)
    with tempfile.TemporaryDirectory() as log_dir:
        model.set_logger(configure(log_dir, ["tensorboard"]))
        model.learn(_ENDLESS, callback=Laps(meter))
    result = meter.report(return_mean=float(np.mean([episode["r"] for episode in model.ep_info_buffer])))
    env.close()
    return result


def learn(arguments: measure.Arguments, algorithm: Any) -> dict[str, Any]:
    """Runs a learner-only workload on a rollout buffer of random numbers."""
    model = make_model(arguments, make_environment(arguments), algorithm)
    _fill(model.rollout_buffer, arguments)
    meter, more = measure.Meter(arguments), True
    with tempfile.TemporaryDirectory() as log_dir:
        model.set_logger(configure(log_dir, ["tensorboard"]))
        while more:
            model.train()
            model.logger.dump()
            # `train` flattens the buffer in place; a new rollout would bring it back.
            more = meter.updated()
    return meter.report()


def _fill(buffer: Any, arguments: measure.Arguments) -> None:
    """Puts random experience into the buffer."""
    workload, rng = arguments.workload, np.random.default_rng(arguments.seed)
    outer = (workload.num_steps, workload.num_environments)
    observations = environments.random_observations(workload, rng, *outer)
    buffer.observations[:] = np.moveaxis(observations, -1, -3) if workload.images else observations
    buffer.actions[:] = environments.random_actions(workload, rng, *outer).reshape(buffer.actions.shape)
    buffer.log_probs[:] = -np.log(environments.IMAGE_ACTIONS) if workload.images else -8.5
    for values in (buffer.advantages, buffer.returns, buffer.values):
        values[:] = rng.standard_normal(outer)
    buffer.full = True


def _algorithm(workload: Workload) -> Any:
    if not workload.lstm_units:
        return PPO
    from sb3_contrib import RecurrentPPO

    return RecurrentPPO


def run(arguments: measure.Arguments, algorithm: Any) -> dict[str, Any]:
    """Runs what the command line asks for."""
    torch.set_num_threads(arguments.threads or 1)
    return (train if arguments.workload.env_name else learn)(arguments, algorithm)


def main() -> None:
    """Runs and reports."""
    arguments = measure.parse()
    result = run(arguments, _algorithm(arguments.workload))
    measure.emit({"peer": "stable-baselines3", **result}, arguments, "stable-baselines3", "torch", "gymnasium", "numpy")


if __name__ == "__main__":
    main()
