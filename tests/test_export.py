"""What is saved is what was trained: the same logits in a fresh process, by cptlib and by plain transformers."""

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from collections import namedtuple
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from cptlib import device, export, lora, machine, merge, models, weights
from cptlib.errors import DoesNotFit, ExportError

PROMPT = "The little fox found a red boat and"
VARIANTS = ("tied", "untied", "new tokens", "new tokens, adapters alone", "tied, then trained apart")
# How far a logit may be off, in units of the logits' spread, by the number format of the base and the form that was saved.
# In float32 a merged model differs by the order of additions, in bfloat16 each weight is rounded to 1 in 512. On a GPU
# unsloth's kernels compute in bfloat16 and round elsewhere than plain transformers does: a CPU's bfloat16 came to 0.044. A
# model that lost its adapters is off by 3.6 and more, one merged into other weights than the 4-bit ones by 0.37.
TOLERANCE = {
    "float32": {"adapter": 1e-6, "float32": 1e-5, "bfloat16": 0.045},
    "bfloat16": {"adapter": 0.2, "float32": 0.2, "bfloat16": 0.2},
}
BASES = [
    pytest.param("float32", marks=pytest.mark.cpu("other kernels, other last bits: a GPU has its own base, bfloat16")),
    pytest.param("bfloat16", marks=pytest.mark.gpu),
]


def build(variant, smoke, folder):
    """(model, tokenizer, recipe): a model with adapters whose trainable weights are all well away from where they began."""
    torch.manual_seed(1)
    recipe, (model, tokenizer) = smoke, models.load(smoke)
    if variant == "untied":
        model.config.tie_word_embeddings = False
        model.lm_head.weight = torch.nn.Parameter(torch.randn_like(model.lm_head.weight) / 8)
        weights.save(model, tokenizer, folder)
        recipe = replace(smoke, model=str(folder))
        model, tokenizer = models.load(recipe)
    if "new tokens" in variant:
        tokenizer.add_tokens(["<fox>", "<boat>"])
        model.resize_token_embeddings(len(tokenizer))
    recipe = replace(recipe, train_embeddings="alone" not in variant)
    arguments = lora.adapter_arguments(recipe)
    if "apart" in variant:
        arguments["ensure_weight_tying"] = False
    from unsloth import FastLanguageModel

    model = lora.train_in_float32(FastLanguageModel.get_peft_model(model, **arguments))
    return moved(model), tokenizer, recipe


def moved(model, by=0.05):
    """The model in inference mode, its trainable weights well away from where they began."""
    with torch.no_grad():
        for weight in {id(weight): weight for weight in model.parameters() if weight.requires_grad}.values():
            weight += by * torch.randn_like(weight)
    return model.eval()


def logits(model, tokenizer):
    with torch.no_grad(), device.autocast(model):
        return model(**tokenizer(PROMPT, return_tensors="pt").to(model.device)).logits.float().cpu()


def off(found, trained):
    """The largest difference of a logit, in units of the logits' spread."""
    return ((found - trained).abs().max() / trained.std()).item()


FRESH = textwrap.dedent("""
    import sys, torch
    from contextlib import nullcontext
    from pathlib import Path
    home, prompt = Path(sys.argv[1]), sys.argv[2]
    def logits(model, tokenizer, context=nullcontext()):
        with torch.no_grad(), context:
            return model(**tokenizer(prompt, return_tensors="pt").to(model.device)).logits.float().cpu()
    found = {}
    from transformers import AutoModelForCausalLM, AutoTokenizer  # plain: neither cptlib nor unsloth is there yet
    for folder in [*home.glob("*/float32"), *home.glob("*/bfloat16")]:
        model, info = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
        assert not info["missing_keys"] and not info["unexpected_keys"], (folder, info)
        model.to("cuda" if torch.cuda.is_available() else "cpu")
        found["/".join(folder.parts[-2:])] = logits(model, AutoTokenizer.from_pretrained(folder))
    assert "unsloth" not in sys.modules
    from cptlib import device, export, models
    for folder in home.glob("*/adapter"):
        model, tokenizer = export.load(folder)
        found["/".join(folder.parts[-2:])] = logits(model, tokenizer, device.autocast(model))
    torch.save(found, home / "found.pt")
""")


