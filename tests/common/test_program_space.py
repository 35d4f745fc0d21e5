"""Whether XLA may compile another program in this process."""

import os
import sys
from pathlib import Path

import forked_programs
import pytest

from ppo_agent.common import program_space

# Leaves the process less room than an update takes, then trains with an environment that XLA takes too.
PROGRAM = """
import ctypes, mmap, pathlib
import ppo_agent
import numpy as np
import tensorflow as tf
from ppo_agent import networks
from ppo_agent.drivers import DynamicStepDriver, TFCartPole, UniformReplayBuffer

env = TFCartPole(num_environments=4, seed=0)
observations, actions = env.time_step_spec().observation, env.action_spec()
agent = ppo_agent.PPOClipAgent(
    env.time_step_spec(), actions, tf.keras.optimizers.Adam(1e-3), networks.ActorNetwork(observations, actions, (8,)),
    networks.ValueNetwork(observations, (8,)), num_epochs=2, minibatch_size=32, jit_compile={jit_compile},
)
agent.initialize()
buffer = UniformReplayBuffer(agent.collect_data_spec, 4, 300)
driver = DynamicStepDriver(env, agent.collect_policy, [buffer.add_batch], num_steps=256, bootstrap_row=True)

taken = sum(1 for _ in open("/proc/self/maps"))
pages = int(pathlib.Path("/proc/sys/vm/max_map_count").read_text()) - taken - 350
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
size = mmap.PAGESIZE
start = libc.mmap(None, ctypes.c_size_t(pages * size), 0, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1, ctypes.c_long(0))
for page in range(0, pages, 2):  # Every second one can be read, so that no two are one mapping.
    assert libc.mprotect(ctypes.c_void_p(start + page * size), ctypes.c_size_t(size), mmap.PROT_READ) == 0

driver.run()
agent.train(buffer.gather_all())
print("loss", np.isfinite(agent.train_metrics()["loss"]))
"""


def test_reads_what_the_kernel_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    limit, mappings = tmp_path / "limit", tmp_path / "mappings"
    monkeypatch.setattr(program_space, "_LIMIT", limit)
    monkeypatch.setattr(program_space, "_MAPPINGS", mappings)
    assert program_space.is_left()  # Nobody knows.
    limit.write_text("100\n")
    mappings.write_text(90 * "a mapping\n")
    assert program_space.is_left()
    mappings.write_text(91 * "a mapping\n")
    assert not program_space.is_left()
    limit.write_text("many\n")
    assert program_space.is_left()


@pytest.mark.skipif(sys.platform != "linux", reason="Its kernel is asked.")
@pytest.mark.parametrize("jit_compile", [None, True])
def test_trains_without_xla_where_there_is_no_room(jit_compile: bool | None) -> None:
    """TensorFlow ended the process with a segmentation fault."""
    program = PROGRAM.replace("{jit_compile}", str(jit_compile))
    ended = forked_programs.run(program, dict(os.environ))
    assert ended.returncode == 0, ended.stderr[-2000:]
    assert "loss True" in ended.stdout
    assert ended.stderr.count(program_space.FULL) == 2  # Of the rollout and of the update.
    assert "it runs without XLA" in ended.stderr
