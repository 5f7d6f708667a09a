"""The command line does the notebooks' steps, says what is wrong in a sentence, and gives scripts one JSON object."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cptlib import checkpoints, cli

RECIPE = "smoke,epochs=2,max_steps=-1,save_minutes=0"


@pytest.fixture(autouse=True)
def alone(tmp_path_factory, monkeypatch):
    monkeypatch.chdir(tmp_path_factory.mktemp("alone"))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """What `train --json` prints, and where it ran: killed after its third checkpoint, then started again."""
    home = tmp_path_factory.mktemp("train")
    words = [sys.executable, "-m", "cptlib", "train", "--recipe", RECIPE, "--json"]
    first = subprocess.Popen(words, cwd=home, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not [path for path in home.glob("outputs/*/checkpoint-3") if not checkpoints.damage(path)]:
        assert first.poll() is None
        time.sleep(0.002)
    first.send_signal(signal.SIGKILL)
    first.wait()
    again = subprocess.run(words, cwd=home, capture_output=True, text=True, check=True)
    assert "Going on from outputs/smoke-" in again.stderr
    return json.loads(again.stdout), home


def test_train_saves_an_adapter_with_its_card_and_prints_one_object(trained):
    result, home = trained
    adapter = home / result["adapter"]
    assert (adapter / "adapter_model.safetensors").exists() and result["steps"] == 8
    assert "| held-out documents |" in (adapter / "README.md").read_text()
    assert result["perplexity"]["after"]["held-out documents"] < result["perplexity"]["before"]["held-out documents"]


def test_a_finished_run_is_not_paid_for_twice(trained, call, monkeypatch):
    result, home = trained
    monkeypatch.chdir(home)
    code, out, _ = call("train", "--recipe", RECIPE)
    assert code == 0 and "was finished before" in out and f"Saved: {result['adapter']}" in out


def test_generate_and_evaluate_read_a_saved_model(trained, call):
    result, home = trained
    code, out, _ = call("generate", home / result["adapter"], "--prompt", "The fox", "--new-tokens", 5, "--json")
    assert code == 0 and json.loads(out)["prompt"] == "The fox" and json.loads(out)["new_tokens"] == 5
    code, out, _ = call("evaluate", home / result["adapter"], "--json")
    measured = json.loads(out)["held-out documents"]["perplexity"]
    assert measured == pytest.approx(result["perplexity"]["after"]["held-out documents"], rel=1e-4)
    code, out, _ = call("evaluate", "smoke", "--json")
    assert json.loads(out)["held-out documents"]["perplexity"] == pytest.approx(
        result["perplexity"]["before"]["held-out documents"], rel=1e-4
    )


def test_export_merges_and_the_result_evaluates_alike(trained, call, tmp_path):
    result, home = trained
    code, out, _ = call("export", home / result["adapter"], "--to", tmp_path / "whole", "--dtype", "float32")
    assert code == 0 and f"model: {tmp_path / 'whole'}" in out and (tmp_path / "whole" / "README.md").exists()
    code, out, _ = call("evaluate", tmp_path / "whole", "--json")
    assert json.loads(out)["held-out documents"]["perplexity"] == pytest.approx(
        result["perplexity"]["after"]["held-out documents"], rel=1e-4
    )


def test_a_corpus_of_ones_own_is_read_whole(call, tmp_path):
    (tmp_path / "mine.txt").write_text("\n<|endoftext|>\n".join(f"The {n}th fox ran home." for n in range(20)))
    code, out, _ = call("train", "--recipe", "smoke", "--corpus", tmp_path / "mine.txt", "--to", "mine", "--json")
    assert code == 0 and json.loads(out)["adapter"] == "mine" and json.loads(out)["recipe"]["documents"] is None
    code, out, _ = call("evaluate", "mine", "--text", tmp_path / "mine.txt", "--json")
    assert list(json.loads(out)) == [str(tmp_path / "mine.txt")]


def test_a_folder_with_one_file_of_each_format_trains(call, one_of_each):
    code, out, errors = call("train", "--recipe", "smoke", "--corpus", one_of_each, "--to", "mixed", "--json")
    assert code == 0 and json.loads(out)["steps"] == 2 and "every document ends with EOS" in errors


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (["train", "--recipe", "lapdog"], 2, "There is no recipe 'lapdog'. Known recipes: smoke"),
        (["generate", "no-such-folder"], 2, "There is no recipe 'no-such-folder'"),
        (["train", "--recipe", "smoke", "--corpus", "no.txt"], 1, "no.txt: there is no such file."),
        (["generate", "."], 1, "holds no model saved by cptlib"),
        (["export", ".", "--to", "x"], 1, "holds no model saved by cptlib"),
        (["train", "--recipe", "smoke,held_out=12"], 1, "12 held out would leave none to train on"),
    ],
)
def test_what_is_wrong_is_said_in_a_sentence(call, words, code, sentence):
    got, _, errors = call(*words)
    assert got == code and sentence in errors and "Traceback" not in errors


def test_several_processes_are_refused_before_anything_is_loaded():
    words = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "-m", "cptlib", "train"]
    ended = subprocess.run([*words, "--recipe", "smoke"], capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 1 and "started as 2 processes, and cptlib trains with one" in ended.stderr
    assert "Recipe 'smoke'" not in ended.stdout and not list(Path().iterdir())


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_help_teaches_by_examples_and_names_the_exit_codes(call, command):
    code, out, _ = call(command, "--help")
    assert code == 0 and out.count(f"python -m cptlib {command}") >= 3 and "Exit codes: 0" in out and "--json" in out


def test_an_interrupt_exits_with_130(call, monkeypatch):
    def interrupted(arguments):
        raise KeyboardInterrupt

    monkeypatch.setitem(cli.COMMANDS, "generate", interrupted)
    assert call("generate", "smoke")[0] == 130
