"""Each format is read for what it says, whatever its encoding; and what cannot be read is named, never raised or lost."""

import csv
import gzip
import io
import json
import random
import re
import zipfile

import pyarrow
import pyarrow.parquet
import pytest
from conftest import sentence, write_docx, write_epub, write_pdf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from cptlib import rows
from cptlib.documents import formats
from cptlib.documents.formats import READERS, SEPARATOR, Piece, Problem

FUZZED = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def read(path, content=None, **options):
    if content is not None:
        path.write_bytes(content)
    return list(formats.read(path, **options))


def texts(found):
    return [piece.text for piece in found if isinstance(piece, Piece)]


@pytest.mark.parametrize("gz", ["", ".gz"])
@pytest.mark.parametrize("suffix", READERS)
def test_each_format_is_read(one_of_each, suffix, gz):
    [path] = one_of_each.rglob(f"a{suffix}{gz}")
    [piece] = read(path)
    assert sentence(f"a{suffix}") in piece.text and piece.ends
    assert "<" not in piece.text and "x = 1" not in piece.text


def test_the_suffix_tells_the_format_in_any_case(tmp_path):
    assert formats.kind_of(tmp_path / "A.TXT.GZ") == ".txt"
    assert formats.kind_of(tmp_path / "a.tar.gz") is None and formats.kind_of(tmp_path / "a") is None
    assert texts(read(tmp_path / "A.TXT", b"One.")) == ["\nOne."]


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("utf-8", "Zoë ate 你好 🎉."),
        ("utf-8-sig", "Zoë ate 你好."),
        ("utf-16", "Zoë ate 你好."),
        ("utf-32", "Zoë ate 你好."),
        ("cp1252", "Die Straße führt über die Brücke, und der Bäcker hört die Glocken läuten. Größe und Maß."),
        ("cp1251", "Жили-были старик со старухой у самого синего моря, и было у них корыто."),
        ("shift_jis", "むかしむかし、あるところにおじいさんとおばあさんがいました。"),
        ("gb18030", "从前有一座山，山上有一座庙，庙里有一个老和尚给小和尚讲故事。"),
        ("euc_kr", "옛날 옛적에 호랑이가 담배 피우던 시절에 한 나무꾼이 살았습니다."),
    ],
)
def test_encodings_are_detected(tmp_path, encoding, text):
    assert texts(read(tmp_path / "a.txt", text.encode(encoding)))[0].strip() == text


def test_a_pages_own_encoding_is_believed_unless_it_is_utf_8(tmp_path):
    page = '<meta charset="{}"><p>Šárka a čaj</p>'
    assert texts(read(tmp_path / "a.html", page.format("iso-8859-2").encode("iso-8859-2"))) == ["Šárka a čaj"]
    assert texts(read(tmp_path / "a.html", page.format("iso-8859-2").encode())) == ["Šárka a čaj"]


FRENCH = "Là-bas, derrière l’église, les élèves ont déjà mangé leur gâteau à la crème. "
RUSSIAN = "Жили-были старик со старухой у самого синего моря. "
PAGE = '<html><head><meta charset="{}"></head><body><p>{}</p></body></html>'


@pytest.mark.parametrize("claimed", ["utf-8", "ascii", "shift_jis", "no-such", "gb2312"])
def test_a_page_that_names_a_wrong_encoding_is_read_all_the_same(tmp_path, claimed):
    found = read(tmp_path / "a.html", PAGE.format(claimed, FRENCH * 3).encode("cp1252"))
    assert texts(found) == [(FRENCH * 3).strip()] and found[1] == Problem("read as cp1252", bad=False)


def test_a_page_that_names_none_is_read_as_what_is_likeliest(tmp_path):
    found = read(tmp_path / "a.html", f"<p>{RUSSIAN * 3}".encode("koi8_r"))
    assert texts(found) == [(RUSSIAN * 3).strip()] and found[1].reason == "read as koi8_r"


