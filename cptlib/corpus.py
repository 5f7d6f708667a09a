"""Raw text in, documents out: read a corpus, split it, mark where documents end, count tokens."""

from dataclasses import dataclass
from pathlib import Path

from cptlib import formats
from cptlib.formats import SEPARATOR, CorpusError
from cptlib.ingest import from_folder

__all__ = ["CorpusError", "Statistics", "add_eos", "cut", "from_folder", "read", "split", "statistics"]

BUNDLED_STORIES = Path(__file__).parent / "data" / "stories.jsonl"


def read(source: str, documents: int | None = None):
    """The first `documents` documents (None: all) as a `datasets.Dataset` with one column, `text`.

    source: `"stories"` for the bundled ones; a .jsonl file (one object with a `text` field a line) or a .txt file
    (documents between lines that hold only `<|endoftext|>`), read as they stand; a folder or a file of any other format,
    which go through `from_folder`: cleaned, duplicates dropped, the report printed; or a dataset's hub id (its `train`
    split). White space around a document goes; empty documents are dropped. Raises CorpusError with file, line and remedy.
    """
    from datasets import Dataset

    path = BUNDLED_STORIES if source == "stories" else Path(source)
    if path.suffix in (".jsonl", ".txt"):
        return Dataset.from_dict({"text": _read_file(path)[:documents]})
    if path.exists():
        dataset, report = from_folder(path, strict=path.is_file())
        print(report)
        return dataset.select(range(min(documents or len(dataset), len(dataset))))
    return Dataset.from_dict({"text": _read_hub(source, documents)})


def _read_file(path: Path) -> list[str]:
    if not path.is_file():
        raise CorpusError(f"{path}: there is no such file.")
    texts = []
    for found in formats.read(path):
        if isinstance(found, formats.Problem):
            message = f"{path}{', ' * bool(found.where)}{found.where}: {found.reason}."
            if found.bad:
                raise CorpusError(message)
            print(message)
        else:
            texts.append(found.text.strip())
    if not any(texts):
        raise CorpusError(f"{path}: it holds no text. Put at least two documents in it.")
    return list(filter(None, texts))


def _read_hub(name: str, documents: int | None) -> list[str]:
    from datasets import load_dataset

    try:
        dataset = load_dataset(name, split="train" if documents is None else f"train[:{documents}]")
    except Exception as error:  # the hub client raises many kinds; each ends here as one sentence
        reason = str(error).split("\n")[0]
        remedy = "Check the name and the network, or name a local .jsonl or .txt file, or the bundled corpus 'stories'."
        raise CorpusError(
            f"The corpus {name!r} could not be read ({type(error).__name__}: {reason}). {remedy}"
        ) from error
    if "text" not in dataset.column_names:
        raise CorpusError(f"The dataset {name!r} has no column 'text', only {', '.join(dataset.column_names)}.")
    return [text.strip() for text in dataset["text"] if text and text.strip()]


def split(dataset, held_out: int, seed: int):
    """Shuffle and set `held_out` documents apart: a `DatasetDict` with `train` and `held_out`.

    Whole documents, so that no half of a story seen in training is tested on; and where the dataset has a column
    `group`, whole groups, so that nothing tested on resembles what was trained on. A group too large for what is still
    to be held out stays in training. The same seed gives the same split.
    """
    from datasets import DatasetDict

    if not 0 < held_out < len(dataset):
        raise CorpusError(
            f"The corpus has {len(dataset)} documents; {held_out} held out would leave none to train on. Lower "
            f"held_out, add documents, or put a line {SEPARATOR} between the documents of a .txt file."
        )
    if "group" in dataset.column_names:
        return _split_by_group(dataset, held_out, seed)
    parts = dataset.train_test_split(test_size=held_out, seed=seed)
    return DatasetDict(train=parts["train"], held_out=parts["test"])


def _split_by_group(dataset, held_out: int, seed: int):
    import numpy as np
    from datasets import DatasetDict

    random = np.random.default_rng(seed)
    _, group, sizes = np.unique(dataset.with_format("numpy")["group"][:], return_inverse=True, return_counts=True)
    chosen, room = np.zeros(len(sizes), dtype=bool), held_out
    for number in random.permutation(len(sizes)).tolist():
        if sizes[number] <= room:
            chosen[number], room = True, room - sizes[number]
    if room:
        raise CorpusError(
            f"{held_out} documents cannot be held out: the {len(dataset)} fall into {len(sizes)} groups that resemble "
            "each other, and no choice of whole groups gives that number. Lower or raise held_out."
        )
    aside = chosen[group]
    shuffled = [random.permutation(np.flatnonzero(side)) for side in (~aside, aside)]
    return DatasetDict(zip(("train", "held_out"), map(dataset.select, shuffled), strict=True))


