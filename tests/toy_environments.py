"""Tiny gymnasium environments and policies whose trajectories can be written down."""

from __future__ import annotations

from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import tensorflow as tf
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from tf_agents.policies import tf_policy
from tf_agents.trajectories import policy_step


class Counter(gym.Env):
    """Counts steps; the reward is the number of the step plus a hundredth of the action.

    The episode's length is `length`; it terminates if `terminates`, else it is truncated. The observation is
    [step within the episode, episode].
    """

    def __init__(self, length: int = 3, terminates: bool = True, start: int = 0) -> None:
        self.observation_space = spaces.Box(-1.0, 1e3, [2], np.float64)
        self.action_space = spaces.Discrete(5, start=start)
        self.length, self.terminates = length, terminates
        self.step_index, self.episode, self.actions = 0, -1, []

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.step_index, self.episode = 0, self.episode + 1
        return self._observation(), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict]:
        assert self.action_space.contains(action), action
        self.actions.append(action)
        self.step_index += 1
        ended = self.step_index >= self.length
        reward = self.step_index + 0.01 * float(action)
        return self._observation(), reward, ended and self.terminates, ended and not self.terminates, {}

    def _observation(self) -> np.ndarray:
        return np.array([self.step_index, self.episode], np.float64)


class Noise(Counter):
    """As Counter, but a third, random observation, and random episode lengths."""

    def __init__(self, terminates: bool = True) -> None:
        super().__init__(terminates=terminates)
        self.observation_space = spaces.Box(-1.0, 1e3, [3], np.float64)

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict]:
        gym.Env.reset(self, seed=seed)
        self.length = int(self.np_random.integers(2, 7))
        return super().reset(options=options)

    def _observation(self) -> np.ndarray:
        return np.append(super()._observation(), self.np_random.uniform())


class Spaces(gym.Env):
    """Observes and takes whatever spaces it is given; remembers the actions."""

    def __init__(self, observation_space: gym.Space, action_space: gym.Space) -> None:
        self.observation_space, self.action_space = observation_space, action_space
        self.actions: list[Any] = []

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[Any, dict]:
        super().reset(seed=seed)
        self.observation_space.seed(seed)
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict]:
        self.actions.append(action)
        return self.observation_space.sample(), 1.0, False, False, {}


class RecallCue(gym.Env):
    """Shows one of `num_cues` cues at the first step and asks for it after `delay` steps with others.

    The observation is [symbol, one-hot, num_cues entries; whether it is the cue, a distraction, or the question]. The
    question shows no symbol, and only the action that answers it counts: 1 for the cue, 0 for anything else. So the
    best return is 1; what is seen at the question alone says nothing, and the mean without memory is 1 / num_cues.
    """

    def __init__(self, delay: int = 8, num_cues: int = 4) -> None:
        self.observation_space = spaces.Box(0.0, 1.0, [num_cues + 3], np.float32)
        self.action_space = spaces.Discrete(num_cues)
        self.delay, self.num_cues = delay, num_cues

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.step_index = 0
        self.symbols = self.np_random.integers(self.num_cues, size=1 + self.delay)
        return self._observation(), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict]:
        ended = self.step_index > self.delay
        reward = float(ended and action == self.symbols[0])
        self.step_index += 1
        return self._observation(), reward, ended, False, {}

    def _observation(self) -> np.ndarray:
        observation = np.zeros(self.num_cues + 3, np.float32)
        if self.step_index <= self.delay:
            observation[self.symbols[self.step_index]] = 1.0
        observation[self.num_cues + min(self.step_index, 1) + (self.step_index > self.delay)] = 1.0
        return observation


class Doors(gym.Env):
    """A corridor of locked doors: each opens with one key of its own, out of many, of which few are at hand.

    The right key of a door is always the same and always at hand; which others are, changes from step to step. An open
    door gives 1, a key at hand that does not fit nothing, and a key that is not at hand costs 0.1. So the best return
    is `num_doors`. The observation says which door it is, one-hot, and what is at hand: as `action_mask`, or, if not
    `masked`, as further numbers, so that nothing is hidden from a policy without masks.
    """

    def __init__(self, masked: bool = True, num_doors: int = 8, num_keys: int = 256, at_hand: int = 6) -> None:
        self.masked, self.num_doors, self.num_keys, self.at_hand = masked, num_doors, num_keys, at_hand
        self.right_keys = np.random.default_rng(0).permutation(num_keys)[:num_doors]
        self.action_space = spaces.Discrete(num_keys)
        self.observation_space = spaces.Box(0.0, 1.0, [num_doors + num_keys], np.float32)
        if masked:
            door = spaces.Box(0.0, 1.0, [num_doors], np.float32)
            self.observation_space = spaces.Dict({"observation": door, "action_mask": spaces.MultiBinary(num_keys)})

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[Any, dict]:
        super().reset(seed=seed)
        self.door = self.step_index = 0
        return self._observation(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict]:
        reward = -0.1
        if self.mask[action]:
            reward = float(action == self.right_keys[self.door])
            self.door += int(reward)
        self.step_index += 1
        ended = self.door == self.num_doors
        return self._observation(), reward, ended, not ended and self.step_index == 4 * self.num_doors, {}

    def _observation(self) -> Any:
        door = min(self.door, self.num_doors - 1)
        self.mask = np.zeros(self.num_keys, np.int8)
        self.mask[self.np_random.choice(self.num_keys, self.at_hand - 1, replace=False)] = 1
        self.mask[self.right_keys[door]] = 1
        one_hot = (np.arange(self.num_doors) == door).astype(np.float32)
        if self.masked:
            return {"observation": one_hot, "action_mask": self.mask}
        return np.concatenate([one_hot, self.mask.astype(np.float32)])


