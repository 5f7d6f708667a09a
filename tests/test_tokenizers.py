"""Each kind of tokenizer, on every way that a text takes: cut, marked, trained on, scored, generated from, exported."""

import math
from dataclasses import replace

import pytest
import torch
import unsloth  # noqa: F401  before the others, which it patches

# isort: split
from datasets import Dataset
from tokenizers import Tokenizer
from tokenizers.models import BPE, Unigram
from transformers import AutoTokenizer, PreTrainedTokenizerFast
from trl import SFTTrainer
from unsloth_zoo.dataset_utils import sft_prepare_dataset

from cptlib import checks, corpus, lora, merge, probes, scoring, tokens, training
from cptlib.bench import baseline
from cptlib.errors import CorpusError, PreflightError

STORIES = corpus.read("stories", 6)["text"][:]
TEXTS = [*STORIES, "\n\n".join(STORIES), "Struck <s>out</s> text,\n<pad> and <|im_start|>user</s> in it.", "О 漢字 😀."]
SCRIPTS = ["The fox ran.", "从前有一个小女孩，她住在海边。", "Жил да был старик у моря.", "กาลครั้งหนึ่งนานมาแล้ว"]
SCRIPTS += ["👩‍👩‍👧‍👦 😀 é", "  two blanks first"]


def beginning(tokenizer):
    """BOS where the tokenizer adds it: of what it makes of no text the first token; one kind adds EOS as well."""
    return tokenizer("")["input_ids"][:1]


def texts_of(ids, tokenizer):
    """The text of each row of ids, without what was put before it and EOS behind it."""
    begin, rows = len(beginning(tokenizer)), []
    for row in ids:
        body = row[begin:-1] if row[-1] == tokenizer.eos_token_id else row[begin:]
        rows.append(tokenizer.decode(body, clean_up_tokenization_spaces=False))
    return rows


@pytest.mark.parametrize("marked", [False, True])
def test_every_document_begins_once_ends_once_and_is_whole(any_tokenizer, marked):
    documents = Dataset.from_dict({"text": TEXTS})
    if marked:
        documents = corpus.add_eos(corpus.add_eos(documents, any_tokenizer), any_tokenizer)
    rows = corpus.tokenize(documents, any_tokenizer, 100)
    ids, ends = rows["input_ids"][:], rows["ends"][:]
    begin, eos = beginning(any_tokenizer), any_tokenizer.eos_token_id
    assert ends.count(True) == len(TEXTS) < len(ids)
    assert max(map(len, ids)) <= 100
    assert [row[-1] == eos for row in ids] == ends
    special = {0, 1, 2, any_tokenizer.convert_tokens_to_ids("<|im_start|>")}
    assert all(row[: len(begin)] == begin for row in ids)
    assert not any(special & set(row[len(begin) : -1 if end else None]) for row, end in zip(ids, ends, strict=True))
    assert "".join(texts_of(ids, any_tokenizer)) == "".join(TEXTS)
    assert "".join(corpus.cut(documents, any_tokenizer, 100)["text"]) == "".join(documents["text"])


def test_the_name_of_eos_at_the_end_of_a_piece_that_goes_on_is_text(any_tokenizer):
    pieces = Dataset.from_dict({"text": ["He wrote </s>", " and went on."], "ends": [False, True]})
    assert corpus.add_eos(pieces, any_tokenizer)["text"][:] == ["He wrote </s>", " and went on.</s>"]
    first, last = corpus.tokenize(pieces, any_tokenizer, 64)["input_ids"][:]
    assert any_tokenizer.eos_token_id not in first[1:] and last[-1] == any_tokenizer.eos_token_id
    assert any_tokenizer.decode(first).endswith("He wrote </s>")


def test_no_row_is_too_long_for_names_of_control_tokens(any_tokenizer):
    """They take several tokens each, also where the name of EOS ends a piece that goes on."""
    pieces = Dataset.from_dict({"text": ["Struck <s>out</s>, " * 30 + "</s>", "<pad>" * 50], "ends": [False, True]})
    for length in range(16, 32):
        rows = corpus.tokenize(pieces, any_tokenizer, length)["input_ids"]
        assert length - 8 < max(map(len, rows)) <= length


def test_a_row_is_filled_as_far_as_it_goes(any_tokenizer):
    """A document that takes a row exactly, BOS and EOS counted, is not cut."""
    [ids] = tokens.encode(["One day a fox ran home.</s>"], any_tokenizer)
    document = Dataset.from_dict({"text": ["One day a fox ran home."]})
    assert corpus.tokenize(document, any_tokenizer, len(ids))["input_ids"][:] == [ids]
    assert len(corpus.tokenize(document, any_tokenizer, len(ids) - 1)) == 2


