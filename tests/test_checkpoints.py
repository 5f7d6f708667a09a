"""A run that is killed, damaged or interrupted goes on to the very weights and losses of one that was not."""

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

import pytest
import torch

from cptlib import checkpoints, lora, models, training
from cptlib.errors import CheckpointError

# How far the losses of two runs that should be one may be apart. A GPU's sums differ in their last bits from run to run.
LOSS = 1e-3 if torch.cuda.is_available() else 0.0


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """On so small a model threads only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def recipe(smoke):
    return replace(smoke, epochs=3, max_steps=-1, save_minutes=0)  # 12 steps, each saved


@pytest.fixture
def start(recipe, documents, tmp_path, monkeypatch):
    """A trainer as a fresh process makes it, always the same one."""
    monkeypatch.chdir(tmp_path)

    def make(texts=documents["train"]):
        model, tokenizer = models.load(recipe)
        return training.make_trainer(lora.add_adapters(model, recipe), tokenizer, texts, recipe)

    return make


def die_at(trainer, step):
    """Have the trainer raise, as a crash would, once it has saved so many steps."""
    from transformers import TrainerCallback

    class Die(TrainerCallback):
        def on_step_begin(self, args, state, control, **kwargs):
            if state.global_step == step:
                raise MemoryError

    trainer.add_callback(Die())
    return trainer


def losses(trainer):
    return [row["loss"] for row in trainer.state.log_history if "loss" in row]


def weights(trainer):
    return {name: weight.detach().clone() for name, weight in trainer.model.named_parameters() if weight.requires_grad}


@pytest.fixture
def whole(start, recipe):
    """A trainer after a run that nothing stopped; its checkpoints are gone."""
    trainer = start()
    training.train(trainer, recipe)
    shutil.rmtree("outputs")
    return trainer


def test_several_processes_are_refused_and_nothing_is_written(start, recipe, monkeypatch):
    trainer = start()
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(CheckpointError, match="started as 4 processes"):
        training.train(trainer, recipe)
    assert not list(Path().glob("outputs/*/*"))


@pytest.mark.gpu
def test_on_a_gpu_the_losses_agree_to_a_thousandth(start, whole, recipe):
    with pytest.raises(MemoryError):
        training.train(die_at(start(), 5), recipe)
    trainer = start()
    training.train(trainer, recipe)
    assert losses(trainer) == pytest.approx(losses(whole), abs=LOSS)


@pytest.mark.cpu("a GPU's sums differ in their last bits; test_on_a_gpu_the_losses_agree_to_a_thousandth is for it")
def test_a_resumed_run_has_the_bits_of_an_uninterrupted_one(start, whole, recipe, capsys):
    with pytest.raises(MemoryError):
        training.train(die_at(start(), 5), recipe)
    trainer = start()
    result = training.train(trainer, recipe)
    assert "Going on from" in capsys.readouterr().out and result.global_step == 12
    assert losses(trainer) == losses(whole) and len(losses(whole)) == 12
    after, expected = weights(trainer), weights(whole)
    assert any("embed_tokens" in name for name in expected)
    assert after.keys() == expected.keys()  # the embeddings came back trainable
    assert all(torch.equal(after[name], expected[name]) and after[name].dtype == torch.float32 for name in expected)
    assert [g["lr"] for g in trainer.optimizer.param_groups] == [g["lr"] for g in whole.optimizer.param_groups]
    assert trainer.model.get_output_embeddings().weight is trainer.model.get_input_embeddings().weight
    assert training.report(trainer, result).tokens == training.report(whole, result).tokens


def test_the_time_of_both_parts_counts(start, recipe):
    with pytest.raises(MemoryError):
        training.train(die_at(start(), 5), recipe)
    folder = checkpoints.last_whole(Path("outputs") / recipe.run_name)
    before = checkpoints.read_mark(folder).seconds
    result = training.train(start(), recipe)
    assert result.metrics["train_runtime"] > before > 0


def test_only_the_last_checkpoints_stay_and_hold_no_unsafe_weights(start, recipe):
    training.train(start(), recipe)
    run = Path("outputs") / recipe.run_name
    assert sorted(path.name for path in run.glob("checkpoint-*")) == ["checkpoint-11", "checkpoint-12"]
    assert (run / "checkpoint-12" / "adapter_model.safetensors").exists()
    assert all(checkpoints.damage(folder) is None for folder in run.glob("checkpoint-*"))


def test_a_finished_run_is_loaded_with_a_line(start, recipe, capsys):
    first = start()
    training.train(first, recipe)
    again = start()
    result = training.train(again, recipe)
    assert "was finished before" in capsys.readouterr().out
    after, expected = weights(again), weights(first)
    assert after.keys() == expected.keys() and all(torch.equal(after[name], expected[name]) for name in expected)
    assert result.metrics["train_runtime"] > 0 and len(training.history(again)) == 12
    assert training.report(again, result).steps == 12


@pytest.mark.parametrize(
    ("harm", "line"),
    [
        (lambda folder: (folder / checkpoints.MARK).unlink(), "it was not finished"),
        (lambda folder: (folder / "optimizer.pt").unlink(), "its file optimizer.pt is missing"),
        (
            lambda folder: os.truncate(folder / "adapter_model.safetensors", 999),
            "its file adapter_model.safetensors is damaged",
        ),
        (lambda folder: (folder / "trainer_state.json").write_text("{"), "its file trainer_state.json is damaged"),
        (lambda folder: (folder / checkpoints.MARK).write_text('{"files": '), "it was not finished"),
    ],
)
def test_a_torn_checkpoint_is_passed_over_with_a_line(capsys, tmp_path, harm, line):
    for step in (3, 4):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        for name in ("optimizer.pt", "adapter_model.safetensors", "trainer_state.json"):
            (folder / name).write_bytes(b"x" * 2000)
        checkpoints.mark(folder, data=1, seconds=2.0)
    harm(tmp_path / "checkpoint-4")
    assert checkpoints.last_whole(tmp_path) == tmp_path / "checkpoint-3"
    assert f"checkpoint-4 is passed over: {line}" in capsys.readouterr().out


def test_torn_checkpoints_go_first(tmp_path):
    for step in (1, 2, 3, 4):
        (tmp_path / f"checkpoint-{step}").mkdir()
    for step in (3, 1):
        checkpoints.mark(tmp_path / f"checkpoint-{step}", data=1, seconds=0.0)
    checkpoints.keep_last(tmp_path, 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-1", "checkpoint-3"]


@pytest.mark.parametrize(
    "name", ["checkpoint-9-backup", "checkpoint-old", "checkpoint-", "checkpoint-9 (copy)", "checkpoint-9.d"]
)
def test_what_a_user_put_beside_the_checkpoints_is_neither_read_nor_removed(tmp_path, name, capsys):
    for step in (4, 5):
        (tmp_path / f"checkpoint-{step}").mkdir()
        checkpoints.mark(tmp_path / f"checkpoint-{step}", data=1, seconds=0.0)
    shutil.copytree(tmp_path / "checkpoint-4", tmp_path / name)
    (tmp_path / "checkpoint-77").write_text("A file.")
    os.utime(tmp_path / name / checkpoints.MARK, (0, 0))
    assert checkpoints.last_whole(tmp_path) == tmp_path / "checkpoint-5" and not capsys.readouterr().out
    checkpoints.keep_last(tmp_path, 1)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["checkpoint-5", "checkpoint-77", name])


def test_what_a_user_put_beside_the_checkpoints_makes_no_room_for_them(tmp_path, monkeypatch):
    (tmp_path / "checkpoint-1-good").mkdir()
    (tmp_path / "checkpoint-1-good" / "optimizer.pt").write_bytes(b"x" * 5_000)
    model = torch.nn.Linear(10, 10, bias=False)  # 1,200 bytes a checkpoint
    monkeypatch.setattr(shutil, "disk_usage", lambda path: namedtuple("usage", "free")(2000))
    with pytest.raises(CheckpointError, match="and 3 of them must fit"):
        checkpoints.require_room(model, tmp_path, 2)
    (tmp_path / "checkpoint-1-good").rename(tmp_path / "checkpoint-1")  # one that will be removed
    checkpoints.require_room(model, tmp_path, 2)


HOLDER = textwrap.dedent("""
    import sys, time
    from pathlib import Path
    from cptlib import checkpoints

    with checkpoints.alone_in(Path(sys.argv[1])):
        print("holds", flush=True)
        time.sleep(600)
