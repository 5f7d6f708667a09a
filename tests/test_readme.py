"""What the README shows is what was measured: its texts, its figure and its numbers stand in files of this repository."""

import base64
import json
import re
import statistics
from pathlib import Path

import nbformat
import pytest

from cptlib import machine

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
WALK = nbformat.read(ROOT / "notebooks" / "01_continued_pretraining.ipynb", as_version=4)
WALL = json.loads((ROOT / "notebooks" / "measured" / "wall-h100.json").read_text(encoding="utf-8"))["rows"]


def outputs(part):
    """The outputs of the one cell of 01 with `part` in its code."""
    [cell] = [cell for cell in WALK.cells if cell.cell_type == "code" and part in cell.source]
    return cell.outputs


def test_the_figure_and_its_description_are_those_of_the_walk_through():
    figures = [out.data["image/png"] for out in outputs("plot_comparison") if "image/png" in out.get("data", {})]
    assert base64.b64decode(figures[0]) == (ROOT / "notebooks" / "images" / "laptop_perplexity.png").read_bytes()
    [table] = [out.data["text/plain"] for out in outputs("plot_comparison") if "text/html" in out.get("data", {})]
    rows = re.findall(
        r"^(held-out documents|reference prose|Python code|licences) +\d+ +([\d.]+) +([\d.]+)", table, re.M
    )
    told = re.findall(r"from ([\d.]+) to ([\d.]+)", re.search(r"!\[Perplexity(.*?)\]", README)[1])
    assert [(f"{float(before):.1f}", f"{float(after):.1f}") for _, before, after in rows] == told


def words(text):
    return " ".join(text.split()).replace("*", "")


def test_the_stories_are_those_of_the_walk_through():
    written = words(" ".join(out.text for part in ("before = streaming", "after = streaming") for out in outputs(part)))
    for quote in re.findall(r"^> Once upon(?:.*\n)(?:>.*\n)+", README, re.MULTILINE):
        for part in words(quote.replace("> ", " ").replace(">", " ")).split("[…]"):
            assert part.strip(" …") in written


def test_what_a_laptop_takes_is_what_the_walk_through_took():
    [said] = [out.text for out in outputs("training.report(trainer") if out.output_type == "stream"]
    assert f"| {float(re.search(r'peak memory: ([0-9.]+) GB', said)[1]):.1f} GB | " in README
    assert f"{re.search(r'tokens in ([0-9]+) s', said)[1]} s of them training" in README
    assert f"| {WALK.metadata['run']['seconds'] / 60:.0f} minutes on two cores" in README


@pytest.mark.parametrize("name", ["gpu12", "gpu8"])
def test_what_a_small_card_takes_is_what_was_measured(name):
    row = re.search(rf"^\| `{name}` .*$", README, re.MULTILINE)[0]
    assert f"| {machine.SMALL_CARDS[name][0]:.1f} GB on an H100 that was held to " in row


@pytest.mark.parametrize("page", ["README.md", "notebooks/04_memory_and_speed.py", "notebooks/measured/LOG.md"])
@pytest.mark.parametrize("recipe", ["t4", "a100", "post"])
def test_speeds_are_those_of_the_file(page, recipe):
    rounds = [row["tokens_per_second"] for row in WALL if row["recipe"].split(",")[0] == recipe]
    median, least, most = (f"{number:,.0f}" for number in (statistics.median(rounds), min(rounds), max(rounds)))
    text = (ROOT / page).read_text(encoding="utf-8")
    if page == "README.md":
        assert f"{median} ({least} to {most})" in text or f"{median} tokens/s ({least} to {most})" in text
    else:
        assert re.search(rf"\| {median} \| {'[ ,·]+'.join(f'{number:,.0f}' for number in rounds)} \|", text)
