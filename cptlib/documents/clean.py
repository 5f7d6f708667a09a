"""One text at a time: broken characters mended, control characters and stray markup taken out, its language told."""

import functools
import re

_TAGS = (
    "a|abbr|b|big|blockquote|body|br|center|code|dd|div|dl|dt|em|font|h[1-6]|head|hr|html|i|img|input|label|li|link|"
)
_TAGS += (
    "meta|nav|ol|option|p|pre|s|section|select|small|span|strike|strong|sub|sup|table|tbody|td|th|thead|title|tr|u|ul"
)
_HIDDEN = tuple(  # openings and endings of what no reader of the page sees
    (re.compile(opening, re.IGNORECASE), re.compile(ending, re.IGNORECASE))
    for opening, ending in ((r"<!--", "-->"), (r"<script\b", r"</script\s*>"), (r"<style\b", r"</style\s*>"))
)
_BREAK = re.compile(r"</?(?:br|p|div|li|tr|h[1-6]|ul|ol|table|blockquote|hr)(?:\s[^<>]*)?/?>", re.IGNORECASE)
_TAG = re.compile(rf"</?(?:{_TAGS})(?:\s[^<>]*)?/?>", re.IGNORECASE)
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
_BLANKS = re.compile(r"\n{3,}")
_PASSES = 9  # random dirt was seen to need 3; a bound, so that no text can take forever


def clean(text: str, markup: bool = False) -> str:
    """The text without control characters, terminal escapes, stray HTML tags and entities, and with mojibake mended.

    No letter of any script is taken: the joiners of Persian, Hindi and emoji, full-width punctuation and curly quotes
    stay. Lines end with one newline and paragraphs with two. markup: True leaves tags and entities, for texts about HTML.
    """
    if not markup and "<" in text:
        for opening, ending in _HIDDEN:
            text = _without(text, opening, ending)
        text = _TAG.sub("", _BREAK.sub("\n", text))
    for _ in range(_PASSES):  # what looks like mojibake depends on the blanks beside it, which a pass may take
        mended = _mended(text, markup)
        if mended == text:
            break
        text, markup = mended, True  # one pass reads all entities; the tags they spell are meant as text
    return text


def _mended(text: str, markup: bool) -> str:
    """One pass over characters, lines and paragraphs."""
    import ftfy

    if not text.isascii() or _CONTROL.search(text) or ("&" in text and not markup):  # else there is nothing to mend
        text = ftfy.fix_text(text, _mending(markup)).replace("\u00ad", "")  # soft hyphens are invisible advice
    lines = [line.rstrip() for line in text.split("\n")]
    return _BLANKS.sub("\n\n", "\n".join(lines)).strip()


def _without(text: str, opening: re.Pattern, ending: re.Pattern) -> str:
    """The text less what lies between an opening and the next ending. One pattern for both would take hours where many
    openings have no ending."""
    kept, at = [], 0
    while (start := opening.search(text, at)) and (end := ending.search(text, start.end())):
        kept.append(text[at : start.start()])
        at = end.end()
    return "".join(kept) + text[at:]


@functools.cache
def _mending(markup: bool):
    from ftfy import TextFixerConfig

    return TextFixerConfig(
        unescape_html=not markup,
        uncurl_quotes=False,
        fix_latin_ligatures=True,
        fix_character_width=False,  # full-width commas are right in Chinese
        explain=False,
    )


def language(text: str) -> str:
    """The two-letter code of the likeliest language (py3langid, 97 languages), by the first 2,000 characters."""
    import py3langid

    return py3langid.classify(text[:2000])[0]
