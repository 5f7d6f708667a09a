"""Each check against the broken case it is for, and against the mended one."""

import pytest
import torch
from datasets import Dataset

from cptlib import checks, corpus, lora, training
from cptlib.checks import PreflightError


@pytest.fixture
def make(tiny, documents, smoke, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model, tokenizer = tiny

    adapted = lora.add_adapters(model, smoke)

    def make_trainer(texts=None):
        dataset = documents["train"] if texts is None else texts
        if isinstance(texts, list):
            dataset = Dataset.from_dict({"input_ids": [tokenizer(t)["input_ids"] for t in texts]})
        return training.make_trainer(adapted, tokenizer, dataset, smoke)

    return make_trainer


def test_a_good_trainer_passes_and_can_still_train(make, capsys):
    trainer = make()
    checks.preflight(trainer)
    assert capsys.readouterr().out.count("ok ") == len(checks.CHECKS)
    assert trainer.optimizer is None
    assert trainer.train().global_step == 2


def test_a_document_without_eos_is_found(make):
    trainer = make(texts=["One.</s>", "Two."])
    assert "document 1 ends with token" in checks.eos_is_learned(trainer).problem
    with pytest.raises(PreflightError, match=r"never|not learn to stop.*Put EOS"):
        checks.preflight(trainer)


def test_pieces_of_a_cut_document_need_no_eos_but_the_last(make, documents, tokenizer):
    whole = documents["train"].select(range(2)).add_column("ends", [True, True])
    pieces = corpus.add_eos(corpus.cut(whole, tokenizer, 64), tokenizer)
    trainer = make(pieces)
    eos = tokenizer.eos_token_id
    assert sum(ids.count(eos) for ids in trainer.train_dataset["input_ids"]) == 2 < len(pieces)  # TRL has added none
    assert checks.eos_is_learned(trainer).problem is None
    trainer.documents_are_cut = False
    assert "ends with token" in checks.eos_is_learned(trainer).problem
    assert not make(corpus.add_eos(corpus.cut(whole, tokenizer, 512), tokenizer)).documents_are_cut


def test_eos_as_padding_is_found(make):
    trainer = make()
    collate = trainer.data_collator

    def mask_padding(rows):
        batch = collate(rows)
        batch["labels"][batch["input_ids"] == trainer.processing_class.eos_token_id] = -100
        return batch

    trainer.data_collator = mask_padding
    assert "masked out of the loss" in checks.eos_is_learned(trainer).problem


def test_two_bos_are_found(make):
    assert "two BOS" in checks.one_bos(make(texts=["<s><s>One.</s>"])).problem
    assert checks.one_bos(make(texts=["<s>One.</s>"])).problem is None


def test_frozen_embeddings_are_found(make):
    trainer = make()
    assert checks.embeddings_train(trainer).problem is None
    trainer.model.get_input_embeddings().weight.requires_grad_(False)
    assert "is frozen" in checks.embeddings_train(trainer).problem


def test_16_bit_embeddings_are_found(make):
    trainer = make()
    weight = trainer.model.get_input_embeddings().weight
    weight.data = weight.data.to(torch.bfloat16)
    assert "is trained as bfloat16" in checks.embeddings_train(trainer).problem


def test_a_dropped_embedding_learning_rate_is_found(make):
    trainer = make()
    assert checks.two_learning_rates(trainer).problem is None
    asked, trainer.args.embedding_learning_rate = trainer.args.embedding_learning_rate, None
    trainer.create_optimizer()
    trainer.args.embedding_learning_rate = asked
    assert "its learning rates are [0.001], not [0.0001, 0.001]" in checks.two_learning_rates(trainer).problem


def test_packed_documents_are_told_apart_by_their_positions(make):
    trainer = make()
    eos = trainer.processing_class.eos_token_id
    ids = [5, 6, eos, 7, eos]
    batch = {
        "input_ids": torch.tensor([ids]),
        "labels": torch.tensor([ids]),
        "position_ids": torch.tensor([[0, 1, 2, 0, 1]]),
    }
    trainer.data_collator = lambda rows: batch
    assert [document for document, _ in checks._documents(trainer, 1)] == [[5, 6, eos], [7, eos]]
    assert checks.eos_is_learned(trainer).problem is None
    batch["input_ids"][0, 2] = 8
    assert "document 0 ends with token 8" in checks.eos_is_learned(trainer).problem
