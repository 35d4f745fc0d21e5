"""The model of docs/scaling.md, its predictions, and a simulation that checks it with workers that only wait.

python -m benchmarks.scaling_model                 # predictions from the constants
python -m benchmarks.scaling_model --simulate=8,32 # against Ray, with so many workers on this machine
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import time
from typing import Any

import numpy as np

# As few bytes as a row of MuJoCo's has here.
_MESSAGE = 1024.0


@dataclasses.dataclass(frozen=True)
class Machine:
    """Constants; those of this machine are in docs/scaling.csv.

    Attributes:
        step_s: Of one environment, policy included, on one core of a worker.
        message_s: Of the driver's core, for each worker and iteration: send a call, receive its answer.
        row_s: Of the driver's core for a row of experience: copy it to the replay buffer.
        row_bytes: Of a row.
        weight_bytes: Of the weights.
        nodes_per_worker: Of the cluster; weights are sent once for each node.
        network_bytes_s: Of the driver's network.
        update_row_s: Of one device, for a row in one epoch.
        reduce_s: Of a gradient step, for all-reducing.
    """

    step_s: float
    message_s: float
    row_s: float
    row_bytes: float
    weight_bytes: float
    nodes_per_worker: float
    network_bytes_s: float
    update_row_s: float
    reduce_s: float


@dataclasses.dataclass(frozen=True)
class Run:
    """What is trained.

    Attributes:
        workers: W.
        rows: Of each worker and iteration, K.
        epochs: E.
        minibatch: Rows of a gradient step.
        devices: Of the learner.
    """

    workers: int
    rows: int
    epochs: int = 10
    minibatch: int = 64
    devices: int = 1


@dataclasses.dataclass(frozen=True)
class Prediction:
    """Seconds of the parts of an iteration."""

    steps_s: float
    messages_s: float
    rows_in_s: float
    network_s: float
    update_s: float

    @property
    def iteration_s(self) -> float:
        """Of an iteration: steps and what the driver does for it follow one another, rows arrive while it copies."""
        return self.steps_s + self.messages_s + max(self.rows_in_s, self.network_s) + self.update_s


def predict(machine: Machine, run: Run) -> Prediction:
    """The parts of an iteration.

    Args:
        machine: The constants.
        run: What is trained.
    """
    rows = run.workers * run.rows
    steps = run.epochs * rows / run.minibatch
    sent = machine.weight_bytes * max(1.0, run.workers * machine.nodes_per_worker) + rows * machine.row_bytes
    return Prediction(
        run.rows * machine.step_s,
        run.workers * machine.message_s,
        rows * machine.row_s,
        sent / machine.network_bytes_s,
        run.epochs * rows * machine.update_row_s / run.devices + steps * machine.reduce_s * (run.devices > 1),
    )


def simulate(workers: int, rows: int, step_s: float, row_bytes: int, runs: int = 12) -> list[float]:
    """Seconds of iterations of Ray actors that wait instead of stepping, and return as many bytes.

    Args:
        workers: How many actors; they need no core of their own.
        rows: Of each.
        step_s: That each waits for a row.
        row_bytes: Of a row.
        runs: How many.
    """
    from ppo_agent.drivers.ray_workers import cluster

    ray, has_started = cluster.connect(None, 2)
    actor = ray.remote(num_cpus=0)(Waiting)
    actors = [actor.remote() for _ in range(workers)]
    ray.get([worker.collect.remote(None, 1, 0.0, 1) for worker in actors])
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        weights = ray.put([np.zeros(11_000, np.float32)])
        parts = ray.get([worker.collect.remote(weights, rows, step_s, row_bytes) for worker in actors])
        np.concatenate(parts)
        times.append(time.perf_counter() - start)
    for worker in actors:
        ray.kill(worker)
    if has_started:
        ray.shutdown()
    return times[2:]


class Waiting:
    """An actor that takes its time."""

    def collect(self, weights: Any, rows: int, step_s: float, row_bytes: int) -> Any:
        """Waits for all rows, and returns their bytes."""
        del weights
        time.sleep(rows * step_s)
        return np.zeros((rows, row_bytes), np.uint8)


# Measured on two cores that other programs used too, see docs/scaling.md.
HERE = Machine(
    step_s=1.1e-3, message_s=1.4e-3, row_s=0.13e-6, row_bytes=156.0, weight_bytes=43.3 * _MESSAGE,
    nodes_per_worker=0.0, network_bytes_s=3e9, update_row_s=1.6e-6, reduce_s=1.6e-3,
)  # fmt: skip
# A cluster of machines with 32 cores and 25 GBit/s, a learner with 8 GPUs of which each is as fast as 4 cores here.
CLUSTER = dataclasses.replace(
    HERE, nodes_per_worker=1 / 32, network_bytes_s=3.1e9, update_row_s=0.4e-6, reduce_s=0.3e-3
)


def _tell(name: str, prediction: Prediction, run: Run) -> None:
    parts = ", ".join(f"{f.name} {getattr(prediction, f.name):.3f}" for f in dataclasses.fields(prediction))
    steps = run.workers * run.rows / prediction.iteration_s
    print(f"{name}: {prediction.iteration_s:.2f} s per iteration, {steps:,.0f} steps/s ({parts})")


def main() -> None:
    """Prints predictions, and what was simulated."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--simulate", default="", help="numbers of workers, with commas between them")
    given = parser.parse_args()
    for workers in (1, 2, 8, 32, 100, 1000):
        for devices in (1, 8):
            run = Run(workers, 2048, minibatch=max(64, 32 * workers), devices=devices)
            _tell(f"{workers} workers, {devices} devices", predict(CLUSTER, run), run)
    for workers in [int(number) for number in given.simulate.split(",") if number]:
        for step_s in (0.0, HERE.step_s):
            run, machine = Run(workers, 512, epochs=0), dataclasses.replace(HERE, step_s=step_s)
            expected = predict(machine, run).iteration_s
            found = statistics.median(simulate(workers, run.rows, step_s, int(HERE.row_bytes)))
            text = f"{workers} workers that wait {1e3 * step_s} ms a row: {1e3 * found:.1f} ms"
            print(f"{text}, predicted {1e3 * expected:.1f} ms", flush=True)


if __name__ == "__main__":
    main()
