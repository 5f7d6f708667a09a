"""Documents to rows: cut to the length of a row, marked where they end, tokenized, counted."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from cptlib import hints, tokens
from cptlib.errors import CorpusError
from cptlib.recipe import Recipe

Documents = TypeVar("Documents", "hints.Dataset", "hints.DatasetDict")
DIGEST = "digest"  # the column of a split's documents that a saved model keeps of those held out

_CUTS = tuple(
    re.compile(pattern) for pattern in (r"\n\s*\n\s*", r"""[.!?…]["'”’»)\]]*\s+|[。！？]["'”’»」』）]*\s*""", r"\s+")
)


def cut_before(text: str, end: int) -> int:
    """Where to cut so that the first piece is at most `end` characters: after the last paragraph in its second half,
    else after the last sentence there, else after the last word, else at `end`. White space stays with the first piece.
    """
    for pattern in _CUTS:
        if ends := [match.end() for match in pattern.finditer(text, end // 2, end)]:
            return ends[-1]
    return end


def cut(dataset: Documents, tokenizer: "hints.Tokenizer", max_length: int) -> Documents:
    """Documents longer than max_length tokens cut into pieces that fit, EOS and BOS counted: a Dataset or DatasetDict.

    A piece ends at the last paragraph in its second half, else at the last sentence there, else after a word. The
    columns are `text`, and `ends`: True for a document's last piece, the one that `add_eos` marks. The pieces put
    together are the document, to the letter. Raises CorpusError where a row has no room for text.
    """
    eos = tokenizer.eos_token or ""
    room = max_length - 1 - len(tokens.opening(tokenizer))
    if room < 1:
        raise CorpusError(f"A row of {max_length} tokens has no room for text beside BOS and EOS: raise max_length.")

    def pieces(rows: dict[str, list[Any]]) -> dict[str, list[Any]]:
        ends = rows.get("ends") or [True] * len(rows["text"])
        out: dict[str, list[Any]] = {"text": [], "ends": []}
        for text, end in zip(rows["text"], ends, strict=True):
            body = text.removesuffix(eos) if end else text
            parts = list(_pieces(body, tokenizer, room)) or [""]
            parts[-1] += text[len(body) :]  # an EOS that is there already has its place in the row
            out["text"] += parts
            out["ends"] += [False] * (len(parts) - 1) + [end]
        return out

    names = dataset["train"].column_names if isinstance(dataset, dict) else dataset.column_names
    return dataset.map(pieces, batched=True, batch_size=100, remove_columns=names)


def _pieces(text: str, tokenizer: "hints.Tokenizer", room: int) -> Iterator[str]:
    start, window = 0, 8 * room
    while start < len(text):
        head = text[start : start + window]
        places = tokenizer(head, return_offsets_mapping=True, **tokens.PLAIN)["offset_mapping"]
        if len(places) > room:
            piece = _longest_piece(head, places[:room], tokenizer)
        elif start + window < len(text):  # tokens of more than 8 characters on average
            window *= 2
            continue
        else:
            piece = head
        yield piece
        start, window = start + len(piece), 8 * room


def _longest_piece(text: str, places: list[tuple[int, int]], tokenizer: "hints.Tokenizer") -> str:
    """The longest that ends well and takes no more tokens than `places`; alone it may take more than within its text."""
    for _, end in reversed(places):
        piece = text[: cut_before(text, max(end, 1))]
        if len(tokenizer(piece, **tokens.PLAIN)["input_ids"]) <= len(places):
            return piece
    return text[:1]


def add_eos(dataset: Documents, tokenizer: "hints.Tokenizer") -> Documents:
    """Each document with the end-of-sequence token's name after it, exactly once: how a model learns to stop.

    A row whose `ends` is False is a piece of a document that goes on, and gets none. The name within a text stays, and
    `tokenize` reads it as text. Raises CorpusError where the tokenizer has no such token.
    """
    eos = tokenizer.eos_token
    if eos is None:
        raise CorpusError("The tokenizer has no end-of-sequence token, so no document could end: set its eos_token.")
    return dataset.map(
        lambda row: {"text": row["text"].removesuffix(eos) + eos if row.get("ends", True) else row["text"]}
    )


def tokenize(dataset: Documents, tokenizer: "hints.Tokenizer", max_length: int) -> Documents:
    """The rows of token ids to train on: a Dataset with the columns `input_ids` (lists of at most max_length) and `ends`.

    Nothing is lost: documents longer than a row are cut, where a trainer would drop what does not fit; and every document
    ends with EOS, pieces of one that goes on do not, whatever the tokenizer adds and the trainer would do to a text (TRL's
    adds an EOS to each, unsloth's on a GPU to none). The names of control tokens in a text are text (`tokens.encode`).
    Raises CorpusError where there is no EOS, no room in a row, or no way to read such a name as text.
    """
    tokens.require_plain(dataset["text"], tokenizer)
    pieces = add_eos(cut(dataset, tokenizer, max_length), tokenizer)
    return pieces.map(
        lambda rows: {"input_ids": tokens.encode(rows["text"], tokenizer, rows["ends"])},
        batched=True,
        remove_columns="text",
    )


def open_pieces(dataset: "hints.Dataset") -> int:
    """How many rows are pieces of a document that goes on in the next row."""
    return list(dataset["ends"][:]).count(False) if "ends" in dataset.column_names else 0


@dataclass(frozen=True)
class Statistics:
    """Sizes of a corpus: documents, tokens in all, of the median and of the longest document, rows of a batch and the
    share of their positions that holds padding, for documents padded to the longest of their batch and for packed rows.
    longer: documents longer than max_length, which are cut into pieces."""

    documents: int
    tokens: int
    median: int
    longest: int
    longer: int
    padding_if_padded: float
    padding_if_packed: float

    def __str__(self) -> str:
        return (
            f"{self.documents:,} documents, {self.tokens:,} tokens (median {self.median}, longest {self.longest} tokens)\n"
            f"padding in a batch: {self.padding_if_padded:.0%} of the positions with padded rows, "
            f"{self.padding_if_packed:.0%} with packed rows\n"
            f"documents longer than a row, to be cut into pieces: {self.longer}"
        )


def statistics(dataset: "hints.Dataset", tokenizer: "hints.Tokenizer", recipe: Recipe) -> Statistics:
    """Token counts of `dataset["text"]`, and what padding or packing makes of them under `recipe`."""
    lengths = [len(ids) for ids in tokens.encode(dataset["text"][:], tokenizer)]
    row = recipe.max_length
    pieces = [size for length in lengths for size in [row] * (length // row) + [length % row] * (length % row > 0)]
    batches = [pieces[i : i + recipe.micro_batch] for i in range(0, len(pieces), recipe.micro_batch)]
    return Statistics(
        documents=len(lengths),
        tokens=sum(lengths),
        median=sorted(lengths)[len(lengths) // 2],
        longest=max(lengths),
        longer=sum(length > row for length in lengths),
        padding_if_padded=1 - sum(pieces) / sum(max(batch) * len(batch) for batch in batches),
        padding_if_packed=1 - sum(pieces) / (_packed_rows(pieces, row) * row),
    )


def _packed_rows(lengths: list[int], max_length: int) -> int:
    """Rows of max_length tokens that TRL packs documents of these lengths into."""
    from datasets import Dataset
    from trl import pack_dataset

    documents = Dataset.from_dict({"input_ids": [[0] * length for length in lengths]})
    return len(pack_dataset(documents, max_length, strategy="bfd"))