gym.register("RecallCue-v0", "toy_environments:RecallCue")
gym.register("MaskedDoors-v0", "toy_environments:Doors", kwargs={"masked": True})
gym.register("UnmaskedDoors-v0", "toy_environments:Doors", kwargs={"masked": False})


class SameStepCounters(VectorEnv):
    """Counters of different lengths with SAME_STEP autoreset, written without gymnasium's helpers.

    It ignores the options of `reset`, as many such environments do.
    """

    metadata: ClassVar = {"autoreset_mode": AutoresetMode.SAME_STEP}

    def __init__(self, lengths: tuple[int, ...]) -> None:
        self.num_envs, self.lengths = len(lengths), np.array(lengths)
        self.single_observation_space = spaces.Box(-1.0, 1e3, [1], np.float32)
        self.observation_space = gym.vector.utils.batch_space(self.single_observation_space, self.num_envs)
        self.single_action_space = spaces.Discrete(5)
        self.action_space = gym.vector.utils.batch_space(self.single_action_space, self.num_envs)

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict]:
        self.count = np.zeros([self.num_envs, 1], np.float32)
        return self.count.copy(), {}

    def step(self, actions: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict]:
        self.count += 1
        ended = self.count[:, 0] >= self.lengths
        final, reward = self.count.copy(), self.count[:, 0].copy()
        self.count[ended] = 0
        return self.count.copy(), reward, ended, np.zeros_like(ended), {"final_obs": final, "_final_obs": ended}


class CountingPolicy(tf_policy.TFPolicy):
    """Acts by the observation alone: action = sum(observation) modulo 5, policy info = 2 * observation."""

    def __init__(self, time_step_spec: Any, action_spec: Any) -> None:
        info_spec = {"twice": tf.TensorSpec(time_step_spec.observation.shape, tf.float32)}
        super().__init__(time_step_spec, action_spec, info_spec=info_spec)

    def _variables(self) -> list[tf.Variable]:
        return []

    def _distribution(self, time_step: Any, policy_state: Any) -> policy_step.PolicyStep:
        raise NotImplementedError

    def _action(self, time_step: Any, policy_state: Any, seed: Any) -> policy_step.PolicyStep:
        observation = time_step.observation
        action = tf.cast(tf.reduce_sum(observation, -1), self.action_spec.dtype) % 5
        return policy_step.PolicyStep(action, policy_state, {"twice": 2 * observation})


class GraphCountingPolicy(CountingPolicy):
    """The same with an operation that NumPy does not carry out."""

    def _action(self, time_step: Any, policy_state: Any, seed: Any) -> policy_step.PolicyStep:
        checked = tf.debugging.check_numerics(time_step.observation, "observation")
        return super()._action(time_step._replace(observation=checked), policy_state, seed)


class RememberingPolicy(CountingPolicy):
    """Adds up the observations of an episode in its policy state and acts by the sum."""

    def __init__(self, time_step_spec: Any, action_spec: Any) -> None:
        tf_policy.TFPolicy.__init__(self, time_step_spec, action_spec, policy_state_spec=tf.TensorSpec([], tf.float32))

    def _action(self, time_step: Any, policy_state: Any, seed: Any) -> policy_step.PolicyStep:
        total = policy_state + tf.reduce_sum(time_step.observation, -1)
        return policy_step.PolicyStep(tf.cast(total, self.action_spec.dtype) % 5, total, ())


class GraphRememberingPolicy(RememberingPolicy):
    """The same with an operation that NumPy does not carry out."""

    def _action(self, time_step: Any, policy_state: Any, seed: Any) -> policy_step.PolicyStep:
        checked = tf.debugging.check_numerics(time_step.observation, "observation")
        return super()._action(time_step._replace(observation=checked), policy_state, seed)
