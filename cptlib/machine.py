"""Which recipe suits this machine, and which setting of it fits so much memory."""

import os
from collections.abc import Sequence
from dataclasses import replace

from cptlib import estimate, hints, memory, shapes, style
from cptlib.memory import CUDA_GB, GB
from cptlib.recipe import RECIPES, Recipe
from cptlib.weights import config_of

# Recipes for less than 14 GB, the largest first: the GB that each took when it was measured (Mistral-7B's shape, an H100 held
# to so little: notebooks/measured/small-cards-h100.json; the estimate is up to 1.2 GB lower), and what it gives up.
SMALL_CARDS = {"gpu12": (10.7, "rank 64"), "gpu8": (7.2, "rank 32 and embeddings that stay as they are")}
MARGIN = 1.05


def recipe() -> Recipe:
    """The recipe that suits the hardware and what others leave of its memory; the environment variable CPTLIB_RECIPE
    overrules. Imports torch."""
    if asked := os.environ.get("CPTLIB_RECIPE"):
        return replace(Recipe.parse(asked), why=f"CPTLIB_RECIPE={asked} asks for it")
    import torch

    if not torch.cuda.is_available():
        return replace(RECIPES["laptop"], why="there is no CUDA GPU here")
    gpu, gb = torch.cuda.get_device_properties(torch.cuda.current_device()), memory.available_gb()
    chosen = _for_gpu(gpu.name, gb, bf16=gpu.major >= 8)
    if chosen.name not in ("t4", "a100"):
        return chosen
    fitted = fit(chosen, gb)
    return replace(fitted, why=f"{chosen.why}; {fitted.why}")


def estimated(recipe: Recipe, row: int | None = None) -> estimate.Estimate:
    """The memory that training by `recipe` will need on a GPU, its model's config looked up (`estimate.estimate`)."""
    return estimate.estimate(recipe, config_of(recipe.model), row)


def fit(recipe: Recipe, gb: float) -> Recipe:
    """The fastest setting of `recipe` for a GPU with so many GB; `why` says what it gave up (`estimate.fit`).

    Raises DoesNotFit, with what the least setting needs.
    """
    return estimate.fit(recipe, gb, config_of(recipe.model))


def require_memory(recipe: Recipe, gb: float | None = None) -> None:
    """Raise DoesNotFit, with the nearest recipe that fits, where training by `recipe` needs more than is free on the GPU.

    What other processes use there is not free, nor are the tensors of this one, since a model loaded now comes beside them.
    gb: GB to fit in, in place of that; without a GPU nothing is known beforehand, and nothing is refused. Loads no weights.
    """
    if gb is not None:
        estimate.refuse(recipe, gb, config_of(recipe.model))
    elif gpu := memory.gpu_memory():
        held = memory.held_gb()
        beside = f", beside {held:.1f} GB in this process's tensors" if held > 0.1 else ""
        where = f" to use of the GPU's {gpu.total_gb:.1f} GB{beside}"
        estimate.refuse(recipe, memory.available_gb() - held, config_of(recipe.model), where)


def _for_gpu(gpu: str, gb: float, bf16: bool) -> Recipe:
    """The recipe for a GPU with so many GB (2**30 bytes) to use, and whether it computes in bfloat16."""
    has = f"the {gpu} has {gb:.0f} GB of memory to use"
    for name, (need, given_up) in SMALL_CARDS.items() if gb < 14 else ():
        if need * MARGIN <= gb:
            return replace(RECIPES[name], why=f"{has}; a 7B model needs about {need:.1f} with {given_up}")
        why = f"{has}, and a 7B model needs about {need:.1f} even with {given_up}: the small model instead"
    if gb < 14:
        return replace(RECIPES["laptop"], why=why)
    if gb < 35 or not bf16:
        return replace(RECIPES["t4"], why=has + " and no bfloat16" * (not bf16))
    return replace(RECIPES["a100"], why=f"{has} and computes in bfloat16")


@style.styled
def plot_growth(
    recipe: Recipe, lengths: Sequence[int] = (256, 512, 1024, 2048, 4096, 8192, 16384), ax: "hints.Axes | None" = None
) -> "hints.Axes":
    """Memory over the length of a row, with LoRA and with all weights trained, with and without checkpointing.

    All weights in mixed precision take 16 bytes each: 2 for the weight, 2 for the gradient, 12 for a float32 copy and the
    optimizer's two numbers.
    """
    ax, config = ax or style.subplots(), config_of(recipe.model)
    counts = shapes.counts(config)
    weights = counts.linear + counts.other
    for number, checkpointing in enumerate((False, True)):
        settings = [replace(recipe, max_length=n, gradient_checkpointing=checkpointing) for n in lengths]
        needs, color = [estimate.estimate(setting, config) for setting in settings], style.color(number)
        kind = "checkpointing" if checkpointing else "no checkpointing"
        ax.plot(lengths, [need.gb for need in needs], color=color, label=f"LoRA, {kind}")
        full = [16 * weights / GB + need.parts["activations"] + CUDA_GB for need in needs]
        ax.plot(lengths, full, color=color, linestyle="--", label=f"all weights, {kind}")
    ax.set(
        title="Memory over the length of a row (estimate)", xlabel="tokens in a row", ylabel="memory (GB = 2³⁰ bytes)"
    )
    ax.set_xscale("log", base=2)
    ax.xaxis.set_major_formatter("{x:,.0f}")
    ax.set_ylim(0)
    ax.legend()
    return ax
