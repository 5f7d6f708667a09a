"""A folder becomes a corpus: cleaned, without duplicates, split by document; and everything left out has a line."""

import gzip
import json
import os
import random
import shutil
import subprocess
import sys
import textwrap
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from conftest import sentence, write_docx, write_epub, write_pdf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cptlib import checks, corpus, lora, rows, training
from cptlib.documents import forecast, formats
from cptlib.documents.formats import READERS
from cptlib.documents.report import LeftOut, Report
from cptlib.errors import CorpusError

WORDS = [f"word{n}" for n in range(3000)]


def write(seed, length=120):
    return " ".join(random.Random(seed).choices(WORDS, k=length)) + "."


def test_a_folder_of_every_format_is_read_and_copies_are_dropped(one_of_each):
    documents, report = corpus.from_folder(one_of_each)
    assert report.files == report.texts == 2 * len(READERS) and report.documents == len(READERS) == len(documents)
    for suffix in READERS:
        [text] = [text for text in documents["text"] if sentence(f"a{suffix}") in text]
        assert text == text.strip()
    assert report.count("exact duplicate") == len(READERS) and all(
        left.file.endswith(".gz") for left in report.left_out
    )
    assert set(documents["source"]) == {
        str(path.relative_to(one_of_each)) for path in one_of_each.rglob("a.*") if path.suffix in READERS
    }
    assert all(documents["ends"])


def test_whatever_is_left_out_has_a_line(tmp_path):
    (tmp_path / "good.txt").write_text(write(1))
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "blank.txt").write_text(" \n\x00 \n" + " " * 400)
    (tmp_path / "photo.png").write_bytes(b"x")
    (tmp_path / "binary.txt").write_bytes(bytes(300))
    (tmp_path / ".hidden").write_text("x")
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "x.txt").write_text(write(2))
    (tmp_path / "rows.jsonl").write_text('{"text": "' + write(3) + '"}\nx\n[]\n')
    os.symlink(tmp_path, tmp_path / "loop")
    os.symlink(tmp_path / "nowhere.txt", tmp_path / "broken.txt")
    os.mkfifo(tmp_path / "pipe.txt")
    write_pdf(tmp_path / "locked.pdf", "Secret.", password="x")
    documents, report = corpus.from_folder(tmp_path)
    assert len(documents) == 2
    reasons = {left.file: left.reason for left in report.left_out}
    assert reasons == {
        "empty.txt": "empty file",
        "blank.txt": "no text in it",
        "photo.png": "not a format that is read",
        "binary.txt": "binary, not text",
        ".hidden": "hidden file",
        ".git": "hidden folder",
        "rows.jsonl": reasons["rows.jsonl"],
        "loop": "a link to a folder, not followed",
        "broken.txt": "not a regular file, or a broken link",
        "pipe.txt": "not a regular file, or a broken link",
        "locked.pdf": "encrypted",
    }
    assert all(f"{file}: {reason}" in str(report) for file, reason in reasons.items())
    assert report.count("no string field") == 1 and report.count("not a JSON object") == 1


def test_what_is_no_character_stops_nothing(tmp_path):
    """Half a surrogate pair in a text, in a field's name, and a file name that is not UTF-8."""
    (tmp_path / "a.jsonl").write_text('{"text": "half a \\ud800 pair"}\n{"\\ud800": 1}\n')
    with open(os.fsencode(tmp_path) + b"/caf\xe9.txt", "w", encoding="utf-8") as file:
        file.write("An old file name.")
    documents, report = corpus.from_folder(tmp_path)
    assert documents["text"][:] == ["half a \ufffd pair", "An old file name."]
    assert documents["source"][1] == "caf\\udce9.txt" and "\\ud800" in str(report).encode().decode()


