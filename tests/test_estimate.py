"""The estimate against what was measured, the recipe that fits, and the sentences where none does."""

import json
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch

from cptlib import corpus, estimate, lora, machine, memory, models, run, shapes, weights
from cptlib.bench import results
from cptlib.errors import DoesNotFit, ModelError
from cptlib.recipe import Recipe

MEASURED = sorted((Path(__file__).parent.parent / "notebooks" / "measured").glob("memory-*.json"))
RUNS = [(path.stem, row) for path in MEASURED for row in json.loads(path.read_text())["rows"]]
A100 = Recipe.named("a100")


@pytest.mark.parametrize(("name", "row"), RUNS, ids=lambda part: part if isinstance(part, str) else f"{part['gb']} GB")
def test_the_estimate_is_within_a_tenth_of_the_measured_peak(name, row):
    predicted = machine.estimated(Recipe(**row["settings"]), row=row["row"]).gb
    assert predicted == pytest.approx(row["gb"], rel=0.10)


def test_the_measurements_vary_what_the_estimate_depends_on():
    settings = [row["settings"] for _, row in RUNS]
    varied = {field.name for field in fields(Recipe) if len({str(each.get(field.name)) for each in settings}) > 1}
    assert len(RUNS) >= 8
    assert varied >= {"model", "rank", "max_length", "micro_batch", "gradient_checkpointing", "load_in_4bit"}


@pytest.mark.parametrize(
    ("change", "more"),
    [
        ({"rank": 256}, True),
        ({"max_length": 4096}, True),
        ({"micro_batch": 4}, True),
        ({"load_in_4bit": False}, True),
        ({"gradient_checkpointing": True}, False),
        ({"train_embeddings": False}, False),
        ({"optimizer": "adamw_8bit"}, False),
    ],
)
def test_each_setting_moves_the_estimate_the_right_way(change, more):
    change_in_gb = machine.estimated(replace(A100, **change)).gb - machine.estimated(A100).gb
    assert change_in_gb > 0.2 if more else change_in_gb < -0.2


def test_the_parts_are_named_and_add_up():
    need = machine.estimated(A100)
    assert sum(need.parts.values()) == need.gb
    assert str(need).splitlines()[-1] == f"{need.gb:6.2f} GB  in all"


def test_what_is_held_is_what_a_model_has(tiny, smoke):
    model = lora.add_adapters(tiny[0], smoke)
    numbers = lora.count_trainable(model)
    need = estimate.estimate(smoke, model.config)
    assert need.parts["adapters"] == pytest.approx(4 * numbers["adapters"] / memory.GB)
    assert need.parts["trained embedding and head"] == pytest.approx(4 * numbers["embed_tokens"] / memory.GB)
    assert need.parts["frozen weights"] == pytest.approx(4 * numbers["frozen"] / memory.GB, rel=0.01)  # the norms aside


@pytest.mark.parametrize(
    ("gb", "bits4", "checkpointing", "gave_up"),
    [
        (79, False, False, "gives up nothing"),
        (28.6, True, False, "16-bit weights"),
        (26, True, False, "the optimizer's averages in 32 bits"),
        (15, True, True, "keeping activations"),
    ],
)
def test_the_fastest_setting_that_fits_is_taken_and_says_what_it_gave_up(gb, bits4, checkpointing, gave_up):
    fitted = machine.fit(A100, gb)
    assert (fitted.load_in_4bit, fitted.gradient_checkpointing) == (bits4, checkpointing)
    assert machine.estimated(fitted).gb < gb and gave_up in fitted.why
    assert fitted.micro_batch * fitted.accumulation == A100.micro_batch * A100.accumulation


def test_where_rows_must_be_split_their_number_a_step_stays():
    fitted = machine.fit(replace(A100, micro_batch=16, max_length=8192), 24)
    assert fitted.micro_batch < 16 and fitted.micro_batch * fitted.accumulation == 16
    assert f"one pass a step ({fitted.accumulation} instead)" in fitted.why


