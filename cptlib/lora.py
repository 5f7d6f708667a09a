"""LoRA: the scaling of its update, its figure, adapters by recipe, and who is trained."""

from typing import Any

from cptlib import hints, shapes, style
from cptlib.recipe import PROJECTIONS, Recipe


def scaling(rank: float, alpha: float, rslora: bool) -> float:
    """The factor s in W + s·B·A: alpha / rank for LoRA (arXiv:2106.09685), alpha / sqrt(rank) for rsLoRA (2312.03732).

    No unit. Raises ValueError for a rank of 0 or below.
    """
    if rank <= 0:
        raise ValueError(f"rank must be above 0, not {rank}.")
    return alpha / rank**0.5 if rslora else alpha / rank


@style.styled
def plot_scaling(alpha: float = 32, rank: int | None = None, ax: "hints.Axes | None" = None) -> "hints.Axes":
    """Both scalings over ranks 8 to 256, rsLoRA's alpha chosen so that they meet at rank 8. `rank` is marked."""
    ax = ax or style.subplots()
    ranks = [8 * 2 ** (i / 10) for i in range(51)]
    meeting = alpha / 8**0.5
    ax.plot(ranks, [scaling(r, alpha, False) for r in ranks], label=f"LoRA, {alpha:g} / r")
    ax.plot(ranks, [scaling(r, meeting, True) for r in ranks], label=f"rsLoRA, {meeting:.3g} / √r")
    if rank:
        ax.axvline(rank, color=style.color(6), linestyle=":", label=f"r = {rank}")
    ax.set_xscale("log", base=2)
    ax.set_yscale("log", base=2)
    ax.xaxis.set_major_formatter("{x:g}")
    ax.yaxis.set_major_formatter("{x:g}")
    ax.set(title="How the update is scaled as the rank grows", xlabel="rank r", ylabel="scaling factor s (no unit)")
    ax.legend()
    return ax


def adapter_arguments(recipe: Recipe) -> dict[str, Any]:
    """What `FastLanguageModel.get_peft_model` is called with, the model aside."""
    return {
        "r": recipe.rank,
        "lora_alpha": recipe.alpha,
        "use_rslora": recipe.rslora,
        "target_modules": recipe.target_modules,
        "lora_dropout": 0,
        "bias": "none",
        "use_gradient_checkpointing": recipe.gradient_checkpointing,
        "ensure_weight_tying": recipe.train_embeddings,
        "random_state": recipe.seed,
    }


def add_adapters(model: "hints.PreTrainedModel", recipe: Recipe) -> "hints.PeftModel":
    """The model with trainable adapters on all linear layers of its blocks (and embeddings and head, where the recipe asks),
    all trained in float32."""
    from unsloth import FastLanguageModel

    arguments = adapter_arguments(recipe) | modules(model, recipe)
    return train_in_float32(FastLanguageModel.get_peft_model(model, **arguments))


def modules(model: Any, recipe: Recipe) -> dict[str, list[str] | None]:
    """`target_modules` and `modules_to_save` for layers and embeddings as this model names them: a Llama's, and others'."""
    linear = shapes.linear_weights(model)
    named = {name.split(".")[-2] for name, weight in linear.items() if weight.ndim == 2}
    if any(weight.ndim == 3 for weight in linear.values()):
        named |= {"w1", "w2", "w3"}  # by which peft knows Mixtral's experts; others' by PROJECTIONS
    targets = [*PROJECTIONS, *sorted(named - set(PROJECTIONS))]
    if not recipe.train_embeddings:
        return {"target_modules": targets}
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    tables = {name.split(".")[-1] for name, module in model.named_modules() if module in (embedding, head)}
    known = [name for name in recipe.target_modules if name in tables]  # which unsloth knows to be trained in full
    return {"target_modules": [*targets, *known], "modules_to_save": sorted(tables - set(known)) or None}


def train_in_float32(model: "hints.SameModel") -> "hints.SameModel":
    """Turn every trainable weight to float32, in place. In 16 bits an update much smaller than its weight rounds away.

    A bfloat16 number keeps 8 significant bits: adding less than 1/512 of it leaves it as it was, and at a learning
    rate of 5e-6 most updates of an embedding are smaller.
    """
    import torch

    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.to(torch.float32)
    return model


def count_trainable(model: Any) -> dict[str, int]:
    """Numbers of weights by part: the adapters, `embed_tokens`, `lm_head` (0 where it is the same tensor), and frozen."""
    counts = {"adapters": 0, "embed_tokens": 0, "lm_head": 0, "frozen": 0}
    tables = {
        id(model.get_output_embeddings().weight): "lm_head",
        id(model.get_input_embeddings().weight): "embed_tokens",
    }
    for parameter in model.parameters():  # a tensor that two modules share comes once
        part = tables.get(id(parameter), "adapters") if parameter.requires_grad else "frozen"
        counts[part] += _size(parameter)
    return counts


def _size(parameter: "hints.Tensor") -> int:
    # bitsandbytes keeps two 4-bit weights in a byte, and the shape they had beside them
    state = getattr(parameter, "quant_state", None)
    return state.shape.numel() if state is not None else parameter.numel()
