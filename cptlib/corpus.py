"""Raw text in, documents out: read a corpus; and what is done with it next, by one name (`splitting`, `rows`)."""

from pathlib import Path
from typing import Any

from cptlib import hints
from cptlib.documents import formats
from cptlib.documents.folder import from_folder
from cptlib.documents.splitting import split, with_digests
from cptlib.errors import CorpusError
from cptlib.paths import STORIES_FILE
from cptlib.rows import Statistics, add_eos, cut, open_pieces, statistics, tokenize

__all__ = ["CorpusError", "Statistics", "add_eos", "cut", "from_folder", "open_pieces"]
__all__ += ["read", "split", "statistics", "tokenize", "with_digests"]


def read(source: str, documents: int | None = None) -> "hints.Dataset":
    """The first `documents` documents (None: all) as a `datasets.Dataset` with the columns `text` and, where a document is
    in several rows, `ends`: False in all of its rows but the last.

    source: `"stories"` for the bundled ones; a .jsonl file (one object with a `text` field a line) or a .txt file
    (documents between lines that hold only `<|endoftext|>`), read as they stand; a folder or a file of any other format,
    which go through `from_folder`: cleaned, duplicates dropped, the report printed; or a dataset's hub id (its `train`
    split). White space around a document goes; empty documents are dropped. Raises CorpusError with file, line and remedy.
    """
    from datasets import Dataset

    path = STORIES_FILE if source == "stories" else Path(source)
    if path.suffix in (".jsonl", ".txt"):
        rows = [piece for document in _read_file(path)[:documents] for piece in document]
        columns: dict[str, list[Any]] = {"text": [text for text, _ in rows]}
        if not all(ends for _, ends in rows):
            columns["ends"] = [ends for _, ends in rows]
        return Dataset.from_dict(columns)
    if path.exists():
        dataset, report = from_folder(path, strict=path.is_file())
        print(report)
        return dataset.select(range(min(documents or len(dataset), len(dataset))))
    return Dataset.from_dict({"text": _read_hub(source, documents)})


def _read_file(path: Path) -> list[list[tuple[str, bool]]]:
    """The documents, each a list of its pieces, (text, ends): one that is too long to be handed out at once has several."""
    if not path.is_file():
        raise CorpusError(f"{path}: there is no such file.")
    documents: list[list[tuple[str, bool]]] = [[]]
    for found in formats.read(path):
        if isinstance(found, formats.Problem):
            message = f"{path}{', ' * bool(found.where)}{found.where}: {found.reason}."
            if found.bad:
                raise CorpusError(message)
            print(message)
            continue
        first, text = not documents[-1], found.text
        text = text.lstrip() if first else text
        documents[-1].append((text.rstrip() if found.ends else text, found.ends))
        if found.ends:
            documents.append([])
    if not (documents := [pieces for pieces in documents if any(text for text, _ in pieces)]):
        raise CorpusError(f"{path}: it holds no text. Put at least two documents in it.")
    return documents


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
