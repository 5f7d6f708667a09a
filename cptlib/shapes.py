"""What a model's config tells without its weights: shapes of known models, and how many weights are where.

A config is transformers' own, or a known shape's, with the attributes of a Llama's; it is handed in, never fetched.
"""

import json
import math
from dataclasses import dataclass
from functools import lru_cache
from types import SimpleNamespace
from typing import Any

from cptlib import hints
from cptlib.errors import ModelError
from cptlib.recipe import SHAPE, SMOLLM2, Recipe

# Shapes of known models, for measuring speed and memory where their weights cannot be had: a Llama's config.
_FIELDS = (
    "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
    "num_key_value_heads", "max_position_embeddings", "tie_word_embeddings",
)  # fmt: skip
SHAPES: dict[str, dict[str, Any]] = {
    name: dict(zip(_FIELDS, sizes, strict=True))
    for name, sizes in {
        "mistral-7b": (32768, 4096, 14336, 32, 32, 8, 32768, False),
        "llama-1b": (128256, 2048, 8192, 16, 32, 8, 32768, True),
        "smollm2-135m": (49152, 576, 1536, 30, 9, 3, 8192, True),
    }.items()
}
# Model types whose layers keep for the backward pass what a Llama's do, as far as is known (`kept_per_token`).
LLAMAS = ("llama", "mistral", "qwen2", "qwen3", "smollm3", "granite", "olmo2")
KNOWN = {"unsloth/mistral-7b-v0.3": "mistral-7b", SMOLLM2: "smollm2-135m"}


def known_config(model: str) -> hints.Config | None:
    """The config of a recipe's model where its shape is known here; None for others."""
    shape = SHAPES.get(KNOWN.get(model, model.removeprefix(SHAPE)))
    return SimpleNamespace(**shape) if shape else None


@dataclass(frozen=True)
class Counts:
    """Numbers of weights. linear: in the matrices and experts of all layers, which 4 bits hold. other: what is frozen
    besides, tables among them. per_rank: in adapters of rank 1. table: in the embedding. head: in a head of its own, else 0."""

    linear: int
    other: int
    per_rank: int
    table: int
    head: int


def counts(config: Any) -> Counts:
    """A model's Counts from its config alone: by arithmetic for a known shape, for others from the model without weights.

    Raises ModelError where transformers has no model for it that continues text.
    """
    if hasattr(config, "model_type"):
        settings = {**config.to_dict(), "quantization_config": None}  # sizes are asked for, however they are loaded
        return _counts_of_model(json.dumps(settings, default=str))
    hidden, inner, layers = config.hidden_size, config.intermediate_size, config.num_hidden_layers
    keys = hidden // config.num_attention_heads * config.num_key_value_heads
    matrices = [(hidden, hidden), (hidden, keys)] * 2 + [(hidden, inner)] * 3
    linear, per_rank = sum(i * o for i, o in matrices), sum(i + o for i, o in matrices)
    table = config.vocab_size * hidden
    head = 0 if config.tie_word_embeddings else table
    return Counts(layers * linear, table + head, layers * per_rank, table, head)


@lru_cache(maxsize=16)
def _counts_of_model(text: str) -> Counts:
    """The Counts of a config written as JSON. What peft puts on stacked experts has its rank for each matrix in a stack."""
    model = _without_weights(text)
    adapted = linear_weights(model)
    linear = sum(weight.numel() for weight in adapted.values())
    per_rank = sum(
        math.prod(weight.shape[:-2]) * sum(weight.shape[-2:]) * (1 + name.endswith("gate_up_proj") * (weight.ndim == 3))
        for name, weight in adapted.items()
    )
    embedding, head = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    own_head = 0 if model.config.tie_word_embeddings else head.numel()
    every = sum(weight.numel() for weight in model.parameters())
    return Counts(linear, every - linear, per_rank, embedding.numel(), own_head)


def _without_weights(text: str) -> Any:
    """The transformers model of a config written as JSON, on the meta device; of a nested config the part for text."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText

    config = AutoConfig.for_model(**json.loads(text))
    for kind, part in ((AutoModelForCausalLM, config.get_text_config()), (AutoModelForImageTextToText, config)):
        if type(part) in kind._model_mapping:
            with torch.device("meta"):
                return kind.from_config(part)
    raise ModelError(
        f"transformers has no model of type {config.model_type!r} that continues text: choose another model."
    )


def linear_weights(model: Any) -> dict[str, Any]:
    """The weights that adapters belong on, by name: linear layers and stacked experts, embeddings and head aside.

    Of a model for text and images those of the text. With an adapter on it, a weight's name has `.base_layer` in it.
    """
    import torch
    from transformers.pytorch_utils import Conv1D

    head = model.get_output_embeddings().weight
    found = {}
    for name, module in model.get_decoder().named_modules():
        for kind, weight in module.named_parameters(recurse=False):
            is_matrix = isinstance(module, torch.nn.Linear | Conv1D) and kind == "weight" and weight is not head
            is_stack = weight.ndim == 3 and not isinstance(module, torch.nn.modules.conv._ConvNd)
            if (is_matrix or is_stack) and "lora_" not in name and "original_module" not in name:
                found[f"{name}.{kind}"] = weight
    return found


def kind_of(config: hints.Config) -> str:
    """The model type that a config names; a known shape is a Llama's."""
    return getattr(text_config(config), "model_type", LLAMAS[0])


def is_llama(config: hints.Config) -> bool:
    """Whether what a layer keeps is known: a known shape, or a config of one of LLAMAS."""
    return kind_of(config) in LLAMAS


def text_config(config: hints.Config) -> Any:
    """The part of a config that is the language model's."""
    return config.get_text_config() if hasattr(config, "get_text_config") else config


def count_from_config(config: hints.Config, recipe: Recipe) -> dict[str, int]:
    """The trainable counts of `lora.count_trainable` from a model's config alone."""
    numbers, tables = counts(config), int(recipe.train_embeddings)
    trained = {"adapters": recipe.rank * numbers.per_rank}
    return trained | {"embed_tokens": tables * numbers.table, "lm_head": tables * numbers.head}


def count_projections(config: hints.Config) -> int:
    """Weights of all layers' matrices: what stays frozen, and what 4 bits hold."""
    return counts(config).linear


def kept_per_token(config: hints.Config) -> int:
    """Numbers that a layer of unsloth's keeps for a token: what its norms, attention and projections need backward."""
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return 6 * config.hidden_size + 3 * head * config.num_key_value_heads + 2 * config.intermediate_size
