from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from cptlib import lora, shapes
from cptlib.recipe import Recipe

MISTRAL_7B = SimpleNamespace(
    hidden_size=4096,
    intermediate_size=14336,
    num_hidden_layers=32,
    num_attention_heads=32,
    num_key_value_heads=8,
    vocab_size=32768,
    tie_word_embeddings=False,
)


def test_scaling():
    assert lora.scaling(128, 32, rslora=False) == 0.25
    assert lora.scaling(64, 32, rslora=True) == 4.0
    with pytest.raises(ValueError, match="above 0"):
        lora.scaling(0, 32, rslora=True)


def test_the_figure_shows_both_scalings_meeting_at_rank_8():
    ax = lora.plot_scaling(alpha=32, rank=128)
    plain, stabilized = (line.get_ydata() for line in ax.lines[:2])
    assert plain[0] == pytest.approx(stabilized[0]) == 4.0
    assert plain[40] == pytest.approx(0.25) and stabilized[40] == pytest.approx(1.0)


def test_mistral_7b_has_the_reference_posts_count():
    counts = shapes.count_from_config(MISTRAL_7B, Recipe.named("a100"))
    assert sum(counts.values()) == 603_979_776


@pytest.mark.parametrize("embeddings", [True, False])
def test_the_count_from_the_config_is_the_models(tiny, smoke, embeddings):
    recipe = replace(smoke, train_embeddings=embeddings)
    model = lora.add_adapters(tiny[0], recipe)
    counts = lora.count_trainable(model)
    assert {part: counts[part] for part in ("adapters", "embed_tokens", "lm_head")} == shapes.count_from_config(
        model.config, recipe
    )


def test_adapters_are_scaled_by_rslora_on_all_seven_projections(tiny, smoke):
    model = lora.add_adapters(tiny[0], smoke)
    adapted = [module for module in model.modules() if hasattr(module, "lora_A") and hasattr(module, "scaling")]
    assert len(adapted) == 7 * model.config.num_hidden_layers
    assert {module.scaling["default"] for module in adapted} == {smoke.alpha / smoke.rank**0.5}


def test_trained_embeddings_are_float32_and_stay_tied(tiny, smoke):
    model = lora.add_adapters(tiny[0].to(torch.bfloat16), smoke)
    embedding, head = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    assert embedding.requires_grad and embedding.dtype == torch.float32
    assert head.data_ptr() == embedding.data_ptr()
    with torch.no_grad():
        embedding += 1
    assert torch.equal(model.get_output_embeddings().weight, embedding)
