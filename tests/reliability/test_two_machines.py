"""Two network namespaces stand in for two machines: what docs/scaling.md tells to type learns as one machine does.

It needs root, and `ip` of iproute2.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence

import pytest

pytest.importorskip("ray")

HEAD = "10.77.0.1"
PORT = 6391
BIN = pathlib.Path(sys.executable).parent
TRAINING = ("--env_name=CartPole-v1", "--rollout_workers=2", "--total_environment_steps=20000", "--seed=0",
            "--num_eval_episodes=20", "--progress=false")  # fmt: skip


def may_make_namespaces() -> bool:
    """Whether this process may: root, and not in a container that forbids it."""
    if os.geteuid() or shutil.which("ip") is None:
        return False
    made = subprocess.run(["ip", "netns", "add", "ppo-probe"], check=False, capture_output=True)
    subprocess.run(["ip", "netns", "delete", "ppo-probe"], check=False, capture_output=True)
    return made.returncode == 0


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)


@pytest.fixture
def machines() -> Iterator[tuple[str, str]]:
    """Two namespaces with a cable between them."""
    names = (f"ppo-first-{os.getpid()}", f"ppo-second-{os.getpid()}")
    with contextlib.ExitStack() as stack:
        for name in names:
            ip("netns", "add", name)
            stack.callback(ip, "netns", "delete", name)
        cable = tuple(f"ppo{place}-{os.getpid() % 100_000}" for place in (0, 1))
        ip("link", "add", cable[0], "type", "veth", "peer", "name", cable[1])
        for place, name in enumerate(names):
            ip("link", "set", cable[place], "netns", name)
            ip("-n", name, "address", "add", f"10.77.0.{place + 1}/24", "dev", cable[place])
            ip("-n", name, "link", "set", cable[place], "up")
            ip("-n", name, "link", "set", "lo", "up")
        yield names


@contextlib.contextmanager
def running(command: Sequence[str], log: pathlib.Path, environment: dict[str, str]) -> Iterator[None]:
    """A program and its children, which are ended with it."""
    with log.open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env=environment, start_new_session=True)
        try:
            yield
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(60)


def wait_for(log: pathlib.Path, text: str) -> None:
    deadline = time.monotonic() + 120
    while text not in log.read_text():
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.2)


@pytest.mark.slow
@pytest.mark.skipif(not may_make_namespaces(), reason="it needs root and ip netns")
def test_workers_on_a_second_machine_collect_what_local_ones_do(
    tmp_path: pathlib.Path, machines: tuple[str, str]
) -> None:
    token = tmp_path / "token"
    token.write_text(secrets.token_hex(32))
    token.chmod(0o600)
    environment = {**os.environ, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}

    def on(place: int, *command: str) -> list[str]:
        return ["ip", "netns", "exec", machines[place], str(BIN / command[0]), *command[1:]]

    head = on(0, "ray", "start", "--head", f"--node-ip-address={HEAD}", f"--port={PORT}", "--num-cpus=1",
              "--include-dashboard=false", "--block")  # fmt: skip
    second = on(1, "ray", "start", f"--address={HEAD}:{PORT}", "--num-cpus=2", "--block")
    logs = tmp_path / "head.log", tmp_path / "second.log"
    with running(head, logs[0], environment):
        wait_for(logs[0], "Ray runtime started")
        with running(second, logs[1], environment):
            wait_for(logs[1], "Ray runtime started")
            train = on(0, "ppo-train", *TRAINING, f"--ray_address={HEAD}:{PORT}", f"--root_dir={tmp_path / 'two'}")
            subprocess.run(train, check=True, env=environment, timeout=600)
    subprocess.run([BIN / "ppo-train", *TRAINING, f"--root_dir={tmp_path / 'one'}"], check=True, timeout=600)
    two, one = (json.loads((tmp_path / name / "result.json").read_text()) for name in ("two", "one"))
    assert two["environment_steps"] == one["environment_steps"]
    assert two["eval_return_mean"] == pytest.approx(one["eval_return_mean"], rel=1e-3)
    assert two["worker_restarts"] == 0