def test_rows_bad_for_one_reason_are_one_line_with_a_count(tmp_path):
    (tmp_path / "a.jsonl").write_text(f'{{"text": "{write(1)}"}}\n' + '{"words": "x"}\n' * 1000)
    _, report = corpus.from_folder(tmp_path)
    [left] = report.left_out
    assert (left.count, left.where, left.bad) == (1000, "line 2", True)
    assert "1,000 × a.jsonl: no string field" in str(report) and "(first at line 2)" in str(report)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"", "a.txt: empty file"),
        ("a.jsonl", b'{"text": "One."}\nx\n', "a.jsonl, line 2: not a JSON object"),
        ("a.doc", b"x", "a.doc: not a format that is read"),
    ],
)
def test_strict_stops_at_the_first(tmp_path, name, content, message):
    (tmp_path / "b.txt").write_text(write(1))
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CorpusError, match=message):
        corpus.from_folder(tmp_path, strict=True)
    assert corpus.from_folder(tmp_path)[1].count("") == 1


def test_a_note_on_a_text_that_was_read_is_no_error(tmp_path, capsys):
    """A byte that was replaced: the text is there, the report has a line on it, and neither --strict nor read stops."""
    (tmp_path / "a.txt").write_bytes("Zoë’s façade, “fine”. ".encode() * 9 + b"\xff.")
    documents, report = corpus.from_folder(tmp_path, strict=True)
    assert len(documents) == 1 and report.left_out == []
    assert [(note.file, note.count, note.bad) for note in report.notes] == [("a.txt", 1, False)]
    assert str(report).splitlines()[-2:] == [
        "notes:",
        "      1 × a.txt: 1 places are not utf-8; they were read as \ufffd",
    ]
    assert report.as_dict()["notes"][0]["file"] == "a.txt"
    assert corpus.read(str(tmp_path / "a.txt"))["text"][0].startswith("Zoë’s façade")
    assert capsys.readouterr().out.endswith("a.txt: 1 places are not utf-8; they were read as \ufffd.\n")


SHOWN = "Write <em>so</em>, List<S> or <!-- a note -->; &lt; is a sign."


@pytest.mark.parametrize("suffix", [".html", ".docx", ".epub", ".pdf"])
def test_what_a_page_shows_is_its_text(tmp_path, suffix):
    """A parser has been there already: what looks like markup now is what the page speaks of."""
    escaped = SHOWN.replace("&", "&amp;").replace("<", "&lt;")
    path = tmp_path / f"a{suffix}"
    if suffix == ".html":
        path.write_text(f"<p>{escaped}</p>")
    else:
        write = {".docx": write_docx, ".epub": write_epub, ".pdf": write_pdf}[suffix]
        write(path, SHOWN if suffix == ".pdf" else escaped)
    documents, report = corpus.from_folder(tmp_path)
    assert documents["text"][:] == [SHOWN] and report.notes == []


def test_a_long_report_shows_thirty_lines_of_each_kind():
    report = Report()
    for n in range(40):
        report.add(LeftOut(f"{n}.txt", "empty file", bad=True))
        report.add(LeftOut(f"{n}.txt", "read as cp1252", bad=False), note=True)
    shown = str(report)
    assert shown.count("empty file") == shown.count("read as cp1252") == 30
    assert "10 more lines (report.left_out has them all)" in shown and "10 more lines (report.notes" in shown


def test_markup_that_goes_from_a_text_is_counted(tmp_path):
    """In plain text and in fields where the text is HTML, in Markdown outside of its code."""
    (tmp_path / "a.txt").write_text("<p>One</p>\x07  &amp; `<b>more</b>`" + " and so on" * 9)
    (tmp_path / "b.txt").write_text("copy <input> <label>")
    (tmp_path / "c.md").write_text("Two\n\n    <p>code</p>\n\n<p>Three  \nfour</p>")
    (tmp_path / "d.jsonl").write_text('{"text": "<i>Five</i>"}\n{"text": "<i>Six</i>"}\n')
    documents, report = corpus.from_folder(tmp_path)
    assert documents["text"][:] == [
        "One\n  & `more`" + " and so on" * 9,
        "copy <input> <label>",
        "Two\n\n    <p>code</p>\n\nThree  \nfour",
        "Five",
        "Six",
    ]
    assert [(note.file, note.reason, note.count) for note in report.notes] == [
        ("a.txt", "HTML tags and entities taken out", 5),
        ("a.txt", "control characters taken out", 1),
        ("c.md", "HTML tags and entities taken out", 2),
        ("d.jsonl", "HTML tags and entities taken out", 4),
    ]
    assert "      5 × a.txt: HTML tags and entities taken out" in str(report)
    documents, report = corpus.from_folder(tmp_path, markup=True)
    assert "<i>Five</i>" in documents["text"][:] and not any("HTML" in note.reason for note in report.notes)


