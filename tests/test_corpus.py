import json
import re
from collections import Counter
from dataclasses import replace

import pytest
from datasets import Dataset
from tokenizers import Tokenizer
from tokenizers.models import BPE
from transformers import PreTrainedTokenizerFast

from cptlib import corpus
from cptlib.documents import formats
from cptlib.errors import CorpusError


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


def test_a_long_text_file_is_one_document(tmp_path, monkeypatch, tokenizer):
    """However its reader hands it out: no white space is lost at a seam, and it ends once."""
    monkeypatch.setattr(formats, "LONGEST_PIECE", 2000)
    text = "\n\n".join(corpus.read("stories", 30)["text"])
    (tmp_path / "a.txt").write_text(f"{text}\n<|endoftext|>\nA short one.\n", encoding="utf-8")
    documents = corpus.read(str(tmp_path / "a.txt"))
    assert documents["ends"][:].count(True) == 2 and len(documents) > 5
    assert "".join(documents["text"][:-1]) == text
    assert corpus.read(str(tmp_path / "a.txt"), documents=1)["text"][:] == documents["text"][:-1]
    assert corpus.tokenize(documents, tokenizer, 64)["ends"][:].count(True) == 2


def test_no_token_is_lost_on_the_way_to_rows(tokenizer):
    """Of documents shorter and longer than a row, with and without an EOS already there."""
    stories = corpus.read("stories", 12)["text"][:]
    long = "\n\n".join(stories)
    eos, texts = tokenizer.eos_token_id, [*stories, long, long + tokenizer.eos_token]
    rows = corpus.tokenize(Dataset.from_dict({"text": texts}), tokenizer, 100)
    assert rows.column_names == ["ends", "input_ids"] and max(map(len, rows["input_ids"])) <= 100
    assert [ids[-1] == eos for ids in rows["input_ids"]] == rows["ends"][:]
    assert sum(ids.count(eos) for ids in rows["input_ids"]) == len(texts)
    assert (
        "".join(tokenizer.batch_decode(rows["input_ids"][:], skip_special_tokens=True)) == "".join(stories) + 2 * long
    )
    assert corpus.open_pieces(rows) == len(rows) - len(texts) > 0


def test_a_row_without_room_and_a_tokenizer_without_eos_are_refused(tokenizer):
    documents = Dataset.from_dict({"text": ["One."]})
    with pytest.raises(CorpusError, match="A row of 1 tokens has no room"):
        corpus.cut(documents, tokenizer, 1)
    tokenizer.eos_token = None
    with pytest.raises(CorpusError, match="no end-of-sequence token"):
        corpus.add_eos(documents, tokenizer)


def test_eos_comes_once_at_the_end(tokenizer):
    eos = tokenizer.eos_token
    marked = corpus.add_eos(Dataset.from_dict({"text": ["One.", f"Two.{eos}"]}), tokenizer)
    assert list(marked["text"]) == [f"One.{eos}", f"Two.{eos}"]
    assert list(corpus.add_eos(marked, tokenizer)["text"]) == list(marked["text"])
    for ids in tokenizer(list(marked["text"]))["input_ids"]:
        assert ids[-1] == tokenizer.eos_token_id and ids.count(tokenizer.eos_token_id) == 1


def test_the_name_of_eos_within_a_text_stops_no_run_and_no_text(tokenizer):
    """One document of a thousand may hold HTML's `</s>`; it is read as text, and none but the last is EOS."""
    eos, texts = tokenizer.eos_token, ["Fine.", "Struck </s> out.", "Twice </s></s>."]
    marked = corpus.add_eos(Dataset.from_dict({"text": texts}), tokenizer)
    assert list(marked["text"]) == [text + eos for text in texts]
    for ids, text in zip(corpus.tokenize(marked, tokenizer, 64)["input_ids"], texts, strict=True):
        assert ids.index(tokenizer.eos_token_id) == len(ids) - 1 and tokenizer.decode(ids[:-1]) == text


def test_statistics_count_tokens_and_padding(smoke):
    one_token_a_letter = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(BPE({"a": 0}, [])))
    dataset = Dataset.from_dict({"text": ["a" * 6, "a" * 2, "a" * 4, "a" * 20]})
    statistics = corpus.statistics(dataset, one_token_a_letter, replace(smoke, max_length=12, micro_batch=2))
    assert (statistics.documents, statistics.tokens, statistics.longest, statistics.longer) == (4, 32, 20, 1)
    # the longest is cut into 12 + 8; padded: rows of 6 + 6, 12 + 12 and 8; packed: [12], [8, 4] and [6, 2]
    assert statistics.padding_if_padded == pytest.approx(1 - 32 / 44)
    assert statistics.padding_if_packed == pytest.approx(1 - 32 / 36)
