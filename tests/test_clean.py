"""Dirt goes, letters stay."""

import unicodedata

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cptlib.documents.clean import clean, language


@pytest.mark.parametrize(
    ("dirty", "cleaned"),
    [
        ("one\x00\x07 two\x1b[31m red\x1b[0m\r\nthree\r", "one two red\nthree"),
        ("a\n \n\t\n\n\nb  \nc", "a\n\nb\nc"),
        ("ﬁne \ufb02ag\u00ad, soft\u00adly", "fine flag, softly"),
        ("schÃ¶n â€œquotedâ€\x9d", "schön “quoted”"),
        ("Mi\u00c4\u0085sko: libertÃ\u00a0\nfin", "Miąsko: libertà\nfin"),  # a line break and a blank inside letters
        ("<p>One &amp; two.</p><p class='x'>Three<br/>four</p>", "One & two.\n\nThree\nfour"),
        ("<script>var x;</script>Text<!-- note --><style>p {}</style>.", "Text."),
        ("if a < b and c > d: List<String> x<y>", "if a < b and c > d: List<String> x<y>"),
        ("  \ufeff  ", ""),
        ("half a \ud800 pair", "half a \ufffd pair"),
        ("<SCRIPT>a</script >b<script>c<!--", "b<script>c<!--"),
    ],
)
def test_dirt_goes(dirty, cleaned):
    assert clean(dirty) == cleaned


@pytest.mark.parametrize(
    "text",
    [
        "“Curly” quotes — and a dash… ‘so’",
        "你好，世界！（全角）ＡＢＣ",
        "می‌خواهم",  # a zero-width non-joiner
        "नमस्ते क्‍ष",  # and a joiner
        "👩‍👩‍👧‍👦 and 🏳️‍🌈",
        "Ünïcödé Łódź ελληνικά кириллица עברית العربية ไทย 日本語 한국어",
        "x² ≤ ½·∑ƒ(x) → €5",
    ],
)
def test_no_script_loses_a_letter(text):
    assert clean(text) == text


def test_no_text_takes_forever():
    """A pattern that looks twice at each character of these would run for hours."""
    assert clean(" " * 500_000 + "x" + "\t" * 500_000 + "y" + "\u00a0" * 500_000 + "z\n\n")[-1] == "z"
    for opening in ("<!--", "<script>", "<p ", "<", "&", "\n \n", "\x1b[", "Â", "\u00a0Â\u0080"):
        clean("x" + opening * 200_000 + "x")


def test_markup_can_stay():
    text = "Write <b>bold</b> and &amp;."
    assert clean(text, markup=True) == text


@settings(max_examples=1000, deadline=None)
@given(st.text() | st.text(st.characters(max_codepoint=0xFF) | st.sampled_from(" \n\r\u00a0\u00ad")))
@example("\u00a0Â\u0080")  # mojibake only once the blank before it is gone
@example("\u0080\rÀ\u0086")  # a line's end within what looks like mojibake
def test_cleaning_twice_is_cleaning_once(text):
    cleaned = clean(text, markup=True)
    assert clean(cleaned, markup=True) == cleaned
    if not {"<", "&"} & {*text}:  # an entity may spell a tag, which stays in the text that spells it
        assert clean(text) == cleaned == clean(cleaned)


@settings(max_examples=500, deadline=None)
@given(st.text(st.characters(categories=["Lo", "Mn", "Mc", "Nd"], min_codepoint=0x370)))
def test_no_letter_of_any_script_is_lost(text):
    assert clean(text) == unicodedata.normalize("NFC", text)


def test_languages_are_told():
    assert language("The cat sat on the mat and looked at the sea all day.") == "en"
    assert language("Die Katze saß auf der Matte und sah den ganzen Tag aufs Meer.") == "de"
    assert language("这只猫整天坐在垫子上看着大海。") == "zh"
