import math

import pytest
import torch

from cptlib import evaluate
from cptlib.evaluate import Score


def test_the_measures():
    score = Score(nats=20 * math.log(2), tokens=10, bytes=40)
    assert score.loss == pytest.approx(2 * math.log(2))
    assert score.perplexity == pytest.approx(4)
    assert score.bits_per_byte == pytest.approx(0.5)


def test_a_model_that_knows_nothing_chooses_among_the_vocabulary(tiny):
    model, tokenizer = tiny
    torch.nn.init.zeros_(model.get_output_embeddings().weight)
    assert evaluate.evaluate(model, tokenizer, ["Once upon a time."]).perplexity == pytest.approx(len(tokenizer))


def test_the_loss_is_the_models_own(tiny):
    model, tokenizer = tiny
    text = "A fox found a red boat." + tokenizer.eos_token
    ids = tokenizer(text, return_tensors="pt")["input_ids"]
    score = evaluate.evaluate(model.eval(), tokenizer, [text])
    assert score.loss == pytest.approx(model(ids, labels=ids).loss.item(), rel=1e-5)
    assert score.tokens == ids.shape[1] - 1
    first = tokenizer.decode(ids[0, 0])
    assert score.bytes == len("A fox found a red boat.") - len(first)  # EOS stands for no bytes


def test_long_texts_are_read_in_windows(tiny):
    model, tokenizer = tiny
    text = "The moon was out. " * 30
    ids = tokenizer(text)["input_ids"]
    score = evaluate.evaluate(model, tokenizer, [text, "x"], max_length=16)
    windows = [ids[i : i + 16] for i in range(0, len(ids) - 1, 16)]
    assert score.tokens == sum(len(window) - 1 for window in windows)


def test_nothing_to_evaluate_is_said(tiny):
    with pytest.raises(ValueError, match="no text to evaluate"):
        evaluate.evaluate(*tiny, ["", "x"])


def test_the_domains_exist_on_this_machine():
    texts = evaluate.domains(["A story."], characters=2000)
    assert list(texts) == ["held-out documents", "reference prose", "Python code", "licences"]
    for domain in list(texts)[1:]:
        assert 1000 < sum(map(len, texts[domain])) <= 2000, domain
    assert "def " in "".join(evaluate.domains([])["Python code"])


def test_comparison_table_and_figure():
    before, after = {"a": Score(30, 10, 40), "b": Score(20, 10, 40)}, {"a": Score(20, 10, 40), "b": Score(20, 10, 40)}
    table = evaluate.compare(before, after)
    assert table.loc["a", "perplexity before"] == round(math.exp(3), 2)
    assert table.loc["a", "change"] == "-63.2%" and table.loc["b", "change"] == "+0.0%"
    ax = evaluate.plot_comparison(before, after)
    assert [bar.get_height() for bar in ax.patches] == pytest.approx(
        [math.exp(3), math.exp(2), math.exp(2), math.exp(2)]
    )
