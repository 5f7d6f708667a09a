"""GPU memory before the run: a model's config and a recipe in, gigabytes by part out; and the recipe that fits.

The sizes of weights, gradients and optimizer state are arithmetic. What activations take follows from what unsloth's layers
keep for the backward pass, and the last two parts (torch's spare blocks, CUDA) were measured on one H200. Measured beside
predicted: notebooks/04_memory_and_speed.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product

from cptlib import hints, memory, shapes, style
from cptlib.errors import DoesNotFit
from cptlib.memory import CUDA_GB, GB
from cptlib.recipe import Recipe
from cptlib.shapes import kept_per_token

NF4 = 0.5 + 1 / 64 + 4 / (64 * 256)  # bytes a weight: 4 bits, a byte of scale for 64 of them, 4 bytes for 256 scales
ADAM_8BIT = 2 + 8 / 256  # bytes a weight: two numbers, and two scales of 4 bytes for 256 of them
ADAM = 8  # bytes a weight: two numbers in float32; an embedding's stay so even with adamw_8bit
LOGIT_ROWS = 512  # unsloth makes logits for so many tokens at a time, or tokens x hidden / vocabulary if that is more
LAYER_AGAIN = 1.43  # a layer run backward holds its activations and, for a moment, gradients of some
WORKSPACE_GB = 0.15  # cuBLAS's own, and small change
SPARE = 0.04  # of its tensors' size, what torch holds besides, as blocks it may need again


@dataclass(frozen=True)
class Estimate:
    """Gigabytes (2**30 bytes) by part at the fullest moment of a step, in the order in which they appear.

    unknown: what the parts leave out, in a sentence; they are then the least that it takes.
    """

    parts: dict[str, float]
    unknown: str = ""

    @property
    def gb(self) -> float:
        """What nvidia-smi will show for the process at its peak."""
        return sum(self.parts.values())

    def __str__(self) -> str:
        lines = [f"{gb:6.2f} GB  {part}" for part, gb in [*self.parts.items(), ("in all", self.gb)]]
        return "\n".join([*lines, *[f"This is the least: {self.unknown}."] * bool(self.unknown)])

    @property
    def at_least(self) -> str:
        """What stands before its gigabytes in a sentence: "at least " where the parts leave something out."""
        return "at least " if self.unknown else ""


def estimate(recipe: Recipe, config: hints.Config, row: int | None = None) -> Estimate:
    """The memory that training by `recipe` will need on a GPU.

    config: the model's (`weights.config_of`). row: tokens in the longest row of a batch, if shorter than the recipe's
    max_length, as padded rows mostly are. For a model whose layers are not a Llama's (`shapes.is_llama`) activations and
    logits are left out, and `unknown` says so.
    """
    trained, counts = 4, shapes.count_from_config(config, recipe)  # 4: trained weights and their gradients are float32
    frozen, config = shapes.counts(config), shapes.text_config(config)
    wide = 4 if recipe.dtype == "float32" else 2
    adam = ADAM_8BIT if "8bit" in recipe.optimizer else ADAM
    held = {
        "frozen weights": frozen.linear * (NF4 if recipe.load_in_4bit else wide) + frozen.other * wide,
        "adapters": counts["adapters"] * trained,
        "trained embedding and head": (counts["embed_tokens"] + counts["lm_head"]) * trained,
        "optimizer": (counts["adapters"] + counts["lm_head"]) * adam + counts["embed_tokens"] * ADAM,
    }
    unknown = ""
    if shapes.is_llama(config):
        moments = _moments(recipe, config, counts, recipe.micro_batch * (row or recipe.max_length), wide)
        passing = max(moments, key=lambda moment: sum(moment.values()))
    else:
        passing = {"gradients": sum(counts.values()) * trained, "activations": 0, "logits": 0}
        unknown = f"what activations and logits take besides is not known for a {shapes.kind_of(config)}"
    parts = {name: size / GB for name, size in (held | passing).items()}
    tensors = sum(parts.values()) + WORKSPACE_GB
    parts |= {"torch's workspace and spare blocks": WORKSPACE_GB + SPARE * tensors, "CUDA": CUDA_GB}
    return Estimate(parts, unknown)


def _moments(
    recipe: Recipe, config: hints.Config, counts: dict[str, int], tokens: int, wide: int
) -> list[dict[str, float]]:
    """Bytes that come and go, at three moments of a step, one of which is the fullest."""
    adapters, embedding, head = (4 * counts[part] for part in ("adapters", "embed_tokens", "lm_head"))
    every = adapters + embedding + head
    earlier = every if recipe.accumulation > 1 else 0  # gradients of the forward passes before this one
    shared = config.tie_word_embeddings
    layer, inputs = tokens * wide * kept_per_token(config), tokens * wide * config.hidden_size
    again = LAYER_AGAIN * layer + unsloth_buffers(recipe, inputs)
    if not recipe.gradient_checkpointing:
        kept, again = config.num_hidden_layers * layer, LAYER_AGAIN * layer
    elif recipe.gradient_checkpointing == "unsloth":
        kept = unsloth_buffers(recipe, inputs)  # the rest waits in the CPU's memory
    else:
        kept = config.num_hidden_layers * inputs
    rows = min(max(LOGIT_ROWS, tokens * config.hidden_size // config.vocab_size), tokens)
    trained_head = (embedding if shared else head) * (1 + wide / 4)  # its gradient, and itself in 16 bits
    logits = rows * config.vocab_size * 4 + trained_head
    first_layer = earlier or every - (0 if shared else embedding)
    return [
        {"gradients": earlier, "activations": kept, "logits": logits},  # the loss is computed
        {"gradients": first_layer, "activations": again, "logits": 0},
        # the embedding: where its gradient has to be added to one that is there, both exist
        {"gradients": every + (embedding if shared or earlier else 0), "activations": 0, "logits": 0},
    ]


def unsloth_buffers(recipe: Recipe, inputs: int) -> int:
    """Bytes of the two buffers through which unsloth's checkpointing fetches layer inputs from the CPU's memory."""
    return 2 * inputs if recipe.gradient_checkpointing == "unsloth" else 0


def fit(recipe: Recipe, gb: float, config: hints.Config, row: int | None = None) -> Recipe:
    """The fastest setting of `recipe` whose estimate stays under 95% of `gb`, with what it gave up in `why`.

    Rows a step, row length, rank and what is trained stay as they are, so that the run learns the same. Where it is not
    known what activations take, only settings with the least of them are tried. Raises DoesNotFit with the least that it
    would take.
    """
    settings = _by_speed(recipe)
    if not shapes.is_llama(config):
        settings = (s for s in settings if s.micro_batch == 1 and s.gradient_checkpointing == "unsloth")
    tried = [(setting, estimate(setting, config, row)) for setting in settings]
    for setting, need in tried:
        if need.gb <= 0.95 * gb:
            return replace(setting, why=_why(recipe, setting, need, gb))
    least = min((need for _, need in tried), key=lambda need: need.gb)
    raise DoesNotFit(
        f"Recipe {recipe.name!r} cannot be made to fit {gb:.1f} GB: with 4-bit weights, checkpointing and one row at a time it "
        f"needs {least.at_least}{least.gb / 0.95:.1f} GB. Lower rank or max_length, set train_embeddings=False, or take a "
        "smaller model."
    )


def _by_speed(recipe: Recipe) -> Iterator[Recipe]:
    """`recipe` with the same rows a step, the fastest setting first."""
    rows = recipe.micro_batch * recipe.accumulation
    micros = sorted((n for n in range(1, rows + 1) if rows % n == 0), reverse=True)
    optimizers = dict.fromkeys((recipe.optimizer, "adamw_8bit"))
    for micro, checkpointing, bits4, optimizer in product(micros, (False, True, "unsloth"), (False, True), optimizers):
        yield replace(
            recipe,
            micro_batch=micro,
            accumulation=rows // micro,
            gradient_checkpointing=checkpointing,
            load_in_4bit=bits4,
            optimizer=optimizer,
        )


def _why(recipe: Recipe, setting: Recipe, need: Estimate, gb: float) -> str:
    gave_up = [
        *["16-bit weights (4-bit ones are unpacked at each use)"] * setting.load_in_4bit,
        *["the optimizer's averages in 32 bits"] * (setting.optimizer != recipe.optimizer),
        *["keeping activations (they are computed twice)"] * bool(setting.gradient_checkpointing),
        *[f"one pass a step ({setting.accumulation} instead)"] * (setting.accumulation > 1),
    ]
    told = f"it needs {need.at_least or 'about '}{need.gb:.1f} of {gb:.1f} GB and gives up {', '.join(gave_up) or 'nothing'}"
    return f"{told}; {need.unknown}" if need.unknown else told


def refuse(recipe: Recipe, gb: float, config: hints.Config, where: str = "") -> None:
    """Raise DoesNotFit where `recipe` needs more than `gb` GB, with the nearest recipe that does not. where: of what, and
    beside what, for the sentence."""
    need = estimate(recipe, config)
    if need.gb > gb:
        problem = f"needs {need.at_least or 'about '}{need.gb:.1f} GB, and there are {gb:.1f} GB{where}"
        raise DoesNotFit(_sentence(recipe, problem, gb, config))


@contextlib.contextmanager
def out_of_memory_explained(recipe: Recipe, config: hints.Config) -> Iterator[None]:
    """Turn torch's OutOfMemoryError in this context into DoesNotFit, with the nearest recipe that fits."""
    import torch

    try:
        yield
    except torch.OutOfMemoryError:
        gb = memory.available_gb()
        raise DoesNotFit(_sentence(recipe, f"ran out of the GPU's {gb:.1f} GB", 0.9 * gb, config)) from None


