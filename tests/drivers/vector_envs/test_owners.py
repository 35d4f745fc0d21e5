"""Processes of environments end with the one that has started them, whatever ends it."""

import gc
import multiprocessing
import os
import signal
import threading
import time
import weakref

import numpy as np
import pytest
from toy_environments import Counter

from ppo_agent.drivers import DynamicStepDriver, GymnasiumEnvironment
from ppo_agent.drivers.vector_envs import processes

pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")


class Hanging(Counter):
    def step(self, action):
        time.sleep(1000)


class Spinning(Counter):
    def step(self, action):
        while True:
            pass


def is_running(pid):
    """Whether there is such a process; what has ended and waits for its parent is none."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def wait_until_ended(pids, seconds=10.0):
    end = time.monotonic() + seconds
    while time.monotonic() < end and any(map(is_running, pids)):
        time.sleep(0.05)
    return [pid for pid in pids if is_running(pid)]


def own(make, pipe, in_thread):
    """Starts environments, two vector environments of two halves, begins to step one, and waits to be ended."""
    for name in ("HUP", "QUIT", "TERM"):  # A shell lets its background jobs ignore some of them.
        signal.signal(getattr(signal, f"SIG{name}"), signal.SIG_DFL)

    def start():
        envs = [processes.make_process_env(make, 4) for _ in range(2)]
        for env in envs:
            for half in env.halves:
                half.reset(seed=0)
        envs[0].halves[0].step_async(np.zeros(2, np.int64))
        pipe.send([process.pid for env in envs for process in env.processes])
        time.sleep(1000)

    if in_thread:
        thread = threading.Thread(target=start, daemon=True)
        thread.start()
        thread.join()
    start()


@pytest.mark.parametrize("make", [Counter, Hanging, Spinning])
@pytest.mark.parametrize("in_thread", [False, True])
@pytest.mark.parametrize("signals", [["KILL"], ["HUP"], ["QUIT"], ["TERM", "TERM"]], ids="-".join)
def test_workers_end_with_their_owner(make, in_thread, signals):
    context = multiprocessing.get_context("fork")
    pipe, theirs = context.Pipe()
    output, their_output = os.pipe()
    owner = context.Process(target=own, args=(make, theirs, in_thread))
    owner.start()
    theirs.close()
    os.close(their_output)  # Like a caller who reads a program's output until its end.
    assert pipe.poll(20)
    workers = pipe.recv()
    assert len(workers) >= 4
    assert all(map(is_running, workers))
    for name in signals:
        os.kill(owner.pid, getattr(signal, f"SIG{name}"))
        time.sleep(0.02)
    owner.join(10)
    has_ended = owner.exitcode is not None
    owner.kill()
    assert has_ended
    assert wait_until_ended(workers) == []
    assert os.read(output, 1) == b""
    os.close(output)


def test_environments_that_are_dropped_end_their_processes():
    started = []
    for seed in range(10):
        env = GymnasiumEnvironment(Counter, num_environments=2 + 2 * (seed % 2), vectorization="async", seed=seed)
        env.reset_numpy()
        started += [process.pid for process in env.gymnasium_env.processes]
        del env
    gc.collect()
    assert len(started) >= 20
    assert wait_until_ended(started) == []


def test_an_environment_that_drivers_have_used_is_dropped_with_them():
    from toy_environments import CountingPolicy

    env = GymnasiumEnvironment(Counter, num_environments=4, vectorization="async", seed=0)
    driver = DynamicStepDriver(env, CountingPolicy(env.time_step_spec(), env.action_spec()), num_steps=20)
    driver.run()
    pids, gone = [process.pid for process in env.gymnasium_env.processes], weakref.ref(env)
    del env, driver
    gc.collect()
    assert gone() is None
    assert wait_until_ended(pids) == []


def test_a_forked_process_does_not_end_the_workers_of_its_parent():
    with GymnasiumEnvironment(Counter, num_environments=4, vectorization="async", seed=0) as env:
        env.reset_numpy()
        child = multiprocessing.get_context("fork").Process(target=env.gymnasium_env.close)
        child.start()
        child.join()
        assert env.step_numpy(np.zeros(4, np.int64)).observation.shape == (4, 2)
