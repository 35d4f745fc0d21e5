"""The setting that chooses how environments are stepped."""

import pytest

from ppo_agent.drivers.vector_envs.processes import HalvedVectorEnv
from ppo_agent.training import experiment, settings


@pytest.mark.parametrize(("vectorization", "in_processes"), [("sync", False), ("async", True)])
def test_a_run_steps_its_environments_as_it_is_told(vectorization: str, in_processes: bool) -> None:
    chosen = settings.combine(
        {"collect_steps_per_iteration": 16}, {"num_environments": 4, "vectorization": vectorization}
    )
    parts = experiment.build("CartPole-v1", chosen, seed=0)
    with parts.env:
        assert isinstance(parts.env.gymnasium_env, HalvedVectorEnv) == in_processes
        experience = parts.collector.collect(budget=1000)
    assert experience.reward.shape[0] == 4
