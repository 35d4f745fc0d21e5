"""The code blocks of README and docs, and how they are executed.

The blocks of a page run one after the other in one namespace and one empty folder, as a reader would type them. HTML
comments above a block, which readers do not see, tell what tests do otherwise:

    <!-- in tests: 60_000 is 300; every=1000 is every=10 -->   texts in the block that are replaced: fewer steps
    <!-- setup
    python code that runs first; BLOCKS has the blocks of the page before it
    -->
    <!-- not run: REASON -->

In bash blocks the programs of this package are called in this process, other commands by bash. `text`, `mermaid` and
blocks without a language are no code.
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
LANGUAGES = ("python", "bash")

_BLOCK = re.compile(
    r"(?P<comments>(?:^<!--(?:(?!-->).)*-->\n)*)^```(?P<language>\w+)[^\n]*\n(?P<code>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
_COMMENT = re.compile(r"<!-- *(in tests:|not run:|setup\n)((?:(?!-->).)*)-->", re.DOTALL)


@dataclasses.dataclass(frozen=True)
class Block:
    """A block of code.

    Attributes:
        page: the file that it is in, from the root of the checkout.
        line: its first line.
        language: `python` or `bash`.
        code: as readers see it.
        replaced: what tests replace, by what.
        setup: Python code that runs first.
        reason: why it is not run; empty if it is.
    """

    page: str
    line: int
    language: str
    code: str
    replaced: tuple[tuple[str, str], ...]
    setup: str
    reason: str

    @property
    def tested_code(self) -> str:
        """What tests run."""
        code = self.code
        for old, new in self.replaced:
            if old not in code:
                raise ValueError(f"{self.page}:{self.line} replaces {old!r}, which is not in the block.")
            code = code.replace(old, new)
        return code


def pages() -> list[str]:
    """All pages, from the root of the checkout."""
    return ["README.md", *(path.relative_to(ROOT).as_posix() for path in sorted(ROOT.glob("docs/**/*.md")))]


def blocks_of(page: str) -> list[Block]:
    """The blocks of a page, in their order."""
    return list(_blocks(page, (ROOT / page).read_text(encoding="utf-8")))


def run_page(page: str) -> int:
    """Runs the blocks of a page in the current folder; returns how many."""
    namespace: dict[str, Any] = {"__name__": "__main__", "BLOCKS": []}
    count = 0
    for block in blocks_of(page):
        if not block.reason:
            _run(block, namespace)
            count += 1
        namespace["BLOCKS"].append(block.code)
    return count


def _blocks(page: str, text: str) -> Iterator[Block]:
    for found in _BLOCK.finditer(text):
        if found["language"] not in LANGUAGES:
            continue
        said = {kind.rstrip(":\n"): content for kind, content in _COMMENT.findall(found["comments"])}
        pairs = [tuple(pair.strip().split(" is ", 1)) for pair in said.get("in tests", "").split(";") if pair.strip()]
        line = text.count("\n", 0, found.start("code")) + 1
        yield Block(
            page,
            line,
            found["language"],
            found["code"],
            tuple(pairs),  # type: ignore[arg-type]
            said.get("setup", ""),
            said.get("not run", "").strip(),
        )


def _run(block: Block, namespace: dict[str, Any]) -> None:
    name = f"{block.page}:{block.line}"
    if block.setup:
        exec(compile(block.setup, f"{name} (setup)", "exec"), namespace)
    if block.language == "bash":
        for command in block.tested_code.replace("\\\n", " ").splitlines():
            _run_command(command, name)
    else:
        # Padded, so that line numbers of errors are those of the page.
        exec(compile("\n" * (block.line - 1) + block.tested_code, block.page, "exec"), namespace)


def _run_command(command: str, name: str) -> None:
    words = shlex.split(command, comments=True)
    if not words:
        return
    if (main := _programs().get(words[0])) is not None:
        status = main(words)
    else:
        status = subprocess.run(["bash", "-euo", "pipefail", "-c", command], check=False).returncode
    if status:
        raise AssertionError(f"{name}: {command} has ended with status {status}")


def _programs() -> dict[str, Any]:
    from ppo_agent import evaluate, export_command, plot_command, sweep_command, train

    return {
        "ppo-train": train.main,
        "ppo-eval": evaluate.main,
        "ppo-export": export_command.main,
        "ppo-plot": plot_command.main,
        "ppo-sweep": sweep_command.main,
    }


@contextlib.contextmanager
def modules_here(folder: Path) -> Iterator[None]:
    """Lets modules in a folder be imported, as for a script that lies there, and forgets them afterwards."""
    import sys

    before = set(sys.modules)
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        for name in set(sys.modules) - before:
            file = getattr(sys.modules[name], "__file__", None)
            if file and Path(file).is_relative_to(folder):
                del sys.modules[name]
