"""Evaluates an exported policy in a gymnasium environment.

    ppo-eval --policy_dir=runs/CartPole-v1/20250101-120000/policy --env_name=CartPole-v1

Prints one line of JSON with the mean and the standard deviation of the episodes' returns.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Sequence
from importlib import util
from pathlib import Path
from typing import Any

from absl import flags

from ppo_agent import _stack
from ppo_agent.common import atomic_files
from ppo_agent.common.limits import LARGEST_INT32
from ppo_agent.training import command_line, setting_flags
from ppo_agent.training.command_line import FlagError, say
from ppo_agent.training.interrupts import InterruptGuard

_PROGRAM = "ppo-eval"


def cli() -> None:
    """Runs the program and exits with its status."""
    command_line.find_modules_here()
    sys.exit(main())


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the program; command line and exit status are those of `command_line.run`."""
    flag_values = define_flags()
    arguments = list(sys.argv if argv is None else argv)
    # The folder of a run may stand without a flag in front of it.
    if len(arguments) > 1 and not arguments[1].startswith("-"):
        arguments[1] = f"--policy_dir={arguments[1]}"
    with InterruptGuard():
        return command_line.run(_PROGRAM, __doc__ or "", flag_values, lambda: _main(flag_values), arguments)


def define_flags() -> flags.FlagValues:
    """The program's flags, apart from those of other programs in this process."""
    values = flags.FlagValues()
    own: dict[str, Any] = {"flag_values": values}
    flags.DEFINE_string("policy_dir", "", "Folder of an exported policy, ROOT/policy, or of a run, ROOT.", **own)
    flags.DEFINE_string("env_name", "", "As ppo-train takes it; empty: that of the run, or else CartPole-v1.", **own)
    setting_flags.define_integer(values, "num_episodes", 20, "Episodes to run.", lower_bound=1)
    setting_flags.define_integer(values, "seed", 0, "Of the environments.", lower_bound=0, upper_bound=LARGEST_INT32)
    flags.DEFINE_string("video_dir", "", "Folder for films of every episode, MP4 and GIF; empty: none.", **own)
    command_line.define_common_flags(values)
    return values


def _main(flag_values: flags.FlagValues) -> int:
    values: dict[str, Any] = flag_values.flag_values_dict()
    policy_dir, video_dir = _policy_folder(values["policy_dir"]), values["video_dir"]
    if video_dir and util.find_spec("moviepy") is None:
        raise FlagError('video_dir is given, which needs moviepy: run pip install "ppo-agent[video]".')
    _stack.import_tensorflow()
    # Imported here: a wrong flag should not wait for TensorFlow.
    from ppo_agent.training import evaluation, saved_policy

    num_episodes = values["num_episodes"]
    with contextlib.ExitStack() as stack:
        with command_line.mistakes_are_flag_errors():
            name = values["env_name"] or _env_name_of(policy_dir.parent)
            env = saved_policy.make_environment(name, num_episodes, values["seed"], video_dir)
            stack.enter_context(env)
            act = saved_policy.load(policy_dir, env)
        result = evaluation.evaluate(env, act, num_episodes)
    say(json.dumps(_report(result.mean, result.std, result.returns)))
    return command_line.OK


def _policy_folder(given: str) -> Path:
    """The folder of the policy.

    Raises:
        FlagError: there is none.
    """
    path = Path(given)
    if path.name == "policy_saver":
        raise FlagError(f"policy_dir is {given!r}, for TF-Agents alone: expected {path.with_name('policy')}.")
    if given and (path / "policy" / "saved_model.pb").is_file():
        return path / "policy"
    if not (path / "saved_model.pb").is_file():
        raise FlagError(f"policy_dir is {given!r}, expected the folder of an exported policy, or of a run.")
    return path


def _env_name_of(root_dir: Path) -> str:
    """The environment of the run that a policy belongs to; CartPole-v1 if there is no such run."""
    with contextlib.suppress(OSError, ValueError):
        saved = atomic_files.read_json(root_dir / "settings.json")
        if isinstance(saved, dict) and isinstance(name := saved.get("env_name"), str):
            return name
    return "CartPole-v1"


def _report(mean: float, std: float, returns: list[float]) -> dict[str, Any]:
    return {
        "eval_return_mean": mean,
        "eval_return_std": std,
        "episode_returns": returns,
        "num_eval_episodes": len(returns),
    }


if __name__ == "__main__":
    cli()
