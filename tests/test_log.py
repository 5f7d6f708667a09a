"""The lab book of the measurements."""

import re
from pathlib import Path

MEASURED = Path(__file__).parent.parent / "notebooks" / "measured"
LOG = (MEASURED / "LOG.md").read_text(encoding="utf-8")


def test_every_measured_file_is_in_the_lab_book_and_no_other():
    named = set(re.findall(r"`([\w-]+\.json)`", LOG))
    assert named == {path.name for path in MEASURED.glob("*.json")} and named


def test_entries_are_dated_newest_first():
    headings = re.findall(r"^## (.*)", LOG, re.MULTILINE)
    dates = [heading[:10] for heading in headings]
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\d", date) for date in dates) and len(dates) > 1
    assert dates == sorted(dates, reverse=True)