def test_duplicates_and_hidden_files_are_no_error_under_strict(tmp_path):
    for name in ("a.txt", "b.txt", ".c.txt"):
        (tmp_path / name).write_text(write(1))
    documents, report = corpus.from_folder(tmp_path, strict=True)
    assert len(documents) == 1 and report.count("exact duplicate") == report.count("hidden file") == 1


def test_nothing_to_read_is_an_error_with_the_reasons(tmp_path):
    (tmp_path / "a.txt").write_text("")
    with pytest.raises(CorpusError, match=r"holds no text that can be used(.|\n)*a.txt: empty file"):
        corpus.from_folder(tmp_path)
    with pytest.raises(CorpusError, match="nowhere: there is no such file or folder"):
        corpus.from_folder(tmp_path / "nowhere")


def test_filters_by_language_and_length(tmp_path):
    texts = {
        "en": "The cat sat on the mat and looked at the sea all day.",
        "de": "Die Katze saß auf der Matte und sah aufs Meer.",
    }
    (tmp_path / "a.txt").write_text(
        f"\n{formats.SEPARATOR}\n".join([*texts.values(), "Short one.", "the long one " * 99])
    )
    documents, report = corpus.from_folder(tmp_path, languages={"de"}, shortest=20, longest=1000)
    assert documents["text"][:] == [texts["de"]]
    assert Counter(left.reason for left in report.left_out) == {
        "in another language (en)": 1,
        "shorter than 20 characters": 1,
        "longer than 1,000 characters": 1,
    }


def test_near_duplicates_go(tmp_path):
    texts = [write(n) for n in range(60)]
    near = [text.replace(text.split()[60], "other", 1) for text in texts[30:40]]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts + near))
    documents, report = corpus.from_folder(tmp_path)
    assert report.count("near duplicate") == 10 and documents["text"][:] == texts


def test_a_long_document_is_cut_and_ends_once(tmp_path, tokenizer):
    stories = corpus.read("stories", 20)["text"]
    (tmp_path / "long.txt").write_text("\n\n".join(stories))
    (tmp_path / "short.txt").write_text("A short one.")
    documents, _ = corpus.from_folder(tmp_path)
    pieces = corpus.cut(documents, tokenizer, 64)
    assert pieces.column_names == ["text", "ends"]
    long = pieces["text"][:-1]
    assert "".join(long) == documents["text"][0] and list(pieces["ends"]) == [False] * (len(long) - 1) + [True, True]
    assert sum(text.rstrip().endswith((".", "!", "?", '"')) for text in long) > 0.9 * len(long)
    ids = tokenizer(corpus.add_eos(pieces, tokenizer)["text"][:])["input_ids"]
    assert max(map(len, ids)) <= 64 and [tokenizer.eos_token_id in row for row in ids] == list(pieces["ends"])
    assert sum(map(len, ids)) / len(ids) > 40  # the rows are well filled


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(min_size=1, max_size=400), length=st.integers(10, 40))
def test_pieces_put_together_are_the_document(tokenizer, text, length):
    room = length - 1 - len(tokenizer("")["input_ids"])
    pieces = list(rows._pieces(text, tokenizer, room))
    assert "".join(pieces) == text
    assert all(len(tokenizer(piece)["input_ids"]) <= room or len(piece) == 1 for piece in pieces)


def test_a_part_of_a_text_too_long_to_hold_has_no_end(tmp_path, monkeypatch, tokenizer):
    monkeypatch.setattr(formats, "LONGEST_PIECE", 2000)
    (tmp_path / "a.txt").write_text("\n\n".join(corpus.read("stories", 20)["text"]))
    documents, _ = corpus.from_folder(tmp_path)
    assert list(documents["ends"]) == [False] * (len(documents) - 1) + [True] and len(documents) > 5
    assert len(set(documents["document"])) == 1
    assert sum(corpus.cut(documents, tokenizer, 64)["ends"]) == 1