Reloaded = namedtuple("Reloaded", "base trained after found home")


@pytest.fixture(scope="module", params=BASES)
def reloaded(request, smoke, cache, tmp_path_factory):
    """Every variant of a base, saved in every form. Logits: `trained`, by variant; the same model's `after` it was saved;
    and what was `found` by a fresh process in `home`, by variant/form."""
    home, trained, after = tmp_path_factory.mktemp("saved"), {}, {}
    for variant in VARIANTS:
        model, tokenizer, recipe = build(variant, replace(smoke, dtype=request.param), home / variant / "base")
        trained[variant] = logits(model, tokenizer)
        export.save_adapter(model, tokenizer, recipe, home / variant / "adapter")
        for dtype in ("float32", "bfloat16"):
            export.save_merged(model, tokenizer, recipe, home / variant / dtype, dtype)
        after[variant] = logits(model, tokenizer)
    subprocess.run([sys.executable, "-c", FRESH, str(home), PROMPT], check=True)
    return Reloaded(request.param, trained, after, torch.load(home / "found.pt"), home)


@pytest.mark.parametrize("form", TOLERANCE["float32"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_fresh_process_gets_the_logits_of_the_trained_model(reloaded, variant, form):
    trained = reloaded.trained[variant]
    assert trained.std() > 0.1
    assert off(reloaded.found[f"{variant}/{form}"], trained) < TOLERANCE[reloaded.base][form]


def test_saving_leaves_the_model_as_it_was(reloaded):
    assert all(torch.equal(reloaded.after[variant], reloaded.trained[variant]) for variant in VARIANTS)


def test_a_tied_model_stays_tied_and_one_trained_apart_is_untied(reloaded):
    home = reloaded.home
    for variant, tied in (("tied", True), ("new tokens", True), ("untied", False), ("tied, then trained apart", False)):
        assert json.loads((home / variant / "float32" / "config.json").read_text())["tie_word_embeddings"] is tied


def test_two_tables_that_are_still_the_same_are_saved_as_the_tied_one(smoke, tmp_path):
    model, tokenizer = models.load(smoke)
    arguments = lora.adapter_arguments(smoke) | {"ensure_weight_tying": False}
    from unsloth import FastLanguageModel

    model = FastLanguageModel.get_peft_model(model, **arguments)
    assert model.get_input_embeddings().weight is not model.get_output_embeddings().weight
    folder = export.save_merged(model, tokenizer, smoke, tmp_path / "merged")
    assert json.loads((folder / "config.json").read_text())["tie_word_embeddings"] is True


def test_no_saved_file_names_a_place_on_this_machine_or_runs_code(reloaded, cache):
    home = reloaded.home
    for form in ("adapter", "bfloat16"):
        for file in (home / "tied" / form).iterdir():
            assert file.suffix in (".json", ".safetensors", ".jinja"), file
            assert str(cache).encode() not in file.read_bytes() and str(home).encode() not in file.read_bytes(), file


@pytest.mark.parametrize("variant", ["tied", "untied", "tied, then trained apart"])
@pytest.mark.parametrize("low_memory", [False, True])
@pytest.mark.cpu("plain transformers on the CPU, beside float32")
def test_plain_peft_loads_an_adapter_by_either_of_its_ways(variant, low_memory, smoke, tmp_path):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model, tokenizer, recipe = build(variant, smoke, tmp_path / "base")
    folder = export.save_adapter(model, tokenizer, recipe, tmp_path / "adapter")
    base = AutoModelForCausalLM.from_pretrained(weights.resolve(recipe.model))
    again = PeftModel.from_pretrained(base, folder, low_cpu_mem_usage=low_memory)
    assert off(logits(again, tokenizer), logits(model, tokenizer)) < 1e-6


def test_peft_still_asks_for_a_tied_table_under_both_of_its_names(smoke, tmp_path):
    """So it is in the file twice. Where this fails, save_adapter can write it once."""
    from peft import PeftModel
    from safetensors.torch import load_file, save_file
    from transformers import AutoModelForCausalLM

    model, tokenizer, recipe = build("tied", smoke, tmp_path)
    folder = export.save_adapter(model, tokenizer, recipe, tmp_path / "adapter")
    tensors = load_file(folder / "adapter_model.safetensors")
    head, table = (tensors[f"base_model.model.{name}.weight"] for name in ("lm_head", "model.embed_tokens"))
    assert torch.equal(head, table)
    del tensors["base_model.model.lm_head.weight"]
    save_file(tensors, folder / "adapter_model.safetensors")
    with pytest.raises(KeyError, match="lm_head"):
        PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(weights.resolve(recipe.model)), folder)


def test_large_models_are_saved_in_shards(smoke, tmp_path, monkeypatch):
    from transformers import AutoModelForCausalLM

    model, tokenizer, recipe = build("tied", smoke, tmp_path)
    whole = export.save_merged(model, tokenizer, recipe, tmp_path / "whole")
    monkeypatch.setattr(merge, "SHARD_BYTES", 75_000)
    shards = export.save_merged(model, tokenizer, recipe, tmp_path / "shards")
    assert len(list(shards.glob("model-*-of-*.safetensors"))) > 2 and not list(shards.glob("*.part"))
    expected, found = (AutoModelForCausalLM.from_pretrained(folder).state_dict() for folder in (whole, shards))
    assert found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize(
    "published", [{"top_p": 0.9}, {"length_penalty": 2.0}, {"temperature": 0.6, "do_sample": True}]
)
def test_generation_settings_are_kept_as_the_base_was_published_with_them(smoke, tmp_path, published):
    from transformers import AutoModelForCausalLM

    folder = tmp_path / "base"
    shutil.copytree(weights.resolve(smoke.model), folder)
    ids = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    (folder / "generation_config.json").write_text(json.dumps(ids | published))
    recipe = replace(smoke, model=str(folder))
    model, tokenizer = models.load(recipe)
    merged = export.save_merged(lora.add_adapters(model, recipe), tokenizer, recipe, tmp_path / "merged")
    settings = AutoModelForCausalLM.from_pretrained(merged).generation_config.to_diff_dict()
    assert {name: settings[name] for name in ids | published} == ids | published
    assert settings.get("do_sample") == published.get("do_sample")


@pytest.mark.cpu("it runs bitsandbytes' CPU kernels; test_on_a_gpu_a_4_bit_base_comes_back is for the GPU's")
def test_a_4_bit_base_is_merged_as_the_adapters_saw_it(cache, smoke, tmp_path):
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

    place, recipe = weights.resolve(smoke.model), replace(smoke, load_in_4bit=True)
    four_bit = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float32)
    model = AutoModelForCausalLM.from_pretrained(place, quantization_config=four_bit, dtype=torch.float32)
    assert any(type(module).__name__ == "Linear4bit" for module in model.modules())
    model = get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj", "down_proj"], init_lora_weights=False))
    model.train()  # in inference mode bitsandbytes' CPU kernel computes in bfloat16
    tokenizer = AutoTokenizer.from_pretrained(place)
    folder = export.save_merged(model, tokenizer, recipe, tmp_path / "merged", "float32")
    merged, plain = AutoModelForCausalLM.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(place)
    assert not hasattr(merged.config, "quantization_config")
    trained = logits(model, tokenizer)
    assert (logits(merged, tokenizer) - trained).abs().max() < 1e-4
    assert (logits(plain, tokenizer) - trained).abs().max() > 0.01


