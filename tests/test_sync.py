"""`make sync`: in a repository of its own, nothing that stands in one file of a pair alone is lost."""

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import jupytext
import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_output

ROOT = Path(__file__).parent.parent
SYNC = ROOT / "notebooks" / "_site" / "sync.py"
SCRIPT = """# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Bread
#
# Flour and water.

# %% tags=["plumbing"]
flour = 500

# %%
print(flour)
"""


def sync(folder, *names):
    command = [sys.executable, str(SYNC), *(names or ("notebooks/01_bread.py",))]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def git(folder, *words):
    user = ["-c", "user.name=A", "-c", "user.email=a@example.org"]
    subprocess.run(["git", *user, *words], cwd=folder, check=True, capture_output=True)


class Pair:
    """notebooks/01_bread in `folder`."""

    def __init__(self, folder, name="01_bread"):
        self.script, self.notebook = (folder / "notebooks" / f"{name}.{end}" for end in ("py", "ipynb"))

    def edit_script(self, old, new):
        """And the .ipynb is touched afterwards, as `git stash pop` or saving its outputs does."""
        self.script.write_text(self.script.read_text().replace(old, new))
        later = time.time() + 60
        os.utime(self.notebook, (later, later))

    def edit_notebook(self, change):
        content = nbformat.read(self.notebook, as_version=4)
        change(content)
        nbformat.write(content, self.notebook)

    def texts(self):
        return self.script.read_text(), self.notebook.read_text()

    def code(self):
        return [cell for cell in nbformat.read(self.notebook, as_version=4).cells if cell.cell_type == "code"]

    def agrees(self):
        sides = [jupytext.read(path).cells for path in (self.script, self.notebook)]
        one, other = ([(cell.cell_type, cell.source) for cell in cells] for cells in sides)
        return one == other


def with_output(content):
    content.cells[2].outputs = [new_output("stream", text="500\n")]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "notebooks").mkdir()
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (tmp_path / ".gitignore").write_text("build/\n")
    (tmp_path / "notebooks" / "01_bread.py").write_text(SCRIPT)
    return tmp_path


@pytest.fixture
def pair(folder):
    """A fresh clone: in step, committed, the last cell with an output, nothing built."""
    assert sync(folder).returncode == 0
    pair = Pair(folder)
    pair.edit_notebook(with_output)
    git(folder, "init")
    git(folder, "add", ".")
    git(folder, "commit", "-m", "bread")
    shutil.rmtree(folder / "build")
    return pair


def test_a_script_without_a_notebook_gets_one(folder):
    assert sync(folder).returncode == 0
    assert Pair(folder).agrees() and Pair(folder).code()[0].metadata.tags == ["plumbing"]


def test_an_edit_of_the_script_outlives_a_touch_of_the_notebook(folder, pair):
    pair.edit_script("flour = 500", "flour = 750")
    assert sync(folder).returncode == 0
    assert "flour = 750" in pair.script.read_text() and pair.agrees()
    assert pair.code()[1].outputs[0].text == "500\n"


def test_a_second_edit_before_a_commit_is_no_conflict(folder, pair):
    for flour in ("flour = 600", "flour = 700"):
        pair.script.write_text(SCRIPT.replace("flour = 500", flour))
        assert sync(folder).returncode == 0, flour
        assert pair.code()[0].source == flour


def test_an_edit_that_was_committed_without_a_sync_stays(folder, pair):
    pair.edit_script("flour = 500", "flour = 750")
    git(folder, "commit", "-am", "more bread")
    assert sync(folder).returncode == 0
    assert "flour = 750" in pair.script.read_text() and pair.agrees()


def test_an_edit_that_was_committed_without_a_sync_is_not_lost_to_one_of_the_notebook(folder, pair):
    pair.edit_script("flour = 500", "flour = 750")
    git(folder, "commit", "-am", "more bread")
    pair.edit_notebook(lambda content: content.cells.append(new_code_cell("salt = 10")))
    before = pair.texts()
    assert "were both changed" in refused(folder)
    assert pair.texts() == before