def cut(dataset, tokenizer, max_length: int):
    """Documents longer than max_length tokens cut into pieces that fit, EOS and BOS counted: a Dataset or DatasetDict.

    A piece ends at the last paragraph in its second half, else at the last sentence there, else after a word. The
    columns are `text`, and `ends`: True for a document's last piece, the one that `add_eos` marks. The pieces put
    together are the document, to the letter.
    """
    room = max_length - 1 - len(tokenizer("")["input_ids"])

    def pieces(rows):
        ends = rows.get("ends") or [True] * len(rows["text"])
        out = {"text": [], "ends": []}
        for text, end in zip(rows["text"], ends, strict=True):
            parts = list(_pieces(text, tokenizer, room))
            out["text"] += parts
            out["ends"] += [False] * (len(parts) - 1) + [end]
        return out

    names = dataset["train"].column_names if isinstance(dataset, dict) else dataset.column_names
    return dataset.map(pieces, batched=True, batch_size=100, remove_columns=names)


def _pieces(text: str, tokenizer, room: int):
    start, window = 0, 8 * room
    while start < len(text):
        head = text[start : start + window]
        places = tokenizer(head, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
        if len(places) > room:
            piece = _longest_piece(head, places[:room], tokenizer)
        elif start + window < len(text):  # tokens of more than 8 characters on average
            window *= 2
            continue
        else:
            piece = head
        yield piece
        start, window = start + len(piece), 8 * room


def _longest_piece(text: str, places: list[tuple[int, int]], tokenizer) -> str:
    """The longest that ends well and takes no more tokens than `places`; alone it may take more than within its text."""
    for _, end in reversed(places):
        piece = text[: formats.cut_before(text, max(end, 1))]
        if len(tokenizer(piece, add_special_tokens=False)["input_ids"]) <= len(places):
            return piece
    return text[:1]


def add_eos(dataset, tokenizer):
    """Each document with the end-of-sequence token after it, exactly once: how a model learns to stop.

    A row whose `ends` is False is a piece of a document that goes on, and gets none. Raises CorpusError where a document
    has the token within its text, since it would teach stopping there.
    """
    eos = tokenizer.eos_token

    def mark(row, index):
        text = row["text"].removesuffix(eos)
        if eos in text:
            raise CorpusError(f"Document {index} has {eos} at character {text.index(eos)}: take it out of the text.")
        return {"text": text + eos if row.get("ends", True) else text}

    return dataset.map(mark, with_indices=True)


@dataclass(frozen=True)
class Statistics:
    """Sizes of a corpus: documents, tokens in all, of the median and of the longest document, rows of a batch and the
    share of their positions that holds padding, for documents padded to the longest of their batch and for packed rows.
    truncated: documents longer than max_length, whose ends training would not see."""

    documents: int
    tokens: int
    median: int
    longest: int
    truncated: int
    padding_if_padded: float
    padding_if_packed: float

    def __str__(self) -> str:
        return (
            f"{self.documents:,} documents, {self.tokens:,} tokens (median {self.median}, longest {self.longest} tokens)\n"
            f"padding in a batch: {self.padding_if_padded:.0%} of the positions with padded rows, "
            f"{self.padding_if_packed:.0%} with packed rows\n"
            f"documents cut off at max_length: {self.truncated}"
        )


def statistics(dataset, tokenizer, recipe) -> Statistics:
    """Token counts of `dataset["text"]`, and what padding or packing makes of them under `recipe`."""
    lengths = [len(ids) for ids in tokenizer(list(dataset["text"]))["input_ids"]]
    cut = [min(length, recipe.max_length) for length in lengths]
    batches = [cut[i : i + recipe.micro_batch] for i in range(0, len(cut), recipe.micro_batch)]
    return Statistics(
        documents=len(lengths),
        tokens=sum(lengths),
        median=sorted(lengths)[len(lengths) // 2],
        longest=max(lengths),
        truncated=sum(length > recipe.max_length for length in lengths),
        padding_if_padded=1 - sum(cut) / sum(max(batch) * len(batch) for batch in batches),
        padding_if_packed=1 - sum(cut) / (_packed_rows(cut, recipe.max_length) * recipe.max_length),
    )


def _packed_rows(lengths: list[int], max_length: int) -> int:
    """Rows of max_length tokens that TRL packs documents of these lengths into."""
    from datasets import Dataset
    from trl import pack_dataset

    documents = Dataset.from_dict({"input_ids": [[0] * length for length in lengths]})
    return len(pack_dataset(documents, max_length, strategy="bfd"))
