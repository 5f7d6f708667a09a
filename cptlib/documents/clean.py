"""One text at a time: stray markup and control characters taken out, broken characters mended, its language told."""

import functools
import re
from collections.abc import Iterator
from typing import Any

_SHORT = "a|b|i|p|s|u"
_LONG = (
    "abbr|big|blockquote|body|br|center|code|dd|div|dl|dt|em|font|h[1-6]|head|hr|html|img|input|label|li|link|meta|nav"
)
_LONG += "|ol|option|pre|section|select|small|span|strike|strong|sub|sup|table|tbody|td|th|thead|title|tr|ul"
_VALUED = r"""\s+[a-z][\w:.-]*\s*=\s*(?:"[^"<>]*"|'[^'<>]*'|[^\s"'<>=]+)"""  # an attribute
# `<b and c>` is no tag: only names that are no words of a formula may have an attribute without a value
_FORM = rf"<(?P<end>/?)(?:(?P<short>{_SHORT})(?:{_VALUED})*|(?P<long>%s)(?:{_VALUED}|\s+[a-z-]+)*)\s*(?P<closed>/?)>"
_TAG = re.compile(_FORM % _LONG, re.IGNORECASE)
_TAG_OR_HIDDEN = re.compile(_FORM % f"{_LONG}|script|style", re.IGNORECASE)
_BREAK = re.compile("br|p|div|li|tr|h[1-6]|ul|ol|table|blockquote|hr", re.IGNORECASE)
_HIDDEN = tuple(  # openings and endings of what no reader of the page sees; comments first
    (re.compile(opening, re.IGNORECASE), re.compile(ending, re.IGNORECASE))
    for opening, ending in ((r"<!--", "-->"), (r"<script\b", r"</script\s*>"), (r"<style\b", r"</style\s*>"))
)
_ENTITY = re.compile(r"&#?\w{1,24};")
_FENCE = r"^[ \t>]*(?:[-*+] +)?(?P<fence>`{3,}|~{3,})[^\n`]*\n(?:.*?^[ \t>]*(?P=fence)[`~]*[ \t]*$|.*)"
_SPAN = r"(?<!`)(?P<ticks>`+)(?!`)(?:[^\n]|\n(?![ \t]*\n)){1,500}?(?<!`)(?P=ticks)(?!`)"
_INDENTED = r"(?:\A|(?<=\n\n))(?: {4}|\t)[^\n]*\n?(?:(?: {4}|\t)[^\n]*\n?|[ \t]*\n)*"
_CODE = re.compile(f"{_FENCE}|{_INDENTED}|{_SPAN}", re.MULTILINE | re.DOTALL)
_FENCED = re.compile(_FENCE, re.MULTILINE | re.DOTALL)


def without_markup(text: str, markdown: bool = False) -> tuple[str, int]:
    """The text without HTML tags and with its entities read, and how many of both there were.

    For text that no parser has read: what looks like a tag is one only in a text that is HTML, which is one with a pair of
    tags, an attribute with a value, or a tag closed in itself. `<input>` in a usage line, `Option<U>` and `a <b && c> d`
    stay. markdown: the text's code stays as it is, as it does in any text with a fenced block.
    """
    if "<" not in text and "&" not in text:
        return text, 0
    parts = list(_parts(text)) if markdown or _FENCED.search(text) else [(text, "")]
    prose = "\n".join(outside for outside, _ in parts)
    html = _is_html(prose)
    entities = html or markdown or "<" not in prose  # else the text may be about them
    hidden = _HIDDEN if html else _HIDDEN[:markdown]  # in Markdown a comment is one without any tags
    read = [_read(outside, html, hidden, entities) for outside, _ in parts]
    whole = "".join(outside + code for (outside, _), (_, code) in zip(read, parts, strict=True))
    return whole, sum(count for _, count in read)


