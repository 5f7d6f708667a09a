"""Which encoding a text is in that is not UTF-8: the one in which its letters are the letters of some language.

Encodings of one byte a character fit any text; what tells them apart is which letters come out. So the letters beyond
ASCII are listed here by language, the commonest first, and a text is in the encoding that makes it likeliest, for the
language for which it does. Where several fit equally well the commonest encoding wins, the first of its row. In East
Asia, where a character has two bytes, each national standard has a part that holds the common ones.
"""

import re
from collections import Counter
from functools import cache
from math import log

_WESTERN = ("cp1252", "cp850", "mac_roman")
_CENTRAL = ("cp1250", "iso8859_2", "cp852")
_BALTIC = ("cp1257", "iso8859_13")
_CYRILLIC = ("cp1251", "koi8_r", "cp866", "iso8859_5", "mac_cyrillic", "cp855")
_LANGUAGES = (
    (_WESTERN, "éèáàñöüçïëêíóäåøæ"),  # any, in an English text
    (_WESTERN, "éèàêçôîûùâœ"),  # French
    (_WESTERN, "äüöß"),  # German
    (_WESTERN, "óíáéñúüºª"),  # Spanish
    (_WESTERN, "ãçáéíóõêâàú"),  # Portuguese
    (_WESTERN, "èàùòìé"),  # Italian
    (_WESTERN, "àóèéíòçúï"),  # Catalan
    (_WESTERN, "äöåé"),  # Swedish, Finnish
    (_WESTERN, "åøæé"),  # Danish, Norwegian
    (_WESTERN, "áíóðþúéæöý"),  # Icelandic
    (_WESTERN, "ëéïöü"),  # Dutch
    (_CENTRAL, "łóążęśćźń"),  # Polish
    (_CENTRAL, "íáěéřščýžůúťďňó"),  # Czech
    (_CENTRAL, "áíéčžšýúľťôňďäó"),  # Slovak
    (_CENTRAL, "áéóőöíüúű"),  # Hungarian
    (_CENTRAL, "čšžćđ"),  # Croatian, Slovenian
    (_CENTRAL, "ăîşâţ"),  # Romanian
    (("cp1254",), "ıışğüçöâ"),  # Turkish
    (_BALTIC, "ėšįųžąčūę"),  # Lithuanian
    (_BALTIC, "āīēšūņļžģķč"),  # Latvian
    (_BALTIC, "äõöüšž"),  # Estonian
    (_CYRILLIC, "оеаинтсрвлкмдпуыязьбгчйхжшюцщэфъё"),  # Russian
    (_CYRILLIC, "оаинтверслкдмпузяьбгійїєчхцжшюф"),  # Ukrainian
    (_CYRILLIC, "аиоетнрсвлкдпмзъуябгчйцжщхшюф"),  # Bulgarian
    (("cp1251",), "аоиенртсјвкудмплзгбшчцњжхћљфђџ"),  # Serbian, Macedonian
    (("cp1253", "iso8859_7"), "αοιτεσνηρπκμλυςίγάδόέωήθχφύβώξζψ"),
    (("cp1255",), "יוהלארתבםמשנדחעקפכטגןצסזךףץ"),
    (("cp1256", "iso8859_6"), "اليمنوترعبدهةسفكحقجأشخصطىضذزإغئءثظآؤ،"),
    (("cp874",), "านรกอเงยมล่ว้ดทสตัะปบีคหิแจใพไ์ชขุูโ็ืณำผซธถศญษภฟฉฐ"),
)
_MARKS = "’“”–—…‘•«»„°§©®£€½¼¾²³·×±µ¿¡™\xa0"  # of any language
_EAST_ASIAN = (  # and the standard, with the first bytes of its common characters
    ("cp932", "euc_jp", range(0xB0, 0xD0)),
    ("euc_jp", "euc_jp", range(0xB0, 0xD0)),
    ("cp949", "euc_kr", range(0xB0, 0xC9)),
    ("big5", "big5", range(0xA4, 0xC7)),
    ("gb18030", "gb2312", range(0xB0, 0xD8)),
)
_WIDE_MARKS = re.compile("[\u2500-\u25ff\u3000-\u3011\ufe30-\ufe6b\uff01-\uff5e]")
_KANA = re.compile("[\u3041-\u30ff]")
_HIGH = rb"[\x80-\xff]"
_LONE = rb"(?<![\x80-\xff])[\x80-\xff](?![\x80-\xff])"
_APART = rb"(?<![A-Za-z\x80-\xff])[\x80-\xff](?![A-Za-z\x80-\xff])"
_GREEK = "\u0250"  # from here on letters of other alphabets
_ASCII = re.compile("[\0-\x7f]+")
_RARE = 1e-5
_UNLIKELY = -4.6  # a byte's mean logarithm in noise; in texts of all these languages it is -4.4 to -2


