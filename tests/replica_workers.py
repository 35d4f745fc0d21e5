"""One of two processes that train an agent together, each with half of an experience; a program.

Arguments: number of this process, the other's and its own port, a folder for checkpoints, the number of the call of
`train` after which process 1 kills itself (0: never).
"""

import ppo_agent  # noqa: F401 # isort: skip

import json
import os
import signal
import sys
import time

import helpers
import numpy as np
import replicas
import tensorflow as tf

CALLS = 20
TIMEOUT_S = 20
KEYWORDS = {**replicas.COMMON, "num_epochs": 5, "minibatch_size": None, "gradient_clipping": 0.5}


def parameters(agent):
    return np.concatenate([v.numpy().ravel() for v in agent._trained_variables()])


def main():
    index, ports, folder, fatal = int(sys.argv[1]), sys.argv[2].split(","), sys.argv[3], int(sys.argv[4])
    addresses = [f"127.0.0.1:{port}" for port in ports]
    os.environ["TF_CONFIG"] = json.dumps({"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}})
    options = tf.distribute.experimental.CommunicationOptions(timeout_seconds=TIMEOUT_S)
    strategy = tf.distribute.MultiWorkerMirroredStrategy(communication_options=options)
    rng = np.random.default_rng(0)
    tf.random.set_seed(1)
    plain, agent = replicas.make_agents(strategy, **KEYWORDS)
    checkpoint = tf.train.Checkpoint(agent=agent, optimizer=agent._optimizer)
    manager = tf.train.CheckpointManager(checkpoint, f"{folder}/{index}", max_to_keep=1)

    @tf.function(autograph=False)
    def train(experience):
        return strategy.run(agent.train, args=(experience,))

    first = 0
    if manager.latest_checkpoint:
        checkpoint.restore(manager.latest_checkpoint)
        first = int(agent.train_step_counter.numpy()) // KEYWORDS["num_epochs"]
    for call in range(CALLS):
        experience = replicas.experience_of(plain, rng)
        expected = plain.train(experience)
        if call < first:
            continue
        half = tf.nest.map_structure(lambda x: tf.split(x, 2)[index], experience)
        given = strategy.experimental_distribute_values_from_function(lambda _, half=half: half)
        if fatal and call == fatal and index == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        start = time.monotonic()
        try:
            loss = train(given).loss
        except tf.errors.OpError as error:
            found = {"error": str(error).splitlines()[:12], "type": type(error).__name__}
            print(json.dumps({**found, "after_s": time.monotonic() - start}), flush=True)  # noqa: T201
            os._exit(1)  # The strategy's own threads wait for the other for ever.
        loss = strategy.reduce("SUM", loss, axis=None)
        manager.save()
    states = helpers.state_of(agent), helpers.state_of(plain)
    errors = {name: replicas.error(states[0][name], value) for name, value in states[1].items()}
    result = {"first": first, "steps": int(agent.train_step_counter.numpy()), "error": max(errors.values())}
    result |= {"loss": replicas.error(loss, expected.loss), "parameters": parameters(agent).tolist()}
    print(json.dumps(result), flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