@pytest.mark.parametrize(
    ("claimed", "encoding"), [("iso-8859-1", "cp1252"), ("windows-1251", "cp1251"), ("gb2312", "gbk")]
)
def test_a_page_that_names_its_encoding_is_believed_without_a_note(tmp_path, claimed, encoding):
    """Browsers read Latin-1 as cp1252 and gb2312 as gb18030, and pages are written for them."""
    text = {"cp1252": "“Où ?” — là… €5", "cp1251": RUSSIAN.strip(), "gbk": "朱镕基说，从前有一座山。"}[encoding]
    assert read(tmp_path / "a.html", PAGE.format(claimed, text).encode(encoding)) == [Piece(text)]


def test_bytes_of_no_encoding_are_told(tmp_path):
    found = read(tmp_path / "a.txt", RUSSIAN.encode("cp1251") * 5000 + b"\x98")  # longer than the sample that is judged
    assert "\ufffd" in texts(found)[0]
    assert found[-1].reason == "1 places are not cp1251; they were read as \ufffd"


SENTENCES = {
    "de": "Die Straße führt über die Brücke nach Köln. ",
    "pl": "Łódka płynęła powoli przez jezioro. ",
    "ru": "Жили-были старик со старухой у самого синего моря. ",
    "zh": "从前有一座山，山上有一座庙。",
    "en": "“Well,” she said — and it’s done… ",
}


@pytest.mark.parametrize("dirt", [b"\xff", b"\xe9t\xe9 ", b" \x96 "])
@pytest.mark.parametrize("language", SENTENCES)
def test_a_bad_byte_leaves_a_file_utf_8(tmp_path, language, dirt):
    """Bytes of another encoding pasted in, in the middle of a file or at its very end: each a place, and counted."""
    text = SENTENCES[language] * 20
    places = len(re.findall(rb"[\x80-\xff]", dirt))
    for content in (text.encode() + dirt + text.encode(), text.encode() + dirt):
        found = read(tmp_path / "a.txt", content)
        assert texts(found)[0].strip() == content.decode(errors="replace").strip()
        assert found[1:] == [Problem(f"{places} places are not utf-8; they were read as \ufffd", bad=False)]


@pytest.mark.parametrize("language", SENTENCES)
def test_a_file_cut_within_its_last_character_is_utf_8(tmp_path, language):
    content = f"{SENTENCES[language] * 20}€".encode()[:-1]
    for name, wrapped in (("a.txt", content), ("a.html", b"<p>" + content), ("a.md", content)):
        found = read(tmp_path / name, wrapped)
        assert texts(found)[0].strip() == f"{SENTENCES[language] * 20}\ufffd".strip()
        assert found[1].reason.startswith("1 places are not utf-8") and not found[1].bad


def test_one_bad_row_does_not_take_a_file_of_utf_8_along(tmp_path):
    rows = "".join(json.dumps({"text": f"Zoë’s {n}."}, ensure_ascii=False) + "\n" for n in range(3000)).encode()
    found = read(tmp_path / "a.jsonl", rows + b'{"text": "fa\xe7ade"}\n')
    assert texts(found) == [f"Zoë’s {n}." for n in range(3000)] + ["fa\ufffdade"]
    found = read(tmp_path / "a.csv", "text\nZoë’s.\nÇa “va”.\n".encode() + b"caf\xe9\n")
    assert texts(found) == ["Zoë’s.", "Ça “va”.", "caf\ufffd"]


def test_bytes_that_are_utf_8_by_chance_make_no_file_utf_8(tmp_path):
    """In Windows' encoding, Ü and a closing quote are together a letter of UTF-8."""
    text = "„MENÜ“ steht groß über den Gerichten, für die wir berühmt sind: Knödel, Klöße, Spätzle."
    assert texts(read(tmp_path / "a.txt", text.encode("cp1252")))[0].strip() == text


def test_a_replacement_character_of_the_files_own_is_no_bad_byte(tmp_path):
    found = read(tmp_path / "a.txt", "It was there before: \ufffd.".encode())
    assert len(found) == 1


