"""Runs a program: flags, exit statuses, errors in one line."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence

from absl import flags

from ppo_agent.training import flag_hints

OK, RUN_TIME_ERROR, WRONG_FLAG = 0, 1, 2


class FlagError(ValueError):
    """A flag has a value that cannot be used; the message names it, what was found and what was expected."""


class RunError(RuntimeError):
    """A run that ended in order before its time; the message tells why."""


class Interrupted(KeyboardInterrupt):
    """A signal ended the run.

    Attributes:
        signal_number: which one.
    """

    def __init__(self, signal_number: int) -> None:
        super().__init__(f"signal {signal_number}")
        self.signal_number = signal_number


@contextlib.contextmanager
def mistakes_are_flag_errors() -> Iterator[None]:
    """Turns the ValueErrors and TypeErrors of a program's preparations, which all come from flags, into FlagErrors."""
    try:
        yield
    except FlagError:
        raise
    except (ValueError, TypeError) as error:
        raise FlagError(str(error)) from error


def find_modules_here() -> None:
    """Lets `module:Name-v0` name a module in the current folder, as `python -m` does for an installed script."""
    if "" not in sys.path and os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())


def define_common_flags(flag_values: flags.FlagValues) -> None:
    """Defines --help and --traceback."""
    flags.DEFINE_bool("help", False, "Show this text.", short_name="h", flag_values=flag_values)
    flags.DEFINE_bool("traceback", False, "Show where in the program an error came up.", flag_values=flag_values)


def run(
    program: str,
    description: str,
    flag_values: flags.FlagValues,
    main: Callable[[], int],
    argv: Sequence[str] | None = None,
    arguments: list[str] | None = None,
) -> int:
    """Parses the flags and calls `main`.

    Args:
        program: name of the program.
        description: what --help says before the flags.
        flag_values: holds the program's flags.
        main: returns an exit status.
        argv: command line with the program's name first; None for that of the process.
        arguments: takes what is no flag; None allows flags only.

    Returns:
        The exit status: that of `main`; 1 for an error at run time and 2 for a wrong flag, each told in one line on
        standard error; 128 + n for a run ended by signal n.
    """
    try:
        return _parse_and_call(description, flag_values, main, sys.argv if argv is None else argv, arguments)
    except flags.UnrecognizedFlagError as error:
        found = flag_hints.hint(error.flagname, flag_values)
        return _fail(
            program, flag_values, error, WRONG_FLAG, f"--{error.flagname} is no flag{found}; --help lists them."
        )
    except flags.Error as error:
        text = _in_our_words(str(error))
        return _fail(program, flag_values, error, WRONG_FLAG, f"{one_line(text)} (--help lists the flags)")
    except FlagError as error:
        return _fail(program, flag_values, error, WRONG_FLAG, one_line(str(error)))
    except KeyboardInterrupt as error:
        sys.stderr.write(f"{program}: interrupted.\n")
        return 128 + getattr(error, "signal_number", 2)
    except Exception as error:
        # Whatever it is, a user gets a line with the cause.
        return _fail(program, flag_values, error, RUN_TIME_ERROR, _cause(error))


def _in_our_words(text: str) -> str:
    """What absl says of a flag's value, as found and expected."""
    # absl shows a tuple.
    text = re.sub(r"\('Non-boolean argument to boolean flag', .*\)$", "expected true or false", text)
    return re.sub(r"value should be one of <(.*)>$", lambda m: f"expected {' or '.join(m[1].split('|'))}", text)


def say(text: str) -> None:
    """Writes a line to standard output at once, unless it cannot be written: a full disk ends no run."""
    with contextlib.suppress(OSError):
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()


def warn(text: str) -> None:
    """Writes a warning to standard error, likewise."""
    with contextlib.suppress(OSError):
        sys.stderr.write(f"warning: {one_line(text)}\n")
        sys.stderr.flush()


def _parse_and_call(
    description: str,
    flag_values: flags.FlagValues,
    main: Callable[[], int],
    argv: Sequence[str],
    arguments: list[str] | None,
) -> int:
    rest = flag_values(list(argv))[1:]
    if flag_values["help"].value:
        say(f"{description.strip()}\n\nflags:\n{flag_values.get_help()}")
        return OK
    if arguments is not None:
        arguments += rest
    elif rest:
        raise FlagError(f"found the argument {rest[0]!r}, expected flags only")
    return main()


def _fail(program: str, flag_values: flags.FlagValues, error: Exception, status: int, text: str) -> int:
    if flag_values.is_parsed() and flag_values["traceback"].value:
        traceback.print_exception(error)
    sys.stderr.write(f"{program}: {text}\n")
    return status


def _cause(error: Exception) -> str:
    text = one_line(str(error))
    if isinstance(error, (ValueError, OSError, RunError)) and text:
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def one_line(text: str, longest: int = 500) -> str:
    """The text in one line, cut off if it is longer than `longest` characters."""
    line = " ".join(text.split())
    return line if len(line) <= longest else f"{line[:longest]}..."
