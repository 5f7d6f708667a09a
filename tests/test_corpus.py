import json
import re
from collections import Counter
from dataclasses import replace

import pytest
from datasets import Dataset

from cptlib import corpus
from cptlib.corpus import CorpusError


def words(text):
    return re.findall(r"[a-z]+(?:'[a-z]+)*", text.lower())


@pytest.fixture(scope="module")
def stories():
    return corpus.read("stories")["text"]


def test_the_bundled_stories_are_many_and_short(stories):
    assert len(stories) >= 240
    assert all(120 <= len(story.split()) <= 220 for story in stories)


def test_the_bundled_stories_use_few_words(stories):
    assert len({word for story in stories for word in words(story)}) < 2500


def test_no_two_stories_share_a_run_of_eight_words(stories):
    runs = Counter()
    for story in stories:
        text = words(story)
        runs.update({tuple(text[i : i + 8]) for i in range(len(text) - 7)})
    assert [" ".join(run) for run, count in runs.items() if count > 1] == []


def test_jsonl_and_txt_are_read(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "One.\\nTwo."}\n\n{"text": " Ünë. "}\n{"text": ""}\n', encoding="utf-8")
    assert corpus.read(str(tmp_path / "a.jsonl"))["text"] == ["One.\nTwo.", "Ünë."]
    (tmp_path / "a.txt").write_bytes(
        b"\xef\xbb\xbfOne.\r\n\r\nStill one.\r\n<|endoftext|>\r\nTwo.\r\n<|endoftext|>\r\n"
    )
    assert corpus.read(str(tmp_path / "a.txt"))["text"] == ["One.\n\nStill one.", "Two."]
    assert corpus.read(str(tmp_path / "a.txt"), documents=1)["text"] == ["One.\n\nStill one."]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b"", "a.jsonl: empty file"),
        ("a.jsonl", b"\n", "a.jsonl: no documents in it"),
        ("a.txt", b" \n\n", "a.txt: it holds no text"),
        (
            "a.jsonl",
            b'{"text": "x"}\n{"txt": "y"}\n',
            r'a.jsonl, line 2: no string field "text" \(its fields are txt\)',
        ),
        ("a.jsonl", b'{"text": "x"}\n["y"]\n', r"a.jsonl, line 2: .*it is a list"),
        ("a.jsonl", b'{"text": 3}\n', r"a.jsonl, line 1: no string field"),
        ("a.jsonl", b'{"text": "x"\n', "a.jsonl, line 1: not a JSON object"),
        ("a.txt", b"\x00\x01\x02", "a.txt: binary, not text"),
        ("a.csv", b"text\n", "a.csv: no documents in it"),
        ("a.csv", b"title,words\nx,y\n", 'a.csv: no column "text", only title, words'),
        ("a.png", b"x", "a.png: not a format that is read. Read are .txt, .md, .jsonl"),
    ],
)
def test_bad_files_are_named_with_line_and_remedy(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CorpusError, match=message):
        corpus.read(str(tmp_path / name))


def test_a_missing_file_and_an_unreachable_hub_are_said_in_a_sentence():
    with pytest.raises(CorpusError, match="nowhere.jsonl: there is no such file"):
        corpus.read("nowhere.jsonl")
    with pytest.raises(CorpusError, match="'roneneldan/TinyStories' could not be read .*bundled corpus 'stories'"):
        corpus.read("roneneldan/TinyStories", 10)


def test_the_hub_layout_is_read_from_a_local_folder(tmp_path, monkeypatch):
    """As TinyStories lies on the hub: a train split with a text column."""
    (tmp_path / "train.jsonl").write_text("".join(json.dumps({"text": f"Story {n}."}) + "\n" for n in range(5)))
    assert corpus._read_hub(str(tmp_path), 3) == ["Story 0.", "Story 1.", "Story 2."]
    (tmp_path / "train.jsonl").write_text('{"story": "x"}\n')
    with pytest.raises(CorpusError, match="no column 'text', only story"):
        corpus._read_hub(str(tmp_path), None)


def test_a_split_keeps_documents_apart_and_repeats_by_seed():
    dataset = Dataset.from_dict({"text": [f"story {n}" for n in range(20)]})
    parts = corpus.split(dataset, 5, seed=1)
    assert len(parts["held_out"]) == 5
    assert sorted([*parts["train"]["text"], *parts["held_out"]["text"]]) == sorted(dataset["text"])
    assert list(parts["held_out"]["text"]) == list(corpus.split(dataset, 5, seed=1)["held_out"]["text"])
    assert list(parts["held_out"]["text"]) != list(corpus.split(dataset, 5, seed=2)["held_out"]["text"])


@pytest.mark.parametrize("held_out", [0, 3, 4])
def test_too_few_documents_are_refused(held_out):
    dataset = Dataset.from_dict({"text": ["a", "b", "c"]})
    with pytest.raises(CorpusError, match=f"has 3 documents; {held_out} held out"):
        corpus.split(dataset, held_out, seed=0)


def test_eos_comes_once_at_the_end(tokenizer):
    eos = tokenizer.eos_token
    marked = corpus.add_eos(Dataset.from_dict({"text": ["One.", f"Two.{eos}"]}), tokenizer)
    assert list(marked["text"]) == [f"One.{eos}", f"Two.{eos}"]
    assert list(corpus.add_eos(marked, tokenizer)["text"]) == list(marked["text"])
    for ids in tokenizer(list(marked["text"]))["input_ids"]:
        assert ids[-1] == tokenizer.eos_token_id and ids.count(tokenizer.eos_token_id) == 1
    with pytest.raises(CorpusError, match="Document 1 has .* at character 3"):
        corpus.add_eos(Dataset.from_dict({"text": ["Fine.", f"One{eos}two"]}), tokenizer)


def test_statistics_count_tokens_and_padding(smoke):
    def one_token_a_letter(texts):
        return {"input_ids": [list(text) for text in texts]}

    dataset = Dataset.from_dict({"text": ["a" * 6, "a" * 2, "a" * 4, "a" * 20]})
    statistics = corpus.statistics(dataset, one_token_a_letter, replace(smoke, max_length=12, micro_batch=2))
    assert (statistics.documents, statistics.tokens, statistics.longest, statistics.truncated) == (4, 32, 20, 1)
    # padded: rows of 6 + 6 and 12 + 12 hold 6 + 2 + 4 + 12 = 24 tokens; packed: [12] and [6, 4, 2]
    assert statistics.padding_if_padded == pytest.approx(1 - 24 / 36)
    assert statistics.padding_if_packed == 0
