"""Flags, exit statuses and errors of a program."""

import pytest
from absl import flags

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
