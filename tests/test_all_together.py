"""Action masks, recurrent networks, hybrid actions and nested observations in one agent, served by TensorFlow alone."""

import json
import subprocess
import textwrap

import numpy as np
import tensorflow as tf
from space_environments import AnySpaces
from test_conformance import ENVIRONMENTS, episode_of, make_agent, train_twice

from ppo_agent.drivers import GymnasiumEnvironment
from ppo_agent.export import export_policy

SCRIPT = """
    import importlib.util, json, sys
    assert not any(map(importlib.util.find_spec, ("tf_agents", "tensorflow_probability", "tf_keras")))
    import numpy as np, tensorflow as tf
    policy = tf.saved_model.load(sys.argv[1] + "/export")
    arrays = np.load(sys.argv[1] + "/episode.npz")
    state = policy.initial_state(len(arrays["is_first"][0]))
    for step, is_first in enumerate(arrays["is_first"]):
        leaf = lambda name: tf.constant(arrays[name][step])
        observation = {"action_mask": leaf("action_mask"), "observation": {
            "pixels": leaf("pixels"), "position": leaf("position"), "room": leaf("room")}}
        state = policy.reset_state(state, tf.constant(is_first))
        action, state = policy.action(observation, state)
        print(json.dumps([leaf.numpy().tolist() for leaf in tf.nest.flatten(action)]))
"""


def test_all_together(tensorflow_only_python, tmp_path):
    with GymnasiumEnvironment(
        lambda: AnySpaces("dict", "tuple", masked=True), num_environments=ENVIRONMENTS, seed=5
    ) as env:
        agent = make_agent(env, "shared_lstm")
        train_twice(agent, env)
        path = tf.train.Checkpoint(agent=agent).write(str(tmp_path / "checkpoint"))
        restored = make_agent(env, "shared_lstm", seed=1)
        tf.train.Checkpoint(agent=restored).read(path).expect_partial()
        # The environment raises where an action is masked.
        episode = list(episode_of(restored.policy, env, steps=30))
    export_policy(restored.policy, tmp_path / "export")
    observations = [time_step.observation for time_step, _ in episode]
    np.savez(
        tmp_path / "episode.npz",
        is_first=np.stack([time_step.is_first() for time_step, _ in episode]),
        action_mask=np.stack([observation["action_mask"] for observation in observations]),
        **{
            name: np.stack([observation["observation"][name] for observation in observations])
            for name in ("pixels", "position", "room")
        },
    )
    command = [str(tensorflow_only_python), "-c", textwrap.dedent(SCRIPT), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == len(episode)
    for line, (_, action) in zip(lines, episode, strict=True):
        for found, expected in zip(json.loads(line), tf.nest.flatten(action), strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
