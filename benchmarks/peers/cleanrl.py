"""PPO over EnvPool as CleanRL runs it (PyTorch): its published settings and structure, written anew.

One loop: `envpool.make`, a preallocated storage of tensors, generalised advantages, shuffled minibatches with clipped
value losses. Its wrappers for normalisation run in NumPy over all environments.
"""

from __future__ import annotations

import tempfile
from typing import Any

import envpool
import numpy as np
import torch
from torch import nn
from torch.distributions import Categorical, Independent, Normal
from torch.utils.tensorboard import SummaryWriter

from benchmarks import measure, workloads
from benchmarks.workloads import Workload


def _layer(layer: Any, gain: float = 2**0.5) -> Any:
    nn.init.orthogonal_(layer.weight, gain)
    nn.init.constant_(layer.bias, 0.0)
    return layer


def _mlp(inputs: int, hidden: tuple[int, ...], outputs: int, gain: float) -> nn.Sequential:
    layers: list[nn.Module] = []
    for size in hidden:
        layers += [_layer(nn.Linear(inputs, size)), nn.Tanh()]
        inputs = size
    return nn.Sequential(*layers, _layer(nn.Linear(inputs, outputs), gain))


def _convolutions(channels: int, hidden: int) -> nn.Sequential:
    """The network of Mnih et al., 2015, for images of 84 x 84."""
    convolutions = []
    for inputs, outputs, size, stride in ((channels, 32, 8, 4), (32, 64, 4, 2), (64, 64, 3, 1)):
        convolutions += [_layer(nn.Conv2d(inputs, outputs, size, stride=stride)), nn.ReLU()]
    return nn.Sequential(*convolutions, nn.Flatten(), _layer(nn.Linear(64 * 7 * 7, hidden)), nn.ReLU())


class Agent(nn.Module):
    """Actor and critic, with a torso in common for images."""

    def __init__(self, env: Any, workload: Workload) -> None:
        """Makes the networks for the spaces of an EnvPool object."""
        super().__init__()
        self._is_discrete = hasattr(env.action_space, "n")
        outputs = int(env.action_space.n) if self._is_discrete else int(np.prod(env.action_space.shape))
        self._torso: nn.Module = nn.Identity()
        shape, hidden = env.observation_space.shape, workload.hidden
        self._is_image = len(shape) == 3
        if self._is_image:
            self._torso, size, hidden = _convolutions(shape[0], hidden[0]), hidden[0], ()
        else:
            size = int(np.prod(shape))
        self._actor, self._critic = _mlp(size, hidden, outputs, 0.01), _mlp(size, hidden, 1, 1.0)
        self._log_std = None if self._is_discrete else nn.Parameter(torch.zeros(outputs))

    def value(self, observation: torch.Tensor) -> torch.Tensor:
        """Values [n]."""
        return self._critic(self._features(observation)).flatten()

    def evaluate(self, observation: torch.Tensor, action: torch.Tensor | None = None) -> tuple[torch.Tensor, ...]:
        """Actions (sampled if there are none), their log-probabilities, entropies and values."""
        features = self._features(observation)
        output = self._actor(features)
        if self._log_std is None:
            distribution: Any = Categorical(logits=output)
        else:
            distribution = Independent(Normal(output, self._log_std.exp().expand_as(output)), 1)
        action = distribution.sample() if action is None else action
        return action, distribution.log_prob(action), distribution.entropy(), self._critic(features).flatten()

    def _features(self, observation: torch.Tensor) -> torch.Tensor:
        return self._torso(observation / 255.0 if self._is_image else observation)


class Moments:
    """Running mean and variance, as gymnasium's wrappers keep them."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        """Knows nothing yet."""
        self.mean, self.variance, self._count = np.zeros(shape), np.ones(shape), 1e-4

    def update(self, batch: np.ndarray) -> None:
        """Takes in a batch [n, ...]."""
        mean, variance, count = batch.mean(axis=0), batch.var(axis=0), len(batch)
        delta, total = mean - self.mean, self._count + count
        second = self.variance * self._count + variance * count + delta**2 * self._count * count / total
        self.mean, self.variance, self._count = self.mean + delta * count / total, second / total, total


class Environments:
    """An EnvPool object, with observations and rewards normalised if the workload asks for it."""

    def __init__(self, workload: Workload, seed: int) -> None:
        """Makes the environments."""
        name = str(workload.env_name).removeprefix("ALE/")
        self.pool = envpool.make(name, env_type="gymnasium", num_envs=workload.num_environments, seed=seed)
        self._normalizes = workload.normalize and not workload.images
        self._observations = Moments(self.pool.observation_space.shape)
        self._return_moments, self._returns = Moments(()), np.zeros(workload.num_environments)
        self._episode_returns, self.finished = np.zeros(workload.num_environments), [0.0]

    def reset(self) -> torch.Tensor:
        """First observations."""
        return self._normalized(self.pool.reset()[0])

    def step(self, action: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Observations, rewards and whether episodes ended, float32 [n, ...]."""
        array = action.numpy()
        array = array.astype(np.int32) if array.dtype.kind == "i" else np.clip(array, -1, 1).astype(np.float64)
        observation, reward, terminated, truncated, _ = self.pool.step(array)
        done = terminated | truncated
        self._episode_returns += reward
        if done.any():
            self.finished += self._episode_returns[done].tolist()
            self._episode_returns[done] = 0.0
        if self._normalizes:
            self._returns = self._returns * workloads.DISCOUNT * (1 - terminated) + reward
            self._return_moments.update(self._returns)
            reward = np.clip(reward / np.sqrt(self._return_moments.variance + 1e-8), -10, 10)
        return self._normalized(observation), _tensor(reward), _tensor(done)

    def _normalized(self, observation: np.ndarray) -> torch.Tensor:
        if self._normalizes:
            self._observations.update(observation)
            deviation = np.sqrt(self._observations.variance + 1e-8)
            observation = np.clip((observation - self._observations.mean) / deviation, -10, 10)
        return _tensor(observation)