def test_what_else_is_in_a_folder_is_not_overwritten(smoke, tmp_path):
    model, tokenizer, recipe = build("tied", smoke, tmp_path)
    folder = tmp_path / "kept"
    export.save_adapter(model, tokenizer, recipe, folder)
    export.save_adapter(model, tokenizer, recipe, folder)  # its own earlier export it may replace
    with pytest.raises(ExportError, match="holds something else"):
        export.save_adapter(model, tokenizer, replace(recipe, rank=8), folder)
    with pytest.raises(ExportError, match="holds something else"):
        export.save_merged(model, tokenizer, recipe, folder)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").write_text("mine")
    with pytest.raises(ExportError, match="holds something else"):
        export.save_adapter(model, tokenizer, recipe, tmp_path / "notes")
    assert [path.name for path in (tmp_path / "notes").iterdir()] == ["mine.txt"]


def test_an_export_to_the_folder_one_is_in_deletes_nothing(smoke, tmp_path, monkeypatch):
    model, tokenizer, recipe = build("tied", smoke, tmp_path)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    export.save_merged(model, tokenizer, recipe, ".")
    files = set(os.listdir("."))
    assert {"config.json", "model.safetensors", "tokenizer.json", export.RECIPE} <= files
    Path("notes.txt").write_text("mine", encoding="utf-8")
    with monkeypatch.context() as patch:
        patch.setattr(merge, "SHARD_BYTES", 75_000)
        export.save_merged(model, tokenizer, recipe, Path("."))  # again, in other files
    assert not Path("model.safetensors").exists() and Path("model.safetensors.index.json").exists()
    export.save_merged(model, tokenizer, recipe, "")
    assert set(os.listdir(".")) == files | {"notes.txt"} and os.listdir(tmp_path) == ["here"]


