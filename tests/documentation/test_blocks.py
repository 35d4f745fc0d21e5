"""Every code block of README and docs is executed, or says why not."""

import os
import sys
from pathlib import Path

import matplotlib as mpl
import pytest
import tensorflow as tf
from documentation import blocks
from reliability import corruptions

from ppo_agent import Trainer  # noqa: F401 - Before what it imports, see gin_names.

# How many blocks are not run; each has its reason in the page. A block more is a decision.
NOT_RUN = 12
PAGES = [page for page in blocks.pages() if blocks.blocks_of(page)]


@pytest.mark.skipif(not tf.__version__.startswith("2.21"), reason="pages show packages that the older stack lacks")
@pytest.mark.filterwarnings("default")  # A page shows what readers see; warnings of other packages are part of it.
@pytest.mark.parametrize("page", PAGES)
def test_blocks_run(page: str, in_tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    mpl.use("agg")
    with blocks.modules_here(in_tmp_path), corruptions.without_compilation():
        count = blocks.run_page(page)
    assert count == sum(not block.reason for block in blocks.blocks_of(page))


def test_what_is_not_run_says_why() -> None:
    reasons = [block.reason for page in PAGES for block in blocks.blocks_of(page) if block.reason]
    assert len(reasons) == NOT_RUN
    assert all(len(reason.split()) >= 3 for reason in reasons)


def test_blocks_are_found_with_what_is_said_above_them() -> None:
    text = """# Page
<!-- not run: it takes days -->
```bash
sleep 100000
```
<!-- setup
x = 3
-->
<!-- in tests: 10_000 is 10; 5 is 6 -->
```python
y = 10_000 + 5 + x
```
```text
no code
```
"""
    first, second = blocks._blocks("page.md", text)
    assert (first.language, first.line, first.reason) == ("bash", 4, "it takes days")
    assert (second.language, second.line, second.reason, second.setup) == ("python", 11, "", "x = 3\n")
    namespace = {}
    blocks._run(second, namespace)
    assert namespace["y"] == 10 + 6 + 3


def test_errors_are_those_of_the_page() -> None:
    block = blocks.Block("page.md", 7, "python", "1 / 0\n", (), "", "")
    with pytest.raises(ZeroDivisionError) as error:
        blocks._run(block, {})
    assert error.traceback[-1].lineno + 1 == 7
    with pytest.raises(AssertionError, match="status 3"):
        blocks._run(blocks.Block("page.md", 7, "bash", "exit 3\n", (), "", ""), {})
    with pytest.raises(ValueError, match="which is not in the block"):
        blocks._run(blocks.Block("page.md", 7, "python", "x = 1\n", (("2", "3"),), "", ""), {})