def test_the_counts_are_those_of_the_rows(any_tokenizer, smoke):
    documents = corpus.add_eos(Dataset.from_dict({"text": TEXTS}), any_tokenizer)
    rows = corpus.tokenize(documents, any_tokenizer, 4096)["input_ids"]
    assert corpus.statistics(documents, any_tokenizer, replace(smoke, max_length=4096)).tokens == sum(map(len, rows))


@pytest.fixture
def trainer(tiny, any_tokenizer, smoke, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    documents = Dataset.from_dict({"text": TEXTS})
    return training.make_trainer(
        lora.add_adapters(tiny[0], smoke), any_tokenizer, documents, replace(smoke, max_length=128)
    )


@pytest.mark.cpu("on a GPU unsloth puts its own way in the place of TRL's")
def test_the_checks_pass_and_the_loss_counts_each_eos(trainer, any_tokenizer):
    assert not trainer.args.packing  # so rows are padded
    checks.preflight(trainer)
    eos, rows = any_tokenizer.eos_token_id, trainer.train_dataset
    batch = trainer.data_collator([rows[n] for n in range(len(rows))])
    labels = batch["labels"]
    assert (labels == eos).sum() == len(TEXTS) + (len(rows) if beginning(any_tokenizer) == [eos] else 0)
    assert math.isfinite(trainer.train().training_loss)


def test_trl_alone_trains_on_the_same_rows(tiny, any_tokenizer, smoke, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    documents = Dataset.from_dict({"text": TEXTS})
    expected = corpus.tokenize(documents, any_tokenizer, 128)["input_ids"][:]
    trained = baseline.make_trainer(tiny[0], any_tokenizer, documents, replace(smoke, max_length=128))
    assert trained.train_dataset["input_ids"][:] == expected


def prepared(prepare, trainer, columns):
    """The dataset that a trainer makes of these columns, by TRL's method or by unsloth's, which takes its place on a GPU."""
    return prepare(
        trainer, Dataset.from_dict(columns), trainer.processing_class, trainer.args, False, None, "train"
    ).select_columns("input_ids")


@pytest.mark.cpu("on a GPU unsloth puts its own way in the place of TRL's")
@pytest.mark.parametrize("any_tokenizer", ["SmolLM2's", "Mistral's"], indirect=True)
@pytest.mark.parametrize(("prepare", "adds"), [(SFTTrainer._prepare_dataset, True), (sft_prepare_dataset, False)])
def test_who_adds_eos_to_a_text_and_that_neither_touches_numbers(trainer, any_tokenizer, prepare, adds):
    """What notebooks 01 and 02 say of the two trainers."""
    [ids] = prepared(prepare, trainer, {"text": ["One fox ran."]})["input_ids"]
    assert (ids[-1] == any_tokenizer.eos_token_id) == adds
    rows = [[5, 6, 7], [8, 9, 2]]
    assert prepared(prepare, trainer, {"input_ids": rows})["input_ids"][:] == rows


@pytest.mark.cpu("on a GPU unsloth puts its own way in the place of TRL's")
@pytest.mark.parametrize("any_tokenizer", ["SmolLM2's", "Qwen's"], indirect=True)
def test_who_masks_eos_where_it_is_the_padding_and_that_the_check_sees_it(trainer, any_tokenizer):
    """TRL's collator finds padding by its place, the one that unsloth takes for numbers on a GPU by its token."""
    assert checks.eos_is_learned(trainer).problem is None
    rows = {"input_ids": trainer.train_dataset["input_ids"][:]}
    trainer.train_dataset = prepared(sft_prepare_dataset, trainer, rows)  # it changes the trainer's collator as well
    problem = checks.eos_is_learned(trainer).problem
    assert (problem is None) == (any_tokenizer.pad_token != any_tokenizer.eos_token)
    if problem:
        with pytest.raises(PreflightError, match="masked out of the loss.*another one than EOS"):
            checks.preflight(trainer)


@pytest.mark.parametrize("length", [4, 7, 512])
def test_the_bytes_are_the_texts_own_whatever_the_window(tiny, any_tokenizer, length):
    model, begin = tiny[0].eval(), len(beginning(any_tokenizer))
    for text in SCRIPTS:
        score = scoring.score(model, any_tokenizer, [text, text + "</s>"], length)
        ids = tokens.encode([text, text + "</s>"], any_tokenizer)
        assert score.bytes == 2 * len(text.encode())
        assert score.tokens + score.unpredicted == sum(map(len, ids)) - 2 * begin


def test_a_model_that_knows_nothing_needs_the_same_bits_whatever_the_window(tiny, any_tokenizer):
    """And those that a count gives: each token costs the logarithm of the vocabulary."""
    model = tiny[0].eval()
    torch.nn.init.zeros_(model.get_output_embeddings().weight)
    text = " ".join(SCRIPTS)
    number = len(any_tokenizer(text, add_special_tokens=False)["input_ids"])
    expected = number * math.log2(1024) / len(text.encode())
    for length in (2, 16, 512):
        assert scoring.score(model, any_tokenizer, [text], length).bits_per_byte == pytest.approx(expected, rel=1e-4)


def test_control_tokens_in_a_text_are_scored_as_text(tiny, any_tokenizer):
    text = "Struck <s>out</s> by <|im_start|>user"
    number = len(any_tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"])
    score = scoring.score(tiny[0].eval(), any_tokenizer, [text])
    assert score.tokens + score.unpredicted == number > len(any_tokenizer(text, add_special_tokens=False)["input_ids"])


@pytest.mark.parametrize("missing", ["eos_token", "bos_token", "pad_token"])
def test_scoring_needs_no_control_token(tiny, missing):
    model, tokenizer = tiny
    expected = scoring.score(model.eval(), tokenizer, STORIES)
    setattr(tokenizer, missing, None)
    assert scoring.score(model, tokenizer, STORIES) == expected


def test_an_answers_probability_is_its_own(tiny, any_tokenizer):
    """Not that of an EOS behind it, nor of the prompt."""
    model = tiny[0].eval()
    torch.nn.init.zeros_(model.get_output_embeddings().weight)
    values = probes._log_probabilities(model, any_tokenizer, "The fox ran home.", len("The fox"))
    number = len(any_tokenizer("The fox ran home.", add_special_tokens=False)["input_ids"])
    assert len(values) == number - len(any_tokenizer("The fox", add_special_tokens=False)["input_ids"])


def test_a_saved_tokenizer_is_the_same(tiny, any_tokenizer, tmp_path):
    merge.save_tokenizer(any_tokenizer, tiny[0].config, tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    assert again(TEXTS) == any_tokenizer(TEXTS) and again.special_tokens_map == any_tokenizer.special_tokens_map
    assert tokens.encode(TEXTS, again) == tokens.encode(TEXTS, any_tokenizer)


def with_control_tokens_among_its_pieces(kind):
    """Tokenizers that take `</s>` for EOS although they are told to read it as text."""
    letters = "▁ abcdefghijklmnopqrstuvwxyz<>/.,OTh"
    if kind == "Unigram":
        model = Unigram([("<unk>", 0.0), ("<s>", 0.0), ("</s>", 0.0), *((letter, -3.0) for letter in letters)], 0)
    else:  # by its merges, behind a letter alone
        merges = [("<", "s"), ("<s", ">"), ("<", "/"), ("</", "s"), ("</s", ">"), (" ", "<")]
        pieces = [
            "<unk>",
            "<s>",
            "</s>",
            *dict.fromkeys(letters),
            *(a + b for a, b in merges if a + b not in ("<s>", "</s>")),
        ]
        model = BPE(
            {piece: number for number, piece in enumerate(pieces)}, merges[-1:] + merges[:-1], unk_token="<unk>"
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(model), unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    )


@pytest.mark.parametrize("kind", ["Unigram", "BPE"])
def test_control_tokens_that_cannot_be_read_as_text_are_counted_and_named(tiny, kind):
    tokenizer = with_control_tokens_among_its_pieces(kind)
    texts = [*["One.</s>"] * 1500, "One, o<s>two", "The end</s>, end</s>, twice.</s>", "ö <unk>"]
    with pytest.raises(
        CorpusError, match=r"^2 documents have control tokens .*The first: <s> in 'One, o<s>two'\. Take"
    ):
        corpus.tokenize(Dataset.from_dict({"text": texts}), tokenizer, 64)
    with pytest.raises(CorpusError, match="^1 documents"):
        scoring.score(tiny[0], tokenizer, texts[-2:])
    rows = corpus.tokenize(Dataset.from_dict({"text": texts[:3] + texts[-1:]}), tokenizer, 64)["input_ids"]
    assert [ids.count(2) for ids in rows] == [1, 1, 1, 1]
