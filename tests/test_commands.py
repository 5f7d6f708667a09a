"""The command line does the notebooks' steps, says what is wrong in a sentence, and gives scripts one JSON object."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from unittest import mock

import pytest

import cptlib
from cptlib import checkpoints, commands, corpus, scoring
from cptlib.errors import CptlibError, RecipeError
from cptlib.export import held_out_digests

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


def test_what_is_no_number_is_null_in_json(call, monkeypatch):
    scores = {"a": scoring.Score(float("nan"), 5, 9), "b": scoring.Score(9e9, 5, 9)}
    monkeypatch.setattr(scoring, "score_domains", lambda *given: scores)
    code, out, _ = call("evaluate", "smoke", "--json")
    measured = json.loads(out, parse_constant=pytest.fail)
    assert code == 0 and measured["a"]["loss"] is measured["b"]["perplexity"] is None and measured["b"]["nats"] == 9e9


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


def test_evaluate_measures_what_was_held_out_then_whatever_the_corpus_has_become(call, tmp_path):
    texts = tmp_path / "texts"
    texts.mkdir()
    stories = corpus.read("stories", 30)["text"]
    for n, story in enumerate(stories[:20]):
        (texts / f"{n + 10}.md").write_text(story, encoding="utf-8")
    code, out, _ = call("train", "--recipe", "smoke", "--corpus", texts, "--to", "mine", "--json")
    before = json.loads(out)["perplexity"]["after"]["held-out documents"]
    assert len(held_out_digests(Path("mine"))) == 4
    for n, story in enumerate(stories[20:]):  # read before the others
        (texts / f"{n}.md").write_text(story, encoding="utf-8")
    assert call("export", "mine", "--to", "whole", "--dtype", "float32")[0] == 0
    for model in ("mine", "whole"):
        code, out, _ = call("evaluate", model, "--json")
        assert json.loads(out)["held-out documents"]["perplexity"] == pytest.approx(before, rel=1e-4)
    Path("mine/held_out.json").unlink()  # as saved before 0.2
    code, out, errors = call("evaluate", "mine", "--json")
    assert code == 0 and "held-out documents" not in json.loads(out) and len(json.loads(out)) == 3
    assert "does not say which documents it was not trained on" in errors


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (["train", "--recipe", "lapdog"], 2, "There is no recipe 'lapdog'. Known recipes: smoke"),
        (["generate", "no-such-folder"], 2, "There is no recipe 'no-such-folder'"),
        (["train", "--recipe", "smoke", "--corpus", "no.txt"], 1, "no.txt: there is no such file."),
        (["generate", "."], 1, "holds no model saved by cptlib"),
        (["export", ".", "--to", "x"], 1, "holds no model saved by cptlib"),
        (["generate", "smoke", "--prompt", "a word " * 600], 2, "the model knows 512 positions: shorten the prompt"),
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


@pytest.mark.parametrize("command", [command.__name__ for command in commands.COMMANDS])
def test_help_teaches_by_examples_and_names_the_exit_codes(call, command):
    code, out, _ = call(command, "--help")
    assert code == 0 and out.count(f"cptlib {command} ") >= 3 and "Exit codes: 0" in out and "--json" in out


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (["train", "--recepie", "smoke"], 2, "--recepie"),
        (["generate"], 2, "MODEL"),
        (["generate", "smoke", "--new-tokens", "-3"], 2, "--new-tokens"),
        (["generate", "smoke", "--temperature", "-1"], 2, "--temperature"),
        (["bench", "smoke", "--rounds", "0"], 2, "--rounds"),
        (["export", "x", "--to", "y", "--gguf", "q1"], 2, "--gguf"),
        (["run", "no_such.ipynb"], 2, "There is no notebook no_such.ipynb"),
        (["corpus", ".", "--recipe", "lapdog"], 2, "There is no recipe 'lapdog'"),
        (["traim"], 2, "traim"),
    ],
)
def test_a_wrong_call_is_one_sentence_and_loads_nothing(words, code, sentence, tmp_path):
    program = [sys.executable, "-X", "importtime", "-m", "cptlib", *words]
    ended = subprocess.run(program, capture_output=True, text=True, check=False)
    said = [line for line in ended.stderr.splitlines() if not line.startswith("import time:")]
    assert ended.returncode == code and sentence.lower() in " ".join(said).lower() and len(said) == 1
    assert " torch\n" not in ended.stderr


def test_the_version_is_the_packages(call):
    assert call("--version")[:2] == (0, f"{cptlib.__version__}\n")


@pytest.mark.parametrize(
    ("error", "code", "sentence"),
    [
        (KeyboardInterrupt(), 130, "Interrupted."),
        (PermissionError(13, "Permission denied", "outputs"), 1, "outputs"),
        (OSError(28, "No space left on device"), 1, "No space left"),
        (ModuleNotFoundError("No module named 'torch'"), 1, "pip install 'cptlib[train]'"),
        (CptlibError("Something is off: mend it."), 1, "Something is off: mend it."),
        (RecipeError("rank=0"), 2, "rank=0"),
    ],
)
def test_whatever_a_command_meets_ends_in_a_sentence(call, monkeypatch, error, code, sentence):
    monkeypatch.setattr("cptlib.recipe.Recipe.parse", mock.Mock(side_effect=error))
    got, out, said = call("train", "--recipe", "smoke", "--json")
    assert got == code and sentence in said and out == "" and "Traceback" not in said
