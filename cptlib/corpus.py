"""Raw text in, documents out: read a corpus, split it, mark where documents end, count tokens."""

import json
from dataclasses import dataclass
from pathlib import Path

BUNDLED_STORIES = Path(__file__).parent / "data" / "stories.jsonl"
SEPARATOR = "<|endoftext|>"  # a line of its own between the documents of a .txt file, as in TinyStories' files


class CorpusError(ValueError):
    """A corpus that cannot be used: which file, which line, and how to mend it."""


def read(source: str, documents: int | None = None):
    """The first `documents` documents (None: all) as a `datasets.Dataset` with one column, `text`.

    source: `"stories"` for the bundled ones, a .jsonl file (one object with a `text` field a line), a .txt file
    (documents between lines that hold only `<|endoftext|>`), or a dataset's hub id (its `train` split). White space
    around a document goes; empty documents are dropped. Raises CorpusError with file, line and remedy.
    """
    from datasets import Dataset

    path = BUNDLED_STORIES if source == "stories" else Path(source)
    if path.suffix in (".jsonl", ".txt"):
        texts = _read_file(path)[:documents]
    elif path.exists():
        raise CorpusError(f"{path}: only .jsonl and .txt files are read. Convert it to one of them.")
    else:
        texts = _read_hub(source, documents)
    return Dataset.from_dict({"text": texts})


def _read_file(path: Path) -> list[str]:
    if not path.is_file():
        raise CorpusError(f"{path}: there is no such file.")
    try:
        content = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = path.read_bytes()[: error.start].count(b"\n") + 1
        remedy = f"save it as UTF-8 (for example: iconv -f WINDOWS-1252 -t UTF-8 {path.name})"
        raise CorpusError(f"{path}, line {line}: this is not UTF-8 text; {remedy}.") from None
    if path.suffix == ".jsonl":
        texts = [_text_of(line, path, n) for n, line in enumerate(content.split("\n"), 1) if line.strip()]
    else:
        texts = content.replace("\r\n", "\n").split(f"\n{SEPARATOR}\n")
        texts[-1] = texts[-1].removesuffix("\n").removesuffix(SEPARATOR)
    texts = [text.strip() for text in texts if text.strip()]
    if not texts:
        raise CorpusError(f"{path}: it holds no text. Put at least two documents in it.")
    return texts


def _text_of(line: str, path: Path, number: int) -> str:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise CorpusError(f"{path}, line {number}: not a JSON object ({error.msg}); each line must be one.") from None
    if not isinstance(row, dict) or not isinstance(row.get("text"), str):
        has = f"its fields are {', '.join(row)}" if isinstance(row, dict) else f"it is a {type(row).__name__}"
        raise CorpusError(f'{path}, line {number}: no string field "text" ({has}); write {{"text": "..."}}.')
    return row["text"]


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

    Whole documents, so that no half of a story seen in training is tested on. The same seed gives the same split.
    """
    from datasets import DatasetDict

    if not 0 < held_out < len(dataset):
        raise CorpusError(
            f"The corpus has {len(dataset)} documents; {held_out} held out would leave none to train on. Lower "
            f"held_out, add documents, or put a line {SEPARATOR} between the documents of a .txt file."
        )
    parts = dataset.train_test_split(test_size=held_out, seed=seed)
    return DatasetDict(train=parts["train"], held_out=parts["test"])


def add_eos(dataset, tokenizer):
    """Each document with the end-of-sequence token after it, exactly once: how a model learns to stop.

    Raises CorpusError where a document has the token within its text, since it would teach stopping there.
    """
    eos = tokenizer.eos_token

    def mark(row, index):
        text = row["text"].removesuffix(eos)
        if eos in text:
            raise CorpusError(f"Document {index} has {eos} at character {text.index(eos)}: take it out of the text.")
        return {"text": text + eos}

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
