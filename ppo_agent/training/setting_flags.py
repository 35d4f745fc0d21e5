"""A command-line flag for every setting."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

from absl import flags

from ppo_agent.training.settings import FIELDS


def define_flags(flag_values: flags.FlagValues) -> None:
    """Defines a flag for every field of `Settings`, and `--nminibatches`."""
    for field in FIELDS.values():
        define_flag(flag_values, field.name, field.default, f"{field.metadata['help']}.", field)
    flags.DEFINE(
        _WholeParser(lower_bound=1),
        "nminibatches",
        None,
        "Minibatches of an iteration, in place of minibatch_size.",
        flag_values,
    )


def define_flag(
    flag_values: flags.FlagValues, name: str, default: Any, text: str, field: dataclasses.Field[Any]
) -> None:
    """Defines a flag of the kind and the limits that a field's metadata has."""
    kind, limits = field.metadata["kind"], field.metadata["limits"]
    if kind is str and "choices" not in limits:
        flags.DEFINE_string(name, default, text, flag_values=flag_values)
    elif kind is str:
        flags.DEFINE_enum(name, default, limits["choices"], text, flag_values=flag_values)
    elif kind is bool:
        flags.DEFINE_bool(name, default, text, flag_values=flag_values)
    elif kind is tuple:
        flags.DEFINE(_LayersParser(), name, default, text, flag_values, _LayersSerializer())
    else:
        parser = _FiniteParser(**limits) if kind is float else _WholeParser(**limits)
        flags.DEFINE(parser, name, default, text, flag_values)


def define_integer(flag_values: flags.FlagValues, name: str, default: int, text: str, **limits: int) -> None:
    """Defines a flag that takes whole numbers, 1e6 among them."""
    flags.DEFINE(_WholeParser(**limits), name, default, text, flag_values)


def given_flags(flag_values: flags.FlagValues) -> dict[str, Any]:
    """The values of the settings whose flags stand on the command line."""
    names = (*FIELDS, "nminibatches")
    return {name: flag_values[name].value for name in names if flag_values[name].present}


class _FiniteParser(flags.FloatParser):
    """Reads floats between bounds; absl's own takes NaN and infinity for such, and leaves messages to Python."""

    def parse(self, argument: Any) -> float:
        value = _parsed(super().parse, argument, self.syntactic_help.replace("number", "finite number"))
        if not math.isfinite(value):
            raise ValueError(f"expected {self.syntactic_help.replace('number', 'finite number')}")
        return value


class _WholeParser(flags.IntegerParser):
    """Reads ints between bounds, 1e6 among them."""

    def parse(self, argument: Any) -> int:
        return int(_parsed(super().parse, argument, self.syntactic_help))

    def convert(self, argument: Any) -> int:
        try:
            return int(super().convert(argument))
        except ValueError:
            pass
        value = float(argument)
        if not value.is_integer():
            raise ValueError(f"{argument!r} is not {self.syntactic_help}")
        return int(value)


def _parsed(parse: Callable[[Any], float], argument: Any, expected: str) -> float:
    try:
        return parse(argument)
    except ValueError as error:
        raise ValueError(f"expected {expected}") from error


class _LayersParser(flags.ArgumentParser):
    """Reads '64,64', and '' as no layers."""

    syntactic_help = "positive numbers with commas between them"

    def parse(self, argument: Any) -> tuple[int, ...]:
        if isinstance(argument, tuple):
            return argument
        try:
            units = tuple(int(part) for part in argument.split(",") if part.strip())
        except ValueError as error:
            raise ValueError(f"expected {self.syntactic_help}") from error
        if any(unit < 1 for unit in units):
            raise ValueError(f"expected {self.syntactic_help}")
        return units

    def flag_type(self) -> str:
        return "comma separated list of integers"


class _LayersSerializer(flags.ArgumentSerializer):
    """Writes what `_LayersParser` reads."""

    def serialize(self, value: tuple[int, ...]) -> str:
        return ",".join(map(str, value))