KILLED = """
import os, signal, sys
from pathlib import Path
from cptlib import export
from cptlib.recipe import Recipe
folder, survives = Path(sys.argv[1]), int(sys.argv[2])
move = Path.replace
def move_or_die(path, target):
    global survives
    if survives == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    survives -= 1
    return move(path, target)
Path.replace = Path.rename = move_or_die
with export._fresh(folder, Recipe.named("smoke"), export.ADAPTER) as fresh:
    for name in (export.ADAPTER, "adapter_model.safetensors", "tokenizer.json"):
        (fresh / name).write_text(f"new {name}")
"""


def test_a_kill_at_any_moment_of_the_change_loses_no_file_of_the_old_export(tmp_path, smoke):
    names = (export.ADAPTER, "adapter_model.safetensors", "tokenizer.json")
    for survives in range(20):
        folder = tmp_path / str(survives)
        with export._fresh(folder, smoke, export.ADAPTER) as fresh:
            for name in names:
                (fresh / name).write_text(f"old {name}")
        ended = subprocess.run([sys.executable, "-c", KILLED, str(folder), str(survives)], check=False)
        if ended.returncode == 0:
            break
        assert ended.returncode == -signal.SIGKILL
        there = {path.read_text() for path in folder.rglob("*") if path.is_file()}
        assert {f"old {name}" for name in names} <= there
        subprocess.run([sys.executable, "-c", KILLED, str(folder), "-1"], check=True)  # once more is all it takes
        assert sorted(os.listdir(folder)) == sorted([*names, export.RECIPE])
        assert all((folder / name).read_text() == f"new {name}" for name in names)
    assert survives > 3


def test_a_first_export_that_was_killed_is_not_in_the_way_of_the_next(tmp_path, smoke):
    (tmp_path / "adapter" / export.UNFINISHED).mkdir(parents=True)
    (tmp_path / "adapter" / export.UNFINISHED / "adapter_model.safetensors").write_text("half of")
    with export._fresh(tmp_path / "adapter", smoke, export.ADAPTER) as fresh:
        (fresh / export.ADAPTER).write_text("new")
    assert sorted(os.listdir(tmp_path / "adapter")) == [export.ADAPTER, export.RECIPE]


def test_a_file_in_the_place_of_the_folder_is_said_in_a_sentence(tmp_path, smoke):
    (tmp_path / "adapter").write_text("mine")
    with pytest.raises(ExportError, match="holds something else"), export._fresh(tmp_path / "adapter", smoke, ""):
        pass
    assert (tmp_path / "adapter").read_text() == "mine"


def test_a_failed_export_leaves_the_old_one(smoke, tmp_path, monkeypatch):
    model, tokenizer, recipe = build("tied", smoke, tmp_path)
    export.save_merged(model, tokenizer, recipe, tmp_path / "merged")
    before = (tmp_path / "merged" / "model.safetensors").read_bytes()
    monkeypatch.setattr(
        "safetensors.torch.save_file", lambda *args, **kwargs: (_ for _ in ()).throw(OSError("disk full"))
    )
    with pytest.raises(OSError, match="disk full"):
        export.save_merged(model, tokenizer, recipe, tmp_path / "merged")
    assert (tmp_path / "merged" / "model.safetensors").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["merged"]
    assert not [path for path in (tmp_path / "merged").iterdir() if path.is_dir()]


