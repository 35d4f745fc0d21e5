"""How a run ends in order when its environments or its numbers fail it."""

from __future__ import annotations

from ppo_agent.drivers import EnvironmentFaultError
from ppo_agent.nonfinite import NonFiniteUpdateError
from ppo_agent.training.command_line import RunError
from ppo_agent.training.run_directory import RunDirectory

# What ends a run at a point where its state is sound and can be saved.
FAILURES = (EnvironmentFaultError, NonFiniteUpdateError)


def told(error: Exception, directory: RunDirectory) -> RunError:
    """Writes down what can be examined later; returns the error for the command line, in one sentence.

    Args:
        error: one of `FAILURES`.
        directory: of the run.
    """
    text = str(error).rstrip(".")
    if isinstance(error, NonFiniteUpdateError):
        path = directory.path / "nonfinite_minibatch.npz"
        error.save(path)
        text += f"; it and the metrics of the last good step are in {path}"
    return RunError(f"{text}; a checkpoint was saved, --resume goes on with it.")
