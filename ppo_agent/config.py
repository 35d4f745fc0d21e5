"""The hyper-parameters of PPO: one description of each, from which checks, documentation and flags are made.

A field of `PPOConfig` is described by its `metadata`, a mapping of

- `help`: what it means, part of a sentence without a full stop at its end;
- `kind`: `float`, `int`, `bool` or `str`;
- `limits`: `lower_bound` and `upper_bound` of a number, or `choices` of a text; those that there are;
- `may_be_none`: whether None is a value; where the default is a number, it means 0, which is "off";
- `schedulable`: whether a function that returns the value in force is one too, without arguments or of the train step.

So a flag is made by `flags.DEFINE_float(field.name, field.default, f"{help}.", **limits)`, for instance. The keywords
of the agents that are no hyper-parameters are in `OTHER_KEYWORDS`.
"""

from __future__ import annotations

import dataclasses
import inspect
import math
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import numpy as np

from ppo_agent.maths.schedules import Scheduled

REWARD_STATISTICS = ("reward", "return")

_Function = TypeVar("_Function", bound=Callable[..., Any])


def _described(default: Any, text: str, kind: type, limits: dict[str, Any], none: bool, schedulable: bool) -> Any:
    metadata = {"help": text, "kind": kind, "limits": limits, "may_be_none": none, "schedulable": schedulable}
    return dataclasses.field(default=default, metadata=metadata)


def _number(default: float, text: str, *, most: float | None = None, none: bool = False, schedule: bool = False) -> Any:
    """A number of at least 0."""
    limits = {"lower_bound": 0.0} if most is None else {"lower_bound": 0.0, "upper_bound": most}
    return _described(default, text, float, limits, none, schedule)


def _integer(default: int | None, text: str, *, least: int = 1, none: bool = False) -> Any:
    return _described(default, text, int, {"lower_bound": least}, none, schedulable=False)


def _switch(default: bool | None, text: str, *, none: bool = False) -> Any:
    return _described(default, text, bool, {}, none, schedulable=False)


def _choice(default: str, text: str, choices: tuple[str, ...]) -> Any:
    return _described(default, text, str, {"choices": choices}, none=False, schedulable=False)


