"""Serves an exported policy over HTTP, with TensorFlow, FastAPI and uvicorn alone.

    python serve_http.py --policy_dir=runs/CartPole-v1/.../policy --port=8000
    curl -X POST 127.0.0.1:8000/act -H 'Content-Type: application/json' -d '{"observation": [0.0, 0.1, 0.0, -0.1]}'

The body has one observation by the names of the signature `action`; a policy with memory answers with its
`policy_state_...`, which belongs into the next request, and starts an episode without one. Requests that come at the
same time are answered by one call of TensorFlow. GET /health tells what the policy takes, GET /metrics counts.
"""

import argparse
import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import numpy as np
import tensorflow as tf
import uvicorn
from fastapi import FastAPI, HTTPException
from fastapi.responses import PlainTextResponse

Arrays = dict[str, np.ndarray]


def fast_function(signature: Any, specs: dict[str, tf.TensorSpec]) -> Callable[[Arrays], Arrays]:
    """A signature as one operation of TensorFlow, which costs a fifth of what calling the signature does."""

    def call(*leaves: tf.Tensor) -> dict[str, tf.Tensor]:
        return signature(**dict(zip(specs, leaves, strict=True)))

    traced = tf.function(call, input_signature=list(specs.values()), autograph=False).get_concrete_function()
    names, dtypes = sorted(traced.structured_outputs), [output.dtype for output in traced.outputs]
    captured = list(traced.captured_inputs)
    config = tf.compat.v1.ConfigProto()
    # Rewriting small graphs costs more than it saves.
    config.graph_options.rewrite_options.disable_meta_optimizer = True
    config_proto = config.SerializeToString()

    def run(inputs: Arrays) -> Arrays:
        args = [*(inputs[name] for name in specs), *captured]
        found = tf.raw_ops.StatefulPartitionedCall(args=args, Tout=dtypes, f=traced, config_proto=config_proto)
        return {name: tensor.numpy() for name, tensor in zip(names, found, strict=True)}

    return run


class BatchingPolicy:
    """Acts for many callers at once.

    Args:
        directory: of the SavedModel.
        max_batch_size: rows of one call.
        max_wait_s: how long the first of a batch waits for others.
    """

    def __init__(self, directory: str, max_batch_size: int = 64, max_wait_s: float = 0.001) -> None:
        self._loaded = tf.saved_model.load(directory)
        signature = self._loaded.signatures["action"]
        self.specs: dict[str, tf.TensorSpec] = dict(signature.structured_input_signature[1])
        self._run = fast_function(signature, self.specs)
        self._max_batch_size, self._max_wait_s = max_batch_size, max_wait_s
        self._queue: asyncio.Queue[tuple[Arrays, asyncio.Future[Arrays]]] = asyncio.Queue()
        self.counts = {"requests": 0, "errors": 0, "batches": 0, "rows": 0, "seconds": 0.0}

    def row(self, body: dict[str, Any]) -> Arrays:
        """The arrays of a request, without batch dimension.

        Raises:
            ValueError: it does not fit the signature.
        """
        if unknown := set(body) - set(self.specs):
            raise ValueError(f"the request has {sorted(unknown)}, expected {sorted(self.specs)}.")
        return {name: _leaf(name, body.get(name), spec) for name, spec in sorted(self.specs.items())}

    async def act(self, row: Arrays) -> Arrays:
        """The outputs of the policy for one row."""
        future: asyncio.Future[Arrays] = asyncio.get_running_loop().create_future()
        await self._queue.put((row, future))
        return await future

    async def serve(self) -> None:
        """Answers what `act` was asked, until it is cancelled."""
        while True:
            waiting = [await self._queue.get()]
            deadline = time.monotonic() + self._max_wait_s
            while len(waiting) < self._max_batch_size and (left := deadline - time.monotonic()) > 0:
                try:
                    waiting.append(await asyncio.wait_for(self._queue.get(), left))
                except TimeoutError:
                    break
            self._answer(waiting)

    def _answer(self, waiting: list[tuple[Arrays, asyncio.Future[Arrays]]]) -> None:
        start = time.perf_counter()
        try:
            outputs = self._run({name: np.stack([row[name] for row, _ in waiting]) for name in self.specs})
        except tf.errors.OpError as error:
            for _, future in waiting:
                if not future.done():
                    future.set_exception(ValueError(f"the policy refuses the request: {error.message.splitlines()[0]}"))
            return
        self.counts["batches"] += 1
        self.counts["rows"] += len(waiting)
        self.counts["seconds"] += time.perf_counter() - start
        for i, (_, future) in enumerate(waiting):
            if not future.done():  # Whoever asked may be gone.
                future.set_result({name: value[i] for name, value in outputs.items()})


def _leaf(name: str, value: Any, spec: tf.TensorSpec) -> np.ndarray:
    shape, dtype = spec.shape.as_list()[1:], np.dtype(spec.dtype.as_numpy_dtype)
    if value is None and name.startswith("policy_state"):
        return np.zeros(shape, dtype)
    found = "missing"
    if value is not None:
        try:
            array = _exact(np.asarray(value), dtype)
            if list(array.shape) == shape:
                return array
            found = f"of the shape {list(array.shape)}"
        except (ValueError, TypeError, OverflowError):
            found = f"{value!r:.60}"
    finite = ", all of it finite" if dtype.kind == "f" else ""
    raise ValueError(f"{name} is {found}, expected {dtype.name} of the shape {shape}{finite}.")


def _exact(array: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """The array with another dtype; raises ValueError where that is another number, or none that is finite."""
    if array.dtype.kind not in "biuf":
        raise ValueError
    with np.errstate(all="ignore"):
        cast = array.astype(dtype)
    is_right = np.isfinite(cast) if dtype.kind == "f" else cast == array
    if not np.all(is_right):
        raise ValueError
    return cast


def make_app(policy: BatchingPolicy) -> FastAPI:
    """The service."""

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        task = asyncio.create_task(policy.serve())
        yield
        task.cancel()

    app = FastAPI(lifespan=lifespan)

    @app.post("/act")
    async def act(body: dict[str, Any]) -> dict[str, Any]:
        policy.counts["requests"] += 1
        try:
            outputs = await policy.act(policy.row(body))
        except ValueError as error:
            policy.counts["errors"] += 1
            raise HTTPException(422, str(error)) from error
        return {name: value.tolist() for name, value in outputs.items()}

    @app.get("/health")
    async def health() -> dict[str, Any]:
        inputs = {name: {"shape": s.shape.as_list()[1:], "dtype": s.dtype.name} for name, s in policy.specs.items()}
        return {"status": "ok", "inputs": inputs}

    @app.get("/metrics")
    async def metrics() -> PlainTextResponse:
        return PlainTextResponse("".join(f"policy_{name}_total {value}\n" for name, value in policy.counts.items()))

    return app


def main() -> None:
    """Serves until interrupted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--policy_dir", required=True, help="folder of the SavedModel")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--max_batch_size", type=int, default=64)
    parser.add_argument("--max_wait_ms", type=float, default=1.0, help="how long a request waits for others")
    flags = parser.parse_args()
    if not tf.saved_model.contains_saved_model(flags.policy_dir):
        parser.error(f"policy_dir is {flags.policy_dir!r}, expected the folder of a SavedModel.")
    policy = BatchingPolicy(flags.policy_dir, flags.max_batch_size, flags.max_wait_ms / 1000)
    uvicorn.run(make_app(policy), host=flags.host, port=flags.port, log_level="warning")


if __name__ == "__main__":
    main()