def test_read_takes_a_folder_and_any_format(one_of_each, capsys):
    assert len(corpus.read(str(one_of_each))) == len(READERS)
    assert f"{2 * len(READERS)} files" in capsys.readouterr().out
    assert corpus.read(str(one_of_each / "a.csv"))["text"][:] == [sentence("a.csv")]
    assert len(corpus.read(str(one_of_each), documents=3)) == 3


def test_what_read_gives_can_be_trained_on(tiny, smoke, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "texts").mkdir()
    for n, text in enumerate(corpus.read("stories", 12)["text"]):
        (tmp_path / "texts" / f"{n}.md").write_text(text)
    model, tokenizer = tiny
    parts = corpus.add_eos(corpus.split(corpus.read("texts"), 4, 0), tokenizer)
    trainer = training.make_trainer(lora.add_adapters(model, smoke), tokenizer, parts["train"], smoke)
    checks.preflight(trainer)
    assert trainer.train().global_step == 2


def test_missing_libraries_are_said_with_the_way_out(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(CorpusError, match=r"needs datasets, ftfy, rensa. Run: pip install 'cptlib\[documents\]'"):
        corpus.from_folder(tmp_path)
    monkeypatch.undo()
    (tmp_path / "a.html").write_text("x")
    monkeypatch.setitem(sys.modules, "markitdown", None)
    monkeypatch.delitem(sys.modules, "markitdown.converters", raising=False)
    with pytest.raises(CorpusError, match=r"a.html: markitdown is missing. Run: pip install 'cptlib\[documents\]'"):
        corpus.from_folder(tmp_path)


def test_a_library_that_names_no_module_in_its_error_is_quoted(tmp_path, monkeypatch):
    """As one does that wants a system library or a newer version of itself."""

    def refuse(*_):
        raise ImportError("this build of the reader needs libexample 3")

    monkeypatch.setitem(formats.READERS, ".epub", refuse)
    (tmp_path / "a.epub").write_bytes(b"x")
    with pytest.raises(CorpusError, match=r"a.epub: this build of the reader needs libexample 3. Run: pip install"):
        corpus.from_folder(tmp_path)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_folder_gives_a_report_that_adds_up(one_of_each, tmp_path_factory, data):
    """No traceback, and every text read is kept or has its place in a line."""
    folder = tmp_path_factory.mktemp("damaged")
    (folder / "good.txt").write_text(write(1))
    for path in sorted(path for path in one_of_each.rglob("a.*")):
        content = bytearray(path.read_bytes())
        for at, byte in data.draw(st.lists(st.tuples(st.integers(0, len(content)), st.integers(0, 255)), max_size=3)):
            content[at : at + 1] = bytes([byte])
        cut = data.draw(st.integers(0, 2 * len(content)))
        (folder / path.name).write_bytes(content[:cut])
    documents, report = corpus.from_folder(folder)
    dropped = sum(
        left.count for left in report.left_out if "duplicate" in left.reason or left.reason == "no text in it"
    )
    assert report.files == 1 + 2 * len(READERS) and report.texts == len(documents) + dropped
    named = {left.file for left in report.left_out} | set(documents["source"])
    assert named == {path.name for path in folder.iterdir()} and write(1) in documents["text"][:]


def test_a_small_corpus_is_counted_and_a_large_one_estimated(tmp_path, tokenizer, smoke, monkeypatch):
    stories = corpus.read("stories", 32)["text"]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in stories))
    documents, report = corpus.from_folder(tmp_path)
    recipe = replace(smoke, max_steps=-1, held_out=8, max_length=64, micro_batch=2, accumulation=2, epochs=3)
    exact = forecast.forecast(documents, report.lengths, tokenizer, recipe, speed=100)
    assert exact.exact and exact.tokens == sum(len(tokenizer(text)["input_ids"]) + 1 for text in stories)
    assert exact.rows == pytest.approx(exact.tokens * 24 / 32 / 64, rel=0.2)
    assert exact.steps == pytest.approx(exact.rows / 4 * 3, abs=2)
    assert exact.seconds == pytest.approx(exact.tokens * 24 / 32 * 3 / 100)
    monkeypatch.setattr(forecast, "SAMPLE", 8)
    estimate = forecast.forecast(documents, report.lengths, tokenizer, recipe)
    assert not estimate.exact and estimate.tokens == pytest.approx(exact.tokens, rel=0.1)
    assert estimate.seconds is None and "no speed is known" in str(estimate)
    limited = forecast.forecast(documents, report.lengths, tokenizer, replace(recipe, max_steps=2), speed=100)
    assert limited.steps == 2 and limited.seconds < exact.seconds
    packed = forecast.forecast(documents, report.lengths, tokenizer, replace(recipe, packing=True, max_length=512))
    assert packed.rows < 32


