"""What a model's config tells without its weights: shapes of known models, and how many weights are where.

A config is handed in, never fetched.
"""

from types import SimpleNamespace
from typing import Any

from cptlib import hints
from cptlib.recipe import PROJECTIONS, SHAPE, SMOLLM2, Recipe

# Shapes of known models, for measuring speed and memory where their weights cannot be had: a Llama's config.
SHAPES: dict[str, dict[str, Any]] = {
    "mistral-7b": {
        "vocab_size": 32768,
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "max_position_embeddings": 32768,
    },
    "llama-1b": {
        "vocab_size": 128256,
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 16,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "max_position_embeddings": 32768,
        "tie_word_embeddings": True,
    },
    "smollm2-135m": {
        "vocab_size": 49152,
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "max_position_embeddings": 8192,
        "tie_word_embeddings": True,
    },
}
KNOWN = {"unsloth/mistral-7b-v0.3": "mistral-7b", SMOLLM2: "smollm2-135m"}


def known_config(model: str) -> hints.Config | None:
    """The config of a recipe's model where its shape is known here; None for others."""
    shape = SHAPES.get(KNOWN.get(model, model.removeprefix(SHAPE)))
    return SimpleNamespace(**{"tie_word_embeddings": False, **shape}) if shape else None


def count_from_config(config: hints.Config, recipe: Recipe) -> dict[str, int]:
    """The trainable counts of `count_trainable` from a model's config alone, for Llama- and Mistral-shaped models."""
    shapes = projection_shapes(config)
    table = config.vocab_size * config.hidden_size * recipe.train_embeddings
    return {
        "adapters": config.num_hidden_layers * recipe.rank * sum(i + o for i, o in shapes.values()),
        "embed_tokens": table,
        "lm_head": 0 if config.tie_word_embeddings else table,
    }


def count_projections(config: hints.Config) -> int:
    """Weights of all layers' projections: what stays frozen, and what 4 bits hold."""
    return config.num_hidden_layers * sum(i * o for i, o in projection_shapes(config).values())


def projection_shapes(config: hints.Config) -> dict[str, tuple[int, int]]:
    """(inputs, outputs) of each projection of a layer, for Llama- and Mistral-shaped models."""
    hidden, inner = config.hidden_size, config.intermediate_size
    head = getattr(config, "head_dim", None) or hidden // config.num_attention_heads
    queries, keys = head * config.num_attention_heads, head * config.num_key_value_heads
    attention = [(hidden, queries), (hidden, keys), (hidden, keys), (queries, hidden)]
    return dict(zip(PROJECTIONS, [*attention, (hidden, inner), (hidden, inner), (inner, hidden)], strict=True))


def kept_per_token(config: hints.Config) -> int:
    """Numbers that a layer of unsloth's keeps for a token: what its norms, attention and projections need backward."""
    _, keys = projection_shapes(config)["k_proj"]
    return 6 * config.hidden_size + 3 * keys + 2 * config.intermediate_size