def _parts(text: str) -> Iterator[tuple[str, str]]:
    """Pairs of what is outside of code and the code behind it."""
    at = 0
    for code in _CODE.finditer(text):
        yield text[at : code.start()], code[0]
        at = code.end()
    yield text[at:], ""


def _is_html(text: str) -> bool:
    opened, ended = set[str](), set[str]()
    for tag in _TAG_OR_HIDDEN.finditer(text):
        if "=" in tag[0] or tag["closed"]:
            return True
        (ended if tag["end"] else opened).add((tag["short"] or tag["long"]).lower())
    return bool(opened & ended)


def _read(text: str, html: bool, hidden: tuple, entities: bool) -> tuple[str, int]:
    """One part, as a browser would show it, and how many tags and entities that took."""
    count = 0
    for opening, ending in hidden:
        text, found = _without(text, opening, ending)
        count += found
    if html:
        text, tags = _TAG.subn(lambda tag: "\n" if _BREAK.fullmatch(tag["short"] or tag["long"]) else "", text)
        count += tags
    if entities and "&" in text:
        from ftfy.fixes import unescape_html

        count += sum(unescape_html(entity) != entity for entity in _ENTITY.findall(text))
        text = _ENTITY.sub(lambda entity: unescape_html(entity[0]), text)
    return text, count


def _without(text: str, opening: re.Pattern, ending: re.Pattern) -> tuple[str, int]:
    """The text less what lies between an opening and the next ending, and how often. One pattern for both would take hours
    where many openings have no ending."""
    kept, at = [], 0
    while (start := opening.search(text, at)) and (end := ending.search(text, start.end())):
        kept.append(text[at : start.start()])
        at = end.end()
    return "".join(kept) + text[at:], len(kept)


_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
_UNSEEN = re.compile(r"[\x00-\x08\x0e-\x1b\x7f]")  # those that are no kind of blank
_BREAKS = re.compile(r"[\x0b\x0c\x1c-\x1e]")  # a vertical tab ends a line in Word, a form feed a page
_BLANKS = re.compile(r"\n{3,}")
_PASSES = 9  # random dirt was seen to need 3; a bound, so that no text can take forever


def clean(text: str, markdown: bool = False) -> str:
    """The text without control characters and terminal escapes, and with mojibake mended.

    No letter of any script is taken: the joiners of Persian, Hindi and emoji, full-width punctuation and curly quotes
    stay. Lines end with one newline and paragraphs with two; the first line keeps its indentation. markdown: two blanks at
    a line's end stay, since they break it.
    """
    for _ in range(_PASSES):  # what looks like mojibake depends on the blanks beside it, which a pass may take
        mended = _mended(text, markdown)
        if mended == text:
            break
        text = mended
    return text


def control_characters(text: str) -> int:
    """How many characters `clean` takes out since they mean nothing in a text."""
    return len(_UNSEEN.findall(text))


def _mended(text: str, markdown: bool) -> str:
    """One pass over characters, lines and paragraphs."""
    import ftfy

    text = _BREAKS.sub("\n", text).replace("\x1f", " ")
    if not text.isascii() or _CONTROL.search(text):  # else there is nothing to mend
        text = ftfy.fix_text(text, _mending()).replace("\u00ad", "")  # soft hyphens are invisible advice
    lines = [line.rstrip() + "  " * (markdown and line.endswith("  ")) for line in text.split("\n")]
    lines = [line if line.strip() else "" for line in lines]
    return _BLANKS.sub("\n\n", "\n".join(lines)).strip("\n").rstrip()


@functools.cache
def _mending() -> Any:
    from ftfy import TextFixerConfig

    return TextFixerConfig(
        unescape_html=False,
        uncurl_quotes=False,
        fix_latin_ligatures=True,
        fix_character_width=False,  # full-width commas are right in Chinese
        explain=False,
    )


def language(text: str) -> str:
    """The two-letter code of the likeliest language (py3langid, 97 languages), by the first 2,000 characters."""
    import py3langid

    return py3langid.classify(text[:2000])[0]