@dataclasses.dataclass(frozen=True)
class PPOConfig:
    """What `PPOAgent`'s numbers and switches are, after checking; the names are those of its keywords.

    Zero means "off" for every clipping, coefficient, penalty and limit; None is taken as zero.

    Raises:
        ValueError: at least one value is out of range; the message names all of them.
    """

    importance_ratio_clipping: Scheduled = _number(  # noqa: RUF009
        0.0, "epsilon of the clipped surrogate objective; 0: no clipping", schedule=True
    )
    lambda_value: float = _number(0.95, "lambda of generalized advantage estimation", most=1.0)
    discount_factor: float = _number(0.99, "gamma", most=1.0)
    entropy_regularization: Scheduled = _number(  # noqa: RUF009
        0.0, "coefficient of the entropy bonus; 0: none", schedule=True
    )
    policy_l2_reg: float = _number(0.0, "weight decay of kernels that only the actor network has")
    value_function_l2_reg: float = _number(0.0, "weight decay of kernels that only the value network has")
    shared_vars_l2_reg: float = _number(0.0, "weight decay of kernels that both networks have")
    value_pred_loss_coef: float = _number(0.5, "factor of the value loss")
    num_epochs: int = _integer(25, "passes over the collected experience")
    use_gae: bool = _switch(False, "generalized advantage estimation; else advantages are returns minus values")
    use_td_lambda_return: bool = _switch(False, "targets of the value function are advantage plus value; needs use_gae")
    normalize_rewards: bool = _switch(True, "divide rewards by a running standard deviation")
    reward_norm_clipping: float = _number(10.0, "bound of normalised rewards; 0: none")
    normalize_observations: bool = _switch(True, "normalise observations by their running mean and standard deviation")
    log_prob_clipping: float = _number(0.0, "bound of log-probabilities; 0: none")
    kl_cutoff_factor: float = _number(
        2.0, "a KL divergence beyond this multiple of adaptive_kl_target is penalised; 0: never", none=True
    )
    kl_cutoff_coef: float = _number(1000.0, "factor of that squared penalty")
    initial_adaptive_kl_beta: float = _number(1.0, "first coefficient of the adaptive KL penalty; 0: no such penalty")
    adaptive_kl_target: float = _number(0.01, "KL divergence per update, in nats, that the coefficient is adapted to")
    adaptive_kl_tolerance: float = _number(
        0.3, "relative width of the band around the target in which the coefficient stays as it is"
    )
    gradient_clipping: float = _number(0.0, "bound of the gradients' global norm; 0: none", none=True)
    value_clipping: Scheduled = _number(  # noqa: RUF009
        0.0, "bound of the change of value predictions; 0: none", none=True, schedule=True
    )
    check_numerics: bool = _switch(
        False, "raise InvalidArgumentError where a loss is NaN or infinite (for debugging, slower)"
    )
    compute_value_and_advantage_in_train: bool = _switch(
        True,
        "if False, the collect policy stores value predictions, and `preprocess_sequence` has to fill in returns and "
        "advantages before `train`",
    )
    aggregate_losses_across_replicas: bool = _switch(
        True, "divide losses by the number of replicas of a tf.distribute strategy"
    )
    minibatch_size: int | None = _integer(
        None,
        "rows (time steps, or sequences with recurrent networks) per gradient step, up to 1/32 more where that saves a "
        "gradient step from the few rows that are left over; None makes one gradient step per epoch from the whole "
        "experience; under a tf.distribute strategy, rows of all replicas together",
        none=True,
    )
    jit_compile: bool | None = _switch(
        None,
        "whether XLA compiles the gradient steps; None chooses by the sizes of minibatch and networks",
        none=True,
    )
    store_policy_state: bool = _switch(
        False,
        "with recurrent networks, the collect policy emits their states before each action (`policy_state` in its "
        "info), and training starts every sequence from the state that it was collected with; if False, from zero, as "
        "TF-Agents does",
    )
    sequence_length: int | None = _integer(
        None,
        "with recurrent networks, experience is cut into sequences of this many steps, of which minibatches are made "
        "and through which gradients flow; needs store_policy_state; None takes each row of the experience as one",
        none=True,
    )
    target_kl: float = _number(
        0.0,
        "`train` makes no further gradient step after one whose minibatch had moved away from the collecting policy by "
        "more than 1.5 times this KL divergence (nats, estimated); 0: never",
        none=True,
    )
    normalize_rewards_by: str = _choice(
        "reward",
        "whose standard deviation rewards are divided by: that of the rewards, or that of the discounted return so far",
        REWARD_STATISTICS,
    )
    max_skipped_steps: int = _integer(
        10,
        "a gradient step whose loss or gradient is not finite is skipped; after so many in a row, calls of `train` "
        "counted together, `train` raises NonFiniteUpdateError where it is called eagerly; 0: never",
        least=0,
        none=True,
    )
    learning_rate_kl_target: float = _number(
        0.0,
        "the optimizer's learning rate is adapted so that an update's mean KL divergence (nats, estimated) stays near "
        "this: over 1.5 above twice of it, times 1.5 below half of it, within 1e-6 and 1e-2; 0: not adapted",
    )
    observation_norm_clipping: float = _number(5.0, "bound of normalised observations; 0: none")
    dual_clipping: float = _number(
        0.0,
        "with a negative advantage the surrogate loss stays constant from this importance ratio on (above 1, often "
        "3); 0: it grows without bound",
    )
    normalize_value_targets: bool = _switch(
        False, "divide the value function's errors by a running standard deviation of the returns (PopArt)"
    )
    recompute_advantages: bool = _switch(
        False,
        "recompute values, advantages and the value function's targets at the start of every epoch instead of once per "
        "call of `train`",
    )

    def __post_init__(self) -> None:
        """Reads None as "off" and variables as functions, checks every value, and makes Python numbers of others."""
        fields = dataclasses.fields(self)
        for field in fields:
            value = getattr(self, field.name)
            if field.metadata["may_be_none"] and field.default is not None and value is None:
                object.__setattr__(self, field.name, field.metadata["kind"](0))
            elif field.metadata["schedulable"] and _is_variable(value):
                object.__setattr__(self, field.name, value.read_value)
        problems = [*(p for field in fields if (p := _problem(field, getattr(self, field.name)))), *self._conflicts()]
        if problems:
            raise ValueError("; ".join(problems) + ".")
        for field in fields:
            kind, value = field.metadata["kind"], getattr(self, field.name)
            is_plain = value is None or callable(value) or (kind is float and isinstance(value, int))
            if kind in (int, float) and not is_plain:
                object.__setattr__(self, field.name, kind(value))

    @property
    def uses_l2(self) -> bool:
        """Whether any weight decay is on."""
        return self.policy_l2_reg > 0 or self.value_function_l2_reg > 0 or self.shared_vars_l2_reg > 0

    @property
    def uses_kl_penalty(self) -> bool:
        """Whether the loss has a KL term."""
        return self.initial_adaptive_kl_beta > 0 or self.kl_cutoff_factor > 0

    def _conflicts(self) -> Iterator[str]:
        if self.sequence_length is not None and not self.store_policy_state:
            yield (
                f"sequence_length is {self.sequence_length!r}, expected None without store_policy_state: a sequence "
                "that starts within an episode needs the state of the networks there"
            )
        if 0 < number(self.dual_clipping) <= 1:
            yield f"dual_clipping is {self.dual_clipping!r}, expected 0 or more than 1"
        if self.recompute_advantages and not self.compute_value_and_advantage_in_train:
            yield (
                "recompute_advantages is True, expected False without compute_value_and_advantage_in_train: advantages "
                "come with the experience then"
            )


