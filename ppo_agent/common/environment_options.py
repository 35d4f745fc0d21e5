"""Names and limits of environments that the drivers, the presets and the flags share."""

from __future__ import annotations

# How copies of an environment can be stepped, see `ppo_agent.drivers.GymnasiumEnvironment`.
VECTORIZATIONS = ("auto", "sync", "async", "vector_entry_point")
# What is done about observations and rewards that no learner may see.
INVALID_STEPS = ("error", "drop")
# Ids of Atari games begin with it.
ATARI_PREFIX = "ALE/"
# Vector steps for each episode asked for, after which collection and evaluation end without a limit of their own.
LONGEST_EPISODE = 100_000
