"""How a run ends in order when its environments or its numbers fail it."""

from __future__ import annotations

from ppo_agent.drivers import EnvironmentFaultError
from ppo_agent.learner.nonfinite import NonFiniteUpdateError
from ppo_agent.training.command_line import RunError
from ppo_agent.training.run_directory import RunDirectory

# What ends a run at a point where its state is sound and can be saved.
FAILURES = (EnvironmentFaultError, NonFiniteUpdateError)


def told(error: Exception, directory: RunDirectory, is_saved: bool) -> RunError:
    """Writes down what can be examined later; returns the error for the command line, in one sentence.

    Args:
        error: one of `FAILURES`.
        directory: of the run.
        is_saved: whether the last state is in a checkpoint.
    """
    text = str(error).rstrip(".")
    if isinstance(error, NonFiniteUpdateError):
        path = directory.path / "nonfinite_minibatch.npz"
        error.save(path)
        text += f"; it and the metrics of the last good step are in {path}"
    state = "a checkpoint was saved" if is_saved else "the last checkpoint could not be written"
    return RunError(f"{text}; {state}, --resume goes on with what there is.")
