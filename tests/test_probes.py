"""The likelihoods are the model's own, and the counting is right."""

import math

import pandas
import pytest
import torch

from cptlib import probes


def test_a_model_that_knows_nothing_gives_each_token_the_same_probability(tiny):
    model, tokenizer = tiny
    torch.nn.init.zeros_(model.get_output_embeddings().weight)
    [row] = probes.ask(model, tokenizer, [probes.Question("The fox", " ran home.", (" sat.",))]).to_dict("records")
    assert row["probability"] == pytest.approx(1 / len(tokenizer), rel=1e-4)


def test_the_probability_is_the_models_own_and_of_the_continuation_alone(tiny):
    model, tokenizer = tiny
    prompt, continuation = "The fox ran", " home to the sea."
    ids = tokenizer(prompt + continuation, return_tensors="pt")["input_ids"]
    labels = ids.clone()
    labels[:, : len(tokenizer(prompt)["input_ids"])] = -100
    mean = probes.log_probability(model.eval(), tokenizer, prompt, continuation)
    assert mean == pytest.approx(-model(ids, labels=labels).loss.item(), rel=1e-5)


def test_the_likeliest_is_chosen(monkeypatch):
    likely = {" b": -1.0, " a": -2.0, " c": -3.0}
    monkeypatch.setattr(probes, "log_probability", lambda model, tokenizer, prompt, continuation: likely[continuation])
    questions = probes.match("The {} is", {"x": "a", "y": "b", "z": "c"})
    assert questions[0] == probes.Question("The x is", " a", (" b", " c"))
    answers = probes.ask(None, None, questions)
    assert list(answers["chosen"]) == ["b", "b", "b"] and probes.share_right(answers) == pytest.approx(1 / 3)
    assert answers["probability"][0] == pytest.approx(math.exp(-2))


def test_the_figure_shows_both_shares_and_guessing():
    wrong = pandas.DataFrame({"right": ["a", "b"], "chosen": ["b", "b"]})
    right = pandas.DataFrame({"right": ["a", "b"], "chosen": ["a", "b"]})
    ax = probes.plot_share_right({"terms": (wrong, right)}, chance=0.125)
    assert [bar.get_height() for bar in ax.patches] == [50, 100]
    assert ax.lines[0].get_ydata()[0] == 12.5 and ax.get_title(loc="left") and ax.get_ylabel()
