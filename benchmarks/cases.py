"""What runs beside what: groups of programs that are compared in one quantity."""

from __future__ import annotations

import dataclasses

OURS = "ppo_agent"


@dataclasses.dataclass(frozen=True)
class Peer:
    """A program that prints one JSON line.

    Attributes:
        module: of `benchmarks.peers`.
        environment: name of its lock file; empty for this package's own environment.
        option: given to the program.
        threads: given to the program; 0 for its own choice.
    """

    module: str
    environment: str = ""
    option: str = ""
    threads: int = 0


SB3, TF_AGENTS, SBX, CLEANRL = "stable_baselines3", "tf_agents", "sbx", "cleanrl"
PEERS = {
    OURS: Peer("ours"),
    "stable-baselines3": Peer("sb3", SB3, threads=1),
    "stable-baselines3 (2 threads)": Peer("sb3", SB3, threads=2),
    "tf-agents": Peer("tfa", TF_AGENTS),
    "tf-agents (driver)": Peer("tfa", TF_AGENTS, option="driver"),
    "sbx-rl": Peer("sbx_jax", SBX),
    "jax (one program)": Peer("jax_program", SBX),
    "imports": Peer("imports"),
    "ppo-train": Peer("ppo_train"),
    "stable-baselines3 (rl-zoo)": Peer("sb3_zoo", SB3, threads=1),
    "EnvPool": Peer("ours", option="envpool"),
    "cleanrl": Peer("cleanrl", CLEANRL, threads=1),
    "cleanrl (2 threads)": Peer("cleanrl", CLEANRL, threads=2),
    "one process": Peer("ours", option="sync"),
    "processes": Peer("ours", option="async"),
    "stable-baselines3 (processes)": Peer("sb3", SB3, option="async", threads=1),
    "agent exchanged": Peer("migration", TF_AGENTS, option="agent"),
    "agent and driver exchanged": Peer("migration", TF_AGENTS, option="driver"),
    "agent, driver and learner exchanged": Peer("migration", TF_AGENTS, option="learner"),
    "agent and the Actor's policy exchanged": Peer("migration", TF_AGENTS, option="actor"),
    "PPOAgent": Peer("default_call", TF_AGENTS, option="ours"),
    "tf-agents PPOAgent": Peer("default_call", TF_AGENTS, option="tfa"),
    "PPOAgent (summaries)": Peer("default_call", TF_AGENTS, option="ours-summaries"),
    "tf-agents PPOAgent (summaries)": Peer("default_call", TF_AGENTS, option="tfa-summaries"),
}


@dataclasses.dataclass(frozen=True)
class Case:
    """Peers that run the same work in turn.

    Attributes:
        workload: its name in `benchmarks.workloads`.
        peers: names in `PEERS`; the first one is compared with the others.
        quantity: key of the result that is compared.
        targets: least ratios to other peers (most, where less is better), by peer.
        seconds: for how long iterations are timed; 0 for the runner's choice.
        iterations: how many are timed; 0 for as many as fit.
        rounds: how often every peer runs; 0 for the runner's choice.
    """

    workload: str
    peers: tuple[str, ...]
    quantity: str = "steps_per_second"
    targets: dict[str, float] = dataclasses.field(default_factory=dict)
    seconds: float = 0.0
    iterations: int = 0
    rounds: int = 0

    @property
    def less_is_better(self) -> bool:
        """Whether the quantity is a time or memory."""
        return self.quantity != "steps_per_second"


