"""Each check against the broken case it is for, and against the mended one."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from datasets import Dataset
from transformers import DataCollatorForLanguageModeling
from trl import pack_dataset

from cptlib import checks, corpus, lora, models, training
from cptlib.errors import PreflightError

PASSES = len(checks.LOOKS + checks.TRIALS)


@pytest.fixture
def make(documents, smoke, tmp_path, monkeypatch):
    """A trainer for texts (the stories, if none are given) and a recipe with some fields changed."""
    monkeypatch.chdir(tmp_path)

    def make_trainer(texts=None, **changes):
        recipe = replace(smoke, **changes)
        model, tokenizer = models.load(recipe)
        if isinstance(texts, list):
            texts = Dataset.from_dict({"input_ids": [tokenizer(text)["input_ids"] for text in texts]})
        model = lora.add_adapters(model, recipe)
        return training.make_trainer(model, tokenizer, documents["train"] if texts is None else texts, recipe)

    return make_trainer


def test_a_good_trainer_passes_and_can_still_train(make, capsys):
    trainer = make()
    checks.preflight(trainer)
    table = capsys.readouterr().out.splitlines()
    assert sum(line.endswith("  ok") for line in table) == PASSES
    assert len({line.rindex(" ") for line in table if line.endswith("  ok")}) == 1  # one column
    assert trainer.optimizer is None
    assert trainer.train().global_step == 2


def test_16_bit_weights_beside_float32_ones_pass(make):
    checks.preflight(make(dtype="bfloat16"))


def test_the_model_is_not_run_on_what_would_break_it(make, capsys):
    trainer = make(texts=["One.", "Two."])
    trainer.model.forward = None
    with pytest.raises(PreflightError, match="not learn to stop.*Put EOS"):
        checks.preflight(trainer)
    assert "the loss counts it" in capsys.readouterr().out


def test_a_document_without_eos_is_found(make):
    assert "document 1 ends with token" in checks.eos_is_learned(make(texts=["One.</s>", "Two."])).problem


def test_eos_in_the_middle_of_a_document_is_found(make):
    problem = checks.eos_is_learned(make(texts=["One.</s>", "Two.</s>Three.</s>"])).problem
    assert "document 1 has EOS (2) in its middle" in problem
    assert checks.eos_is_learned(make(texts=["One.</s>", "Two.Three.</s>"])).problem is None


def test_pieces_of_a_cut_document_need_no_eos_but_the_last(make, documents, tokenizer):
    whole = documents["train"].select(range(2)).add_column("ends", [True, True])
    pieces = corpus.add_eos(corpus.cut(whole, tokenizer, 64), tokenizer)
    trainer = make(pieces)
    eos = tokenizer.eos_token_id
    assert sum(ids.count(eos) for ids in trainer.train_dataset["input_ids"]) == 2 < len(pieces)  # TRL has added none
    assert checks.eos_is_learned(trainer).problem is None
    trainer.open_pieces -= 1
    problem = checks.eos_is_learned(trainer).problem
    assert f"{len(pieces) - 2} documents end without EOS (2) and {len(pieces) - 3} may" in problem
    checks.preflight(trainer, open_pieces=len(pieces) - 2)


def test_a_document_without_eos_is_found_wherever_it_lies(make, smoke):
    """Behind the first rows as among them, packed rows included."""
    texts = [f"Story {n}.</s>" for n in range(40)]
    texts[33] = "Story 33."
    trainer = make(texts=texts)
    assert "1 documents end without EOS (2): document" in checks.eos_is_learned(trainer).problem
    assert checks.eos_is_learned(make(texts=texts[:33])).problem is None
    trainer.train_dataset = pack_dataset(Dataset.from_dict({"input_ids": trainer.train_dataset["input_ids"]}), 64)
    assert "1 documents end without EOS (2): document" in checks.eos_is_learned(trainer).problem


def test_a_trainer_for_long_documents_loses_nothing(make, tokenizer):
    """Whoever makes it: what is longer than a row is cut, and each document ends once."""
    stories = corpus.read("stories", 12)["text"][:]
    trainer = make(Dataset.from_dict({"text": ["\n\n".join(stories), *stories[:3]]}), max_length=128)
    ids = trainer.train_dataset["input_ids"]
    expected = len(tokenizer("\n\n".join(stories))["input_ids"]) + sum(
        len(tokenizer(s)["input_ids"]) for s in stories[:3]
    )
    assert max(map(len, ids)) <= 128 and expected <= sum(map(len, ids)) < 1.02 * expected
    assert sum(row.count(tokenizer.eos_token_id) for row in ids) == 4
    checks.preflight(trainer)


def test_eos_as_padding_is_found(make):
    trainer = make()
    trainer.data_collator = DataCollatorForLanguageModeling(trainer.processing_class, mlm=False)
    trainer.train_dataset = trainer.train_dataset.select_columns("input_ids")
    assert checks.eos_is_learned(trainer).problem is None
    trainer.processing_class.pad_token = trainer.processing_class.eos_token
    assert "masked out of the loss" in checks.eos_is_learned(trainer).problem


def test_two_bos_are_found(make):
    assert "two BOS" in checks.one_bos(make(texts=["<s><s>One.</s>"])).problem
    assert checks.one_bos(make(texts=["<s>One.</s>"])).problem is None


def test_labels_all_masked_are_found(make):
    trainer = make(texts=["One two three.</s>", "Four five six.</s>"])
    assert checks.something_is_learned(trainer).problem is None
    trainer.train_dataset = trainer.train_dataset.select_columns("input_ids")
    collate = DataCollatorForLanguageModeling(trainer.processing_class, mlm=False)  # a row for each, on a GPU too

    def mask_prompts(rows):
        batch = collate(rows)
        batch["labels"][1] = -100
        return batch

    trainer.data_collator = mask_prompts
    assert "all labels of document 1 are masked" in checks.something_is_learned(trainer).problem


def test_frozen_embeddings_are_found(make):
    trainer = make()
    assert checks.embeddings_train(trainer).problem is None
    trainer.model.get_input_embeddings().weight.requires_grad_(False)
    assert "is frozen" in checks.embeddings_train(trainer).problem


def test_adapters_alone_are_no_failure(make):
    checks.preflight(make(train_embeddings=False))


def test_16_bit_embeddings_are_found_since_their_updates_round_away(make):
    trainer = make()
    weight = trainer.model.get_input_embeddings().weight
    update = trainer.args.embedding_learning_rate * 0.01
    assert checks.embeddings_train(trainer).problem is None and not torch.equal(weight + weight * update, weight)
    weight.data = weight.data.to(torch.bfloat16)
    assert torch.equal(weight + weight * update, weight)  # the trap itself
    assert "is trained as bfloat16" in checks.embeddings_train(trainer).problem


def test_a_dropped_embedding_learning_rate_is_found(make):
    trainer = make()
    assert checks.two_learning_rates(trainer).problem is None
    asked, trainer.args.embedding_learning_rate = trainer.args.embedding_learning_rate, None
    trainer.create_optimizer()
    trainer.args.embedding_learning_rate = asked
    assert "its learning rates are [0.001], not [0.0001, 0.001]" in checks.two_learning_rates(trainer).problem


def test_untied_embeddings_are_found(tiny, smoke):
    from unsloth import FastLanguageModel

    model = FastLanguageModel.get_peft_model(tiny[0], **{**lora.adapter_arguments(smoke), "ensure_weight_tying": False})
    assert "two matrices now" in checks.tied_stay_tied(SimpleNamespace(model=model)).problem


def test_tied_embeddings_pass(make):
    trainer = make()
    assert trainer.model.config.tie_word_embeddings and checks.tied_stay_tied(trainer).problem is None


def test_a_document_longer_than_the_models_positions_is_found(make):
    trainer = make(max_length=1024, texts=["fox " * 600 + "</s>"])
    assert "the model knows 512 positions" in checks.positions_fit(trainer).problem
    trainer = make(max_length=512, texts=["fox " * 100 + "</s>"])
    assert checks.positions_fit(trainer).problem is None


def test_packed_rows_may_be_longer_than_the_positions():
    packed = Dataset.from_dict({"input_ids": [[1] * 9], "seq_lengths": [[4, 5]]})
    assert max(map(len, checks._all_documents(packed))) == 5


def test_token_ids_beyond_the_embedding_are_found(make):
    trainer = make()
    assert checks.ids_fit(trainer).problem is None
    trainer.processing_class.add_tokens(["<new>"])
    rows = trainer.model.get_input_embeddings().weight.shape[0]
    assert checks.ids_fit(trainer).problem == f"the tokenizer's largest id is {rows}, the embedding has {rows} rows"


def test_float16_overflow_is_found_before_the_first_step(make):
    trainer = make()
    assert checks.loss_is_a_number(trainer).problem is None
    half = trainer.model.to(torch.float16)
    torch.nn.init.constant_(half.get_input_embeddings().weight, 60)  # tied: logits of 64 × 60 × 60 and more
    half.base_model.model.model.norm.weight.data.fill_(60)
    assert checks.loss_is_a_number(trainer).problem is not None
    trainer.model.float()
    assert checks.loss_is_a_number(trainer).problem is None


def test_a_float16_run_of_few_steps_is_found():
    args = SimpleNamespace(fp16=True, max_steps=4)
    assert "4 steps" in checks.steps_suffice(SimpleNamespace(args=args)).problem
    for fits in ({"fp16": False, "max_steps": 4}, {"fp16": True, "max_steps": 5}, {"fp16": True, "max_steps": -1}):
        assert checks.steps_suffice(SimpleNamespace(args=SimpleNamespace(**fits))).problem is None


def test_a_gradient_that_is_no_number_stops_the_run(make):
    trainer = make(epochs=4, max_steps=-1)
    checks.preflight(trainer)
    compute, steps = trainer.compute_loss, []

    def overflow_at_the_third(*args, **kwargs):
        steps.append(1)
        return compute(*args, **kwargs) * (float("inf") if len(steps) == 3 else 1)

    trainer.compute_loss = overflow_at_the_third
    with pytest.raises(PreflightError, match=r"gradient of step 3 is (nan|inf)"):
        trainer.train()


def test_checking_again_adds_nothing(make):
    trainer = make()
    checks.preflight(trainer)
    once = list(trainer.callback_handler.callbacks)
    checks.preflight(trainer)
    assert trainer.callback_handler.callbacks == once


def test_float16_may_skip_its_first_steps(make):
    trainer = make()
    checks.stop_at_nan(trainer)
    callback = trainer.callback_handler.callbacks[-1]
    args, state = SimpleNamespace(fp16=True), SimpleNamespace(global_step=1)
    for norm in ["nan"] * 9 + ["0.5"] + ["inf"] * 9:
        callback.on_log(args, state, None, {"grad_norm": norm})
    with pytest.raises(PreflightError):
        callback.on_log(args, state, None, {"grad_norm": "nan"})


def packed(trainer, texts):
    """A batch of one packed row, padded at its end, as unsloth's packing collator makes it."""
    rows = [trainer.processing_class(text)["input_ids"] for text in texts]
    pad = trainer.processing_class.pad_token_id
    ids = torch.tensor([[token for row in rows for token in row] + [pad] * 3])
    labels = ids.masked_fill(ids == pad, -100)
    return {"input_ids": ids, "labels": labels, "packed_seq_lengths": torch.tensor([len(row) for row in rows])}


def test_packed_documents_are_told_apart_and_the_padding_behind_them_is_none(make):
    trainer = make()
    eos = trainer.processing_class.eos_token_id
    batch = packed(trainer, ["The fox.</s>", "A boat.</s>"])
    trainer.data_collator = lambda rows: batch
    assert [ids[-1] for ids, _ in checks._documents(trainer, 1)] == [eos, eos]
    assert checks.eos_is_learned(trainer).problem is None and checks.something_is_learned(trainer).problem is None
    batch["input_ids"][0, 2] = eos
    assert "document 0 has EOS" in checks.eos_is_learned(trainer).problem
