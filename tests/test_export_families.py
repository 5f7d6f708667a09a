"""A merged folder is read as it was trained, whatever the model's family, by transformers 5 and by transformers 4."""

import json
import os
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open
from test_export import PROMPT, logits, moved, off

from cptlib import export, lora, models, weights
from cptlib.recipe import Recipe

pytestmark = pytest.mark.cpu("float32, as plain transformers computes it on the CPU: a GPU's kernels round elsewhere")

SIZES = {
    "vocab_size": 1026,  # the tiny tokenizer's, and two tokens more
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 512,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
LLAMA3["original_max_position_embeddings"] = 64
LINEAR = {"rope_type": "linear", "factor": 8.0}
FACTORS = {"short_factor": [1.0] * 8, "long_factor": [2.0] * 8}
TWO = {
    "full_attention": {"rope_theta": 1000000.0, **LINEAR},
    "sliding_attention": {"rope_theta": 30000.0, "rope_type": "default"},
}
EXPERTS = {"moe_intermediate_size": 32, "num_experts_per_tok": 2, "first_k_dense_replace": 1}
LATENT = {
    "head_dim": 8,
    "q_lora_rank": None,
    "kv_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 16,
}
# By family: its config beside the sizes above, and what transformers 4 looks for at the top of config.json.
FAMILIES = {
    "Llama": (
        {"rope_parameters": {"rope_theta": 500000.0, **LLAMA3}},
        {"rope_theta": 500000.0, "rope_scaling": LLAMA3},
    ),
    "Qwen3": (
        {"rope_parameters": {"rope_theta": 1000000.0, "rope_type": "default"}},
        {"rope_theta": 1000000.0, "rope_scaling": None},
    ),
    "Phi3": (
        {
            "rope_parameters": {
                "rope_theta": 20000.0,
                "rope_type": "longrope",
                "partial_rotary_factor": 1.0,
                **FACTORS,
            },
            "original_max_position_embeddings": 64,
        },
        {"rope_theta": 20000.0, "rope_scaling": {"type": "longrope", **FACTORS}, "partial_rotary_factor": 1.0},
    ),
    "Gemma3": (
        {"rope_parameters": TWO, "layer_types": list(TWO), "sliding_window": 4, "query_pre_attn_scalar": 16},
        {"rope_theta": 1000000.0, "rope_local_base_freq": 30000.0, "rope_scaling": LINEAR},
    ),
    # Experts: one tensor for all of a layer in version 5's memory, many in the files; a buffer that is part of the model.
    "Qwen3Moe": (
        {"rope_parameters": {"rope_theta": 70000.0, "rope_type": "default"}, "num_experts": 4, **EXPERTS},
        {"rope_theta": 70000.0, "num_experts": 4},
    ),
    "DeepseekV3": (
        {"num_key_value_heads": 4, "n_routed_experts": 4, "n_group": 1, "topk_group": 1, **EXPERTS, **LATENT},
        {"rope_theta": 10000.0},
    ),
    "Mixtral": ({"num_local_experts": 4}, {"rope_theta": 1000000.0}),
}


def plain(family):
    """A random model of a family, in plain transformers."""
    models.quiet()
    import transformers

    kind = f"{family}Text" if family == "Gemma3" else family
    torch.manual_seed(0)
    settings, _ = FAMILIES[family]
    config = getattr(transformers, f"{kind}Config")(**SIZES | json.loads(json.dumps(settings)))
    model = getattr(transformers, f"{family}ForCausalLM")(config).eval()
    for name, buffer in model.named_buffers():
        if "bias" in name:
            buffer.copy_(torch.randn_like(buffer))  # as trained: new ones are zero, and are not missed
    return model


@pytest.fixture
def tokenizer(smoke, cache):
    """The tiny tokenizer as it comes from a recipe of short rows, with a special token of its own."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(weights.resolve(smoke.model), model_max_length=100)
    tokenizer.add_special_tokens({"extra_special_tokens": ["<fox>"]})
    return tokenizer


@pytest.mark.parametrize("family", FAMILIES)
def test_rope_is_written_for_transformers_4_too_and_5_reads_it_as_it_was(family, smoke, tokenizer, tmp_path):
    from transformers import AutoModelForCausalLM

    model = plain(family)
    folder = export.save_merged(model, tokenizer, smoke, tmp_path / "merged", "float32")
    written = json.loads((folder / "config.json").read_text())
    assert {name: written.get(name) for name in FAMILIES[family][1]} == FAMILIES[family][1]
    again = AutoModelForCausalLM.from_pretrained(folder)
    assert off(logits(again, tokenizer), logits(model, tokenizer)) < 1e-5


@pytest.mark.parametrize("form", ["adapter", "merged"])
def test_a_tokenizer_is_written_for_transformers_4_too_and_says_nothing_of_this_machine(form, tiny, smoke, tmp_path):
    from transformers import AutoTokenizer

    model, tokenizer = tiny
    tokenizer.add_special_tokens({"extra_special_tokens": ["<fox>"]})
    tokenizer.model_max_length = 100  # what a recipe's rows hold
    model = lora.add_adapters(model, replace(smoke, train_embeddings=False))
    save = {"adapter": export.save_adapter, "merged": export.save_merged}[form]
    folder = save(model, tokenizer, smoke, tmp_path / form)
    written = json.loads((folder / "tokenizer_config.json").read_text())
    assert written["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert written["model_input_names"] == ["input_ids", "attention_mask"]  # its default in version 4 has one more
    assert written["model_max_length"] == model.config.max_position_embeddings == 512
    assert written["additional_special_tokens"] == ["<fox>"]  # a list by its name in 5 is an error in 4
    assert not written.keys() & {"is_local", "local_files_only", "extra_special_tokens"}
    again = AutoTokenizer.from_pretrained(folder)
    text = "The <fox> found\n 2 boats. "
    assert again(text) == tokenizer(text) and again.all_special_tokens == tokenizer.all_special_tokens


@pytest.mark.parametrize("family", FAMILIES)
def test_the_merged_model_is_the_trained_one_and_its_files_are_named_as_the_bases(family, smoke, tmp_path):
    from transformers import AutoModelForCausalLM

    model, tokenizer, recipe = trained(family, smoke, tmp_path / "base")
    expected = logits(model, tokenizer)
    folder = export.save_merged(model, tokenizer, recipe, tmp_path / "merged", "float32")
    again = AutoModelForCausalLM.from_pretrained(folder)
    assert off(logits(again, tokenizer), expected) < 1e-5
    assert off(logits(AutoModelForCausalLM.from_pretrained(recipe.model), tokenizer), expected) > 0.5
    assert names(folder) == names(tmp_path / "base")


@pytest.mark.parametrize("kind", [{"use_dora": True}, {"lora_bias": True}, {"trainable_token_indices": [5]}])
def test_what_was_trained_and_cannot_be_merged_is_not_left_out(kind, smoke, tokenizer, tmp_path):
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(plain("Qwen3"), LoraConfig(r=4, target_modules=["q_proj"], task_type="CAUSAL_LM", **kind))
    with pytest.raises(export.ExportError, match="It cannot be merged: keep its adapter"):
        export.save_merged(model, tokenizer, smoke, tmp_path / "merged")
    assert not list(tmp_path.iterdir())


def test_a_model_with_weights_that_a_reader_does_not_know_is_not_merged(smoke, tokenizer, tmp_path):
    model = plain("Qwen3")
    model.lm_head.bias = torch.nn.Parameter(torch.ones(SIZES["vocab_size"]))
    with pytest.raises(export.ExportError, match=r"other weights than this model \(lm_head.bias and 0 more"):
        export.save_merged(model, tokenizer, smoke, tmp_path / "merged")
    assert not list(tmp_path.iterdir())


def names(folder):
    with safe_open(folder / "model.safetensors", "pt") as weights:
        return set(weights.keys())


def llama_tokenizer():
    """A SentencePiece-like tokenizer, which puts BOS in front and blanks into its pieces, of the class that is a Llama's."""
    from transformers import LlamaTokenizer

    letters = ["<unk>", "<s>", "</s>", "▁", *"Thelitfoxundarb", "▁t", "he", "▁the"]
    vocab = {piece: number for number, piece in enumerate(dict.fromkeys(letters))}
    return LlamaTokenizer(vocab=vocab, merges=[("▁", "t"), ("h", "e"), ("▁t", "he")], pad_token="<unk>")


def trained(family, smoke, folder):
    """(model, tokenizer, recipe) of a family, with adapters that are well away from where they began."""
    recipe, by = replace(Recipe.named("laptop"), dtype="float32", rank=16), 0.005  # more makes thirty layers chaotic
    if family != "SmolLM2":
        recipe, by = replace(smoke, model=str(folder)), 0.05
        _, tokenizer = models.load(smoke)
        tokenizer.add_special_tokens({"extra_special_tokens": ["<fox>"]})
        weights.save(plain(family), llama_tokenizer() if family == "Phi3" else tokenizer, folder)
    model, tokenizer = models.load(recipe)
    return moved(lora.add_adapters(model, recipe), by), tokenizer, recipe


READ = """
import sys, torch, transformers
from pathlib import Path
from transformers import AutoModelForCausalLM, AutoTokenizer
assert transformers.__version__ == "4.57.3", transformers.__version__
found = {}
for folder in Path(sys.argv[1]).glob("*/merged"):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model, info = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not any(info.values()), (folder, info)
    inputs = tokenizer(sys.argv[2], return_tensors="pt")
    with torch.no_grad():
        found[folder.parent.name] = model(**inputs).logits, tokenizer.all_special_tokens
torch.save(found, Path(sys.argv[1]) / "found.pt")
"""


@pytest.mark.slow
@pytest.mark.real
def test_transformers_4_gets_the_logits_of_the_trained_model(smoke, cache, tmp_path_factory, monkeypatch):
    monkeypatch.setenv("CPTLIB_CACHE", os.environ.get("XDG_CACHE_HOME", os.path.expanduser("~/.cache")) + "/cptlib")
    old, home, expected = tmp_path_factory.mktemp("transformers4"), tmp_path_factory.mktemp("families"), {}
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(old)]
    subprocess.run([*pip, "transformers==4.57.3", "huggingface_hub<1", "tokenizers<0.23"], check=True)
    for family in (*FAMILIES, "SmolLM2"):
        model, tokenizer, recipe = trained(family, smoke, home / family / "base")
        export.save_merged(model, tokenizer, recipe, home / family / "merged", "float32")
        expected[family] = logits(model, tokenizer), tokenizer.all_special_tokens
    environment = {**os.environ, "PYTHONPATH": str(old), "HF_HUB_OFFLINE": "1"}
    subprocess.run([sys.executable, "-c", READ, str(home), PROMPT], env=environment, check=True)
    found = torch.load(home / "found.pt")
    differences = {family: off(found[family][0], expected[family][0]) for family in expected}
    assert max(differences.values()) < 1e-4, differences  # thirty layers of float32 come to 1e-5
    assert {family: set(found[family][1]) for family in expected} == {f: set(expected[f][1]) for f in expected}
