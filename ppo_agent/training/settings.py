"""The hyper-parameters of a training run, in one dataclass from which the command-line flags are made too."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from absl import flags

from ppo_agent.common.environment_options import INVALID_STEPS, VECTORIZATIONS
from ppo_agent.config import REWARD_STATISTICS

# A run collects either by episodes or by steps: of each pair, setting one unsets the other.
COLLECTION = ("collect_episodes_per_iteration", "collect_steps_per_iteration")
ACTIVATIONS = ("tanh", "relu", "elu", "swish")
SCHEDULES = ("constant", "linear")
MEMORIES = ("lstm", "gru")
# What a resumed run may do otherwise than before.
MAY_CHANGE = (
    "total_environment_steps",
    "vectorization",
    "max_environment_restarts",
    "step_time_limit_s",
    "invalid_steps",
    "max_skipped_steps",
)
# A gradient step from fewer sequences than this is too noisy to be a good default.
FEWEST_SEQUENCES = 8


def _setting(default: Any, help_text: str, **limits: Any) -> Any:
    """A field; `limits` are `lower_bound` and `upper_bound` of a number, or `choices` of a string."""
    return dataclasses.field(default=default, metadata={"help": help_text, "limits": limits})


@dataclasses.dataclass(frozen=True)
class Settings:
    """What a preset or a flag can set.

    Every field is a flag of `ppo-train`; the flag's help describes it.
    """

    agent: str = _setting("clip", "clipped surrogate objective or adaptive KL penalty", choices=("clip", "kl_penalty"))
    num_environments: int = _setting(8, "copies of the environment, stepped together", lower_bound=1)
    vectorization: str = _setting(
        "auto",
        "sync: one after the other; async: in processes, half of them while the policy acts for the others; "
        "vector_entry_point: the environment's own vectorised form; auto: that form if there is one, else processes if "
        "a step takes half a millisecond or more (measured; give sync or async to have the choice made), else sync; "
        "with fewer than 4 environments sync",
        choices=VECTORIZATIONS,
    )
    max_environment_restarts: int = _setting(
        10,
        "how often each environment is recreated after it has raised an error, taken too long or died with its "
        "process, its episode dropped; the next time the run ends. Not for environments that vectorise themselves",
        lower_bound=0,
    )
    step_time_limit_s: float = _setting(
        600.0, "seconds that a process may take for a step of its environments (vectorization async); 0: any time",
        lower_bound=0.0,
    )  # fmt: skip
    invalid_steps: str = _setting(
        "error",
        "observations and rewards that are not finite, categories outside their space, wrong shapes: error ends the "
        "run, drop drops the episode (vectorization sync and async)",
        choices=INVALID_STEPS,
    )
    total_environment_steps: int = _setting(100_000, "environment steps to train for, at most", lower_bound=1)
    collect_episodes_per_iteration: int | None = _setting(
        8, "episodes per iteration, over all environments (DynamicEpisodeDriver)", lower_bound=1
    )
    collect_steps_per_iteration: int | None = _setting(
        None, "steps per iteration and environment, in place of episodes (DynamicStepDriver)", lower_bound=1
    )
    num_epochs: int = _setting(10, "passes over the collected experience", lower_bound=1)
    minibatch_size: int = _setting(64, "environment steps per gradient step", lower_bound=1)
    learning_rate: float = _setting(3e-4, "of Adam; the first one of a schedule", lower_bound=0.0)
    learning_rate_schedule: str = _setting("constant", "linear falls to 0 over the whole run", choices=SCHEDULES)
    importance_ratio_clipping: float = _setting(0.2, "epsilon of the clipped objective; 0: none", lower_bound=0.0)
    importance_ratio_clipping_schedule: str = _setting(
        "constant", "linear falls to 0 over the whole run", choices=SCHEDULES
    )
    entropy_regularization: float = _setting(0.0, "coefficient of the entropy bonus", lower_bound=0.0)
    entropy_regularization_schedule: str = _setting(
        "constant", "linear falls to 0 over the whole run", choices=SCHEDULES
    )
    value_clipping: float = _setting(0.0, "bound of the change of value predictions; 0: none", lower_bound=0.0)
    target_kl: float = _setting(
        0.0,
        "no further gradient step on the same experience beyond 1.5 times this KL divergence; 0: never",
        lower_bound=0.0,
    )
    value_pred_loss_coef: float = _setting(0.5, "factor of the value loss", lower_bound=0.0)
    gradient_clipping: float = _setting(0.5, "bound of the gradients' global norm; 0: none", lower_bound=0.0)
    discount_factor: float = _setting(0.99, "gamma", lower_bound=0.0, upper_bound=1.0)
    lambda_value: float = _setting(0.95, "lambda of generalized advantage estimation", lower_bound=0.0, upper_bound=1.0)
    normalize_observations: bool = _setting(True, "by their running mean and standard deviation")
    normalize_rewards: bool = _setting(True, "by a running standard deviation")
    normalize_rewards_by: str = _setting(
        "reward", "whose standard deviation: the rewards' or that of the discounted returns", choices=REWARD_STATISTICS
    )
    max_skipped_steps: int = _setting(
        10,
        "the run ends after so many gradient steps in a row whose loss or gradient was not finite; they are skipped; "
        "0: never",
        lower_bound=0,
    )
    actor_fc_layers: tuple[int, ...] = _setting((64, 64), "units of the policy's hidden layers, as in 64,64")
    value_fc_layers: tuple[int, ...] = _setting((64, 64), "units of the value function's hidden layers, as in 64,64")
    activation: str = _setting("tanh", "of the hidden layers", choices=ACTIVATIONS)
    initial_log_std: float = _setting(0.0, "log of the first standard deviation of continuous actions")
    state_dependent_std: bool = _setting(False, "standard deviation of continuous actions from the observation")
    squash_actions: bool = _setting(False, "tanh-squashed normal distributions for bounded continuous actions")
    shared_torso: bool = _setting(False, "one torso for policy and value function, with the policy's layers")
    recurrent: bool = _setting(False, "recurrent networks (a memory behind the hidden layers)")
    memory: str = _setting("lstm", "kind of the memory of recurrent networks", choices=MEMORIES)
    memory_units: int = _setting(64, "size of the memory of recurrent networks", lower_bound=1)
    sequence_length: int = _setting(32, "steps that gradients flow back through recurrent networks", lower_bound=1)

    def __post_init__(self) -> None:
        """Turns lists, as JSON gives them, into tuples."""
        for name in ("actor_fc_layers", "value_fc_layers"):
            object.__setattr__(self, name, tuple(getattr(self, name)))

    @property
    def rows_per_minibatch(self) -> int:
        """Minibatch size as the agent counts it: steps, or whole sequences with recurrent networks."""
        return max(1, self.minibatch_size // self.sequence_length) if self.recurrent else self.minibatch_size

    @property
    def limits(self) -> dict[str, Any]:
        """What is tolerated of the environments: keywords of `GymnasiumEnvironment`."""
        return {
            "max_restarts": self.max_environment_restarts,
            "step_time_limit_s": self.step_time_limit_s or None,
            "invalid_steps": self.invalid_steps,
        }

    @property
    def steps_per_iteration(self) -> int | None:
        """Environment steps of an iteration over all environments; None when it is made of whole episodes."""
        if self.collect_steps_per_iteration is None:
            return None
        return self.collect_steps_per_iteration * self.num_environments


def combine(preset: Mapping[str, Any], given: Mapping[str, Any]) -> Settings:
    """The settings of a run: what was given beats the preset, which beats the defaults.

    Args:
        preset: values by field name.
        given: values from the command line.

    Returns:
        The settings. A minibatch size that was not given is cut down to what an iteration can hold.

    Raises:
        ValueError: what was given contradicts itself.
    """
    check_given(given)
    values: dict[str, Any] = {}
    for layer in (preset, given):
        for name, other in (COLLECTION, COLLECTION[::-1]):
            if layer.get(name) is not None:
                values[other] = None
        values.update(layer)
    settings = Settings(**values)
    useless = [name for name in ("memory", "memory_units", "sequence_length") if name in given]
    if useless and not settings.recurrent:
        raise ValueError(f"{useless[0]} is given without recurrent, expected it with recurrent networks only.")
    # Not where saved settings are the preset: they are to stay.
    if settings.recurrent and not preset.get("recurrent") and "minibatch_size" not in given:
        fewest = FEWEST_SEQUENCES * settings.sequence_length
        settings = dataclasses.replace(settings, minibatch_size=max(settings.minibatch_size, fewest))
    return _fit_minibatch(settings, is_given="minibatch_size" in given)


def _fit_minibatch(settings: Settings, is_given: bool) -> Settings:
    """Sees to it that the first iteration fills a minibatch."""
    steps = min(settings.total_environment_steps, settings.steps_per_iteration or settings.total_environment_steps)
    most = steps - steps % settings.num_environments
    if most < 1:
        raise ValueError(
            f"total_environment_steps is {settings.total_environment_steps}, expected at least num_environments, "
            f"{settings.num_environments}."
        )
    if settings.minibatch_size <= most:
        return settings
    if is_given:
        raise ValueError(f"minibatch_size is {settings.minibatch_size}, expected at most {most}, the steps collected.")
    return dataclasses.replace(settings, minibatch_size=most)


def check_given(given: Mapping[str, Any]) -> None:
    """Raises ValueError if values given on the command line contradict one another."""
    if all(given.get(name) is not None for name in COLLECTION):
        raise ValueError(f"{COLLECTION[0]} and {COLLECTION[1]} are both given, expected one of them.")
    for name in ("importance_ratio_clipping", "importance_ratio_clipping_schedule"):
        if given.get("agent") == "kl_penalty" and name in given:
            raise ValueError(f"{name} is given with agent kl_penalty, expected it with agent clip only.")


def define_flags(flag_values: flags.FlagValues) -> None:
    """Defines a flag for every field."""
    for field in dataclasses.fields(Settings):
        text, limits = f"{field.metadata['help']}.", field.metadata["limits"]
        default: Any = field.default
        if "choices" in limits:
            flags.DEFINE_enum(field.name, default, limits["choices"], text, flag_values=flag_values)
        elif isinstance(default, bool):
            flags.DEFINE_bool(field.name, default, text, flag_values=flag_values)
        elif isinstance(default, tuple):
            flags.DEFINE(_LayersParser(), field.name, default, text, flag_values, _LayersSerializer())
        elif isinstance(default, float):
            flags.DEFINE(_FiniteParser(**limits), field.name, default, text, flag_values)
        else:
            flags.DEFINE_integer(field.name, default, text, flag_values=flag_values, **limits)


def given_flags(flag_values: flags.FlagValues) -> dict[str, Any]:
    """The values of the fields whose flags stand on the command line."""
    names = (field.name for field in dataclasses.fields(Settings))
    return {name: flag_values[name].value for name in names if flag_values[name].present}


class _FiniteParser(flags.FloatParser):
    """Reads floats between bounds; absl's own takes NaN and infinity for such."""

    def parse(self, argument: Any) -> float:
        value = super().parse(argument)
        if not math.isfinite(value):
            raise ValueError(f"{value} is not a finite number")
        return value


class _LayersParser(flags.ArgumentParser):
    """Reads '64,64', and '' as no layers."""

    syntactic_help = "positive numbers with commas between them"

    def parse(self, argument: Any) -> tuple[int, ...]:
        if isinstance(argument, tuple):
            return argument
        try:
            units = tuple(int(part) for part in argument.split(",") if part.strip())
        except ValueError as error:
            raise ValueError(f"expected {self.syntactic_help}") from error
        if any(unit < 1 for unit in units):
            raise ValueError(f"expected {self.syntactic_help}")
        return units

    def flag_type(self) -> str:
        return "comma separated list of integers"


class _LayersSerializer(flags.ArgumentSerializer):
    """Writes what `_LayersParser` reads."""

    def serialize(self, value: tuple[int, ...]) -> str:
        return ",".join(map(str, value))
