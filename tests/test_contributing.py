"""The map in CONTRIBUTING.md is that of the tree."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


def answers():
    """(question, the answer's files, the names said to be in one of them) of each row of the table."""
    for question, answer in re.findall(r"^\| ([^|]*\?) \| ([^|]*) \|$", TEXT, re.MULTILINE):
        words = re.findall("`([^`]+)`", answer)
        files = [ROOT / word for word in words if "/" in word]
        yield question, files, [word for word in words if "/" not in word]


def test_each_question_is_answered_by_files_that_exist_and_define_what_is_named():
    rows = list(answers())
    assert len(rows) >= 10
    for question, files, names in rows:
        assert files and all(file.is_file() for file in files), question
        defined = "\n".join(file.read_text(encoding="utf-8") for file in files)
        for name in names:
            assert re.search(rf"^(def|class) {name}\b|^{name}\b.* = ", defined, re.MULTILINE), (question, name)


def test_the_layers_are_those_that_lint_checks():
    [block] = re.findall(r"```text\n(__main__.*?)```", TEXT, re.DOTALL)
    drawn = [set(re.split(r" · ", re.split(r" {2,}", line)[0].replace("/", ""))) for line in block.splitlines()]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    layers = project["tool"]["importlinter"]["contracts"][0]["layers"]
    assert drawn == [set(layer.split(" | ")) for layer in layers]


def test_every_make_target_named_exists():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"`?make ([a-z-]+)", TEXT))
    assert targets >= {"run", "test", "lint", "sync"}
    assert targets <= set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))


def test_links_to_files_lead_to_files():
    for path in (*ROOT.glob("*.md"), ROOT / "notebooks" / "measured" / "LOG.md"):
        for link in re.findall(r"\]\((?!https?:|#|mailto:)([^)#]+)", path.read_text(encoding="utf-8")):
            assert (path.parent / link).exists(), (path.name, link)
