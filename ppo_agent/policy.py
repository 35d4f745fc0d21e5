"""The policy that PPO trains and collects with."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf
from tf_agents.networks import network
from tf_agents.policies import actor_policy, greedy_policy
from tf_agents.specs import tensor_spec
from tf_agents.trajectories import TimeStep, policy_step
from tf_agents.utils import nest_utils, tensor_normalizer

from ppo_agent.common import action_masks, shared_results
from ppo_agent.common.configurable import configurable
from ppo_agent.common.nest_checks import NestCheck
from ppo_agent.common.not_copied import NotCopied
from ppo_agent.common.types import Nest, Tensor
from ppo_agent.maths.distributions import ParameterCodec
from ppo_agent.network_checks import check_is_network, check_output, create_variables, splitter_of
from ppo_agent.value_scale import ValueScale


class _Checked(NotCopied):
    """A policy that checks time steps itself, in one sentence; TF-Agents lets no class override these two methods."""

    def action(self, time_step: TimeStep, policy_state: Nest = (), seed: Any = None) -> policy_step.PolicyStep:
        """As in TF-Agents.

        Args:
            time_step: tensors [B, ...].
            policy_state: tensors [B, ...]; () for a policy without a state.
            seed: of the random numbers.

        Raises:
            TypeError: `time_step` is no TimeStep.
            ValueError: observations that do not fit, or have no batch dimension; with eager execution, a discrete
                action outside its range. In a graph that cannot be raised, and the nearest one inside is taken.
        """
        self._check_time_step(time_step)
        step: policy_step.PolicyStep = super().action(time_step, policy_state, seed)  # type: ignore[misc]
        return step

    def distribution(self, time_step: TimeStep, policy_state: Nest = ()) -> policy_step.PolicyStep:
        """As in TF-Agents; arguments and errors as for `action`."""
        self._check_time_step(time_step)
        step: policy_step.PolicyStep = super().distribution(time_step, policy_state)  # type: ignore[misc]
        return step

    def _check_time_step(self, time_step: Any) -> None:
        raise NotImplementedError


@configurable("tf_agents")
class PPOPolicy(_Checked, actor_policy.ActorPolicy):
    """An `ActorPolicy` that stores with every action what PPO needs to learn from it.

    The policy info holds `dist_params`, the parameters of the distribution that the action was drawn from,
    `value_prediction` if values are not computed in `train`, and `policy_state`, the state before the action, if that
    is asked for. The policy state holds `actor_network_state` and `value_network_state`; a network without a state has
    no entry, nor has a value network that a policy does not call.
    """

    def __init__(
        self,
        time_step_spec: TimeStep,
        action_spec: Nest,
        actor_network: network.Network,
        value_network: network.Network,
        observation_normalizer: tensor_normalizer.TensorNormalizer | None = None,
        clip: bool = True,
        collect: bool = True,
        compute_value_and_advantage_in_train: bool = False,
        *,
        store_policy_state: bool = False,
        value_scale: ValueScale | None = None,
        observation_norm_clipping: float = 5.0,
    ) -> None:
        """Checks the networks against the specs and builds their variables.

        Args:
            time_step_spec: spec of the time steps, without batch dimensions.
            action_spec: nest of BoundedTensorSpecs.
            actor_network: maps observations to a nest of distributions like `action_spec`.
            value_network: maps observations to values, float32 scalars.
            observation_normalizer: applied to observations before both networks.
            clip: whether `action` clips to the bounds of `action_spec`.
            collect: whether policy info is emitted.
            compute_value_and_advantage_in_train: if False, a collecting policy also emits value predictions.
            store_policy_state: whether a collecting policy emits the states of recurrent networks.
            value_scale: scales what the value network predicts.
            observation_norm_clipping: bound of normalised observations; 0 for none.

        Raises:
            TypeError: a network is not a `tf_agents.networks.Network`.
            ValueError: a network's input or output does not fit the specs.
        """
        for name, net in (("actor_network", actor_network), ("value_network", value_network)):
            check_is_network(name, net)
        actor_output_spec = create_variables(actor_network, time_step_spec, observation_normalizer, "actor_network")
        value_output_spec = create_variables(value_network, time_step_spec, observation_normalizer, "value_network")
        nest_utils.assert_value_spec(value_output_spec, "value_network")
        check_output("actor_network", actor_output_spec, "action_spec", action_spec)
        self._collect = collect
        self._compute_value_and_advantage_in_train = compute_value_and_advantage_in_train
        self._emits_values = collect and not compute_value_and_advantage_in_train
        self._codec = ParameterCodec(actor_network, actor_output_spec) if collect else None
        self._value_network, self._value_scale = value_network, value_scale
        self._norm_clipping = observation_norm_clipping
        self._stores_state = collect and store_policy_state
        self._check_observation = NestCheck("observation", time_step_spec.observation)
        self._splitter = splitter_of(actor_network)
        _, mask_spec = action_masks.split(time_step_spec.observation, self._splitter)
        self._mask_layout = None if mask_spec is None else action_masks.MaskLayout(action_spec)
        if self._mask_layout is not None:
            self._mask_layout.check_spec(mask_spec)
        super().__init__(
            time_step_spec=time_step_spec,
            action_spec=action_spec,
            policy_state_spec=self._make_state_spec(actor_network, value_network),
            info_spec=self._make_info_spec(self._make_state_spec(actor_network, value_network)),
            actor_network=actor_network,
            observation_normalizer=observation_normalizer,
            clip=clip,
        )

    def _make_state_spec(self, actor_network: network.Network, value_network: network.Network) -> Nest:
        spec = {}
        if actor_network.state_spec:
            spec["actor_network_state"] = actor_network.state_spec
        if self._calls_value_network and value_network.state_spec:
            spec["value_network_state"] = value_network.state_spec
        return spec or ()

    @property
    def _calls_value_network(self) -> bool:
        """Whether a step of the policy needs the value network: for its prediction, or for the next state."""
        return self._emits_values or (self._stores_state and bool(self._value_network.state_spec))

    def _make_info_spec(self, state_spec: Nest) -> Nest:
        if self._codec is None:
            return ()
        spec = {"dist_params": self._codec.parameters_spec}
        if self._stores_state and state_spec:
            spec["policy_state"] = state_spec
        if self._emits_values:
            spec["value_prediction"] = tensor_spec.TensorSpec([], tf.float32, "value_prediction")
        return spec

    @property
    def value_state_spec(self) -> Nest:
        """Nest of the specs of the value network's state, without batch dimension; () for none."""
        return self._value_network.state_spec

    def get_initial_value_state(self, batch_size: Tensor | None) -> Nest:
        """Zeros for the value network's state.

        Args:
            batch_size: number of sequences; None for a state without a batch dimension.

        Returns:
            A nest like the value network's `state_spec`.
        """
        return _zero_state(self._value_network, batch_size)

    def get_initial_actor_state(self, batch_size: Tensor | None) -> Nest:
        """Zeros for the actor network's state, see `get_initial_value_state`."""
        return _zero_state(self._actor_network, batch_size)

    def apply_actor_network(
        self, observations: Nest, step_types: Tensor, actor_state: Nest = (), training: bool = False
    ) -> tuple[Nest, Nest]:
        """Evaluates the policy.

        Args:
            observations: nest of observations [B, ...] or [B, T, ...], not normalised.
            step_types: int32 step types [B] or [B, T]; a recurrent network restarts at FIRST.
            actor_state: state of a recurrent actor network before the first step.
            training: whether the result is used for a gradient.

        Returns:
            Nest of distributions like the action spec, and the network's state after the last step.
        """
        return self._actor_network(
            self._normalized(observations), step_types, network_state=actor_state, training=training
        )

    def apply_value_network(
        self, observations: Nest, step_types: Tensor, value_state: Nest | None = None, training: bool = False
    ) -> tuple[tf.Tensor, Nest]:
        """Predicts values.

        Args:
            observations: nest of observations [B, ...] or [B, T, ...], not normalised.
            step_types: int32 step types [B] or [B, T]; a recurrent network restarts at FIRST.
            value_state: state of a recurrent value network before the first step.
            training: whether the result is used for a gradient.

        Returns:
            Values [B] or [B, T], and the value network's state after the last step.
        """
        value, state = self._value_network(
            self._normalized(observations), step_types, () if value_state is None else value_state, training=training
        )
        return value if self._value_scale is None else self._value_scale.denormalized(value), state

    def _normalized(self, observation: Nest) -> Nest:
        self._check_observation.check_shapes(observation, ...)
        normalizer, bound = self._observation_normalizer, self._norm_clipping
        if normalizer is None:
            return observation
        return shared_results.remembered(
            normalizer, observation, lambda: normalizer.normalize(observation, clip_value=bound)
        )

    def _apply_actor_network(self, time_step: TimeStep, policy_state: Nest, training: bool = False) -> Any:
        return self.apply_actor_network(time_step.observation, time_step.step_type, policy_state, training)

    def _variables(self) -> list[tf.Variable]:
        variables = list(self._actor_network.variables) + list(self._value_network.variables)
        if self._observation_normalizer is not None:
            variables += tf.nest.flatten(self._observation_normalizer.variables)
        if self._value_scale is not None:
            variables += self._value_scale.variables
        return variables

    def _check_time_step(self, time_step: Any) -> None:
        """Raises TypeError or ValueError unless this is a TimeStep with a batch of observations."""
        if not isinstance(time_step, TimeStep):
            found = "None" if time_step is None else type(time_step).__name__
            raise TypeError(f"time_step is {found}, expected a TimeStep.")
        self._check_observation.check_batch(time_step.observation)

    def _action(self, time_step: TimeStep, policy_state: Nest, seed: Any = None) -> policy_step.PolicyStep:
        step = super()._action(time_step, policy_state, seed)
        if not tf.executing_eagerly():
            return step._replace(action=tf.nest.map_structure(into_range, step.action, self.action_spec))
        _check_choices(step.action, self.action_spec)
        return step

    # What `drivers.array_policies.seeded_actions` asks for: actions are drawn from the distributions, as usual.
    _action.draws_from_distributions = True  # type: ignore[attr-defined]

    # The networks may have a torso in common.
    @shared_results.remembering()
    def _distribution(self, time_step: TimeStep, policy_state: Nest, training: bool = False) -> policy_step.PolicyStep:
        if self._mask_layout is not None:
            mask = action_masks.split(time_step.observation, self._splitter)[1]
            # After an episode's end no action is carried out.
            self._mask_layout.assert_choice(tf.cast(mask, tf.bool) | time_step.is_last()[:, tf.newaxis])
        if not policy_state and self._stores_state:
            policy_state = self.get_initial_state(tf.shape(time_step.step_type)[0])
        state = dict(policy_state) if policy_state else {}
        distributions, actor_state = self._apply_actor_network(
            time_step, state.get("actor_network_state", ()), training=training
        )
        new_state: dict[str, Nest] = {"actor_network_state": actor_state}
        info: dict[str, Nest] = {}
        if self._codec is not None:
            info = {"dist_params": self._codec.to_parameters(distributions)}
        if self._stores_state and state:
            info["policy_state"] = state
        if self._calls_value_network:
            value, new_state["value_network_state"] = self.apply_value_network(
                time_step.observation, time_step.step_type, state.get("value_network_state", ()), training=False
            )
            info |= {"value_prediction": value} if self._emits_values else {}
        new_state = {name: value for name, value in new_state.items() if tf.nest.flatten(value)}
        return policy_step.PolicyStep(distributions, new_state or (), info or ())


