"""Equal and nearly equal texts are found; different ones are not taken for equal."""

import random
from hashlib import blake2b

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cptlib.documents import duplicates
from cptlib.documents.clean import clean

WORDS = [f"word{n}" for n in range(2000)]


def write(seed, length=300):
    return " ".join(random.Random(seed).choices(WORDS, k=length))


def change(text, every):
    """The text with one word in `every` another one."""
    return " ".join(f"new{i}" if i % every == every // 2 else word for i, word in enumerate(text.split()))


def find(texts, documents=None):
    digests, bands, lengths = duplicates.fingerprint(texts)
    assert lengths.tolist() == [len(text) for text in texts]
    documents = np.arange(len(texts)) if documents is None else np.array(documents)
    return [part.tolist() for part in duplicates.find(texts.__getitem__, digests, bands, documents)]


def test_similarity_is_the_share_of_common_runs():
    assert duplicates.similarity("a b c d e f", "a b c d e g") == pytest.approx(1 / 3)
    assert duplicates.similarity("a b", "a b") == 1 and duplicates.similarity("a b", "a c") == 0
    one, other = "从前有一座山山上有座庙庙里有个老和尚", "从前有一座山山上有座庙庙里有个小和尚"
    assert duplicates.similarity(one, other) == pytest.approx(11 / 17)  # 14 runs of 5 characters each


def test_the_first_of_equal_and_nearly_equal_texts_is_kept():
    one, two = write(1), write(2)
    exact, near = find([one, two, one, change(one, 60), two.upper() + " ", two, change(one, 4)])
    assert exact == [False, False, True, False, False, True, False]
    assert near == [False, False, False, True, True, False, False]


def test_texts_that_are_half_alike_are_both_kept():
    one = write(3, 400)
    exact, near = find([one, change(one, 20), write(4)])
    assert duplicates.RELATED < duplicates.similarity(one, change(one, 20)) < duplicates.NEAR
    assert not any(exact) and not any(near)


def test_of_many_pairs_at_nine_tenths_hardly_one_is_missed():
    texts = [text for n in range(300) for text in (write(n), change(write(n), 100))]
    _, near = find(texts)
    assert sum(near[1::2]) >= 298 and not any(near[0::2])


def test_short_texts_that_differ_in_a_word_are_different():
    exact, near = find([f"Story {n}." for n in range(50)] + ["x", "y"])
    assert not any(exact) and not any(near)


def test_a_document_in_parts_is_dropped_whole_or_not_at_all():
    texts = [write(1), write(2), write(3), write(2), write(4), write(2), change(write(3), 60)]
    exact, near = find(texts, documents=[0, 0, 1, 2, 2, 3, 3])
    assert exact == [False, False, False, False, False, True, False]  # of document 2 a part is new, of document 3 none
    assert near == [False, False, False, False, False, False, True]


def test_fingerprints_are_the_same_in_every_process():
    digests, bands, _ = duplicates.fingerprint(["a b c d e f g"])
    assert digests.tolist() == [int.from_bytes(blake2b(b"a b c d e f g", digest_size=8).digest())]
    assert bands.dtype == np.uint32 and bands.shape == (1, 16)
    again = duplicates.fingerprint(["x y z", "a b c d e f g"])[1]
    assert again[1].tolist() == bands[0].tolist()


@settings(max_examples=300, deadline=None)
@given(st.lists(st.text().map(clean).filter(bool), min_size=1, max_size=8))
def test_any_texts_have_fingerprints_and_equal_ones_are_found(texts):
    exact, near = find([*texts, *texts])
    assert all(exact[len(texts) :]) and not any(near[len(texts) :])