def test_documents_in_a_txt_lie_between_separator_lines(tmp_path):
    found = read(
        tmp_path / "a.txt",
        f"{SEPARATOR}\nOne {SEPARATOR} two.\r\n{SEPARATOR}\r\n{SEPARATOR}\nThree.\n{SEPARATOR}\n".encode(),
    )
    assert [text.strip() for text in texts(found)] == [f"One {SEPARATOR} two.", "Three."]
    found = read(tmp_path / "a.txt", f"  {SEPARATOR}\n    One.\n\t{SEPARATOR} \t\nTwo.\n{SEPARATOR}  ".encode())
    assert [text.strip("\n") for text in texts(found)] == ["    One.", "Two."]


def test_separators_of_text_are_no_sign_of_a_binary_file(tmp_path):
    assert texts(read(tmp_path / "a.txt", b"One\x0btwo\x1fthree\x1e")) == ["\nOne\x0btwo\x1fthree\x1e"]


def test_a_text_too_long_to_hold_comes_in_pieces_with_one_end(tmp_path, monkeypatch):
    monkeypatch.setattr(formats, "LONGEST_PIECE", 100)
    text = "\n\n".join(f"Paragraph {n} has two sentences. This is one." for n in range(20))
    found = read(tmp_path / "a.txt", f"{text}\n{SEPARATOR}\nShort.".encode())
    pieces = [piece for piece in found[:-1]]
    assert "".join(texts(pieces)).strip() == text
    assert [piece.ends for piece in found].count(True) == 2 and found[-1].ends and found[-2].ends
    assert all(len(piece.text) <= 100 and piece.text.endswith("one.\n\n") for piece in pieces[:-1])


@pytest.mark.parametrize(
    ("text", "end", "first"),
    [
        ("One. Two.\n\nThree. Four", 18, "One. Two.\n\n"),
        ("One two. Three four five", 15, "One two. "),
        ("One two three four", 11, "One two "),
        ("一二三。四五六七八九十", 6, "一二三。"),
        ("Onetwothreefour", 5, "Onetw"),
    ],
)
def test_a_cut_is_made_at_the_best_place(text, end, first):
    assert text[: rows.cut_before(text, end)] == first


def test_json_may_be_an_array_an_object_or_lines(tmp_path):
    rows = [{"text": "One."}, {"text": "Two.", "n": 1.5}]
    for content in (json.dumps(rows), "\n".join(map(json.dumps, rows)), json.dumps(rows, indent=2)):
        for encoding in ("utf-8", "utf-8-sig", "utf-16"):
            assert texts(read(tmp_path / "a.json", content.encode(encoding))) == ["One.", "Two."]
    assert texts(read(tmp_path / "a.json", b'{"text": "Only."}')) == ["Only."]


def test_an_array_may_hold_strings_and_a_number_be_none(tmp_path):
    assert texts(read(tmp_path / "a.json", b'["One.", "Two."]')) == ["One.", "Two."]
    content = b'[{"text": "One.", "n": NaN}, {"n": -Infinity, "text": "Two."}]'
    assert texts(read(tmp_path / "a.json", content)) == texts(read(tmp_path / "a.jsonl", content)) == ["One.", "Two."]


@pytest.mark.parametrize("indent", [None, 2])
def test_lines_of_json_may_be_an_array_all_the_same(tmp_path, indent):
    content = json.dumps([{"text": f"Text {n}."} for n in range(9)], indent=indent)
    assert texts(read(tmp_path / "a.jsonl", f"\n {content}\n".encode())) == [f"Text {n}." for n in range(9)]


def test_json_larger_than_a_piece_is_read(tmp_path, monkeypatch):
    """Whatever the values are cut by the pieces in which a file is read; numbers too."""
    values = [{"text": "x" * n, "n": [n, {"m": "]"}]} for n in range(0, 200, 7)]
    monkeypatch.setattr("cptlib.documents.tables.SAMPLE", 16)
    for content in (json.dumps(values), "\n".join(map(json.dumps, values)), json.dumps(values, indent=1)):
        assert texts(read(tmp_path / "a.json", content.encode())) == [value["text"] for value in values]
    found = read(tmp_path / "a.json", b"[123456789012345678901234567890, 2]")
    assert [problem.where for problem in found] == ["object 1", "object 2"]


