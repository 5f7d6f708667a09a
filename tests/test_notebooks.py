"""The pairs are in step and clean, and every notebook runs from a fresh kernel with the recipe `smoke`."""

import json
import os
import re
import shutil
import time
from pathlib import Path

import jupytext
import nbformat
import pytest
from jupytext.cli import jupytext as run_jupytext

from cptlib import walkthrough

PROJECT = Path(__file__).parent.parent
NOTEBOOKS = sorted((PROJECT / "notebooks").glob("[0-9]*.ipynb"))
pytestmark = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def code_cells(path):
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]


def test_the_pair_is_in_step(path):
    sides = [jupytext.read(side) for side in (path, path.with_suffix(".py"))]
    script, notebook = ([(cell.cell_type, cell.source) for cell in side.cells] for side in sides)
    assert script == notebook, "run `make sync`"


def asks_for_a_t4(file):
    metadata = jupytext.read(file).metadata
    return metadata.get("accelerator") == "GPU" and metadata.get("colab", {}).get("gpuType") == "T4"


def test_colab_opens_it_on_a_gpu(path):
    assert asks_for_a_t4(path) and asks_for_a_t4(path.with_suffix(".py"))


@pytest.mark.parametrize(
    ("newer", "options"), [(".py", ["--sync"]), (".ipynb", ["--sync"]), (".py", ["--update", "--to", "ipynb"])]
)
def test_colab_opens_it_on_a_gpu_after_a_run_and_jupytext(path, newer, options, tmp_path):
    for file in (path, path.with_suffix(".py"), PROJECT / "pyproject.toml"):
        shutil.copy(file, tmp_path)
    pair = tmp_path / path.name
    content = nbformat.read(pair, as_version=4)
    walkthrough.tidy(content)  # as every run does
    nbformat.write(content, pair)
    os.utime(pair.with_suffix(newer), times=(time.time() + 60,) * 2)
    run_jupytext(["--quiet", *options, str(pair.with_suffix(".py"))])
    assert asks_for_a_t4(pair) and asks_for_a_t4(pair.with_suffix(".py"))


def test_cells_are_short(path):
    assert [cell.source for cell in code_cells(path) if len(cell.source.splitlines()) > 25] == []


def test_code_fits_the_column_of_a_page(path):
    assert [line for cell in code_cells(path) for line in cell.source.splitlines() if len(line) > 88] == []


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
