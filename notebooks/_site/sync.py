"""What `make sync` runs: the .ipynb of each pair is written from its .py, and nothing that stands in one of them alone is lost.

    python notebooks/_site/sync.py notebooks/[0-9]*.py

A side counts as unchanged where it is what the pair last agreed on: what is committed, where the two files agree there, or
the .py of the last sync, kept in build/synced. An .ipynb as it is committed is unchanged too, though a .py was committed
beside it that it does not follow yet. Where only the .ipynb was changed, the .py is written from it. Where both were, one
sentence says so, and no pair is written.
"""

import subprocess
import sys
from pathlib import Path

import jupytext
from jupytext.combine import combine_inputs_with_outputs
from jupytext.config import load_jupytext_config
from nbformat.reader import NotJSONError

SYNCED = Path("build/synced")
FORMAT = "py:percent"


class Refused(Exception):
    """Writing would lose what somebody wrote."""


class Pair:
    """A notebook's two files; which metadata they keep is said by the pyproject.toml above them."""

    def __init__(self, script: str):
        self.script, self.notebook = Path(script), Path(script).with_suffix(".ipynb")
        self.config = load_jupytext_config(str(self.script.absolute()))

    def read(self, text: str):
        return jupytext.reads(text, FORMAT, config=self.config)

    def agreed(self) -> list[list[tuple]]:
        """The cells that the pair agreed on: those committed, if both sides are alike there, and those of the last sync."""
        agreed, text = [], committed(self.script)
        if text is not None and self.committed_notebook() in (None, cells(self.read(text))):
            agreed.append(cells(self.read(text)))
        if (kept := SYNCED / self.script.name).exists():
            agreed.append(cells(self.read(kept.read_text(encoding="utf-8"))))
        return agreed

    def committed_notebook(self) -> list[tuple] | None:
        """The cells of the .ipynb at HEAD; None where git has none."""
        text = committed(self.notebook)
        return None if text is None else cells(jupytext.reads(text, "ipynb"))

    def synced(self) -> tuple[str, str]:
        """Text of the .py and of the .ipynb, once they agree. Raises Refused where both were changed."""
        text = self.script.read_text(encoding="utf-8")
        script = self.read(text)
        if not self.notebook.exists():
            return text, as_json(script)
        try:
            notebook = jupytext.read(self.notebook)
        except NotJSONError:
            raise Refused(f"{self.notebook} is no notebook: put it back, or delete it and its outputs.") from None
        if cells(notebook) not in [cells(script), self.committed_notebook(), *(agreed := self.agreed())]:
            if cells(script) not in agreed:
                raise Refused(
                    f"{self.script} and {self.notebook.name} were both changed since they last agreed: bring what you want "
                    f"to keep into the .py, then take its side with `jupytext --update --to ipynb {self.script}`."
                )
            script.cells = notebook.cells
            text = jupytext.writes(script, FORMAT, config=self.config).rstrip() + "\n"
            script = self.read(text)
        return text, as_json(combine_inputs_with_outputs(script, notebook))

    def write(self, script: str, notebook: str) -> None:
        SYNCED.mkdir(parents=True, exist_ok=True)
        for path, text in ((self.script, script), (self.notebook, notebook), (SYNCED / self.script.name, script)):
            path.write_text(text, encoding="utf-8")


def as_json(notebook) -> str:
    return jupytext.writes(notebook, "ipynb") + "\n"


def cells(notebook) -> list[tuple]:
    """What a person writes: each cell's kind, source and tags."""
    return [(cell.cell_type, cell.source, cell.metadata.get("tags", [])) for cell in notebook.cells]


def committed(file: Path) -> str | None:
    """The file as it is at HEAD; None where git has none."""
    command = ["git", "show", f"HEAD:./{file.name}"]
    try:
        return subprocess.run(command, cwd=file.parent, capture_output=True, check=True).stdout.decode()
    except (OSError, subprocess.CalledProcessError):
        return None


def main(scripts: list[str]) -> None:
    pairs = [Pair(script) for script in scripts]
    try:
        texts = [pair.synced() for pair in pairs]  # all of them, before the first is written
    except Refused as refused:
        sys.exit(str(refused))
    for pair, (script, notebook) in zip(pairs, texts, strict=True):
        pair.write(script, notebook)


if __name__ == "__main__":
    main(sys.argv[1:])