@pytest.mark.parametrize(
    ("content", "good", "reason"),
    [
        (b'[{"text": "One."}, {"text": "Two."}', 2, "damaged behind object 2 (the array does not end"),
        (b'[{"text": "One."}, {"text": "Tw', 1, "damaged behind object 1 (Unterminated string"),
        (b'[{"text": "One."}, {text: 3}, {"text": "x"}]', 1, "damaged behind object 1 ("),
        (b'{"text": "One."}' + b"[" * 200_000, 1, "damaged behind object 1 (nested too deep)"),
    ],
)
def test_json_is_read_up_to_the_damage(tmp_path, content, good, reason):
    *pieces, problem = read(tmp_path / "a.json", content)
    assert len(pieces) == len(texts(pieces)) == good and problem.reason.startswith(reason) and problem.bad


def test_bytes_replaced_in_json_are_counted(tmp_path):
    found = read(tmp_path / "a.json", '[{"text": "Zoë’s façade"}, {"text": "caf'.encode() + b'\xe9"}]')
    assert texts(found) == ["Zoë’s façade", "caf\ufffd"] and found[2].reason.startswith("1 places are not utf-8")


def test_a_bad_row_does_not_take_its_neighbours_along(tmp_path):
    found = read(tmp_path / "a.jsonl", b'{"text": "One."}\n{"text": \n[1]\n{"text": null}\n{"text": "Two."}\n')
    assert texts(found) == ["One.", "Two."]
    assert [problem.where for problem in found if isinstance(problem, Problem)] == ["line 2", "line 3", "line 4"]
    found = read(tmp_path / "a.csv", b'id;text\n1;"One;\nstill one."\n2\n3;Two.\n')
    assert texts(found) == ["One;\nstill one.", "Two."] and found[1].where == "row 2"
    pyarrow.parquet.write_table(pyarrow.table({"text": ["One.", None]}), tmp_path / "a.parquet")
    assert read(tmp_path / "a.parquet")[1].where == "row 2"


JOINED = "more fields than the header has: what stands behind the text was joined to it"
QUOTES = "quotes that do not match: they were read as characters"


@pytest.mark.parametrize(
    ("content", "rows"),
    [
        ("text\nFog, wind and rain.\nSun", ["Fog, wind and rain.", "Sun"]),
        ("id;text\n7;Fog; wind\n8;Sun", ["Fog; wind", "Sun"]),
        ('id,text\n7,"Fog, wind", said Ann, and rain\n8,Sun', ["Fog, wind, said Ann, and rain", "Sun"]),
    ],
)
def test_a_row_longer_than_its_header_loses_nothing(tmp_path, content, rows):
    found = read(tmp_path / "a.csv", content.encode())
    assert texts(found) == rows
    assert Problem(JOINED, "row 1", bad=False) in found


def test_a_row_too_long_whose_text_is_not_known_is_named(tmp_path):
    found = read(tmp_path / "a.csv", b"text,id\nFog, wind,7\nSun,8\nRain,9,,\n")
    assert texts(found) == ["Sun", "Rain"]
    reason = "more fields than the header has, so that its text cannot be told: put it in quotes"
    assert found[0] == Problem(reason, "row 1")


@pytest.mark.parametrize(
    ("content", "rows"),
    [
        ('id,text\n1,"Fog\n2,Wind\n3,Sun\n', ['"Fog', "Wind", "Sun"]),
        ('id,text\n1,"Fog\n2,Wind\n3,"Sun"\n', ['"Fog', "Wind", "Sun"]),
        (
            'id,text\n1,He said "go"\n2,"Wind" he said\n3,"""Sun""\nand"\n',
            ['He said "go"', '"Wind" he said', '"Sun"\nand'],
        ),
    ],
)
def test_an_open_quote_takes_no_other_row(tmp_path, content, rows):
    found = read(tmp_path / "a.csv", content.encode())
    assert texts(found) == rows
    [note] = [problem for problem in found if isinstance(problem, Problem)]
    assert note.reason == QUOTES and not note.bad


