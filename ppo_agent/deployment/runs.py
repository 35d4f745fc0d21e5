"""The policy of a run's checkpoint."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import tensorflow as tf
from tf_agents.trajectories import TimeStep

from ppo_agent.agent import PPOAgent
from ppo_agent.checkpoint import CheckpointError, CheckpointStore
from ppo_agent.checkpoint.store import Loaded, load
from ppo_agent.checkpoint.variables import named_variables
from ppo_agent.common.types import Nest
from ppo_agent.export import export_policy, files, metadata
from ppo_agent.training import experiment, named_environments, saved_run
from ppo_agent.training.command_line import warn
from ppo_agent.training.saved_policy import check_inside

LAST, BEST = "last", "best"


class Exported(NamedTuple):
    """A policy to export.

    Attributes:
        directory: of its SavedModel.
        environment: id of the environment, None if unknown.
        checkpoint: name of the checkpoint that it is from, None for an exported policy.
    """

    directory: Path
    environment: str | None
    checkpoint: str | None


def from_policy_dir(directory: Path, env_name: str = "") -> Exported:
    """A policy that `export_policy` wrote; without `env_name`, its environment is that of its metadata.

    Raises:
        ValueError: the folder holds something else, or names that lead out of it.
    """
    if not (directory / "saved_model.pb").is_file():
        raise ValueError(f"policy_dir is {str(directory)!r}, expected the folder of an exported policy.")
    check_inside(directory)
    name = env_name or metadata.read(directory).get("environment")
    return Exported(directory, named_environments.gymnasium_name(name) if isinstance(name, str) else None, None)


@contextmanager
def from_run(root_dir: Path, which: str) -> Iterator[Exported]:
    """The policy of a run's `last` or `best` checkpoint as a SavedModel, which is gone afterwards.

    Raises:
        CheckpointError: the run has no such checkpoint.
        ValueError: its agent cannot be made again.
    """
    loaded = _load(root_dir, which)
    run = saved_run.of_checkpoint(loaded)
    if run.own_agent:
        raise ValueError(f"root_dir is {str(root_dir)!r}, whose agent was given ready, expected policy_dir instead.")
    env_name = None if run.env_name is None else named_environments.gymnasium_name(run.env_name)
    agent = _restored_agent(run, loaded)
    mean = loaded.manifest.evaluation
    evaluation = None if mean is None else {"eval_return_mean": mean, "environment_steps": loaded.manifest.step}
    with files.scratch_folder() as scratch:
        export_policy(agent.policy, scratch / "policy", environment=env_name, evaluation=evaluation)
        yield Exported(scratch / "policy", env_name, loaded.path.name)


def _load(root_dir: Path, which: str) -> Loaded:
    if not (root_dir / "checkpoints").is_dir():
        raise CheckpointError(f"root_dir is {str(root_dir)!r}, expected the folder of a run with checkpoints.")
    store = CheckpointStore(root_dir / "checkpoints", tell=warn)
    if which == LAST:
        loaded = store.newest_sound()
    else:
        best = store.best()
        loaded = None if best is None else load(best)
    if loaded is None:
        kind = "checkpoint" if which == LAST else "evaluated checkpoint"
        raise CheckpointError(f"root_dir is {str(root_dir)!r}, expected a run that has a {kind}.")
    return loaded


def _restored_agent(run: saved_run.SavedRun, loaded: Loaded) -> PPOAgent:
    """An agent whose policy is that of the checkpoint; what only training needs stays as it is."""
    time_step_spec, action_spec = _specs(run)
    agent = experiment.make_agent(time_step_spec, action_spec, run.settings, tf.keras.optimizers.Adam())
    wanted = {id(variable) for variable in agent.policy.variables()}
    for name, variable in named_variables(agent, leave_out=[agent._optimizer]).items():
        if id(variable) in wanted:
            if f"agent/{name}" not in loaded.arrays:
                raise CheckpointError(f"{loaded.path} has no {name}, expected the variables of the run's policy.")
            variable.assign(loaded.arrays[f"agent/{name}"])
    return agent


def _specs(run: saved_run.SavedRun) -> tuple[TimeStep, Nest]:
    """Of time steps and actions; folders of earlier versions do not tell them."""
    if run.observation_spec is not None:
        return run.time_step_spec, run.action_spec
    if run.env_name is None:
        raise ValueError("the run tells neither its environment nor its specs, expected one of them.")
    with named_environments.make_environment(named_environments.gymnasium_name(run.env_name)) as env:
        return env.time_step_spec(), env.action_spec()
