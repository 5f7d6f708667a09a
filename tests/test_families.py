"""Models that others make: each family is trained, kept and loaded again, or refused in one sentence.

`pytest tests/test_families.py -s` prints a table of them.
"""

from dataclasses import replace

import pytest
import torch
from test_export import logits, off
from test_export_families import EXPERTS, LATENT, SIZES

from cptlib import checks, corpus, export, lora, models, run, shapes, training, weights
from cptlib.errors import PreflightError

pytestmark = pytest.mark.cpu("what unsloth's CPU backend takes; a GPU's kernels ask for larger heads")

GPT2 = {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 512}
ROUTED = {"num_key_value_heads": 4, "n_routed_experts": 4, "n_group": 1, "topk_group": 1}
# By its config's name: what it has beside SIZES, and where it is refused, a part of the sentence.
FAMILIES = {
    "Llama": ({"tie_word_embeddings": True}, None),
    "Mistral": ({}, None),
    "Qwen2": ({}, None),
    "Qwen3": ({}, None),
    "Gemma2": ({}, None),
    "Gemma3Text": ({"layer_types": ["full_attention", "sliding_attention"], "sliding_window": 4}, None),
    "Phi3": ({}, None),
    "Olmo2": ({}, None),
    "SmolLM3": ({}, None),
    "Granite": ({}, None),
    "GPT2": (GPT2, None),
    "GPTNeoX": ({}, None),
    "Lfm2": ({"layer_types": ["conv", "full_attention"]}, None),
    "Qwen3Moe": ({"num_experts": 4, **EXPERTS}, None),
    "Mixtral": ({"num_local_experts": 4}, None),
    "DeepseekV3": (
        {**ROUTED, **EXPERTS, **LATENT},
        r"of 16 linear layers 6 have no adapter, layers.0.mlp.gate_proj.weight among them",
    ),
}


def config_of(family):
    models.quiet()
    import transformers

    kind = getattr(transformers, f"{family}Config")
    unlike = ("num_key_value_heads", "head_dim") if family == "GPTNeoX" else ()
    return kind(**{name: size for name, size in (SIZES | FAMILIES[family][0]).items() if name not in unlike})


@pytest.fixture(scope="module")
def table():
    """What came of each family, printed when all are through."""
    rows = {}
    yield rows
    print("\n", *(f"{family:12} {outcome}" for family, outcome in rows.items()), sep="\n")


@pytest.fixture(scope="session")
def documents():
    return corpus.split(corpus.read("stories", 12), 4, 0)


@pytest.fixture
def recipe_of(smoke, cache, tmp_path, monkeypatch):
    """A function of a family to the smoke recipe with a random model of it, in a folder."""
    monkeypatch.chdir(tmp_path)

    def made(family):
        from transformers import AutoModelForCausalLM, AutoTokenizer

        torch.manual_seed(0)
        tokenizer = AutoTokenizer.from_pretrained(weights.resolve(smoke.model))
        weights.save(AutoModelForCausalLM.from_config(config_of(family)), tokenizer, tmp_path / family)
        return replace(smoke, model=str(tmp_path / family), max_length=128)

    return made


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_is_trained_and_loaded_again_or_refused_in_a_sentence(family, recipe_of, documents, table, tmp_path):
    recipe, refused = recipe_of(family), FAMILIES[family][1]
    ready = run.prepare(recipe, documents)
    if refused:
        with pytest.raises(PreflightError, match=refused):
            checks.preflight(ready.trainer)
        table[family] = f"refused: {refused}"
        return
    numbers = lora.count_trainable(ready.model)
    told = shapes.count_from_config(config_of(family), recipe)
    assert {part: numbers[part] for part in told} == told
    assert shapes.counts(config_of(family)).linear + shapes.counts(config_of(family)).other == numbers["frozen"]
    checks.preflight(ready.trainer)
    before = logits(ready.model.eval(), ready.tokenizer)
    ready.trainer.train()
    trained = logits(ready.model.eval(), ready.tokenizer)
    assert off(trained, before) > 1e-3
    export.save_adapter(ready.model, ready.tokenizer, recipe, tmp_path / "adapter")
    assert off(logits(*export.load(tmp_path / "adapter")), trained) < 1e-5
    export.save_merged(ready.model, ready.tokenizer, recipe, tmp_path / "merged", "float32")
    assert off(logits(*export.load(tmp_path / "merged")), trained) < 1e-4
    table[family] = f"trained, kept, merged; weights: {numbers}"


def test_linear_layers_that_a_list_of_names_leaves_out_are_told(recipe_of, documents):
    """Llama's names on LFM2: attention gets adapters, its output, the MLP and the convolution do not."""
    from unsloth import FastLanguageModel

    recipe = recipe_of("Lfm2")
    model, tokenizer = models.load(recipe)
    model = FastLanguageModel.get_peft_model(model, **lora.adapter_arguments(recipe))
    trainer = training.make_trainer(lora.train_in_float32(model), tokenizer, documents["train"], recipe)
    with pytest.raises(
        PreflightError, match="of 12 linear layers 9 have no adapter, layers.0.conv.in_proj.weight among"
    ):
        checks.preflight(trainer)


def test_a_model_that_is_trained_whole_needs_no_adapters(recipe_of, documents):
    recipe = recipe_of("Mixtral")
    model, tokenizer = models.load(recipe)
    trainer = training.make_trainer(model.train(), tokenizer, documents["train"], recipe)
    assert checks.linear_layers_are_adapted(trainer).problem is None
    model.model.layers[0].mlp.experts.requires_grad_(False)
    problem = "of 12 linear layers 2 have no adapter, layers.0.mlp.experts.gate_up_proj among them"
    assert checks.linear_layers_are_adapted(trainer).problem == problem