def test_quotes_escaped_with_a_backslash_are_read(tmp_path):
    content = r"""id,text
1,"She said \"fog, wind\", and went to C:\new."
2,"It ends with a \"quote\""
3,"Two
lines \"of\" it"
4,Sun.
"""
    assert read(tmp_path / "a.csv", content.encode()) == [
        Piece('She said "fog, wind", and went to C:\\new.'),
        Piece('It ends with a "quote"'),
        Piece('Two\nlines "of" it'),
        Piece("Sun."),
    ]


def test_a_stray_quote_in_a_tab_file_is_a_character(tmp_path):
    rows = [
        '"Fog, said Ann.',
        "Rain.",
        'Ended so."',
        'It was 5" wide.',
        '"Wind," and "sun"',
        "One\nof two lines",
        '"',
        "Sun.",
    ]
    lines = [f"{n}\t" + (f'"{row}"' if "\n" in row else row) for n, row in enumerate(rows)]
    assert texts(read(tmp_path / "a.csv", "\n".join(["id\ttext", *lines]).encode())) == rows


def test_a_blank_line_and_a_line_for_excel_are_no_rows(tmp_path):
    assert read(tmp_path / "a.csv", b"sep=|\r\n\r\nid|text\r\n1|Fog, wind\r\n\r\n , \r\n2|Sun\r\n\r\n") == [
        Piece("Fog, wind"),
        Problem('no field "text" in this row', "row 2"),
        Piece("Sun"),
    ]
    assert texts(read(tmp_path / "a.csv", b"text\n\nFog\n   \nSun\n")) == ["Fog", "Sun"]


def test_a_name_in_the_header_may_hold_a_line_break(tmp_path):
    assert texts(read(tmp_path / "a.csv", b'"no\nof it";"text";"x"\n1;Fog;\n2;Sun;\n')) == ["Fog", "Sun"]


@FUZZED
@given(
    rows=st.lists(
        st.tuples(st.text(st.sampled_from('ab",;\n\r\\ é')), st.text(st.characters(min_codepoint=32))), min_size=1
    ),
    tab=st.booleans(),
)
def test_what_csv_wrote_is_read_to_the_letter(tmp_path, rows, tab):
    table = io.StringIO(newline="")
    writer = csv.writer(table, delimiter="\t" if tab else ",", quoting=csv.QUOTE_ALL)
    writer.writerows([("id", "text", "more"), *((n, *row) for n, row in enumerate(rows))])
    found = read(tmp_path / "a.csv", table.getvalue().encode("utf-8", "replace"))
    assert found == [Piece(text) for text, _ in rows]


def test_a_note_is_no_document(tmp_path):
    found = read(tmp_path / "a.csv", "größe,text\n".encode("cp1252"))
    assert found == [Problem("read as cp1252", bad=False), Problem("no documents in it")]


def test_an_old_encoding_before_the_damage_of_a_gz_is_told(tmp_path):
    rows = [
        json.dumps({"text": f"{FRENCH}{random.Random(n).random()}"}, ensure_ascii=False) + "\n" for n in range(30_000)
    ]
    lines = b'{"text": "Plain."}\n' * 20_000 + "".join(rows).encode("cp1252")
    found = read(tmp_path / "a.jsonl.gz", gzip.compress(lines)[:-30_000])
    assert texts(found)[20_000].startswith(FRENCH) and found[-1].reason.startswith("its gzip stream is damaged")


def test_what_lies_before_the_damage_of_a_gz_is_read(tmp_path):
    lines = "".join(
        json.dumps({"text": f"Line {n} {random.Random(n).random()}."}) + "\n" for n in range(50_000)
    ).encode()
    *found, last = read(tmp_path / "a.jsonl.gz", gzip.compress(lines)[:-400_000])
    assert len(texts(found)) > 10_000 and last.reason.startswith("its gzip stream is damaged")