def test_lengths_are_shown_in_text_and_as_a_figure():
    lengths = [5, 6, 7, 40, 1000]
    table = forecast.length_table(lengths).splitlines()[1:]
    assert [int(line.split()[-1]) for line in table] == [3, 0, 0, 1, 0, 0, 0, 1]
    ax = forecast.plot_lengths(lengths)
    assert sum(bar.get_height() for bar in ax.patches) == 5 and ax.get_xlabel() and ax.get_title(loc="left")


def test_the_command_reports_and_writes(one_of_each, tmp_path):
    environment = {**os.environ, "CPTLIB_RECIPE": "smoke", "CPTLIB_CACHE": str(tmp_path / "cache")}

    def run(*arguments):
        command = [sys.executable, "-m", "cptlib", "corpus", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)

    ended = run(one_of_each, "--json", "--out", tmp_path / "texts" / "out.jsonl")
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout)
    assert found["documents"] == len(READERS) and found["forecast"]["tokens"] > 100 and found["recipe"] == "smoke"
    assert len(corpus.read(str(tmp_path / "texts" / "out.jsonl"))) == len(READERS)
    (tmp_path / "texts" / "bad.txt").write_text("")
    endings = (["--strict"], ["--recipe", "laptop,model=/nowhere"])
    with ThreadPoolExecutor() as pool:
        strict, text = pool.map(lambda ending: run(tmp_path / "texts", *ending), endings)
    assert strict.returncode == 1 and strict.stderr == "bad.txt: empty file.\n"
    assert text.returncode == 0 and "1 × bad.txt: empty file" in text.stdout and "characters" in text.stdout
    assert "The model '/nowhere' could not be loaded" in text.stderr
    assert not list((tmp_path / "cache").glob("corpus-*"))  # nothing is left on the disk


@pytest.mark.slow
def test_larger_than_memory(tmp_path):
    """5 GB of generated text (CPTLIB_GB of it) in under 2 GB resident: pytest -m slow -s tests/test_ingest.py"""
    size = int(float(os.environ.get("CPTLIB_GB", 5)) * 1e9)
    chance, written = random.Random(0), 0
    sentences = [f"{write(n, 12).capitalize()}\n" for n in range(20_000)]
    with gzip.open(tmp_path / "a.jsonl.gz", "wt", compresslevel=1) as packed, (tmp_path / "b.txt").open("w") as plain:
        while written < size:
            text = "".join(chance.choices(sentences, k=40))
            written += len(text)
            if chance.random() < 0.2:
                packed.write(json.dumps({"text": text}) + "\n")
            else:
                plain.write(f"{text}{formats.SEPARATOR}\n" * (1 + (chance.random() < 0.02)))
                if chance.random() < 0.02:  # a near duplicate
                    plain.write(f"{text}And one more.\n{formats.SEPARATOR}\n")
    code = textwrap.dedent("""
        import resource, sys, time
        from cptlib import corpus
        started = time.perf_counter()
        documents, report = corpus.from_folder(sys.argv[1])
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        print(report)
        print(f"{report.characters / 1e9:.2f} GB kept, {time.perf_counter() - started:.0f} s, peak {peak:.2f} GB resident")
        sys.exit(peak > 2)
    """)
    try:
        assert subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False).returncode == 0
    finally:
        shutil.rmtree(tmp_path)
