"""The pairs are in step and clean, and every notebook runs from a fresh kernel with the recipe `smoke`."""

import json
import re
from pathlib import Path

import jupytext
import nbformat
import pytest

NOTEBOOKS = sorted((Path(__file__).parent.parent / "notebooks").glob("[0-9]*.ipynb"))
pytestmark = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def code_cells(path):
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]


def test_the_pair_is_in_step(path):
    sides = [jupytext.read(side) for side in (path, path.with_suffix(".py"))]
    script, notebook = ([(cell.cell_type, cell.source) for cell in side.cells] for side in sides)
    assert script == notebook, "run `make sync`"


def test_cells_are_short(path):
    assert [cell.source for cell in code_cells(path) if len(cell.source.splitlines()) > 25] == []


def test_every_code_cell_has_run_in_order_without_error(path):
    cells = code_cells(path)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1)), "run `make notebooks`"
    assert not [out for cell in cells for out in cell.outputs if out.output_type == "error"]


def test_outputs_are_clean(path):
    for cell in code_cells(path):
        assert sum(out.output_type == "stream" for out in cell.outputs) <= 1, "streamed text lies in pieces"
    outputs = json.dumps([cell.outputs for cell in code_cells(path)])
    assert '"stderr"' not in outputs
    text = re.sub(r'"image/png": "[^"]*"', "", outputs)
    assert not re.findall(r"/(?:home|root|work|tmp|content|usr)/|\bhf_\w{20,}|it/s\]|%\|", text)


def test_figures_have_titles_and_axes_with_labels(path):
    """Each figure comes from a cptlib function, whose own tests look at titles and labels."""
    drawing = [
        cell.source for cell in code_cells(path) if any("image/png" in out.get("data", {}) for out in cell.outputs)
    ]
    assert drawing and all("plot_" in source for source in drawing)