def test_another_column_can_hold_the_text(tmp_path):
    assert texts(read(tmp_path / "a.csv", b"text,body\nx,One.\n", column="body")) == ["One."]
    assert texts(read(tmp_path / "a.jsonl", b'{"body": "One."}\n', column="body")) == ["One."]
    [problem] = read(tmp_path / "a.csv", b"title,body\nx,y\n")
    assert problem.reason == 'no column "text", only title, body: rename one or name another column'


@pytest.mark.parametrize(
    "page",
    [
        "<html><head><title>T</title></head><body><p>One.</p></body></html>\n<html><BODY class=x><p>Two.</p></BODY ></html>",
        "<body><p>One.</p></body><p>Two.</p>",
        "<p>One.</p></html><p>Two.</p></html>",
    ],
)
def test_what_stands_behind_a_pages_end_is_read(tmp_path, page):
    assert texts(read(tmp_path / "a.html", page.encode()))[0].split() == ["One.", "Two."]


@pytest.mark.parametrize("write", [None, write_docx, write_epub])
def test_no_backslash_comes_in(tmp_path, write):
    text = "Set max_line_length or *all*, 2 * 3, __main__, [x], 1. and #tag."
    path = tmp_path / f"a.{write.__name__[-4:] if write else 'html'}"
    write(path, text) if write else path.write_text(f"<p>{text}</p>")
    assert texts(read(path)) == [text]


def test_a_table_without_a_head_gets_none(tmp_path):
    rows = "".join(f"<tr><td>{name}</td><td>{price}</td></tr>" for name, price in (("Rope", "4"), ("Tar", "9")))
    assert texts(read(tmp_path / "a.html", f"<table>{rows}</table>".encode())) == [
        "| Rope | 4 |\n| --- | --- |\n| Tar | 9 |"
    ]


def pdf_of_lines(path, *pages):
    """A page's lines as they stand; a picture for a page that is None."""
    from fpdf import FPDF

    pdf = FPDF()
    pdf.set_font("Helvetica", size=10)
    for lines in pages:
        pdf.add_page()
        for line in lines or ():
            pdf.cell(text=line, new_x="LMARGIN", new_y="NEXT")
        if lines is None:
            pdf.image(Image.new("1", (8, 8)), w=50)
    pdf.output(str(path))


def test_a_dash_in_a_pdf_keeps_its_blanks(tmp_path):
    lines = [
        "Open from May - July, 8 - 20, and on no other day of the whole long year - as ever;",
        "- ropes and tar, and whatever else a ship may need that has been at sea for so long;",
        "- bread. Take 7 - 3 of these, or make -j 2 - no more - and that is all there is to -",
        "and then no more.",
    ]
    pdf_of_lines(tmp_path / "a.pdf", lines)
    assert texts(read(tmp_path / "a.pdf"))[0].strip() == " ".join(lines)


@pytest.mark.parametrize(("head", "tail"), [("recom", "mendation"), ("right", "angle")])
def test_a_divided_word_of_a_pdf_is_joined_and_breaks_no_paragraph(tmp_path, head, tail):
    lines = [
        "The council met in the autumn and read what the keeper of the lighthouse had sent,",
        f"who asked for new glass before the winter, and who closed with a single {head}-",
        f"{tail} that nobody understood at first. They went over it twice, until someone saw",
        "what had been meant by it, and the glass was ordered on the very same day from Leeds.",
    ]
    pdf_of_lines(tmp_path / "a.pdf", lines)
    [found] = texts(read(tmp_path / "a.pdf"))
    assert found.strip().replace("right-angle", "rightangle") == " ".join(lines).replace("- ", "")


