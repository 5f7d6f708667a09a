import base64
import os
import re

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from cptlib import walkthrough
from cptlib.errors import NotebookError

METADATA = {
    "kernelspec": {"name": "python3", "display_name": "Python 3"},
    "accelerator": "GPU",
    "colab": {"gpuType": "A100"},
}


def write(folder, *cells):
    notebook = new_notebook(metadata=METADATA, cells=[new_markdown_cell("## A section"), *map(new_code_cell, cells)])
    nbformat.write(notebook, folder / "a.ipynb")
    return folder / "a.ipynb"


def test_output_is_shown_as_it_comes_and_kept(tmp_path, capsys):
    streaming = "import sys\nprint('hel', end='', flush=True)\nprint('noise', file=sys.stderr)\nprint('lo', end='')"
    source = write(tmp_path, streaming, "open('made.txt', 'w').close()")
    page = walkthrough.run(source, tmp_path / "out")
    shown = capsys.readouterr().out
    assert "A section   (1 of 3 cells" in shown and "hel" in shown and "lo" in shown and "noise" not in shown
    assert (tmp_path / "out" / "made.txt").exists()  # the run's own files land beside the page
    executed = nbformat.read(tmp_path / "out" / "a.ipynb", as_version=4)
    assert [output.text for output in executed.cells[1].outputs] == ["hello"]  # in one piece, the noise gone
    assert "hello" in page.read_text()
    assert executed.metadata.run.device and executed.metadata.run.seconds >= 0
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", executed.metadata.run.date)


def test_a_run_keeps_what_the_notebook_asks_of_colab_and_drops_the_rest():
    content = new_notebook(metadata={**METADATA, "language_info": {"name": "python"}, "widgets": {}})
    walkthrough.tidy(content)
    assert content.metadata == METADATA
    content = new_notebook(metadata={"kernelspec": METADATA["kernelspec"]})
    walkthrough.tidy(content)
    assert content.metadata == {"kernelspec": METADATA["kernelspec"]}


def test_a_run_says_where_it_was(monkeypatch, gpu):
    monkeypatch.setenv("PATH", "")  # no nvidia-smi, as with a GPU of AMD's, or in many containers
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-5e-aa")
    gpu(free=9.0, total=9.75, name="AMD Instinct MI300X")
    assert walkthrough._record(1.0)["device"] == "AMD Instinct MI300X"
    monkeypatch.setenv("CPTLIB_GPU_GB", "15")
    assert walkthrough._record(1.0)["device"] == "AMD Instinct MI300X, held to 15 GB"
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert walkthrough._record(1.0)["device"] == f"{os.cpu_count()} CPU cores, no GPU"


def test_figures_are_sharp_and_keep_their_descriptions(tmp_path):
    draw = "style.subplots().set_title('Cats & dogs');"
    walkthrough.run(write(tmp_path, "from cptlib import style", draw, draw), tmp_path / "out")
    for cell in nbformat.read(tmp_path / "out" / "a.ipynb", as_version=4).cells[2:]:  # the second is the harder one
        [output] = cell.outputs
        assert output.data["text/plain"] == "Cats & dogs."
        width = int.from_bytes(base64.b64decode(output.data["image/png"])[16:20])  # as the PNG's header has it
        assert width > 1100 and not output.metadata
    assert (tmp_path / "out" / "a.html").read_text().count('alt="Cats &amp; dogs."') == 2


def test_the_page_asks_no_other_machine_for_anything(tmp_path):
    badge = "[![Open](https://example.org/badge.svg)](https://example.org)"
    cells = [new_markdown_cell(badge), new_code_cell("1 + 1")]
    page = walkthrough.render(new_notebook(cells=cells), "a")
    assert re.findall(r"<(?:script|img|link|iframe)[^>]+(?:src|href)=.https?:[^>]*>|@import[^;]*https?:", page) == []
    assert 'href="https://example.org"' in page


def test_a_failing_cell_is_named_and_what_ran_is_kept(tmp_path):
    source = write(tmp_path, "print('so far')", "raise ValueError('the disk is full')")
    with pytest.raises(NotebookError, match="a.ipynb stopped: ValueError: the disk is full"):
        walkthrough.run(source, tmp_path / "out")
    assert "so far" in (tmp_path / "out" / "a.html").read_text()
