"""What is measured: hyper-parameters that every peer is given alike."""

from __future__ import annotations

import dataclasses

DISCOUNT, LAMBDA, CLIPPING = 0.99, 0.95, 0.2
VALUE_COEFFICIENT, GRADIENT_CLIPPING, ADAM_EPSILON = 0.5, 0.5, 1e-5


@dataclasses.dataclass(frozen=True)
class Workload:
    """One iteration is `num_environments` x `num_steps` environment steps and the gradient steps on them.

    Attributes:
        description: for the table.
        env_name: a gymnasium id; None for a learner that is given random experience.
        num_environments: copies of the environment, or rows [B] of the experience.
        num_steps: steps of each in an iteration, or time steps [T] of the experience.
        num_epochs: passes over the experience.
        minibatch_size: environment steps in a gradient step.
        learning_rate: of Adam.
        entropy: coefficient of the entropy bonus.
        hidden: units of the hidden layers of both networks (tanh).
        normalize: observations and rewards.
        tensor_environment: the environment is made of tensor operations and compiled with the policy.
        images: observations are images 84 x 84 x 4 (uint8) and actions one of six; else 17 numbers and 6 numbers.
        lstm_units: units of an LSTM behind the hidden layer; 0 for none.
        network: how this package evaluates the policy between steps: 'mirrored', as a copy in NumPy; 'own', for a class
            that is not known, as its graph in NumPy; 'tensorflow', for one that NumPy lacks an operation of.
        step_cost_s: processor time in seconds that every environment step is made to cost.
    """

    description: str
    env_name: str | None = None
    num_environments: int = 8
    num_steps: int = 128
    num_epochs: int = 4
    minibatch_size: int = 256
    learning_rate: float = 2.5e-4
    entropy: float = 0.0
    hidden: tuple[int, ...] = (64, 64)
    normalize: bool = False
    tensor_environment: bool = False
    images: bool = False
    lstm_units: int = 0
    network: str = "mirrored"
    step_cost_s: float = 0.0

    @property
    def steps_per_iteration(self) -> int:
        """Environment steps of an iteration, over all environments."""
        return self.num_environments * self.num_steps

    @property
    def gradient_steps(self) -> int:
        """Gradient steps of an iteration."""
        return self.num_epochs * (self.steps_per_iteration // self.minibatch_size)


_CARTPOLE = Workload("CartPole-v1, 8 environments", "CartPole-v1", entropy=0.01)
_CHEETAH = Workload(
    "HalfCheetah-v5, 1 environment",
    "HalfCheetah-v5",
    num_environments=1,
    num_steps=2048,
    num_epochs=10,
    minibatch_size=64,
    learning_rate=3e-4,
    normalize=True,
)
_LEARNER = dataclasses.replace(_CHEETAH, description="update alone, 2,048 rows in minibatches of 64", env_name=None)

WORKLOADS = {
    "W1": _CARTPOLE,
    "W1g": dataclasses.replace(_CARTPOLE, description="W1, a network of a class of its own", network="own"),
    "W1t": dataclasses.replace(_CARTPOLE, description="W1, a network that NumPy cannot evaluate", network="tensorflow"),
    "W2": _CHEETAH,
    "W2g": dataclasses.replace(_CHEETAH, description="W2, a network of a class of its own", network="own"),
    "W2t": dataclasses.replace(_CHEETAH, description="W2, a network that NumPy cannot evaluate", network="tensorflow"),
    "W3s": _LEARNER,
    "W3l": dataclasses.replace(
        _LEARNER,
        description="update alone, 65,536 rows in minibatches of 16,384",
        num_environments=64,
        num_steps=1024,
        num_epochs=4,
        minibatch_size=16_384,
    ),
    "W4-8": dataclasses.replace(_CARTPOLE, description="CartPole in tensors, 8 environments", tensor_environment=True),
    "W4-1024": dataclasses.replace(
        _CARTPOLE,
        description="CartPole in tensors, 1,024 environments",
        num_environments=1024,
        minibatch_size=32_768,
        tensor_environment=True,
    ),
    "W5-cheetah": dataclasses.replace(
        _CHEETAH, description="HalfCheetah-v5, 8 environments", num_environments=8, num_steps=256
    ),
    "W5-cnn": Workload(
        "update alone, CNN on 84x84x4 images", num_steps=32, minibatch_size=64, hidden=(512,), images=True
    ),
    "W5-lstm": dataclasses.replace(_CARTPOLE, description="CartPole-v1, LSTM policy", hidden=(64,), lstm_units=64),
}

# With an engine for the environments.
WORKLOADS |= {
    "W1e": dataclasses.replace(
        _CARTPOLE, description="CartPole-v1, 64 environments", num_environments=64, minibatch_size=2048
    ),
    "W2e": WORKLOADS["W5-cheetah"],
    "W2e-32": dataclasses.replace(
        _CHEETAH, description="HalfCheetah-v5, 32 environments", num_environments=32, num_steps=64
    ),
    "W5e": Workload(
        "Pong-v5, 8 environments, CNN on 84x84x4 images",
        "ALE/Pong-v5",
        learning_rate=2.5e-4,
        entropy=0.01,
        hidden=(512,),
        images=True,
    ),
}

# A call of `train` with TF-Agents' defaults: the whole experience in every gradient step.
_DEFAULT_CALL = Workload(
    "train with TF-Agents' defaults, 256 sequences of 16 steps, 1 epoch",
    num_environments=256,
    num_steps=16,
    num_epochs=1,
    minibatch_size=256 * 16,
    hidden=(40, 40, 20),
)
WORKLOADS |= {
    "W7-1": _DEFAULT_CALL,
    "W7-25": dataclasses.replace(
        _DEFAULT_CALL, description=_DEFAULT_CALL.description.replace("1 epoch", "25 epochs"), num_epochs=25
    ),
    "W7-1l": dataclasses.replace(
        _DEFAULT_CALL, description=f"{_DEFAULT_CALL.description}, large networks", hidden=(256, 256)
    ),
}
WORKLOADS["W7-25l"] = dataclasses.replace(
    WORKLOADS["W7-25"], description=f"{WORKLOADS['W7-25'].description}, large networks", hidden=(256, 256)
)

# Sixteen CartPoles that cost a millisecond of processor time a step.
SLOW = dataclasses.replace(
    _CARTPOLE,
    description="16 environments of 1 ms a step",
    num_environments=16,
    num_steps=64,
    minibatch_size=256,
    step_cost_s=1e-3,
)
# A tiny run for many iterations.
SOAK = dataclasses.replace(
    _CARTPOLE, description="1,000 iterations of a tiny run", num_environments=2, num_steps=16, minibatch_size=16
)
ALL = {**WORKLOADS, "slow": SLOW, "soak": SOAK}