def test_cells_of_a_pdf_stay_apart(tmp_path):
    """PDFium sees a lone digit far to the right as a line, and forgets the line's end in one of its two ways to read."""
    from fpdf import FPDF

    pdf = FPDF(unit="pt")
    pdf.add_page()
    pdf.set_font("Helvetica", size=10)
    rows = (("Length", "Price", "Boxes"), ("A twisted long rope", "7.25", "6"), ("Tar", "3.10", "800"))
    for number, cells in enumerate(rows):
        for cell, x in zip(cells, (31, 201, 371), strict=True):
            pdf.text(x, 40 + 17 * number, cell)
    pdf.output(str(tmp_path / "a.pdf"))
    [found] = texts(read(tmp_path / "a.pdf"))
    assert {"7.25", "6", "3.10", "800"} <= {*found.split()}


def test_pages_of_a_pdf_that_are_pictures_are_named(tmp_path):
    pdf_of_lines(tmp_path / "a.pdf", ["A cover."], None, [], None)
    piece, note = read(tmp_path / "a.pdf")
    assert piece.text.strip() == "A cover."
    reason = "2 of 4 pages are pictures without text: scanned pages need OCR first (ocrmypdf, for one)"
    assert note == Problem(reason, "page 2", bad=False)


def test_lines_of_a_pdf_become_paragraphs(tmp_path):
    text = "The sea was calm that morning, and the boats went out as they had always done. " * 4
    write_pdf(tmp_path / "a.pdf", f"{text.strip()}\nA second paragraph.")
    [found] = texts(read(tmp_path / "a.pdf"))
    assert found.split("\n\n")[:2] == [text.strip(), "A second paragraph."]


def test_a_books_first_lines_are_its_own(tmp_path):
    write_epub(tmp_path / "a.epub", "Chapter one.")
    assert texts(read(tmp_path / "a.epub")) == ["Chapter one."]


def book(path, chapters, order, about=""):
    """An EPUB with an opf: prefix and a folder of its own; `order` names its chapters."""
    with zipfile.ZipFile(path, "w") as file:
        rootfile = '<rootfile full-path="in side/book.opf"/>'
        file.writestr(
            "META-INF/container.xml", f'<container xmlns="urn:c"><rootfiles>{rootfile}</rootfiles></container>'
        )
        items = "".join(f'<opf:item id="{name}" href="text/{name}%201.xhtml"/>' for name in order if name != "unlisted")
        spine = "".join(f'<opf:itemref idref="{name}"/>' for name in order)
        parts = (
            f"<opf:metadata>{about}</opf:metadata><opf:manifest>{items}</opf:manifest><opf:spine>{spine}</opf:spine>"
        )
        file.writestr("in side/book.opf", f'<opf:package xmlns:opf="urn:opf">{parts}</opf:package>')
        for name, text in chapters.items():
            file.writestr(f"in side/text/{name} 1.xhtml", text)


def test_a_books_description_is_no_part_of_it(tmp_path):
    about = (
        "<title>T</title><description>A tale.\n\nOf the sea, says the shop.</description><identifier>isbn</identifier>"
    )
    book(tmp_path / "a.epub", {"one": "<p>One.</p>", "two": "<p>Two.</p>"}, ["one", "two"], about)
    assert read(tmp_path / "a.epub") == [Piece("One.\n\nTwo.")]


