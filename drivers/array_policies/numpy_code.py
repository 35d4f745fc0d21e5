"""The function that carries a policy's graph out in NumPy, as far as it needs no TensorFlow."""

from __future__ import annotations

import contextvars
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from ppo_agent.common.types import Array, Nest

from .noise import NoiseBlocks


class Derived(NamedTuple):
    """An array that is computed outside of the function.

    Attributes:
        name: In the source.
        sources: Names of what it is computed from.
        compute: Does so.
    """

    name: str
    sources: tuple[str, ...]
    compute: Callable[..., Array]


class PortableCode(NamedTuple):
    """What `NumpySource` wrote; cloudpickle takes it to another process.

    Attributes:
        text: Source of the function `act`.
        namespace: What it refers to, but for what follows.
        fixed: Names of what depends on variables alone.
        noise: By name, (kind, shape) of the random numbers of a step.
        derived: What is computed from both, in this order, when they change.
        rows: For each row of random numbers of a step, the block that it is of.
    """

    text: str
    namespace: dict[str, Any]
    fixed: list[str]
    noise: dict[str, tuple[str, tuple[int, ...]]]
    derived: list[Derived]
    rows: list[str]


class NumpyCode:
    """Carries portable code out, with random numbers of its own.

    Attributes:
        act: The function; None is its result where an assertion of the graph does not hold.
    """

    def __init__(self, code: PortableCode, seed: np.random.SeedSequence) -> None:
        """Compiles the source; `put` comes before the first call of `act`."""
        self._code, self._namespace = code, dict(code.namespace)
        self._noise = NoiseBlocks(list(code.noise.values()), seed)
        self._namespace |= {"position": 0, "redraw": self._redraw}
        exec(compile(code.text, "<policy in NumPy>", "exec"), self._namespace)  # noqa: S102
        self.act = self._silenced(self._namespace["act"])

    def put(self, fixed: Sequence[Array]) -> None:
        """Takes the values of what depends on variables alone, and computes what depends on nothing else."""
        self._namespace.update(zip(self._code.fixed, fixed, strict=True))
        self._derive()

    def get_state(self) -> dict[str, Any]:
        """Returns where the random numbers are, of plain Python objects."""
        return {"generator": self._noise.get_state(), "position": self._namespace["position"]}

    def set_state(self, state: dict[str, Any]) -> None:
        """Continues the random numbers from where `get_state` found them."""
        self._noise.set_state(state["generator"])
        self._namespace["position"] = state["position"]
        self._derive()

    def _silenced(self, act: Callable[..., Nest]) -> Callable[..., Nest]:
        """Returns a function that says as little of what is not finite as TensorFlow does.

        NumPy 2 has its settings in the context; `np.errstate` takes as long as two operations.
        """
        if np.lib.NumpyVersion(np.__version__) < "2.0.0":
            return np.errstate(all="ignore")(act)
        context = contextvars.copy_context()
        context.run(np.seterr, all="ignore")
        return functools.partial(context.run, act)

    def _redraw(self) -> tuple[Any, ...]:
        """Draws the next blocks and returns their first row."""
        self._noise.draw()
        self._namespace["position"] = 0
        self._derive()
        return self._namespace["draw"]()

    def _derive(self) -> None:
        """Computes what depends on variables and blocks of random numbers, and goes to the position in them."""
        names = self._namespace
        names.update(zip(self._code.noise, self._noise.blocks, strict=True))
        with np.errstate(all="ignore"):
            for name, sources, compute in self._code.derived:
                names[name] = compute(*[names[source] for source in sources])
        position = names["position"]
        rows = [names[block][position:] for block in self._code.rows]
        names["draw"] = zip(range(position + 1, self._noise.steps + 1), *rows, strict=True).__next__
