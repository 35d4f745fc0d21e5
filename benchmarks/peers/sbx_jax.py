"""sbx-rl: stable-baselines3's collection with policy and update in JAX."""

from __future__ import annotations

from sbx import PPO

from benchmarks import measure
from benchmarks.peers import sb3


def main() -> None:
    """Runs what the command line asks for; PyTorch only holds the rollouts."""
    arguments = measure.parse()
    if arguments.workload.lstm_units:
        raise SystemExit("sbx-rl has no recurrent PPO")
    result = sb3.run(arguments, PPO)
    measure.emit({"peer": "sbx-rl", **result}, arguments, "sbx-rl", "jax", "stable-baselines3", "gymnasium", "numpy")


if __name__ == "__main__":
    main()
