"""Texts to token ids, the same way for every tokenizer, whatever it adds by itself."""

import re
from collections.abc import Iterable, Sequence

from cptlib import hints
from cptlib.errors import CorpusError

PLAIN = {"add_special_tokens": False, "split_special_tokens": True}  # the text alone, no control tokens in it


def opening(tokenizer: "hints.Tokenizer") -> list[int]:
    """The ids that the tokenizer puts before each text: as a rule BOS, or none."""
    encoded = tokenizer("a", return_special_tokens_mask=True)
    return encoded["input_ids"][: encoded["special_tokens_mask"].index(0)]


def encode(texts: Sequence[str], tokenizer: "hints.Tokenizer", ends: Sequence[bool] | None = None) -> list[list[int]]:
    """The ids of each text: what the tokenizer puts before it, the text, and EOS where the text ends with its name.

    Other names of control tokens (HTML's `<s>`, a chat's `<|im_start|>`) are text like any other. ends: False for a text that
    goes on, in which EOS's name is text at the end too.
    """
    eos, begin = tokenizer.eos_token or "", opening(tokenizer)
    ends = [True] * len(texts) if ends is None else ends
    marked = [end and eos != "" and text.endswith(eos) for text, end in zip(texts, ends, strict=True)]
    bodies = [text.removesuffix(eos) if mark else text for text, mark in zip(texts, marked, strict=True)]
    ids = tokenizer(bodies, **PLAIN)["input_ids"] if bodies else []
    return [begin + body + [tokenizer.eos_token_id] * mark for body, mark in zip(ids, marked, strict=True)]


def require_plain(texts: Iterable[str], tokenizer: "hints.Tokenizer") -> None:
    """Raise CorpusError where this tokenizer makes a control token of its name within a text, though told to read it as text.

    Few do: those in whose vocabulary the name is a piece that letters can be joined to, such as Unigram's.
    """
    control = {token.content: number for number, token in tokenizer.added_tokens_decoder.items() if token.special}
    control.pop(tokenizer.unk_token, None)  # it stands for letters that are in texts
    name, eos = re.compile("|".join(map(re.escape, control)) or "(?!)"), tokenizer.eos_token or ""
    named = [body for text in texts if name.search(body := text.removesuffix(eos))]
    lost = [body for body in named if not set(control.values()).isdisjoint(tokenizer(body, **PLAIN)["input_ids"])]
    if lost and (found := name.search(lost[0])):
        raise CorpusError(
            f"{len(lost)} documents have control tokens in their text, and this tokenizer cannot read them as text. "
            f"The first: {found[0]} in {lost[0][max(found.start() - 30, 0) : found.end() + 30]!r}. Take them out."
        )
