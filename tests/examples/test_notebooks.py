"""The notebooks, each in a kernel of its own, with fewer steps."""

import os
import sys
from pathlib import Path
from typing import Any

import pytest

nbclient = pytest.importorskip("nbclient")
nbformat = pytest.importorskip("nbformat")
pytest.importorskip("ipykernel")

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))
# What tests replace: fewer steps.
FEWER = {"60_000": "400", "100_000": "1_100", "num_episodes=20": "num_episodes=2"}


def execute(path: Path, folder: Path, fewer: dict[str, str]) -> Any:
    """Runs a notebook in a folder; returns it with its outputs."""
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            for old, new in fewer.items():
                cell.source = cell.source.replace(old, new)
    client = nbclient.NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    )
    return client.execute()


def outputs_of(notebook: Any) -> list[Any]:
    return [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]


def pictures_in(outputs: list[Any]) -> int:
    return sum(any(kind.startswith("image/") for kind in output.get("data", {})) for output in outputs)


@pytest.mark.filterwarnings("ignore")  # Of Jupyter's own.
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_run(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    outputs = outputs_of(execute(path, tmp_path, FEWER))
    assert not [output for output in outputs if output.output_type == "error"]
    assert pictures_in(outputs) >= 2


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_are_kept_with_their_pictures(path: Path) -> None:
    outputs = outputs_of(nbformat.read(path, as_version=4))
    assert pictures_in(outputs) >= 2
    assert not [output for output in outputs if output.output_type == "error"]
    assert path.stat().st_size < 1_000_000