class GreedyPPOPolicy(_Checked, greedy_policy.GreedyPolicy):
    """TF-Agents' `GreedyPolicy` of a `PPOPolicy`, which checks what it is given as that one does."""

    def _check_time_step(self, time_step: Any) -> None:
        self.wrapped_policy._check_time_step(time_step)

    def _action(self, time_step: TimeStep, policy_state: Nest, seed: Any = None) -> policy_step.PolicyStep:
        step = super()._action(time_step, policy_state, seed)
        if tf.executing_eagerly():
            _check_choices(step.action, self.action_spec)
        return step

    _action.draws_from_distributions = True  # type: ignore[attr-defined]


def _zero_state(net: network.Network, batch_size: Tensor | None) -> Nest:
    return tensor_spec.zero_spec_nest(net.state_spec, outer_dims=None if batch_size is None else [batch_size])


def _check_choices(actions: Nest, action_spec: Nest) -> None:
    """Raises ValueError if an action is not finite, or a discrete one lies outside its range.

    TensorFlow draws such ones from logits of NaN.
    """
    for action, spec in zip(tf.nest.flatten(actions), tf.nest.flatten(action_spec), strict=True):
        value = action.numpy()
        if not spec.dtype.is_integer:
            if not np.isfinite(value).all():
                raise ValueError(
                    f"action is {value.tolist()}, expected finite numbers: the observations or the actor network's "
                    "weights are not finite."
                )
            continue
        if not ((value >= spec.minimum) & (value <= spec.maximum)).all():
            raise ValueError(
                f"action is {value.tolist()}, expected values from {spec.minimum} to {spec.maximum}: the observations "
                "or the actor network's weights are not finite."
            )


def into_range(action: tf.Tensor, spec: tf.TensorSpec) -> tf.Tensor:
    """Discrete actions within their bounds, others as they are."""
    if not spec.dtype.is_integer:
        return action
    # Runtimes of exported policies compute in no smaller whole numbers.
    wide = tf.int32 if spec.dtype in (tf.int8, tf.uint8, tf.int16, tf.uint16) else spec.dtype
    low, high = (np.asarray(bound, wide.as_numpy_dtype) for bound in (spec.minimum, spec.maximum))
    return tf.cast(tf.clip_by_value(tf.cast(action, wide), low, high), spec.dtype)
