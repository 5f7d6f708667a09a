"""Which texts are the same, or nearly: MinHash finds candidates, their shared runs of words decide.

Only a few numbers a text are kept in memory (80 bytes), so a corpus may be larger than it. Two texts are compared by the
share of their runs of five words that both have (the Jaccard similarity of their sets of runs).
"""

from collections.abc import Callable, Iterator
from zlib import crc32

from cptlib import hints

NEAR = 0.8  # from here on, the later text is dropped as a near duplicate (about 1 word in 45 changed)
RELATED = 0.5  # from here on, one may not be trained on where the other is held out (about 1 in 13)
RUN = 5  # words
_BANDS, _ROWS = 16, 4  # found with probability 1 - (1 - s**4)**16: 0.9998 at a similarity s of 0.8, 0.64 at 0.5


def fingerprint(texts: list[str]) -> "tuple[hints.Hashes, hints.Bands, hints.Numbers]":
    """(digests, bands, lengths) of some texts: uint64, equal for equal texts; uint32 of shape (texts, 16); characters."""
    from hashlib import blake2b

    import numpy as np
    from rensa import RMinHash

    digests = [int.from_bytes(blake2b(text.encode(), digest_size=8).digest()) for text in texts]
    sets = [runs(text) for text in texts]
    offsets = np.cumsum([0, *map(len, sets)]).astype(np.uint64)
    matrix = RMinHash.digest_matrix_from_flat_token_hashes(np.concatenate(sets), offsets, _BANDS * _ROWS, 0)
    rows = np.array(matrix.to_rows(), dtype=np.uint64).reshape(len(texts), _BANDS, _ROWS)
    bands = (_combined(rows) >> np.uint64(32)).astype(np.uint32)
    return np.array(digests, dtype=np.uint64), bands, np.array([len(text) for text in texts])


def runs(text: str) -> "hints.Hashes":
    """A hash for each run of five words: uint64. Where words are not set apart by spaces, characters stand for them."""
    import numpy as np

    text = text.lower()
    words = text.encode().split()
    if len(words) * 15 < len(text):
        words = [character.encode() for character in "".join(text.split())]
    hashes = np.fromiter(map(crc32, words), dtype=np.uint64, count=len(words))
    length = min(RUN, len(words))
    return _combined(np.lib.stride_tricks.sliding_window_view(hashes, length))


def _combined(rows: "hints.Hashes") -> "hints.Hashes":
    """One hash for the numbers along the last axis."""
    import numpy as np

    total = np.zeros(rows.shape[:-1], dtype=np.uint64)
    for i in range(rows.shape[-1]):
        total = (total ^ (total >> np.uint64(29))) * np.uint64(0x9E3779B97F4A7C15) + rows[..., i]
    return (total ^ (total >> np.uint64(32))) * np.uint64(0xD6E8FEB86659FD93)


def similarity(one: str, other: str) -> float:
    """The Jaccard similarity of two texts' sets of runs, 0 to 1."""
    import numpy as np

    return jaccard(np.unique(runs(one)), np.unique(runs(other)))


def jaccard(a: "hints.Hashes", b: "hints.Hashes") -> float:
    """The share that two sorted arrays of distinct numbers have in common, 0 to 1."""
    import numpy as np

    shared = len(np.intersect1d(a, b, assume_unique=True))
    return shared / (len(a) + len(b) - shared)


def find(
    text_of: Callable[[int], str], digests: "hints.Hashes", bands: "hints.Bands", documents: "hints.Numbers"
) -> "tuple[hints.Mask, hints.Mask]":
    """(exact, near) for texts whose fingerprints these are: two masks of those to drop.

    text_of: a function from an index to its text. documents: numbers, equal for the parts of one document, in order. Of
    equal or nearly equal texts the first is kept. A document in several parts is dropped only if all of them are.
    """
    import numpy as np

    _, first, which = np.unique(digests, return_index=True, return_inverse=True)
    original = first[which]
    exact = original != np.arange(len(digests))
    same = Groups(len(digests))
    for a, b in _candidates(np.flatnonzero(~exact), bands):
        if same.root(a) != same.root(b) and similarity(text_of(a), text_of(b)) >= NEAR:
            same.unite(a, b)
    near = ~exact & (same.roots() != np.arange(len(digests)))
    kept = np.isin(documents, documents[~(exact | near)])
    return exact & ~kept, near & ~kept


def _candidates(indices: "hints.Numbers", bands: "hints.Bands") -> Iterator[tuple[int, int]]:
    """Pairs a < b of indices that agree in a band; of many that agree, each with the next."""
    import numpy as np

    for band in range(bands.shape[1]):
        values = bands[indices, band]
        order = np.argsort(values, kind="stable")
        equal = np.flatnonzero(values[order][1:] == values[order][:-1])
        yield from zip(indices[order[equal]].tolist(), indices[order[equal + 1]].tolist(), strict=True)


class Groups:
    """Disjoint sets of 0 … size-1; the root of a set is its least member."""

    def __init__(self, size: int) -> None:
        import numpy as np

        self._parent = np.arange(size)

    def root(self, i: int) -> int:
        """The least member of the set that `i` is in."""
        parent = self._parent
        while parent[i] != i:
            parent[i] = i = parent[parent[i]]
        return i

    def unite(self, a: int, b: int) -> None:
        """Make one set of those that `a` and `b` are in."""
        a, b = sorted((self.root(a), self.root(b)))
        self._parent[b] = a

    def roots(self) -> "hints.Numbers":
        """The root of each, an array."""
        parent = self._parent
        while (parent[parent] != parent).any():
            parent = parent[parent]
        return parent