@pytest.mark.parametrize("fault", ["half the adapters' strength", "a number too large for float16"])
def test_a_merged_model_that_is_not_the_trained_one_is_not_kept(fault, smoke, tmp_path, monkeypatch):
    from peft.tuners.lora import Linear

    model, tokenizer, recipe = build("tied", smoke, tmp_path)
    if "adapters" in fault:
        delta = Linear.get_delta_weight
        monkeypatch.setattr(Linear, "get_delta_weight", lambda layer, adapter: delta(layer, adapter) / 2)
    else:
        model.get_parameter("base_model.model.model.norm.weight").data[0] = 1e6
    with pytest.raises(ExportError, match="does not predict what the trained one does: .* keep the adapter"):
        export.save_merged(model, tokenizer, recipe, tmp_path / "merged", "float16")
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr(
        "cptlib.memory.free_gb", lambda: 1e-3
    )  # the merged model has half a megabyte, and a copy would too
    with pytest.raises(ExportError):
        export.save_merged(model, tokenizer, recipe, tmp_path / "merged", "float16")


def test_without_memory_for_a_second_model_it_is_said_that_they_were_not_compared(smoke, tmp_path, monkeypatch, capsys):
    model, tokenizer, recipe = build("tied", smoke, tmp_path)
    monkeypatch.setattr("cptlib.memory.free_gb", lambda: 4e-4)
    merged = export.save_merged(model, tokenizer, recipe, tmp_path / "merged")
    assert "not compared with the trained one" in capsys.readouterr().out
    assert off(logits(*export.load(merged)), logits(model, tokenizer)) < 0.05


@pytest.mark.cpu("it plays a small GPU")
@pytest.mark.parametrize("form", ["adapter", "merged"])
def test_a_saved_model_is_loaded_where_training_it_again_would_not_fit(form, smoke, tmp_path, monkeypatch, gpu):
    model, tokenizer, recipe = build("tied", smoke, tmp_path)
    save = {"adapter": export.save_adapter, "merged": export.save_merged}[form]
    folder = save(model, tokenizer, recipe, tmp_path / form)
    base = models.load(smoke)

    def from_pretrained(**arguments):
        monkeypatch.setattr("torch.cuda.is_available", lambda: False)  # there is none to load anything to
        return base

    monkeypatch.setattr("unsloth.FastLanguageModel.from_pretrained", from_pretrained)
    gpu(free=0.05, total=0.1)
    with pytest.raises(DoesNotFit):
        machine.require_memory(smoke)
    assert export.load(folder)[0].training is False


def test_a_folder_of_something_else_is_not_loaded(tmp_path):
    with pytest.raises(ExportError, match="holds no model saved by cptlib"):
        export.load(tmp_path)


def test_gguf_is_not_written_unasked_with_anything_downloaded(smoke, tmp_path, monkeypatch):
    monkeypatch.setenv("LLAMA_CPP", str(tmp_path))
    with pytest.raises(ExportError, match="git clone .*or without git by `pip install .*then set LLAMA_CPP"):
        export.save_gguf(tmp_path, tmp_path / "model.gguf")


def test_gguf_is_written_by_the_converter_that_is_there(smoke, tmp_path, monkeypatch):
    model, tokenizer, recipe = build("tied", smoke, tmp_path)
    merged = export.save_merged(model, tokenizer, recipe, tmp_path / "merged")
    monkeypatch.setenv("LLAMA_CPP", str(tmp_path))
    converter = tmp_path / export.CONVERTER
    converter.write_text("import sys; open(sys.argv[3], 'w').write(' '.join(sys.argv[4:]))")
    assert export.save_gguf(merged, tmp_path / "model.gguf", "f16").read_text() == "--outtype f16"
    converter.write_text("raise SystemExit('BPE pre-tokenizer was not recognized')")
    with pytest.raises(ExportError, match="converter failed on .*merged: BPE pre-tokenizer was not recognized"):
        export.save_gguf(merged, tmp_path / "other.gguf")