def test_where_only_the_notebook_was_changed_the_script_is_written_from_it(folder, pair):
    def salt(content):
        content.cells[1].source = "flour = 500  # salted"
        content.cells.append(new_code_cell("salt = 10\n"))
        content.metadata = {}  # as some editors leave it

    pair.edit_notebook(salt)
    assert sync(folder).returncode == 0
    assert "# salted" in pair.script.read_text() and "salt = 10" in pair.script.read_text() and pair.agrees()
    assert "name: python3" in pair.script.read_text()  # the header stays
    assert pair.code()[1].outputs[0].text == "500\n"
    before = pair.texts()
    assert sync(folder).returncode == 0 and pair.texts() == before


def test_a_pair_in_step_is_left_as_it_is_whatever_its_times_and_outputs(folder, pair):
    assert sync(folder).returncode == 0
    pair.edit_notebook(lambda content: content.cells[2].outputs.clear())
    before = pair.texts()
    os.utime(pair.script, (1, 1))
    assert sync(folder).returncode == 0 and pair.texts() == before


def refused(folder, *names):
    done = sync(folder, *names)
    assert done.returncode == 1 and len(done.stderr.strip().splitlines()) == 1
    return done.stderr


@pytest.mark.parametrize("known", ["committed", "at the last sync", "nothing"])
def test_where_both_were_changed_nothing_is_written(folder, pair, known):
    """Not the pairs beside it either."""
    other = Pair(folder, "02_cake")
    other.script.write_text(SCRIPT)
    if known == "at the last sync":
        pair.edit_script("water", "milk")
        assert sync(folder).returncode == 0
    if known == "nothing":
        shutil.rmtree(folder / ".git")
    pair.edit_script("flour = 500", "flour = 750")
    pair.edit_notebook(lambda content: content.cells.append(new_code_cell("salt = 10")))
    before = pair.texts()
    sentence = refused(folder, "notebooks/02_cake.py", "notebooks/01_bread.py")
    assert pair.texts() == before and not other.notebook.exists()
    command = re.search("`(jupytext .+)`", sentence)[1].split()
    subprocess.run([sys.executable, "-m", *command], cwd=folder, check=True)
    assert sync(folder).returncode == 0 and pair.texts()[0] == before[0] and pair.agrees()


def test_a_change_of_tags_or_of_a_cells_kind_is_a_change(folder, pair):
    pair.edit_notebook(lambda content: content.cells[1].metadata.update(tags=["hide"]))
    assert sync(folder).returncode == 0
    assert '# %% tags=["hide"]' in pair.script.read_text()
    pair.script.write_text(pair.script.read_text().replace("# # Bread", "# # Cake"))
    pair.edit_notebook(lambda content: content.cells[2].update(cell_type="raw"))
    refused(folder)


def test_the_pair_keeps_the_metadata_that_pyproject_names(folder, pair):
    project = folder / "pyproject.toml"
    for old in ('notebook_metadata_filter = "', 'cell_metadata_filter = "'):
        project.write_text(project.read_text().replace(f"\n{old}", f"\n{old}flour,"))
    pair.script.write_text(SCRIPT.replace("# jupyter:\n", "# jupyter:\n#   flour: white\n"))
    assert sync(folder).returncode == 0
    assert nbformat.read(pair.notebook, as_version=4).metadata.flour == "white"
    pair.edit_notebook(lambda content: content.cells[2].update(source="flour", metadata={"flour": 1, "milk": 2}))
    assert sync(folder).returncode == 0
    script = pair.script.read_text()
    assert "#   flour: white" in script and "# %% flour=1\nflour" in script and "milk" not in script


def test_a_notebook_that_cannot_be_read_is_left_alone(folder, pair):
    pair.notebook.write_text("<<<<<<< HEAD\n" + pair.notebook.read_text())
    before = pair.texts()
    assert "01_bread.ipynb" in refused(folder)
    assert pair.texts() == before


def test_make_writes_pairs_in_no_other_way():
    done = subprocess.run(
        ["make", "--dry-run", "sync", "notebooks"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.count("_site/sync.py") == 2 and "jupytext" not in done.stdout.replace("jupytext>=", "")
