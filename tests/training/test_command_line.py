"""Flags, exit statuses and errors of a program."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest
from absl import flags

from ppo_agent import train
from ppo_agent.training import command_line
from ppo_agent.training.command_line import FlagError, Interrupted


def run(main, *arguments: str) -> int:
    values = flags.FlagValues()
    flags.DEFINE_integer("count", 1, "How many.", flag_values=values)
    command_line.define_common_flags(values)
    return command_line.run("program", "Counts.", values, main, ["program", *arguments])


def raising(error: BaseException):
    def main() -> int:
        raise error

    return main


@pytest.mark.parametrize(
    ("error", "status", "text"),
    [
        (FlagError("count is 3,\nexpected 4."), 2, "program: count is 3, expected 4.\n"),
        (ValueError("it broke."), 1, "program: it broke.\n"),
        (ZeroDivisionError("by 0"), 1, "program: ZeroDivisionError: by 0\n"),
        (RuntimeError(), 1, "program: RuntimeError\n"),
        (KeyboardInterrupt(), 130, "program: interrupted.\n"),
        (Interrupted(15), 143, "program: interrupted.\n"),
    ],
)
def test_errors_are_one_line_and_a_status(error, status, text, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(raising(error)) == status
    assert capsys.readouterr().err == text


def test_long_messages_are_cut(capsys: pytest.CaptureFixture[str]) -> None:
    run(raising(ValueError("x" * 10_000)))
    assert len(capsys.readouterr().err) < 600


def test_the_traceback_can_be_had(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(raising(ValueError("it broke.")), "--traceback") == 1
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--count=x"], ["--cout=1"], ["word"]])
def test_wrong_flags_have_status_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(lambda: 0, *arguments) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(raising(AssertionError()), flag) == 0
    assert "--count: How many." in capsys.readouterr().out


def test_main_gives_the_status() -> None:
    assert run(lambda: 7, "--count=2") == 7


def test_mistakes_of_preparations_are_flag_errors() -> None:
    with pytest.raises(FlagError, match="too big"), command_line.mistakes_are_flag_errors():
        raise TypeError("too big")
    with pytest.raises(OSError, match="disk"), command_line.mistakes_are_flag_errors():
        raise OSError("disk")


@pytest.mark.parametrize(
    ("argument", "text"),
    [
        ("--total_timesteps=1", "--total_timesteps is no flag (did you mean --total_environment_steps?)"),
        ("--lr=1", "--lr is no flag (did you mean --learning_rate?)"),
        ("--learning_rat=1", "--learning_rat is no flag (did you mean --learning_rate?)"),
        ("--gpu", "--gpu is no flag (none is needed: TensorFlow uses a GPU that it finds)"),
        ("--zzz=1", "--zzz is no flag; --help"),
        ("--num_epochs=2.5", "flag --num_epochs=2.5: expected a positive integer"),
        ("--seed=one", "flag --seed=one: expected an integer in the range [0, 2147483647]"),
        ("--seed=1e20", "flag --seed=1e20: "),
        ("--num_epochs=0", "flag --num_epochs=0: expected a positive integer"),
        ("--learning_rate=1e-3x", "flag --learning_rate=1e-3x: expected a non-negative finite number ("),
        ("--learning_rate=", "flag --learning_rate=: expected a non-negative finite number ("),
        ("--learning_rate=nan", "flag --learning_rate=nan: expected a non-negative finite number ("),
        ("--lambda_value=1.5", "flag --lambda_value=1.5: expected a finite number in the range [0.0, 1.0] ("),
        ("--initial_log_std=inf", "flag --initial_log_std=inf: expected a finite number ("),
        ("--target_kl=-1", "flag --target_kl=-1: expected a non-negative finite number ("),
        ("--agent=ppo", "flag --agent=ppo: expected clip or kl_penalty ("),
        ("--nminibatches=two", "flag --nminibatches=two: expected a positive integer ("),
        ("--resume=maybe", "flag --resume=maybe: expected true or false"),
        ("--env_name=Cartpole-v1", "env_name is 'Cartpole-v1', expected a registered id (did you mean CartPole-v1?)"),
        ("--env_name=no_module:X-v0", "No module named 'no_module' (modules are looked for in the current folder, on"),
        ("--squash_actions", "squash_actions is True, expected False: the environment has no continuous actions."),
        ("--state_dependent_std", "state_dependent_std is True, expected False: the environment has no continuous"),
    ],
)
def test_what_ppo_train_says_of_a_flag(argument, text, tmp_path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train.main(["ppo-train", f"--root_dir={tmp_path / 'run'}", argument]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert text in line
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("module", "argument", "expected"),
    [
        ("evaluate", "--num_episodes=1.5", "a positive integer"),
        ("evaluate", "--num_episodes=x", "a positive integer"),
        ("export_command", "--num_observations=0", "a positive integer"),
        ("export_command", "--num_eval_episodes=many", "a positive integer"),
        ("plot_command", "--smooth=-1", "a non-negative integer"),
        ("sweep_command", "--jobs=1.5", "a positive integer"),
    ],
)
def test_what_other_programs_say_of_numbers(
    module: str, argument: str, expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert importlib.import_module(f"ppo_agent.{module}").main(["program", argument]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"flag {argument}: expected {expected} (" in line


@pytest.mark.parametrize(("argument", "value"), [("--seed=1e3", 1000), ("--seed=7", 7), ("--seed=0", 0)])
def test_whole_numbers_may_be_written_as_floats(argument: str, value: int) -> None:
    values = train.define_flags()
    values(["ppo-train", argument, "--total_environment_steps=2e6"])
    assert (values.seed, values.total_environment_steps) == (value, 2_000_000)


@pytest.mark.parametrize("module", ["train", "evaluate", "export_command"])
@pytest.mark.usefixtures("in_tmp_path")
def test_a_module_in_the_current_folder_is_found(module: str) -> None:
    """As by `python -m`, for the installed script, whose folder is the first on the path."""
    Path("here_only.py").write_text("NUMBER = 3")
    lines = [
        "import sys; sys.path = [path for path in sys.path if path not in ('', '.')]",
        "sys.argv = ['program', '--help']",
        f"from ppo_agent import {module}",
        "try:",
        f"    {module}.cli()",
        "except SystemExit as exit:",
        "    assert exit.code == 0",
        "import here_only",
    ]
    done = subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