_ALL = (OURS, "stable-baselines3", "tf-agents", "sbx-rl")
CASES = {
    "W1": Case("W1", (*_ALL, "tf-agents (driver)"), targets={"stable-baselines3": 4.0, "tf-agents": 10.0}),
    "W1g": Case("W1g", (OURS, "stable-baselines3"), targets={"stable-baselines3": 2.0}, rounds=2),
    "W1t": Case("W1t", (OURS, "stable-baselines3"), targets={"stable-baselines3": 2.0}, rounds=2),
    "W2": Case("W2", (*_ALL, "tf-agents (driver)"), targets={"stable-baselines3": 6.0, "tf-agents": 14.0}),
    "W2g": Case("W2g", (OURS, "stable-baselines3"), targets={"stable-baselines3": 3.0}, rounds=2),
    "W2t": Case("W2t", (OURS, "stable-baselines3"), targets={"stable-baselines3": 3.0}, rounds=2),
    "W3s": Case("W3s", _ALL, targets={"stable-baselines3": 12.0}),
    "W3l": Case(
        "W3l",
        (OURS, "stable-baselines3", "stable-baselines3 (2 threads)", "tf-agents", "sbx-rl"),
        targets={"stable-baselines3": 1.6, "stable-baselines3 (2 threads)": 1.6},
    ),
    "W4-8": Case("W4-8", (OURS, "jax (one program)"), targets={"jax (one program)": 1.0}),
    "W4-1024": Case("W4-1024", (OURS, "jax (one program)"), targets={"jax (one program)": 1.0}),
    "W5-cheetah": Case("W5-cheetah", _ALL, rounds=2),
    "W5-cnn": Case("W5-cnn", _ALL, rounds=2),
    "W5-lstm": Case("W5-lstm", (OURS, "stable-baselines3", "tf-agents"), rounds=2),
    "W1e": Case(
        "W1e", (OURS, "EnvPool", "cleanrl", "cleanrl (2 threads)"), targets={"cleanrl": 3.0, "cleanrl (2 threads)": 3.0}
    ),
    "W2e": Case("W2e", ("EnvPool", OURS, "cleanrl", "cleanrl (2 threads)")),
    "W2e-32": Case("W2e-32", ("EnvPool", OURS, "cleanrl", "cleanrl (2 threads)"), targets={OURS: 1.7}),
    "W5e": Case(
        "W5e",
        (OURS, "EnvPool", "cleanrl", "cleanrl (2 threads)"),
        targets={"cleanrl": 1.5, "cleanrl (2 threads)": 1.5},
    ),
    "W7-agent": Case(
        "W1", ("agent exchanged", "tf-agents (driver)"), "update_s", {"tf-agents (driver)": round(1 / 1.5, 2)}, rounds=5
    ),
    "W7-driver": Case(
        "W1", ("agent and driver exchanged", "tf-agents (driver)"), targets={"tf-agents (driver)": 2.5}, rounds=5
    ),
    "W7-learner": Case(
        "W1",
        ("agent, driver and learner exchanged", "tf-agents (driver)"),
        targets={"tf-agents (driver)": 4.0},
        rounds=5,
    ),
    "W7-actor": Case(
        "W1", ("agent and the Actor's policy exchanged", "tf-agents"), targets={"tf-agents": 3.0}, rounds=5
    ),
    **{
        name: Case(
            name, ("PPOAgent", "tf-agents PPOAgent"), "update_s", {"tf-agents PPOAgent": round(1 / 1.2, 2)}, rounds=5
        )
        for name in ("W7-1", "W7-25", "W7-1l", "W7-25l")
    },
    "W7-summaries": Case(
        "W7-1",
        ("PPOAgent (summaries)", "PPOAgent", "tf-agents PPOAgent (summaries)"),
        "update_s",
        {"PPOAgent": 1.1},
        rounds=5,
    ),
    "W7-tracing": Case(
        "W7-1",
        ("PPOAgent (summaries)", "tf-agents PPOAgent (summaries)"),
        "first_iteration_s",
        {"tf-agents PPOAgent (summaries)": 0.33},
        iterations=2,
        rounds=2,
    ),
    "startup": Case("W1", (OURS, "imports"), "startup_s", targets={"imports": 2.5}, iterations=1),
    "memory-W1": Case("W1", (OURS, "tf-agents"), "peak_memory_mb", targets={"tf-agents": 1.0}, seconds=2.0, rounds=1),
    "memory-W2": Case("W2", (OURS, "tf-agents"), "peak_memory_mb", targets={"tf-agents": 1.0}, seconds=2.0, rounds=1),
    "to-475": Case(
        "W1",
        ("ppo-train", "stable-baselines3 (rl-zoo)"),
        "seconds_to_475",
        targets={"stable-baselines3 (rl-zoo)": 0.5},
        rounds=3,
    ),
    "slow": Case("slow", ("processes", "one process", "stable-baselines3 (processes)"), targets={"one process": 1.7}),
    "soak": Case("soak", (OURS,), "memory_growth_mb", iterations=1000, rounds=1),
}

# This package alone, one quantity changed at a time: flag of the programs, values.
SCALING = {
    "num_environments": (1, 4, 16, 64, 256, 1024),
    "width": (64, 128, 256, 512, 1024),
    "minibatch_size": (32, 128, 512, 1024),
}
