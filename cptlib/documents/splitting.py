"""Which documents are held out: a hash of each document's own text decides, so that none of the others has a say."""

import unicodedata
from collections.abc import Iterator
from hashlib import blake2b

from cptlib import hints
from cptlib.documents.duplicates import RELATED, jaccard, runs
from cptlib.errors import CorpusError
from cptlib.rows import DIGEST


def split(dataset: "hints.Dataset", held_out: int, seed: int) -> "hints.DatasetDict":
    """Set `held_out` documents apart: a `DatasetDict` with `train` and `held_out`, each with a column `digest`.

    Held out are the documents whose own text, blanks and case aside, has the smallest hashes; the seed salts them. So a
    document that is trained on stays there, whatever is added to the corpus. A document in several rows (`ends`) stays
    whole. What equals a held-out document, or shares half its runs of five words with one, is left out of both parts, and a
    printed line counts it. Rows come in the order of their hashes, which is a shuffled one. Raises CorpusError where nothing
    would be left to train on.
    """
    import numpy as np
    from datasets import DatasetDict

    document = _documents(dataset)
    digests = np.array(list(_digests(dataset, document, seed)), dtype=np.uint64)
    distinct, first = np.unique(digests, return_index=True)
    if not 0 < held_out < len(distinct):
        raise CorpusError(
            f"The corpus has {len(distinct)} different documents; {held_out} held out would leave none to train on. Lower "
            "held_out, add documents, or put a line <|endoftext|> between the documents of a .txt file."
        )
    aside = np.isin(document, first[:held_out])
    alike = np.isin(digests, distinct[:held_out])
    alike[document[_resembling(dataset, aside)]] = True
    alike[first[:held_out]] = False
    if alike.any():
        print(f"{alike.sum():,} documents that equal or nearly equal a held-out one are left out of training.")
    training = ~aside & ~alike[document]
    if not training.any():
        raise CorpusError(
            f"All other documents nearly equal one of the {held_out} held out, so none is left to train on."
        )
    order = np.argsort(digests[document], kind="stable")
    dataset = dataset.remove_columns([name for name in dataset.column_names if name == DIGEST])  # of an earlier split
    dataset = dataset.add_column(DIGEST, [f"{digests[number]:016x}" for number in document])
    parts = {"train": order[training[order]], "held_out": order[aside[order]]}
    return DatasetDict({name: dataset.select(rows) for name, rows in parts.items()})


def with_digests(dataset: "hints.Dataset", digests: list[str], seed: int) -> "hints.Dataset":
    """The documents whose digests by `split` with this seed are given, as a Dataset; CorpusError where there are none.

    This finds again what a saved model had held out, in a corpus that has changed since; a printed line counts what is gone.
    """
    import numpy as np

    document, wanted = _documents(dataset), set(digests)
    found = [f"{digest:016x}" for digest in _digests(dataset, document, seed)]
    distinct = {digest: number for number, digest in reversed([*enumerate(found)]) if digest in wanted}
    if not distinct:
        raise CorpusError(
            f"None of the {len(wanted)} documents that were held out from this model is in the corpus any more. Bring "
            "them back, or name texts that it was not trained on."
        )
    if missing := len(wanted) - len(distinct):
        print(f"{missing:,} of the {len(wanted):,} documents that were held out are no longer in the corpus.")
    return dataset.select(np.flatnonzero(np.isin(document, list(distinct.values()))))


def _documents(dataset: "hints.Dataset") -> "hints.Numbers":
    """The number of each row's document, from 0: an array. A row whose `ends` is False goes on in the next one."""
    import numpy as np

    if "ends" not in dataset.column_names:
        return np.arange(len(dataset))
    ends = np.array(dataset["ends"][:], dtype=bool)
    return np.cumsum(np.concatenate([[False], ends[:-1]]), dtype=np.int64)


def _digests(dataset: "hints.Dataset", document: "hints.Numbers", seed: int) -> Iterator[int]:
    """A 64-bit hash of each document's text, in their order."""
    last, digest = -1, None
    for number, text in zip(document.tolist(), _texts(dataset), strict=True):
        if digest is None or number != last:
            if digest is not None:
                yield int.from_bytes(digest.digest())
            last, digest = number, blake2b(digest_size=8, key=str(seed).encode())
        for word in unicodedata.normalize("NFKC", text).casefold().split():
            digest.update(f"{word} ".encode("utf-8", "replace"))
    if digest is not None:
        yield int.from_bytes(digest.digest())


def _texts(dataset: "hints.Dataset") -> Iterator[str]:
    for rows in dataset.select_columns("text").iter(500):
        yield from rows["text"]


def _resembling(dataset: "hints.Dataset", aside: "hints.Mask") -> list[int]:
    """The rows whose text shares half its runs of words or more with that of one row set aside (a mask)."""
    import numpy as np

    held = [np.unique(runs(text)) for text in _texts(dataset.select(np.flatnonzero(aside))) if text.split()]
    every = np.unique(np.concatenate(held))
    rows = []
    for row, text in enumerate(_texts(dataset)):
        if aside[row] or not text.split():
            continue
        own = np.unique(runs(text))
        near = every[np.minimum(np.searchsorted(every, own), len(every) - 1)] == own
        # what shares half with one of them shares half with all of them together, which is quick to see
        if near.mean() >= RELATED and max(jaccard(own, one) for one in held) >= RELATED:
            rows.append(row)
    return rows