def test_where_nothing_fits_it_says_what_it_would_take():
    with pytest.raises(DoesNotFit, match=r"cannot be made to fit 8.0 GB: .* needs 1\d.\d GB. Lower rank"):
        machine.fit(A100, 8)


def test_a_run_that_would_not_fit_is_refused_before_anything_is_loaded(gpu, monkeypatch):
    gpu(free=14.5, total=15.0)
    monkeypatch.setattr(corpus, "read", None)
    monkeypatch.setattr(models, "load", None)
    with pytest.raises(DoesNotFit) as refusal:
        run.prepare(replace(A100, dtype="bfloat16"))
    nearest = "with 11.7 GB: replace(recipe, optimizer='adamw_8bit', gradient_checkpointing=True)"
    there = "there are 15.0 GB to use of the GPU's 15.0 GB"
    assert f"needs about 27.1 GB, and {there}. The nearest that fits, {nearest}" in str(refusal.value)


# By config class: billions of weights of its default sizes (Gemma 3, Mistral 3, Llama 4: the part for text), trained
# adapters of rank 1 in thousands where the model's card or peft tells them, and whether its activations are known.
OTHERS = {
    "GPT2Config": (0.124, 147.456, False),
    "GPTNeoXConfig": (20.55, 4325.376, False),
    "Gemma3Config": (2.63, 1297.920, False),
    "MixtralConfig": (46.70, 22347.776, False),
    "Qwen3MoeConfig": (15.35, 30978.048, False),
    "GptOssConfig": (116.83, None, False),
    "DeepseekV3Config": (671.03, None, False),
    "Llama4Config": (107.77, None, False),
    "Gemma3nConfig": (6.84, None, False),
    "FalconConfig": (6.92, 2039.808, False),
    "Phi3Config": (3.82, 1572.864, False),
    "MambaConfig": (0.16, None, False),
    "Qwen2_5_VLConfig": (75.79, None, False),
    "Mistral3Config": (23.57, 5775.360, True),
    "MistralConfig": (7.24, 2621.440, True),
}


@pytest.fixture(scope="session")
def transformers():
    models.quiet()
    import transformers

    return transformers


@pytest.mark.parametrize("kind", OTHERS)
def test_every_weight_of_any_architecture_is_counted_experts_too(kind, transformers):
    billions, thousands, known = OTHERS[kind]
    config = getattr(transformers, kind)()
    counts = shapes.counts(config)
    assert (counts.linear + counts.other) / 1e9 == pytest.approx(billions, rel=0.01)
    assert thousands is None or counts.per_rank == thousands * 1000
    need = estimate.estimate(A100, config)
    assert need.parts["frozen weights"] > estimate.NF4 * billions * 1e9 / memory.GB * 0.99
    assert bool(need.unknown) != known and ("This is the least: what activations" in str(need)) != known
    assert (need.parts["activations"] > 0) == known


@pytest.mark.parametrize("name", shapes.SHAPES)
def test_a_known_shapes_arithmetic_is_what_the_model_has(name, transformers):
    known = weights.config_of(f"shape:{name}")
    counted, told = shapes.counts(transformers.LlamaConfig(**shapes.SHAPES[name])), shapes.counts(known)
    norms = (2 * known.num_hidden_layers + 1) * known.hidden_size
    assert told == replace(counted, other=counted.other - norms)


def test_a_config_of_loaded_4_bit_weights_counts_as_the_one_it_was_loaded_by(transformers):
    config, loaded = transformers.GPTNeoXConfig(), transformers.GPTNeoXConfig()
    loaded.quantization_config = transformers.BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_compute_dtype=torch.bfloat16
    )
    loaded._pre_quantization_dtype = loaded.dtype = torch.bfloat16
    assert shapes.counts(loaded) == shapes.counts(config)