def likeliest(text: bytes) -> str | None:
    """The name of the likeliest encoding of a text's whole lines, None where none is likely."""
    counts = _places(text)
    found = [(prior + _likelihood(counts, logs), encoding) for encoding, prior, logs in _table()]
    found += [(_of_two_bytes(row, text), row[0]) for row in _EAST_ASIAN]
    likelihood, encoding = max(found, key=lambda pair: pair[0])
    strange = len(_beyond_ascii(text, encoding).encode(encoding, "replace"))
    return encoding if likelihood > _UNLIKELY * strange else None


def _beyond_ascii(text: bytes, encoding: str) -> str:
    return _ASCII.sub("", text.decode(encoding, "replace"))


def _places(text: bytes) -> tuple[Counter, Counter, Counter]:
    """The bytes beyond ASCII: those beside each other, those alone in a word of ASCII, and those alone."""
    high, lone, apart = (Counter(b"".join(re.findall(pattern, text))) for pattern in (_HIGH, _LONE, _APART))
    return high - lone, lone - apart, apart


def _likelihood(counts: tuple, logs: tuple) -> float:
    pairs = zip(counts, logs, strict=True)
    return sum(count * log[byte - 128] for of_place, log in pairs for byte, count in of_place.items())


def _of_two_bytes(row: tuple, text: bytes) -> float:
    encoding, standard, first = row
    common = _common(standard, first)

    def share(character: str) -> float:
        if character in common:
            return 2 / len(common)  # half of them make up nearly all of a text
        if standard == "euc_jp" and _KANA.match(character):
            return 1 / 60
        return 0.02 if character in _MARKS or _WIDE_MARKS.match(character) else _RARE

    counts = Counter(_beyond_ascii(text, encoding))
    return -6 + sum(count * log(share(character)) for character, count in counts.items())


@cache
def _common(standard: str, first: range) -> set[str]:
    return {bytes([one, two]).decode(standard, "ignore") for one in first for two in range(0x40, 0xFF)} - {""}


@cache
def _table() -> list[tuple]:
    """For each encoding and language: its name, the logarithms of how common it is, and of how common its 128 bytes beyond
    ASCII are in each of the three places."""
    table = []
    capitals = tuple((encodings, letters.upper()) for encodings, letters in _LANGUAGES if letters[0] > _GREEK)
    for encodings, letters in dict.fromkeys(_LANGUAGES + capitals):  # other alphabets also in capitals throughout
        related = {letter for others, of_one in _LANGUAGES if others == encodings for letter in of_one}
        for rank, encoding in enumerate(encodings):
            characters = [bytes([byte]).decode(encoding, "replace") for byte in range(128, 256)]
            together = [_share(character, letters, related) for character in characters]
            pairs = list(zip(characters, together, strict=True))
            # a letter of another alphabet makes words with its like, and an accented one is seldom a word
            within = [share / 100 if _GREEK < c < "\u2000" else share for c, share in pairs]
            apart = [share / (100 if c > _GREEK else 10) if c.isalpha() else share for c, share in pairs]
            logs = tuple([*map(log, shares)] for shares in (together, within, apart))
            table.append((encoding, -2 * rank - 2 * (encoding != "cp1252"), logs))
    return table


def _share(character: str, letters: str, related: set[str]) -> float:
    """Of a language's characters beyond ASCII, the share that this one has, about: falling with its rank, the slower the
    more letters there are."""
    if character in _MARKS:
        return 0.02
    if character in letters:
        start = 2 + len(letters) / 5
        return 0.8 / (letters.index(character) + start) / log(1 + len(letters) / start)
    if (other := character.swapcase()) in letters:  # a capital
        return _share(other, letters, related) / (10 if other < _GREEK else 3)
    return 1e-3 if character in related else _RARE
