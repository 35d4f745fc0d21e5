"""Asks a running serve_http.py for actions from many connections at once, and prints one line of JSON.

python serve_http_load.py --url=http://127.0.0.1:8000 --requests=2000 --concurrency=16
"""

import argparse
import asyncio
import json
import time
from typing import Any

import httpx
import numpy as np


async def run(url: str, num_requests: int, concurrency: int) -> dict[str, Any]:
    """Sends requests; returns requests per second, latencies in ms, and the mean number of rows in a batch."""
    async with httpx.AsyncClient(base_url=url, timeout=30.0) as client:
        specs = (await client.get("/health")).json()["inputs"]
        before, start = await _counts(client), time.perf_counter()
        shares = np.bincount(np.arange(num_requests) % concurrency, minlength=concurrency)
        latencies = await asyncio.gather(*(_ask(client, specs, int(share)) for share in shares))
        seconds, after = time.perf_counter() - start, await _counts(client)
    batches = after["policy_batches_total"] - before["policy_batches_total"]
    flat = 1000 * np.concatenate(latencies)
    return {
        "requests": num_requests,
        "requests_per_second": round(num_requests / seconds, 1),
        "p50_ms": round(float(np.percentile(flat, 50)), 2),
        "p99_ms": round(float(np.percentile(flat, 99)), 2),
        "rows_per_batch": round((after["policy_rows_total"] - before["policy_rows_total"]) / batches, 2),
    }


async def _ask(client: httpx.AsyncClient, specs: dict[str, Any], num_requests: int) -> np.ndarray:
    """One connection; the seconds of each request. A state goes into the next request."""
    rng = np.random.default_rng()
    state: dict[str, Any] = {}
    latencies: list[float] = []
    for _ in range(num_requests):
        body = {name: _random(rng, spec) for name, spec in specs.items() if not name.startswith("policy_state")}
        start = time.perf_counter()
        response = await client.post("/act", json={**body, **state})
        latencies.append(time.perf_counter() - start)
        response.raise_for_status()
        state = {name: value for name, value in response.json().items() if name.startswith("policy_state")}
    return np.array(latencies)


def _random(rng: np.random.Generator, spec: dict[str, Any]) -> Any:
    if spec["dtype"] == "bool":
        return np.ones(spec["shape"], bool).tolist()
    if "int" in spec["dtype"]:
        return rng.integers(0, 2, spec["shape"]).tolist()
    return rng.normal(size=spec["shape"]).tolist()


async def _counts(client: httpx.AsyncClient) -> dict[str, float]:
    lines = (await client.get("/metrics")).text.splitlines()
    return {name: float(value) for name, value in (line.split() for line in lines)}


def main() -> None:
    """Prints the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--concurrency", type=int, default=16)
    flags = parser.parse_args()
    try:
        print(json.dumps(asyncio.run(run(flags.url, flags.requests, flags.concurrency))))
    except httpx.HTTPError as error:
        parser.error(f"url is {flags.url!r}, expected that of a running serve_http.py: {error}.")


if __name__ == "__main__":
    main()
