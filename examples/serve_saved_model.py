"""Loads an exported policy with TensorFlow alone and acts.

    python serve_saved_model.py --policy_dir=runs/CartPole-v1/.../policy --observations=observations.npy

Nothing of ppo_agent, TF-Agents or TensorFlow Probability is needed, so this program can be copied into a service. It
calls the signature `action`, in which observations, actions and the state of recurrent policies are flat and named.
"""

import numpy as np
import tensorflow as tf
from absl import app, flags

_POLICY_DIR = flags.DEFINE_string("policy_dir", None, "Directory of the SavedModel.", required=True)
_OBSERVATIONS = flags.DEFINE_string(
    "observations",
    None,
    "A .npy file with a batch of observations, or a .npz file with one array for each input of a "
    "policy with several; random ones if not given.",
)
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 4, "Number of random observations.", lower_bound=1)
_STEPS = flags.DEFINE_integer("steps", 1, "How often to act on the batch.", lower_bound=1)


def read_observations(path: str) -> dict[str, np.ndarray]:
    """Arrays [B, ...] by the name of the input."""
    loaded = np.load(path)
    return {"observation": loaded} if isinstance(loaded, np.ndarray) else dict(loaded)


def random_observations(specs: dict[str, tf.TensorSpec], batch_size: int) -> dict[str, np.ndarray]:
    """Standard normal numbers; cast to integers where the input holds those."""
    generator = np.random.default_rng()
    return {name: generator.standard_normal([batch_size, *spec.shape[1:]]) for name, spec in specs.items()}


def main(argv: list[str]) -> None:
    """Acts and prints the actions."""
    del argv
    policy = tf.saved_model.load(_POLICY_DIR.value)
    act = policy.signatures["action"]
    specs = act.structured_input_signature[1]
    observation_specs = {name: spec for name, spec in specs.items() if name.startswith("observation")}
    if _OBSERVATIONS.value:
        arrays = read_observations(_OBSERVATIONS.value)
    else:
        arrays = random_observations(observation_specs, _BATCH_SIZE.value)
    observations = {name: tf.cast(arrays[name], spec.dtype) for name, spec in observation_specs.items()}

    state = {}
    if "initial_state" in policy.signatures:  # a recurrent policy, at the start of an episode
        state = policy.signatures["initial_state"](batch_size=tf.constant(len(next(iter(arrays.values())))))
    for _ in range(_STEPS.value):
        outputs = act(**observations, **state)
        state = {name: value for name, value in outputs.items() if name in state}
        for name in sorted(set(outputs) - set(state)):
            print(f"{name}: {outputs[name].numpy().tolist()}")


if __name__ == "__main__":
    app.run(main)
