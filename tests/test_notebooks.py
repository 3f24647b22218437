"""The notebooks of the documentation run, from the first cell to the last."""

import json
from pathlib import Path

import matplotlib
import pytest

NOTEBOOKS = sorted((Path(__file__).parents[1] / "docs").rglob("*.ipynb"))


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs(notebook, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    matplotlib.use("Agg")
    cells = json.loads(notebook.read_text())["cells"]
    sources = ["".join(c["source"]) for c in cells if c["cell_type"] == "code"]
    assert len(sources) > 3
    scope = {"__name__": "__main__"}
    for i, source in enumerate(sources):
        exec(compile(source, f"{notebook.name}, code cell {i}", "exec"), scope)
    assert scope["true"].mean() > 0.8  # of the masks that the last cells compare
    assert not any(cell.get("outputs") for cell in cells)  # they would be outdated


def test_there_are_notebooks():
    assert NOTEBOOKS
