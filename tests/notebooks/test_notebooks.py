"""Every notebook runs from start to end beside the stored runs, and both its forms agree."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

pytestmark = pytest.mark.long

jupytext = pytest.importorskip("jupytext")
nbclient = pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")
pytest.importorskip("plotly")

FOLDER = Path(__file__).parents[2] / "experiments" / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.py"))


def test_there_is_a_notebook_for_each_use():
    assert {path.stem for path in NOTEBOOKS} == {
        "bit_allocation",
        "from_python",
        "latency_new_board",
        "own_model_and_space",
        "pareto_analysis",
    }


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_text_and_ipynb_are_the_same_notebook(path):
    text, stored = jupytext.read(path), jupytext.read(path.with_suffix(".ipynb"))
    cells = [[(cell.cell_type, cell.source) for cell in book.cells] for book in (text, stored)]
    assert cells[0] == cells[1], "run: jupytext --to ipynb experiments/notebooks/*.py"
    # Outputs are of somebody's machine; they stay out of the repository.
    assert not any(cell.get("outputs") for cell in stored.cells)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_notebook_runs(path, tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    shutil.copytree(FOLDER / "stored", tmp_path / "stored")
    book = jupytext.read(path.with_suffix(".ipynb"))
    client = nbclient.NotebookClient(
        book, timeout=500, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute()
    drawn = [
        output
        for cell in book.cells
        for output in cell.get("outputs", ())
        if "application/vnd.plotly.v1+json" in output.get("data", {})
    ]
    wanted = sum(
        cell.cell_type == "code" and cell.source.splitlines()[-1][:1] not in (" ", "")
        and any(line.startswith("plots.") for line in cell.source.splitlines())
        for cell in book.cells
    )  # fmt: skip
    assert len(drawn) == wanted > 0
    assert all(output["data"]["application/vnd.plotly.v1+json"]["data"] for output in drawn)