def _tensor(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.asarray(array, np.float32))


def advantages_of(
    rewards: torch.Tensor, values: torch.Tensor, dones: torch.Tensor, last_value: torch.Tensor, last_done: torch.Tensor
) -> torch.Tensor:
    """Generalised advantages [T, n]; an episode that is cut short by time counts as ended, as there."""
    advantages, running = torch.zeros_like(rewards), torch.zeros_like(last_value)
    next_value, alive = last_value, 1.0 - last_done
    for step in reversed(range(len(rewards))):
        delta = rewards[step] + workloads.DISCOUNT * next_value * alive - values[step]
        running = delta + workloads.DISCOUNT * workloads.LAMBDA * alive * running
        advantages[step], next_value, alive = running, values[step], 1.0 - dones[step]
    return advantages


class Trainer:
    """Collects and trains, an iteration at a time."""

    def __init__(self, workload: Workload, seed: int) -> None:
        """Makes everything."""
        self._workload, self.env = workload, Environments(workload, seed)
        self._agent = Agent(self.env.pool, workload)
        self._optimizer = torch.optim.Adam(
            self._agent.parameters(), lr=workload.learning_rate, eps=workloads.ADAM_EPSILON
        )
        self._observation, self._done = self.env.reset(), torch.zeros(workload.num_environments)

    def collect(self) -> list[torch.Tensor]:
        """Observations, actions, log-probabilities, advantages, returns and values of a rollout, [T * n, ...]."""
        rows = []
        with torch.no_grad():
            for _ in range(self._workload.num_steps):
                observation, done = self._observation, self._done
                action, log_prob, _, value = self._agent.evaluate(observation)
                self._observation, reward, self._done = self.env.step(action)
                rows.append((observation, action, log_prob, reward, done, value))
            observations, actions, log_probs, rewards, dones, values = map(torch.stack, zip(*rows, strict=True))
            last_value = self._agent.value(self._observation)
            advantages = advantages_of(rewards, values, dones, last_value, self._done)
        stored = (observations, actions, log_probs, advantages, advantages + values, values)
        return [tensor.flatten(0, 1) for tensor in stored]

    def update(self, rows: list[torch.Tensor]) -> list[float]:
        """All gradient steps; returns the losses of the last one."""
        size = self._workload.minibatch_size
        for _ in range(self._workload.num_epochs):
            order = torch.randperm(len(rows[0]))
            for start in range(0, len(order), size):
                chosen = order[start : start + size]
                losses = self._step(*(tensor[chosen] for tensor in rows))
        return losses

    def _step(
        self,
        observation: torch.Tensor,
        action: torch.Tensor,
        old_log_prob: torch.Tensor,
        advantage: torch.Tensor,
        target: torch.Tensor,
        old_value: torch.Tensor,
    ) -> list[float]:
        clipping = workloads.CLIPPING
        _, log_prob, entropy, value = self._agent.evaluate(observation, action)
        log_ratio = log_prob - old_log_prob
        ratio = log_ratio.exp()
        with torch.no_grad():
            kl, fraction = ((ratio - 1) - log_ratio).mean(), ((ratio - 1).abs() > clipping).float().mean()
        advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
        policy_loss = torch.max(-advantage * ratio, -advantage * ratio.clamp(1 - clipping, 1 + clipping)).mean()
        clipped = old_value + (value - old_value).clamp(-clipping, clipping)
        value_loss = 0.5 * torch.max((value - target) ** 2, (clipped - target) ** 2).mean()
        bonus = entropy.mean()
        loss = policy_loss - self._workload.entropy * bonus + workloads.VALUE_COEFFICIENT * value_loss
        self._optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self._agent.parameters(), workloads.GRADIENT_CLIPPING)
        self._optimizer.step()
        return [float(part) for part in (policy_loss, value_loss, bonus, kl, fraction)]


def main() -> None:
    """Runs what the command line asks for."""
    arguments = measure.parse()
    torch.set_num_threads(arguments.threads or 1)
    torch.manual_seed(arguments.seed)
    meter, more, step = measure.Meter(arguments), True, 0
    trainer = Trainer(arguments.workload, arguments.seed)
    names = ("policy_loss", "value_loss", "entropy", "approx_kl", "clipfrac")
    with tempfile.TemporaryDirectory() as log_dir:
        writer = SummaryWriter(log_dir)
        while more:
            rows = trainer.collect()
            meter.collected()
            losses, step = trainer.update(rows), step + arguments.workload.steps_per_iteration
            for name, value in zip(names, losses, strict=True):
                writer.add_scalar(f"losses/{name}", value, step)
            writer.add_scalar("charts/episodic_return", np.mean(trainer.env.finished[-100:]), step)
            more = meter.updated()
    result = meter.report(return_mean=float(np.mean(trainer.env.finished[-100:])))
    measure.emit({"peer": "cleanrl", **result}, arguments, "torch", "envpool", "numpy")


if __name__ == "__main__":
    main()