def test_a_chapter_that_is_missing_or_cannot_be_read_is_named(tmp_path):
    chapters = {"one": "<p>One.</p>", "bad": bytes(range(256)), "old": "<p>Là-bas, l’été.</p>".encode("cp1252")}
    book(tmp_path / "a.epub", chapters, ["gone", "one", "bad", "old", "unlisted"])
    assert read(tmp_path / "a.epub") == [
        Piece("One.\n\nLà-bas, l’été."),
        Problem("its chapter in side/text/gone 1.xhtml is not in it"),
        Problem("its chapter in side/text/bad 1.xhtml: binary, not text"),
        Problem("read as cp1252", bad=False),
        Problem("its chapter in side/unlisted is not in it"),
    ]


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.txt", b"", "empty file"),
        ("a.txt", bytes(range(256)) * 10, "binary, not text"),
        ("a.jsonl", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0", "binary, not text"),
        ("a.json", b'[{"text": "x"', "damaged behind object 0 ("),
        ("a.json", b"[]", "no documents in it"),
        ("a.csv", b"id,text\n", "no documents in it"),
        ("a.docx", b"\xd0\xcf\x11\xe0" + b"x" * 600, "encrypted, or in Word's format from before 2007"),
        ("a.docx", b"PK\x03\x04 cut", "not readable as .docx (BadZipFile"),
        ("a.epub", b"x", "not readable as .epub (BadZipFile"),
        ("a.pdf", b"%PDF-1.7\n", "damaged ("),
        ("a.parquet", b"PAR1", "not readable as .parquet (ArrowInvalid"),
        ("a.txt.gz", gzip.compress(b"text" * 100)[:-20], "its gzip stream is damaged"),
        ("a.txt.gz", b"no gzip", "its gzip stream is damaged"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path, name, content, reason):
    *_, problem = read(tmp_path / name, content)
    assert isinstance(problem, Problem) and problem.reason.startswith(reason)


def test_locked_and_scanned_documents_are_named(tmp_path):
    write_pdf(tmp_path / "a.pdf", "Secret.", password="secret")
    assert read(tmp_path / "a.pdf") == [Problem("encrypted")]
    write_pdf(tmp_path / "b.pdf", "")
    assert read(tmp_path / "b.pdf")[0].reason.startswith("no text in it: scanned pages need OCR")
    write_epub(tmp_path / "a.epub", "Secret.", locked=True)
    assert read(tmp_path / "a.epub") == [Problem("encrypted (copy protection)")]


@pytest.mark.parametrize("name", ["a.png", "noext", "a.tar.gz"])
def test_a_file_of_no_format_that_is_read_is_said_to_be_that(tmp_path, name):
    assert read(tmp_path / name, b"x") == [Problem("not a format that is read")]


def test_a_missing_library_is_no_damaged_file(tmp_path, monkeypatch):
    write_docx(tmp_path / "a.docx", "One.")
    monkeypatch.setitem(__import__("sys").modules, "markitdown", None)
    with pytest.raises(ImportError, match="markitdown"):
        read(tmp_path / "a.docx")


@pytest.mark.parametrize("gz", ["", ".gz"])
@pytest.mark.parametrize("suffix", READERS)
@FUZZED
@given(data=st.data())
def test_no_damage_raises_and_none_goes_unsaid(one_of_each, tmp_path, suffix, gz, data):
    """Cut short, bytes changed, bytes put in: the text comes out, or a Problem does."""
    [path] = one_of_each.rglob(f"a{suffix}{gz}")
    whole = path.read_bytes()
    content = bytearray(whole[: data.draw(st.integers(0, len(whole)))] if data.draw(st.booleans()) else whole)
    for at, byte in data.draw(st.lists(st.tuples(st.integers(0, len(whole)), st.integers(0, 255)), max_size=8)):
        content[at : at + data.draw(st.integers(0, 1))] = bytes([byte])
    found = read(tmp_path / path.name, bytes(content))
    assert found and all(isinstance(each, Piece | Problem) for each in found)


@FUZZED
@given(content=st.binary(max_size=300), suffix=st.sampled_from([*READERS, ".txt.gz", ".docx.gz"]))
def test_any_bytes_give_text_or_a_problem(tmp_path, content, suffix):
    found = read(tmp_path / f"a{suffix}", content)
    assert found


@FUZZED
@given(rows=st.lists(st.one_of(st.text(), st.none(), st.integers()), min_size=1), column=st.sampled_from(["text", "t"]))
def test_no_row_is_lost(tmp_path, rows, column):
    content = "\n".join(json.dumps({column: row}) for row in rows).encode()
    for name in ("a.jsonl", "a.json"):
        found = read(tmp_path / name, content, column=column)
        assert texts(found) == [row for row in rows if isinstance(row, str)] and len(found) == len(rows)


def test_a_zip_that_is_no_document_is_named(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.docx", "w") as file:
        file.writestr("readme", "x")
    [problem] = read(tmp_path / "a.docx")
    assert problem.reason.startswith("not readable as .docx")