""")


@pytest.fixture
def hold():
    """Starts a process that trains, as far as others can see, in a folder, and ends it when the test is over."""
    holders = []

    def start(run):
        holders.append(subprocess.Popen([sys.executable, "-c", HOLDER, str(run)], stdout=subprocess.PIPE, text=True))
        assert holders[0].stdout.readline() == "holds\n"
        return holders[0]

    yield start
    for holder in holders:
        holder.kill()
        holder.communicate()


def test_a_folder_that_another_process_trains_in_is_left_alone(start, recipe, hold, capsys):
    with pytest.raises(MemoryError):
        training.train(die_at(start(), 5), recipe)
    run = Path("outputs") / recipe.run_name
    (run / "checkpoint-5" / "optimizer.pt").write_bytes(b"half written")  # what it might be doing now
    holder = hold(run)

    def content():
        return {path: path.stat().st_mtime_ns for path in run.rglob("*")}

    before, trainer, callbacks = content(), start(), []
    capsys.readouterr()
    callbacks[:] = trainer.callback_handler.callbacks
    with pytest.raises(CheckpointError, match=f"Another process is training in {run}") as refusal:
        training.train(trainer, recipe)
    assert "\n" not in str(refusal.value) and not capsys.readouterr().out
    assert content() == before and trainer.state.global_step == 0 and trainer.callback_handler.callbacks == callbacks
    holder.kill()  # leaves no lock behind
    holder.wait()
    assert training.train(trainer, recipe).global_step == 12


def test_a_run_that_failed_in_this_process_holds_nothing(start, recipe, hold):
    with pytest.raises(MemoryError):
        training.train(die_at(start(), 1), recipe)
    hold(Path("outputs") / recipe.run_name)


def test_other_folders_are_trained_in_at_the_same_time(tmp_path, hold):
    hold(tmp_path / "one")
    with checkpoints.alone_in(tmp_path / "another"):
        pass


def test_other_documents_are_not_gone_on_with(start, recipe, documents):
    with pytest.raises(MemoryError):
        training.train(die_at(start(), 2), recipe)
    with pytest.raises(CheckpointError, match="trained on other documents.*or remove outputs/smoke-"):
        training.train(start(documents["train"].select([1, 0, 2, 3, 4, 5, 6, 7])), recipe)


def test_another_recipe_has_another_folder(recipe):
    assert replace(recipe, rank=8).run_name != recipe.run_name
    assert replace(recipe, prompt="Once", save_minutes=3).run_name == recipe.run_name


def test_a_full_disk_is_said_before_training(start, recipe, monkeypatch):
    trainer = start()
    monkeypatch.setattr(shutil, "disk_usage", lambda path: namedtuple("usage", "free")(1000))
    with pytest.raises(CheckpointError, match=r"takes up to 0\.0 GB, and 3 of them must fit on the disk of outputs/"):
        training.train(trainer, recipe)
    assert trainer.state.global_step == 0


def test_ctrl_c_saves_before_it_stops(start, whole, recipe, capsys):
    from transformers import TrainerCallback

    class Press(TrainerCallback):
        def on_step_begin(self, args, state, control, **kwargs):
            if state.global_step == 6:
                signal.raise_signal(signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    seldom, trainer = replace(recipe, save_minutes=60), start()
    trainer.add_callback(Press())
    with pytest.raises(KeyboardInterrupt):
        training.train(trainer, seldom)
    assert "Stopped and saved at step 7 of 12" in capsys.readouterr().out
    assert signal.getsignal(signal.SIGINT) is before
    training.train(trainer, seldom)  # the cell once more, with the same trainer
    assert losses(trainer) == pytest.approx(losses(whole), abs=LOSS)


KILLS = textwrap.dedent("""
    import contextlib, json, os, random, signal, sys, time
    from dataclasses import replace
    from pathlib import Path
    import unsloth, torch
    torch.set_num_threads(1)  # a fork does not take threads along
    from cptlib import corpus, lora, models, training
    from cptlib.recipe import Recipe

    recipe = replace(Recipe.named("smoke"), epochs=3, max_steps=-1, save_minutes=0)
    model, tokenizer = models.load(recipe)
    documents = corpus.add_eos(corpus.split(corpus.read("stories", 12), 4, recipe.seed), tokenizer)
    trainer = training.make_trainer(lora.add_adapters(model, recipe), tokenizer, documents["train"], recipe)
    chance = random.Random(int(sys.argv[2]))

    def begin():
        child = os.fork()
        if child == 0:
            with open("log.txt", "a") as log, contextlib.redirect_stdout(log):
                training.train(trainer, recipe)
                os._exit(0)
        return child

    def result():
        [state] = Path().glob("outputs/*/checkpoint-12")
        losses = [row["loss"] for row in json.loads((state / "trainer_state.json").read_text())["log_history"] if "loss" in row]
        return losses, (state / "adapter_model.safetensors").read_bytes()

    os.mkdir("whole"); os.chdir("whole")
    started = time.time()
    assert os.waitpid(begin(), 0)[1] == 0
    took, expected, kills, runs = time.time() - started, result(), 0, 0
    os.chdir("..")
    while kills < int(sys.argv[1]):
        os.mkdir(f"run-{runs}"); os.chdir(f"run-{runs}")
        while True:
            child, end = begin(), time.time() + chance.uniform(0, took)
            while (ended := os.waitpid(child, os.WNOHANG))[0] == 0 and time.time() < end:
                time.sleep(0.001)
            if ended[0] == 0:
                os.kill(child, signal.SIGKILL)
                kills += os.WIFSIGNALED(os.waitpid(child, 0)[1])
            elif ended[1] == 0:
                break
            else:
                sys.exit("a run failed: " + Path("log.txt").read_text())
        assert result() == expected, f"run {runs} came to other losses or weights"
        runs += 1
        os.chdir("..")
    print(json.dumps({"kills": kills, "runs": runs, "seconds": time.time() - started}))
""")


@pytest.mark.cpu("CUDA does not outlive a fork; what a kill leaves behind is the same files")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills forked processes")
def test_twenty_kills_at_random_moments_change_nothing(tmp_path):
    ended = subprocess.run(
        [sys.executable, "-c", KILLS, "20", "1"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
    summary = json.loads(ended.stdout.splitlines()[-1])
    assert summary["kills"] >= 20 and summary["runs"] >= 1