def test_an_estimate_that_leaves_something_out_refuses_for_weights_and_optimizer_alone(transformers):
    mixtral = transformers.MixtralConfig()
    estimate.refuse(replace(A100, rank=8, max_length=32768, micro_batch=64, train_embeddings=False), 40, mixtral)
    with pytest.raises(
        DoesNotFit, match=r"needs at least \d+.\d GB, and there are 15.0 GB. Recipe 'a100' cannot be made"
    ):
        estimate.refuse(A100, 15, mixtral)
    fitted = estimate.fit(replace(A100, micro_batch=8), 16, transformers.Phi3Config())
    assert (fitted.micro_batch, fitted.accumulation, fitted.gradient_checkpointing) == (1, 8, "unsloth")
    assert "it needs at least " in fitted.why and fitted.why.endswith("is not known for a phi3")


def test_a_model_that_continues_no_text_is_refused_in_a_sentence(transformers):
    with pytest.raises(ModelError, match="no model of type 'vit' that continues text"):
        estimate.estimate(A100, transformers.ViTConfig())


def test_where_out_of_memory_leaves_no_setting_to_change_other_ways_are_named(monkeypatch):
    monkeypatch.setattr(memory, "available_gb", lambda: 80.0)
    config, sentence = weights.config_of(A100.model), "ran out of the GPU's 80.0 GB. Lower rank or max_length, or"
    with pytest.raises(DoesNotFit, match=sentence), estimate.out_of_memory_explained(machine.fit(A100, 60), config):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


def test_running_out_of_memory_ends_in_a_sentence(monkeypatch):
    monkeypatch.setattr(memory, "available_gb", lambda: 26.0)

    sentence = r"ran out of the GPU's 26.0 GB. The nearest that fits, with 2[0-9.]+ GB: replace\(recipe, "
    with (
        pytest.raises(DoesNotFit, match=sentence),
        estimate.out_of_memory_explained(A100, weights.config_of(A100.model)),
    ):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


@pytest.mark.parametrize(
    ("counts", "there"),
    [
        ({"free": 13.25, "total": 80.0}, "14.0 GB to use of the GPU's 80.0 GB. The nearest that fits, with 11.7 GB"),
        (
            {"free": 3.25, "total": 47.5, "reserved": 42.0, "allocated": 32.0},
            "14.0 GB to use of the GPU's 47.5 GB, beside 32.0 GB in this process's tensors. The nearest that fits",
        ),
    ],
)
def test_what_is_taken_already_is_not_there(gpu, monkeypatch, counts, there):
    """By another process, or by a model that this one has: a second one comes beside it."""
    monkeypatch.setenv("PATH", "")
    gpu(**counts)
    with pytest.raises(DoesNotFit, match=f"needs about 27.1 GB, and there are {there}"):
        machine.require_memory(replace(A100, dtype="bfloat16"))
    gpu(free=30.0, total=80.0, reserved=49.0, allocated=49.0)
    machine.require_memory(replace(A100, dtype="bfloat16"))


def test_the_estimate_needs_no_network_for_known_models():
    assert weights.config_of("unsloth/mistral-7b-v0.3").hidden_size == 4096
    with pytest.raises(ModelError, match="could not be loaded"):
        weights.config_of("nobody/no-such-model")


def test_what_training_would_not_fit_can_still_be_loaded_to_be_used(gpu):
    """A merged 7B model in 16 bits, on a GPU of 22.5 GB: 14 GB of weights."""
    gpu(free=22.0, total=22.5)
    whole = replace(A100, dtype="bfloat16", load_in_4bit=False)
    assert models.load_arguments(whole)["load_in_4bit"] is False
    with pytest.raises(DoesNotFit):
        machine.require_memory(whole)


def test_the_figures_name_their_parts_and_axes():
    ax = estimate.plot_estimate({"a100": machine.estimated(A100)}, limit=15)
    top = max(bar.get_y() + bar.get_height() for bar in ax.patches)
    assert top == pytest.approx(machine.estimated(A100).gb) and ax.get_ylabel()
    ax = machine.plot_growth(A100)
    lora_line, full_line = ax.lines[:2]
    gap = full_line.get_ydata() - lora_line.get_ydata()
    assert min(gap) > 60 and ax.get_xlabel() and ax.get_title(loc="left")


def test_the_table_puts_predicted_beside_measured():
    table = results.predicted_and_measured([row for _, row in RUNS])
    assert len(table) == len(RUNS) and table["error %"].abs().max() < 10
