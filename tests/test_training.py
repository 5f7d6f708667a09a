import json
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from cptlib import corpus, lora, training

ROOT = Path(__file__).parent.parent


@pytest.fixture
def trainer(tiny, documents, smoke, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model, tokenizer = tiny
    recipe = replace(smoke, epochs=4, max_steps=-1)
    return training.make_trainer(lora.add_adapters(model, recipe), tokenizer, documents["train"], recipe)


def test_training_lowers_the_loss_and_moves_every_part(trainer, capsys):
    weights = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
    result = trainer.train()
    table = training.history(trainer)
    assert table["loss"].iloc[-1] < table["loss"].iloc[0] - 0.05
    changed = {name for name, p in trainer.model.named_parameters() if not torch.equal(p, weights[name])}
    trainable = {name for name, p in trainer.model.named_parameters() if p.requires_grad}
    assert changed == trainable
    embedding = next(name for name in trainable if "embed_tokens" in name)
    moved = (trainer.model.get_parameter(embedding) != weights[embedding]).any(dim=1)
    assert moved[torch.tensor(trainer.train_dataset[0]["input_ids"])].all()
    assert "about 0 s left" in capsys.readouterr().out
    assert result.global_step == 16


def test_history_and_report_agree_with_the_run(trainer):
    with pytest.raises(ValueError, match="no step yet"):
        training.history(trainer)
    result = trainer.train()
    table = training.history(trainer)
    tokens = sum(len(ids) for ids in trainer.train_dataset["input_ids"])
    assert list(table["step"]) == list(range(1, 17))
    assert table["tokens"].iloc[-1] == 4 * tokens
    assert table["learning_rate"].max() == pytest.approx(trainer.args.learning_rate)
    report = training.report(trainer, result)
    assert (report.steps, report.tokens) == (16, 4 * tokens) and report.seconds > 0
    assert all(gb > 0 for gb in report.peak_gb.values())


def test_the_learning_curve_draws_raw_smoothed_and_rate(trainer):
    trainer.train()
    table = training.history(trainer)
    top, bottom = training.plot_learning_curve(table)
    assert list(top.lines[0].get_ydata()) == list(table["loss"])
    assert list(bottom.lines[0].get_ydata()) == list(table["learning_rate"])
    assert top.get_ylabel() and bottom.get_xlabel()


@pytest.mark.parametrize(
    ("dtype", "bf16", "fp16"), [("bfloat16", True, False), ("float16", False, True), ("float32", False, False)]
)
def test_mixed_precision_follows_the_dtype(smoke, dtype, bf16, fp16):
    arguments = training.training_arguments(replace(smoke, dtype=dtype))
    assert (arguments["bf16"], arguments["fp16"]) == (bf16, fp16)


def test_the_time_left_of_a_run_that_goes_on_is_reckoned_from_there(trainer, monkeypatch, capsys):
    progress = trainer.callback_handler.callbacks[-1]
    clock = iter([100.0, 105.0])
    monkeypatch.setattr(training.time, "perf_counter", lambda: next(clock))
    progress.on_train_begin(None, SimpleNamespace(global_step=10), None)
    progress.on_log(None, SimpleNamespace(global_step=12, max_steps=20), None, {"loss": 1.0})
    assert "about 20 s left" in capsys.readouterr().out  # two steps took 5 s, eight are left


@pytest.mark.parametrize("page", ["README.md", "notebooks/index.md"])
def test_the_lines_that_introduce_the_library_train_on_all_of_a_long_text(page, tmp_path, monkeypatch):
    """As they stand there, on documents several rows long."""
    [code] = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL)
    stories = corpus.read("stories")["text"][:]
    texts = ["\n\n".join(stories[n : n + 8]) for n in range(0, 240, 8)]
    (tmp_path / "my_text.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    monkeypatch.setenv("CPTLIB_RECIPE", "smoke,max_length=256,max_steps=1")
    monkeypatch.chdir(tmp_path)
    seen = {}
    made = training.make_trainer
    monkeypatch.setattr(training, "make_trainer", lambda *args: seen.setdefault("trainer", made(*args)))
    exec(code, seen)
    rows, tokenizer = seen["trainer"].train_dataset["input_ids"][:], seen["tokenizer"]
    text = "".join(tokenizer.batch_decode(rows, skip_special_tokens=True))
    assert sorted(text) == sorted("".join(seen["documents"]["train"]["text"])) and len(rows) > 10 * len(texts) / 3
    assert sum(ids.count(tokenizer.eos_token_id) for ids in rows) == len(texts) - 20
