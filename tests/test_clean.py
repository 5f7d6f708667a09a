"""Dirt goes, letters stay."""

import re
import unicodedata

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cptlib.clean import clean, control_characters, language, without_markup


@pytest.mark.parametrize(
    ("dirty", "cleaned"),
    [
        ("one\x00\x07 two\x1b[31m red\x1b[0m\r\nthree\r", "one two red\nthree"),
        ("a\n \n\t\n\n\nb  \nc", "a\n\nb\nc"),
        ("one\x0btwo\x0cthree\x1efour\x1ffive", "one\ntwo\nthree\nfour five"),
        ("\n\n    while x:\n        x = f(x)\n\n", "    while x:\n        x = f(x)"),
        ("ﬁne \ufb02ag\u00ad, soft\u00adly", "fine flag, softly"),
        ("schÃ¶n â€œquotedâ€\x9d", "schön “quoted”"),
        ("Mi\u00c4\u0085sko: libertÃ\u00a0\nfin", "Miąsko: libertà\nfin"),  # a line break and a blank inside letters
        ("  \ufeff  ", ""),
        ("half a \ud800 pair", "half a \ufffd pair"),
    ],
)
def test_dirt_goes(dirty, cleaned):
    assert clean(dirty) == cleaned


@pytest.mark.parametrize(
    ("html", "text", "taken"),
    [
        ("<p>One &amp; two.</p><p class='x'>Three<br/>four</p>", "\nOne & two.\n\nThree\nfour\n", 6),
        ("<script>var x;</script>Text<!-- note --><style>p {}</style>.", "Text.", 3),
        ("<SCRIPT>a</script >b<script>c<!--", "b<script>c<!--", 1),
        ("A review.<br /><br />Very good.", "A review.\n\nVery good.", 2),
        ('See <a\n href="x.html">the page</a>, <b>please</b>.', "See the page, please.", 4),
        ("<input disabled><td nowrap class=x>cell", "cell", 2),
        ("Tom &amp; Jerry &quot;live&quot; &#8212; &nope;", 'Tom & Jerry "live" — &nope;', 4),
    ],
)
def test_html_goes_from_a_text_that_is_html_and_is_counted(html, text, taken):
    assert without_markup(html) == (text, taken)


@pytest.mark.parametrize(
    "text",
    [
        "if a < b and c > d: List<String> x<y>",
        "copy [-v] <input> <title>; see <link> or <label>",
        "Type <b> to go back, <s> to save, <i> for more. To show < write &lt;.",
        "std::vector<a> v; Map<String, List<i>> m; Option<U>, Box<S>",
        "while (p <p && q> r) x <a\n b; y> z",
        "for (i = 0; i <b\n  && j; i++) s->a = 1;",
        "A comment begins with <!-- and ends with -->. A <script> ends too.",
    ],
)
def test_a_text_that_is_no_html_keeps_what_looks_like_it(text):
    assert without_markup(text) == (text, 0)


@pytest.mark.parametrize(
    ("text", "stripped", "taken"),
    [
        ("<p>One</p>\n\n```html\n<b>two</b> &amp;\n```\n", "\nOne\n\n\n```html\n<b>two</b> &amp;\n```\n", 2),
        (
            "- a list\n\n  ~~~\n  <i>x</i>\n  ~~~\n\n&copy; `<u>&lt;</u>`",
            "- a list\n\n  ~~~\n  <i>x</i>\n  ~~~\n\n© `<u>&lt;</u>`",
            1,
        ),
        (
            "Code:\n\n    <hr/>\n\tb &amp; c\n\n<hr/>Text &amp; ``a ` <b></b>``",
            "Code:\n\n    <hr/>\n\tb &amp; c\n\n\nText & ``a ` <b></b>``",
            2,
        ),
        ("```\n<b>never closed</b>", "```\n<b>never closed</b>", 0),
        ("One ` here <b>and</b>\n\none ` there", "One ` here and\n\none ` there", 2),
    ],
)
def test_code_in_markdown_keeps_its_tags_and_entities(text, stripped, taken):
    assert without_markup(text, markdown=True) == (stripped, taken)


def test_a_comment_in_markdown_is_hidden():
    text = "<!-- lint: off -->\nSee `<!-- x -->` and <label>.\n"
    assert without_markup(text, markdown=True) == ("\nSee `<!-- x -->` and <label>.\n", 1)
    assert without_markup(text) == (text, 0)


def test_a_fence_makes_any_text_markdown():
    text = "<p>One</p>\n```\n<b>two</b>\n```\n"
    assert without_markup(text) == ("\nOne\n\n```\n<b>two</b>\n```\n", 2)


def test_two_blanks_that_break_a_line_stay_in_markdown():
    assert clean("a  \nb \nc   \n   \n\n\nd  \n", markdown=True) == "a  \nb\nc  \n\nd"
    assert clean("a  \nb", markdown=False) == "a\nb"


def test_control_characters_are_counted():
    assert control_characters("a\x00b\x1b[1mc\r\n\td\x0b\x7f") == 3


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


MARKUP = (
    "<b>a</b><!--",
    "`",
    "` ",
    "```\n",
    "\n    ",
    "<p a=",
    "<p a='",
    "<p a ",
    "<p " + "a " * 99,
    "~~~\n`<b>``",
    "`" * 9 + " ",
)


def test_no_text_takes_forever():
    """A pattern that looks twice at each character of these would run for hours."""
    assert clean(" " * 500_000 + "x" + "\t" * 500_000 + "y" + "\u00a0" * 500_000 + "z\n\n")[-1] == "z"
    for opening in ("<!--", "<script>", "<p ", "<", "&", "\n \n", "\x1b[", "Â", "\u00a0Â\u0080", *MARKUP):
        clean("x" + opening * 200_000 + "x")
        without_markup("x" + opening * 200_000 + "x", markdown=True)


@settings(max_examples=1000, deadline=None)
@given(st.text() | st.text(st.characters(max_codepoint=0xFF) | st.sampled_from(" \n\r\u00a0\u00ad")))
@example("\u00a0Â\u0080")  # mojibake only once the blank before it is gone
@example("\u0080\rÀ\u0086")  # a line's end within what looks like mojibake
def test_cleaning_twice_is_cleaning_once(text):
    for markdown in (False, True):
        cleaned = clean(text, markdown)
        assert clean(cleaned, markdown) == cleaned


@settings(max_examples=500, deadline=None)
@given(st.text(st.sampled_from("ab<>/=\"'`~&;! \n-pi\t"), max_size=60) | st.text())
def test_what_is_no_html_is_not_touched(text):
    """Neither a pair of tags, nor one with an attribute or closed in itself."""
    if not re.search(r"</|=|/>|&", text):
        assert without_markup(text) == without_markup(text, markdown=True) == (text, 0)


@settings(max_examples=500, deadline=None)
@given(st.text(st.characters(categories=["Lo", "Mn", "Mc", "Nd"], min_codepoint=0x370)))
def test_no_letter_of_any_script_is_lost(text):
    assert clean(text) == unicodedata.normalize("NFC", text)


def test_languages_are_told():
    assert language("The cat sat on the mat and looked at the sea all day.") == "en"
    assert language("Die Katze saß auf der Matte und sah den ganzen Tag aufs Meer.") == "de"
    assert language("这只猫整天坐在垫子上看着大海。") == "zh"
