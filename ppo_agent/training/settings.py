"""The settings of a training run: one documented dataclass, from which the command-line flags are made too."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterable, Mapping
from typing import Any

from ppo_agent.common.environment_options import INVALID_STEPS, VECTORIZATIONS
from ppo_agent.config import PPOConfig, expectation, is_within
from ppo_agent.maths.schedules import NAMES as SCHEDULES
from ppo_agent.maths.schedules import WARMUP
from ppo_agent.training import setting_rules

# A run collects either by episodes or by steps: of each pair, setting one unsets the other.
COLLECTION = ("collect_episodes_per_iteration", "collect_steps_per_iteration")
# relu, elu and swish beside what Keras calls them.
ACTIVATIONS = ("tanh", "relu", "elu", "swish", "gelu", "selu", "softplus", "leaky_relu", "linear")
MEMORIES = ("lstm", "gru")
# A gradient step from fewer sequences than this is too noisy to be a good default.
FEWEST_SEQUENCES = 8
_KEYS = "keys, with commas between them, of an observation that is a mapping; empty: all of them; what is seen by the"
_SHAPES = f"linear, cosine: falls to 0 over the run; warmup_: rises from 0 over the first {WARMUP:.0%} of it before"


def _setting(default: Any, text: str, *, may_change: bool = False, none: bool = False, **limits: Any) -> Any:
    """A field.

    Args:
        default: its value; the kind follows from it.
        text: what it means, part of a sentence.
        may_change: whether a resumed run may have another value.
        none: whether None is a value; the kind is int then, unless the default says otherwise.
        **limits: `lower_bound` and `upper_bound` of a number, or `choices` of a text.
    """
    kind = int if default is None else type(default)
    metadata = {"help": text, "kind": kind, "limits": limits, "may_be_none": none, "may_change": may_change}
    return dataclasses.field(default=default, metadata=metadata)


def _of_agent(name: str, default: Any = dataclasses.MISSING, text: str = "", *, may_change: bool = False) -> Any:
    """A field that is a hyper-parameter of the agent and described there; `default` and `text` replace its own."""
    field = PPOConfig.__dataclass_fields__[name]
    metadata = {**field.metadata, "help": text or field.metadata["help"], "may_change": may_change}
    if default is dataclasses.MISSING:
        default = field.default
    if default is not None and metadata["kind"] is not bool:
        metadata["may_be_none"] = False
    return dataclasses.field(default=default, metadata=metadata)


@dataclasses.dataclass(frozen=True)
class Settings:
    """What a preset, a flag of `ppo-train` or a keyword of `Trainer` can set; the flag's help describes each.

    Raises:
        ValueError: a value is out of range.
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
        may_change=True,
    )
    rollout_workers: int = _setting(
        0,
        "actors of Ray that step the environments, each its share of num_environments; 0: this process steps them "
        "(needs ppo-agent[ray])",
        lower_bound=0,
        may_change=True,
    )
    ray_address: str = _setting(
        "",
        "Ray cluster that rollout_workers are in, host:port or auto for the one of this machine; empty: one is started "
        "here, for this run alone",
        may_change=True,
    )
    max_environment_restarts: int = _setting(
        10,
        "how often each environment is recreated after it has raised an error, taken too long or died with its "
        "process, its episode dropped; the next time the run ends. Not for environments that vectorise themselves",
        lower_bound=0,
        may_change=True,
    )
    step_time_limit_s: float = _setting(
        600.0,
        "seconds that a process may take for a step of its environments (vectorization async); 0: any time",
        lower_bound=0.0,
        may_change=True,
    )
    invalid_steps: str = _setting(
        "error",
        "observations and rewards that are not finite, categories outside their space, wrong shapes: error ends the "
        "run, drop drops the episode (vectorization sync and async)",
        choices=INVALID_STEPS,
        may_change=True,
    )
    total_environment_steps: int = _setting(
        100_000, "environment steps to train for, at most", lower_bound=1, may_change=True
    )
    collect_episodes_per_iteration: int | None = _setting(
        8, "episodes per iteration, over all environments (DynamicEpisodeDriver)", none=True, lower_bound=1
    )
    collect_steps_per_iteration: int | None = _setting(
        None, "steps per iteration of each environment (DynamicStepDriver)", none=True, lower_bound=1
    )
    num_epochs: int = _of_agent("num_epochs", 10)
    recompute_advantages: bool = _of_agent("recompute_advantages")
    dual_clipping: float = _of_agent("dual_clipping")
    normalize_value_targets: bool = _of_agent("normalize_value_targets")
    minibatch_size: int = _of_agent("minibatch_size", 64, "environment steps per gradient step")
    learning_rate: float = _setting(3e-4, "of Adam; the first one of a schedule", lower_bound=0.0)
    learning_rate_kl_target: float = _of_agent("learning_rate_kl_target")
    learning_rate_schedule: str = _setting("constant", _SHAPES, choices=SCHEDULES)
    importance_ratio_clipping: float = _of_agent("importance_ratio_clipping", 0.2)
    importance_ratio_clipping_schedule: str = _setting("constant", _SHAPES, choices=SCHEDULES)
    entropy_regularization: float = _of_agent("entropy_regularization")
    entropy_regularization_schedule: str = _setting("constant", _SHAPES, choices=SCHEDULES)
    value_clipping: float = _of_agent("value_clipping")
    value_clipping_schedule: str = _setting("constant", _SHAPES, choices=SCHEDULES)
    target_kl: float = _of_agent(
        "target_kl",
        text="no further gradient step on the same experience beyond 1.5 times this KL divergence; 0: never",
    )
    value_pred_loss_coef: float = _of_agent("value_pred_loss_coef")
    gradient_clipping: float = _of_agent("gradient_clipping", 0.5)
    discount_factor: float = _of_agent("discount_factor")
    lambda_value: float = _of_agent("lambda_value")
    use_gae: bool = _of_agent("use_gae", True)
    use_td_lambda_return: bool = _of_agent("use_td_lambda_return", True)
    normalize_observations: bool = _of_agent("normalize_observations")
    observation_norm_clipping: float = _of_agent("observation_norm_clipping")
    normalize_rewards: bool = _of_agent("normalize_rewards")
    normalize_rewards_by: str = _of_agent("normalize_rewards_by")
    reward_norm_clipping: float = _of_agent("reward_norm_clipping")
    policy_l2_reg: float = _of_agent("policy_l2_reg")
    value_function_l2_reg: float = _of_agent("value_function_l2_reg")
    shared_vars_l2_reg: float = _of_agent("shared_vars_l2_reg")
    log_prob_clipping: float = _of_agent("log_prob_clipping")
    initial_adaptive_kl_beta: float = _of_agent("initial_adaptive_kl_beta")
    adaptive_kl_target: float = _of_agent("adaptive_kl_target")
    adaptive_kl_tolerance: float = _of_agent("adaptive_kl_tolerance")
    kl_cutoff_factor: float = _of_agent("kl_cutoff_factor", 0.0)
    kl_cutoff_coef: float = _of_agent("kl_cutoff_coef", 0.0)
    greedy_eval: bool = _setting(True, "evaluate and export the most likely action instead of a sample")
    check_numerics: bool = _of_agent("check_numerics", may_change=True)
    jit_compile: bool | None = _of_agent("jit_compile", may_change=True)
    compute_value_and_advantage_in_train: bool = _of_agent("compute_value_and_advantage_in_train")
    update_normalizers_in_train: bool = _setting(True, "update the normalisers in the update, else behind it")
    aggregate_losses_across_replicas: bool = _of_agent("aggregate_losses_across_replicas")
    debug_summaries: bool = _setting(False, "write debug summaries, histograms among them", may_change=True)
    summarize_grads_and_vars: bool = _setting(
        False, "write histograms of gradients and variables, in a plain graph, which is slower", may_change=True
    )
    max_skipped_steps: int = _of_agent(
        "max_skipped_steps",
        text="the run ends after so many gradient steps in a row whose loss or gradient was not finite; they are "
        "skipped; 0: never",
        may_change=True,
    )
    actor_fc_layers: tuple[int, ...] = _setting((64, 64), "units of the policy's hidden layers, as in 64,64")
    value_fc_layers: tuple[int, ...] = _setting((64, 64), "units of the value function's hidden layers, as in 64,64")
    shared_fc_layers: tuple[int, ...] = _setting(
        (), "units of hidden layers that policy and value function share, in front of their own, as in 64,64"
    )
    actor_observation_keys: str = _setting("", f"{_KEYS} policy; an exported policy asks for these only")
    value_observation_keys: str = _setting("", f"{_KEYS} value function")
    activation: str = _setting("tanh", "of the hidden layers", choices=ACTIVATIONS)
    layer_norm: bool = _setting(False, "layer normalisation behind each hidden layer, before its activation")
    orthogonal_init: bool = _setting(True, "orthogonal initial kernels; else Glorot's uniform ones")
    initial_log_std: float = _setting(0.0, "log of the first standard deviation of continuous actions")
    policy_output_gain: float = _setting(0.01, "gain of the policy's last kernel with orthogonal_init", lower_bound=0.0)
    state_dependent_std: bool = _setting(False, "standard deviation of continuous actions from the observation")
    squash_actions: bool = _setting(False, "tanh-squashed normal distributions for bounded continuous actions")
    shared_torso: bool = _setting(False, "one torso for policy and value function, with the policy's layers")
    recurrent: bool = _setting(False, "recurrent networks (a memory behind the hidden layers)")
    memory: str = _setting("lstm", "kind of the memory of recurrent networks", choices=MEMORIES)
    memory_units: int = _setting(64, "size of the memory of recurrent networks", lower_bound=1)
    sequence_length: int = _of_agent("sequence_length", 32, "steps that gradients flow back through recurrent networks")
    store_policy_state: bool = _of_agent(
        "store_policy_state",
        True,
        "with recurrent networks, start each sequence of an update from the state that it was collected with; else "
        "from zero, with each environment's steps of an iteration as one sequence",
    )
    num_threads: int = _setting(
        0, "threads of TensorFlow's operations; 0: as many as there are cores", may_change=True, lower_bound=0
    )
    eval_interval: int = _setting(
        0, "iterations between evaluations; 0: only at the end", may_change=True, lower_bound=0
    )
    num_eval_episodes: int = _setting(20, "episodes of an evaluation", may_change=True, lower_bound=1)
    checkpoint_interval: int = _setting(
        20, "iterations between checkpoints; 0: only first and last", may_change=True, lower_bound=0
    )
    checkpoints_kept: int = _setting(
        3, "last checkpoints that stay; the best by evaluation stays too", may_change=True, lower_bound=1
    )
    log_interval: int = _setting(
        0, "iterations between tables of numbers on standard output; 0: none", may_change=True, lower_bound=0
    )

    def __post_init__(self) -> None:
        """Checks every value, and turns those that JSON or NumPy gives into Python's own."""
        fields = dataclasses.fields(self)
        if problems := [problem for field in fields if (problem := _problem(field, getattr(self, field.name)))]:
            raise ValueError("; ".join(problems) + ".")
        for field in fields:
            if (value := getattr(self, field.name)) is not None:
                object.__setattr__(self, field.name, field.metadata["kind"](value))

    @property
    def rows_per_minibatch(self) -> int:
        """Minibatch size as the agent counts it: steps, or whole sequences with recurrent networks."""
        return max(1, self.minibatch_size // self.sequence_length) if self.recurrent else self.minibatch_size

    @property
    def collection_keywords(self) -> dict[str, Any]:
        """Keywords of `RayDriver`."""
        return {
            "num_workers": self.rollout_workers,
            "num_environments": self.num_environments,
            "ray_address": self.ray_address or None,
            "max_environment_restarts": self.max_environment_restarts,
            "invalid_steps": self.invalid_steps,
        }

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


FIELDS = {field.name: field for field in dataclasses.fields(Settings)}
# What a resumed run may do otherwise than before.
MAY_CHANGE = tuple(name for name, field in FIELDS.items() if field.metadata["may_change"])


def combine(preset: Mapping[str, Any], given: Mapping[str, Any]) -> Settings:
    """The settings of a run: what was given beats the preset, which beats the defaults.

    `nminibatches`, minibatches of an iteration, may be given in place of `minibatch_size`. A minibatch size that was
    not given is cut down to what an iteration can hold.

    Raises:
        ValueError: what was given contradicts itself.
    """
    check_given(given)
    given = dict(given)
    num_minibatches = given.pop("nminibatches", None)
    values: dict[str, Any] = {}
    for layer in (preset, given):
        for name, other in (COLLECTION, COLLECTION[::-1]):
            if layer.get(name) is not None:
                values[other] = None
        values.update(layer)
    settings = setting_rules.for_workers(Settings(**values), given)
    setting_rules.check_use(settings, given)
    if num_minibatches is not None:
        given["minibatch_size"] = setting_rules.size_of(num_minibatches, settings)
        settings = dataclasses.replace(settings, minibatch_size=given["minibatch_size"])
    # Not where saved settings are the preset: they are to stay.
    if settings.recurrent and not preset.get("recurrent") and "minibatch_size" not in given:
        fewest = FEWEST_SEQUENCES * settings.sequence_length
        settings = dataclasses.replace(settings, minibatch_size=max(settings.minibatch_size, fewest))
    return setting_rules.fit_minibatch(settings, is_given="minibatch_size" in given)


def check_given(given: Mapping[str, Any]) -> None:
    """Raises ValueError if values that were given are unknown, out of range, or contradict one another."""
    check_names(given)
    for name, value in given.items():
        if name in FIELDS and (problem := _problem(FIELDS[name], value)):
            raise ValueError(f"{problem}.")
    for pair in (COLLECTION, ("minibatch_size", "nminibatches")):
        if all(given.get(name) is not None for name in pair):
            raise ValueError(f"{pair[0]} and {pair[1]} are both given, expected one of them.")
    for agent, names in setting_rules.OF_VARIANT.items():
        if given.get("agent", agent) != agent and (found := [name for name in names if name in given]):
            raise ValueError(f"{found[0]} is given with agent {given['agent']}, expected it with agent {agent} only.")


def check_names(names: Iterable[str]) -> None:
    """Raises ValueError for a name that is no setting, with the closest one."""
    for name in names:
        if name not in FIELDS and name != "nminibatches":
            close = difflib.get_close_matches(name, FIELDS, n=1)
            hint = f" (did you mean {close[0]}?)" if close else ""
            raise ValueError(f"{name} is no setting, expected one of {', '.join(FIELDS)}{hint}.")


def _problem(field: dataclasses.Field[Any], value: Any) -> str | None:
    """What is wrong with a value, None if nothing is."""
    kind, none = field.metadata["kind"], field.metadata["may_be_none"]
    if kind is tuple:
        is_right = isinstance(value, (tuple, list)) and all(
            isinstance(unit, int) and not isinstance(unit, bool) and unit > 0 for unit in value
        )
        return None if is_right else f"{field.name} is {value!r}, expected positive ints"
    if (value is None and none) or is_within(field.metadata, value):
        return None
    return f"{field.name} is {value!r}, expected {expectation(field.metadata)}"
