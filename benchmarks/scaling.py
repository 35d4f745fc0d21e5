"""Measures collection by Ray's workers, and what they cost: the constants of the model in docs/scaling.md.

python -m benchmarks.scaling --output=docs/scaling.csv
"""

from __future__ import annotations

import argparse
import csv
import functools
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ppo_agent  # isort: skip

import gymnasium as gym
import tensorflow as tf

from benchmarks.slow_environment import Slow
from ppo_agent import networks
from ppo_agent.drivers import DynamicStepDriver, GymnasiumEnvironment, RayDriver, UniformReplayBuffer

STEP_S = 0.001
ROWS = 2048


def make_agent(env: Callable[[], gym.Env]) -> ppo_agent.PPOClipAgent:
    """An agent of the usual size of MuJoCo's."""
    with GymnasiumEnvironment(env, vectorization="sync") as single:
        specs = single.time_step_spec(), single.action_spec()
    actor = networks.ActorNetwork(specs[0].observation, specs[1], fc_layers=(64, 64))
    value = networks.ValueNetwork(specs[0].observation, fc_layers=(64, 64))
    optimizer = tf.keras.optimizers.Adam(3e-4, epsilon=1e-5)
    return ppo_agent.PPOClipAgent(
        *specs, optimizer=optimizer, actor_net=actor, value_net=value, num_epochs=10, minibatch_size=64
    )


def seconds_per_run(driver: Any, buffer: UniformReplayBuffer, runs: int) -> list[float]:
    """Times of some runs, after one that is not counted."""
    found = []
    for _ in range(runs + 1):
        buffer.clear()
        start = time.perf_counter()
        driver.run()
        found.append(time.perf_counter() - start)
    return found[1:]


def collection(works: bool, runs: int) -> list[dict[str, Any]]:
    """A single process, and two workers, with environments that take a millisecond a step."""
    env = functools.partial(Slow, STEP_S, works)
    agent = make_agent(env)
    buffer = UniformReplayBuffer(agent.collect_data_spec, 2, ROWS)
    keywords: dict[str, Any] = {"bootstrap_row": True, "num_steps": 500}
    with GymnasiumEnvironment(env, num_environments=2, vectorization="sync") as local:
        driver = DynamicStepDriver(local, agent.collect_policy, [buffer.add_batch], **keywords)
        single = statistics.median(seconds_per_run(driver, buffer, runs))
    with RayDriver(env, agent.collect_policy, [buffer.add_batch], num_workers=2, **keywords) as workers:
        several = statistics.median(seconds_per_run(workers, buffer, runs))
    kind = "work" if works else "sleep"
    return [
        _row(f"single process, 1 ms of {kind}", 500 / single, "steps/s"),
        _row(f"2 workers, 1 ms of {kind}", 500 / several, "steps/s"),
        _row(f"speed-up, 1 ms of {kind}", single / several, "x"),
    ]


def overhead(runs: int) -> list[dict[str, Any]]:
    """What an iteration costs besides the steps: the time of a run less that of the worker that took longest."""
    env = functools.partial(Slow, 0.0, False)
    agent = make_agent(env)
    rows: list[dict[str, Any]] = []
    for workers in (1, 2):
        buffer = UniformReplayBuffer(agent.collect_data_spec, workers, ROWS + 64)
        keywords: dict[str, Any] = {"num_workers": workers, "num_steps": workers * ROWS, "bootstrap_row": True}
        with RayDriver(env, agent.collect_policy, [buffer.add_batch], **keywords) as driver:
            costs = []
            for _ in range(runs + 1):
                buffer.clear()
                start = time.perf_counter()
                driver.run()
                costs.append(time.perf_counter() - start - max(driver.worker_seconds))
            name = f"overhead of an iteration, {workers} x {ROWS} steps"
            rows.append(_row(name, 1e3 * statistics.median(costs[1:]), "ms"))
            if workers == 2:
                rows += _processes(driver)
                # Without rows: what is left are weights and messages.
                rows.append(_row("round of messages, 2 workers", 1e3 * _message_round(driver), "ms"))
    return rows


def _message_round(driver: RayDriver) -> float:
    times = []
    for _ in range(50):
        start = time.perf_counter()
        driver.processes()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def _processes(driver: RayDriver) -> list[dict[str, Any]]:
    memory = statistics.mean(process["memory"] for process in driver.processes())
    return [_row("memory of a worker without TensorFlow", memory / 2**20, "MiB")]


def start_up() -> list[dict[str, Any]]:
    """Seconds until a worker has answered for the first time, and its memory, with and without TensorFlow in it."""
    from ppo_agent.drivers.array_policies.array_policy import ArrayPolicy

    env = functools.partial(Slow, 0.0, False)
    agent = make_agent(env)
    rows, original = [], ArrayPolicy.program
    for name in ("without TensorFlow", "with TensorFlow"):
        if name == "with TensorFlow":
            ArrayPolicy.program = lambda *_: None  # type: ignore[method-assign]
        with RayDriver(env, agent.collect_policy, num_steps=1) as driver:
            start = time.perf_counter()
            driver.run()
            rows.append(_row(f"start of a worker {name}", time.perf_counter() - start, "s"))
            memory = driver.processes()[0]["memory"] / 2**20
            rows.append(_row(f"memory of a single worker {name}", memory, "MiB"))
    ArrayPolicy.program = original  # type: ignore[method-assign]
    return rows


def learner(runs: int) -> list[dict[str, Any]]:
    """Seconds of an update per row and epoch, and what the weights weigh."""
    env = functools.partial(Slow, 0.0, False)
    agent = make_agent(env)
    buffer = UniformReplayBuffer(agent.collect_data_spec, 2, ROWS + 64)
    with GymnasiumEnvironment(env, num_environments=2, vectorization="sync") as local:
        DynamicStepDriver(local, agent.collect_policy, [buffer.add_batch], num_steps=2 * ROWS, bootstrap_row=True).run()
    experience, times = buffer.gather_all(), []
    for _ in range(runs + 1):
        start = time.perf_counter()
        agent.train(experience)
        times.append(time.perf_counter() - start)
    size = sum(v.numpy().nbytes for v in agent._trained_variables())
    row_bytes = sum(leaf.numpy().nbytes for leaf in tf.nest.flatten(experience)) / (2 * (ROWS + 1))
    return [
        _row("update, 10 epochs of 2 x 2048 rows", statistics.median(times[1:]), "s"),
        _row("weights", size / 1024, "KiB"),
        _row("a row of experience", row_bytes, "B"),
    ]


def _row(name: str, value: float, unit: str) -> dict[str, Any]:
    print(f"{name}: {value:.4g} {unit}", flush=True)
    return {"measured": name, "value": f"{value:.4g}", "unit": unit}


def main() -> None:
    """Measures all, and writes a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--runs", type=int, default=15)
    given = parser.parse_args()
    rows = [*overhead(given.runs), *collection(True, given.runs), *collection(False, given.runs)]
    rows += [*learner(5), *start_up()]
    if given.output:
        with given.output.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, ["measured", "value", "unit"], lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    main()
