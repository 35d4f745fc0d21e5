"""The HTTP service and the request for TensorFlow Serving fit the signatures of what is exported."""

import asyncio
import importlib.util
import json
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import policy_kinds
import pytest
import tensorflow as tf

from ppo_agent import export
from ppo_agent.export.runners import SavedModelRunner

EXAMPLES = Path(__file__).parents[2] / "examples"
httpx = pytest.importorskip("httpx")
pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")


def _module(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _with_client(directory: Path, talk: Any) -> Any:
    """Runs a coroutine function of a client and the policy, without a network."""
    example = _module("serve_http")
    policy = example.BatchingPolicy(str(directory), max_batch_size=8, max_wait_s=0.05)
    app = example.make_app(policy)

    async def run() -> Any:
        async with app.router.lifespan_context(app):
            transport = httpx.ASGITransport(app)
            async with httpx.AsyncClient(transport=transport, base_url="http://policy") as client:
                return await talk(client, policy)

    return asyncio.run(run())


def test_requests_at_the_same_time_share_a_batch(rng: np.random.Generator, tmp_path: Path) -> None:
    export.export_policy(policy_kinds.make("discrete", rng), tmp_path)
    observations = policy_kinds.sample(policy_kinds.VECTOR, rng, 20)

    async def talk(client: Any, policy: Any) -> list[Any]:
        bodies = [{"observation": row.tolist()} for row in observations]
        answers = await asyncio.gather(*(client.post("/act", json=body) for body in bodies))
        assert policy.counts["rows"] == 20
        assert policy.counts["batches"] < 10
        metrics = (await client.get("/metrics")).text
        assert "policy_requests_total 20\n" in metrics
        return [answer.json()["action"] for answer in answers]

    expected = SavedModelRunner(tmp_path)({"observation": observations})["action"]
    assert _with_client(tmp_path, talk) == expected.tolist()


def test_a_state_goes_out_and_in(rng: np.random.Generator, tmp_path: Path) -> None:
    export.export_policy(policy_kinds.make("gru", rng), tmp_path)
    observations = policy_kinds.sample(policy_kinds.VECTOR, rng, 3)
    reference = SavedModelRunner(tmp_path)

    async def talk(client: Any, policy: Any) -> None:
        state, expected_state = {}, reference.initial_state(1)
        for row in observations:
            answer = (await client.post("/act", json={"observation": row.tolist(), **state})).json()
            expected = reference({"observation": row[np.newaxis], **expected_state})
            np.testing.assert_allclose(answer.pop("action"), expected["action"][0], rtol=1e-5, atol=1e-6)
            state, expected_state = answer, {name: expected[name] for name in expected_state}

    _with_client(tmp_path, talk)


def test_requests_that_do_not_fit_are_refused(rng: np.random.Generator, tmp_path: Path) -> None:
    export.export_policy(policy_kinds.make("masked", rng), tmp_path)

    async def talk(client: Any, policy: Any) -> None:
        assert (await client.get("/health")).json()["inputs"]["observation_action_mask"]["shape"] == [3]
        good = {"observation_observation": [0.0] * 4, "observation_action_mask": [True, False, False]}
        wrong = [
            ({}, "observation_action_mask is missing, expected bool of the shape [3]."),
            ({**good, "observation_observation": [0.0] * 3}, "is of the shape [3], expected float32 of the shape [4]"),
            ({**good, "observation_observation": "far"}, "is 'far', expected float32 of the shape [4]"),
            ({**good, "observation_observation": [0.0, None, 0.0, 0.0]}, "is [0.0, None, 0.0, 0.0], expected float32"),
            ({**good, "observation_observation": [0.0, 1e39, 0.0, 0.0]}, "is [0.0, 1e+39, 0.0, 0.0], expected float32"),
            ({**good, "observation_observation": [[0.0], 1.0]}, "is [[0.0], 1.0], expected float32"),
            ({**good, "observation_action_mask": [2, 0, 0]}, "is [2, 0, 0], expected bool of the shape [3]"),
            ({**good, "speed": 1}, "the request has ['speed'], expected"),
            ({**good, "observation_action_mask": [False] * 3}, "the policy refuses the request"),
        ]
        for body, message in wrong:
            answer = await client.post("/act", json=body)
            assert answer.status_code == 422
            assert message in answer.json()["detail"]
        assert (await client.post("/act", json=good)).json() == {"action": 1}

    _with_client(tmp_path, talk)


@pytest.mark.slow  # Two processes load TensorFlow.
def test_a_server_is_started_asked_and_ended(rng: np.random.Generator, tmp_path: Path) -> None:
    export.export_policy(policy_kinds.make("discrete", rng), tmp_path / "policy")
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{one.getsockname()[1]}"
    server = _start("serve_http.py", f"--policy_dir={tmp_path / 'policy'}", f"--port={url.rpartition(':')[2]}")
    try:
        _wait_for(f"{url}/health", server)
        assert httpx.post(f"{url}/act", json={"observation": [0.0] * 4}).json()["action"] in range(4)
        # Python's JSON has NaN too.
        for body in ('{"observation": [NaN, 0, 0, 0]}', '{"observation": ', "[1]", "{}"):
            headers = {"Content-Type": "application/json"}
            assert httpx.post(f"{url}/act", content=body, headers=headers).status_code == 422
        load = _start("serve_http_load.py", f"--url={url}", "--requests=200", "--concurrency=8")
        out, err = load.communicate(timeout=120)
        assert load.returncode == 0, err
        assert json.loads(out)["requests_per_second"] > 0
        metrics = dict(line.split() for line in httpx.get(f"{url}/metrics").text.splitlines())
        assert metrics["policy_rows_total"] == "201"
        server.terminate()
        _, err = server.communicate(timeout=30)
        assert server.returncode in (0, -signal.SIGTERM)
        assert "Traceback" not in err
    finally:
        server.kill()
        server.wait()


@pytest.mark.slow
def test_programs_that_cannot_start_say_why(tmp_path: Path) -> None:
    server = _start("serve_http.py", f"--policy_dir={tmp_path}")
    load = _start("serve_http_load.py", "--url=http://127.0.0.1:1")
    errors = [process.communicate(timeout=120)[1].splitlines()[-1] for process in (server, load)]
    assert f"policy_dir is '{tmp_path}', expected the folder of a SavedModel." in errors[0]
    assert "url is 'http://127.0.0.1:1', expected that of a running serve_http.py" in errors[1]
    assert (server.returncode, load.returncode) == (2, 2)


def _start(program: str, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, str(EXAMPLES / program), *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def _wait_for(url: str, server: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and server.poll() is None:
        try:
            httpx.get(url)
            return
        except httpx.TransportError:
            time.sleep(0.2)
    raise AssertionError(server.communicate(timeout=1)[1] if server.poll() is not None else "it does not answer")


def test_the_request_for_tensorflow_serving_fits(rng: np.random.Generator, tmp_path: Path) -> None:
    request = json.loads((EXAMPLES / "tensorflow_serving_request.json").read_text())
    export.export_policy(policy_kinds.make("discrete", rng), tmp_path)
    signature = tf.saved_model.load(tmp_path).signatures[request["signature_name"]]
    specs = signature.structured_input_signature[1]
    assert set(request["inputs"]) == set(specs)
    inputs = {name: tf.constant(value, specs[name].dtype) for name, value in request["inputs"].items()}
    assert all(specs[name].shape.is_compatible_with(value.shape) for name, value in inputs.items())
    assert signature(**inputs)["action"].shape == (2,)