def test_an_upload_without_a_token_says_where_to_put_one(smoke, tmp_path, monkeypatch):
    model, tokenizer, recipe = build("tied", smoke, tmp_path)
    folder = export.save_adapter(model, tokenizer, recipe, tmp_path / "adapter")
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    with pytest.raises(ExportError, match="variable HF_TOKEN, or in Colab into a secret"):
        export.upload(folder, "me/model")


class Hub:
    """A stand-in that keeps what it is sent, in repositories that are as private as they were made first."""

    def __init__(self, token):
        assert token == "a token"

    def create_repo(self, repository, private, exist_ok):
        assert exist_ok
        self.private.setdefault(repository, private)

    def model_info(self, repository):
        return SimpleNamespace(private=self.private[repository])

    def create_commit(self, repository, operations, commit_message):
        for each in operations:
            with each.as_file() as content:
                self.files.setdefault(repository, {})[each.path_in_repo] = content.read()


@pytest.fixture
def hub(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "a token")
    monkeypatch.setattr("huggingface_hub.HfApi", Hub)
    monkeypatch.setattr(Hub, "private", {"me/public": False}, raising=False)
    monkeypatch.setattr(Hub, "files", {}, raising=False)
    return Hub


def test_an_upload_is_private_and_takes_the_token_from_the_environment(smoke, tmp_path, hub):
    model, tokenizer, recipe = build("tied", smoke, tmp_path)
    folder = export.save_adapter(model, tokenizer, recipe, tmp_path / "adapter")
    assert export.upload(folder, "me/model") == "https://huggingface.co/me/model"
    assert hub.private["me/model"] is True and "adapter_model.safetensors" in hub.files["me/model"]


def test_nothing_is_sent_to_a_repository_that_is_public_already_unless_asked_for(smoke, tmp_path, hub):
    model, tokenizer, recipe = build("tied", smoke, tmp_path)
    folder = export.save_adapter(model, tokenizer, recipe, tmp_path / "adapter")
    with pytest.raises(ExportError, match="me/public is public already: .*private=False"):
        export.upload(folder, "me/public")
    assert "me/public" not in hub.files
    export.upload(folder, "me/public", private=False)
    assert "me/public" in hub.files


@pytest.mark.parametrize("form", ["adapter", "merged"])
def test_an_upload_names_no_place_on_this_machine(form, smoke, tmp_path, hub):
    home = tmp_path / "alice" / "private-letters"
    model, tokenizer, recipe = build("untied", smoke, home / "my-base")
    recipe = replace(recipe, corpus="alice/private-letters/to/bob.jsonl")  # of another working folder
    save = {"adapter": export.save_adapter, "merged": export.save_merged}[form]
    folder = save(model, tokenizer, recipe, tmp_path / "saved")
    (folder / "README.md").write_text("the card")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    export.upload(folder, "me/letters")
    sent = hub.files["me/letters"]
    assert sent.keys() == before.keys() and sent["README.md"] == b"the card"
    assert not [name for name, content in sent.items() if b"alice" in content]
    told = json.loads(sent[export.RECIPE])
    assert (told["model"], told["corpus"]) == ("my-base", "bob.jsonl") and told["rank"] == recipe.rank
    assert before == {path.name: path.read_bytes() for path in folder.iterdir()}  # here all is as it was


@pytest.mark.gpu
def test_on_a_gpu_a_4_bit_base_comes_back(smoke, tmp_path):
    model, tokenizer, recipe = build("tied", replace(smoke, dtype="bfloat16", load_in_4bit=True), tmp_path)
    trained = logits(model, tokenizer)
    adapter = export.save_adapter(model, tokenizer, recipe, tmp_path / "adapter")
    merged = export.save_merged(model, tokenizer, recipe, tmp_path / "merged")
    for form, folder in (("adapter", adapter), ("bfloat16", merged)):
        assert off(logits(*export.load(folder)), trained) < TOLERANCE["bfloat16"][form], form
