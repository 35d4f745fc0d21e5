"""The setting that chooses how environments are stepped."""

import pytest

from ppo_agent import Trainer
from ppo_agent.drivers.vector_envs.processes import HalvedVectorEnv


@pytest.mark.parametrize(("vectorization", "in_processes"), [("sync", False), ("async", True)])
def test_a_run_steps_its_environments_as_it_is_told(vectorization: str, in_processes: bool) -> None:
    given = {"collect_steps_per_iteration": 16, "num_environments": 4, "vectorization": vectorization}
    with Trainer("CartPole-v1", **given) as trainer:
        assert isinstance(trainer.env.gymnasium_env, HalvedVectorEnv) == in_processes
        experience = trainer.loop.collector.collect(budget=1000)
    assert experience.reward.shape[0] == 4