OTHER_KEYWORDS = {
    "time_step_spec": "spec of the time steps, without batch dimensions",
    "action_spec": "nest of BoundedTensorSpecs of the actions",
    "optimizer": "a tf.keras, legacy tf.keras or tf.compat.v1 optimizer; None is Adam with TensorFlow's defaults",
    "actor_net": "maps observations to a nest of action distributions",
    "value_net": "maps observations to values",
    "greedy_eval": "whether `policy` takes the most likely action instead of a sample",
    "update_normalizers_in_train": (
        "if False, the caller calls `update_observation_normalizer` and `update_reward_normalizer`"
    ),
    "debug_summaries": "write debug summaries in the first and last epoch",
    "summarize_grads_and_vars": "write histograms of gradients and variables too",
    "train_step_counter": "int64 variable, grows by one per gradient step; None is the global step",
    "name": "name of the module",
    "observation_and_action_constraint_splitter": (
        "from an observation (or its spec) to what the networks see and the mask of the allowed actions, see "
        "`ppo_agent.common.action_masks`; None recognises a mapping of `observation` and `action_mask`, and networks "
        "that know nothing of masks are wrapped in a `MaskedNetwork`"
    ),
}


def document_keywords(constructor: _Function) -> _Function:
    """Decorator that puts a description of each keyword into a constructor's docstring, in place of `{keywords}`."""
    descriptions = {**OTHER_KEYWORDS, **{f.name: _description(f) for f in dataclasses.fields(PPOConfig)}}
    names = [name for name in inspect.signature(constructor).parameters if name != "self"]
    lines = [f"    {name}: {descriptions[name]}." for name in names]
    documented = inspect.getdoc(constructor) or ""
    constructor.__doc__ = documented.replace("{keywords}", "\n".join(["Args:", *lines]))
    return constructor


def _description(field: dataclasses.Field[Any]) -> str:
    text: str = field.metadata["help"]
    if field.metadata["schedulable"]:
        text += (
            "; or a variable, or a function that returns it, called once in every call of `train`; one that reads the "
            "train step, or has it as its argument as Keras' schedules do, follows every gradient step"
        )
    return text


def _problem(field: dataclasses.Field[Any], value: Any) -> str | None:
    """What is wrong with a value, None if nothing is."""
    expected = expectation(field.metadata)
    is_right = (
        (value is None and field.metadata["may_be_none"])
        or (field.metadata["schedulable"] and callable(value))
        or is_within(field.metadata, value)
    )
    return None if is_right else f"{field.name} is {value!r}, expected {expected}"


def is_within(metadata: Any, value: Any) -> bool:
    """Whether a value is one that a field's metadata allows, None aside."""
    kind, limits = metadata["kind"], metadata["limits"]
    if kind is str:
        return isinstance(value, str) and value in limits.get("choices", (value,))
    if kind is bool:  # Texts such as "False" are true.
        may_be_int = not metadata["may_be_none"]
        return isinstance(value, (bool, np.bool_)) or (may_be_int and isinstance(value, int) and value in (0, 1))
    found = number(value)
    is_whole = kind is float or found % 1 == 0
    low, high = limits.get("lower_bound", -math.inf), limits.get("upper_bound", math.inf)
    return is_whole and math.isfinite(found) and low <= found <= high


def expectation(metadata: Any) -> str:
    """What a field's metadata allows, for errors."""
    kind, limits = metadata["kind"], metadata["limits"]
    if kind is str:
        return " or ".join(limits.get("choices", ["a text"]))
    if kind is bool:
        return "None, True or False" if metadata["may_be_none"] else "True or False"
    if kind is int:
        return f"an integer of at least {limits['lower_bound']}"
    if "lower_bound" not in limits:
        return "a finite number"
    if "upper_bound" in limits:
        return f"a number between {limits['lower_bound']:g} and {limits['upper_bound']:g}"
    return f"a finite number of at least {limits['lower_bound']:g}"


def number(value: Any) -> float:
    """The value, NaN for anything that is no number, texts, arrays of several and variables included."""
    try:
        return float(value) if hasattr(value, "__float__") and not _is_variable(value) else math.nan
    except (TypeError, ValueError):
        return math.nan


def _is_variable(value: Any) -> bool:
    """Whether it is a variable of TensorFlow's, whose value in force is another one later."""
    return callable(getattr(value, "read_value", None))