def _sentence(recipe: Recipe, problem: str, gb: float, config: hints.Config) -> str:
    try:
        nearest = fit(recipe, gb, config)
    except DoesNotFit as error:
        return f"Recipe {recipe.name!r} {problem}. {error}"
    fields = ("load_in_4bit", "optimizer", "gradient_checkpointing", "micro_batch", "accumulation")
    changes = ", ".join(
        f"{name}={getattr(nearest, name)!r}" for name in fields if getattr(nearest, name) != getattr(recipe, name)
    )
    if not changes:
        return f"Recipe {recipe.name!r} {problem}. Lower rank or max_length, or set train_embeddings=False."
    need = estimate(nearest, config)
    with_gb = f"with {need.at_least}{need.gb:.1f} GB"
    return f"Recipe {recipe.name!r} {problem}. The nearest that fits, {with_gb}: replace(recipe, {changes})."


@style.styled
def plot_estimate(
    estimates: dict[str, Estimate], limit: float | None = None, ax: "hints.Axes | None" = None
) -> "hints.Axes":
    """A stacked bar of parts for each named Estimate, with a line at `limit` GB."""
    ax = ax or style.subplots(size=(7, 4))
    names, bottoms = list(estimates), [0.0] * len(estimates)
    for number, part in enumerate(next(iter(estimates.values())).parts):
        sizes = [estimate.parts[part] for estimate in estimates.values()]
        ax.bar(names, sizes, bottom=bottoms, label=part, color=_color(number))
        bottoms = [bottom + size for bottom, size in zip(bottoms, sizes, strict=True)]
    if limit:
        ax.axhline(limit, color="0.1", linestyle="--", label=f"{limit:g} GB")
    ax.set(title="Memory at the fullest moment, estimated", ylabel="memory (GB = 2³⁰ bytes)")
    ax.tick_params(axis="x", labelrotation=20)
    ax.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
    return ax


def _color(number: int) -> str:
    """Colours for the parts of a run, greys for what comes with every run."""
    return style.color(number) if number < 7 else ("0.55", "0.8")[number - 7]
