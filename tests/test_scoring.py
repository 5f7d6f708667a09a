import ast
import hashlib
import io
import json
import math
import tokenize
from dataclasses import replace

import pytest
import torch

from cptlib import scoring
from cptlib.scoring import Score


def test_the_measures():
    score = Score(nats=20 * math.log(2), tokens=10, bytes=40)
    assert score.loss == pytest.approx(2 * math.log(2))
    assert score.perplexity == pytest.approx(4)
    assert score.bits_per_byte == pytest.approx(0.5)
    assert replace(score, unpredicted=5).bits_per_byte == pytest.approx(0.75)  # 15 tokens of 2 bits for 40 bytes


def test_a_loss_beyond_all_measure_is_a_perplexity_still():
    assert Score(nats=8000.0, tokens=10, bytes=40).perplexity == math.inf
    assert Score(nats=math.inf, tokens=10, bytes=40).perplexity == math.inf
    assert math.isnan(Score(nats=math.nan, tokens=10, bytes=40).perplexity)


def test_a_model_that_knows_nothing_chooses_among_the_vocabulary(tiny):
    model, tokenizer = tiny
    torch.nn.init.zeros_(model.get_output_embeddings().weight)
    assert scoring.score(model, tokenizer, ["Once upon a time."]).perplexity == pytest.approx(len(tokenizer))


def test_the_loss_is_the_models_own(tiny):
    model, tokenizer = tiny
    text = "A fox found a red boat." + tokenizer.eos_token
    ids = tokenizer(text, return_tensors="pt")["input_ids"]
    score = scoring.score(model.eval(), tokenizer, [text])
    assert score.loss == pytest.approx(model(ids, labels=ids).loss.item(), rel=1e-5)
    assert score.tokens == ids.shape[1] - 1 and score.unpredicted == 1
    assert score.bytes == len("A fox found a red boat.")  # EOS stands for no bytes


def test_long_texts_are_read_in_windows(tiny):
    model, tokenizer = tiny
    text = "The moon was out. " * 30
    ids = tokenizer(text)["input_ids"]
    score = scoring.score(model, tokenizer, [text, "x"], max_length=16)
    windows = [ids[i : i + 16] for i in range(0, len(ids) - 1, 16)]
    assert score.tokens == sum(len(window) - 1 for window in windows)


@pytest.mark.parametrize("texts", [["", "x"], []])
def test_nothing_to_evaluate_is_said(tiny, texts):
    with pytest.raises(ValueError, match="no text to evaluate"):
        scoring.score(*tiny, texts)


DIGEST = "f97f97e69363dca61396ba172b80593a50b2bb709f93f51d94c5f318da70a1ac"  # every number measured so far rests on these texts


def test_the_domains_are_the_same_on_every_machine():
    texts = scoring.domains(["A story."])
    assert list(texts) == ["held-out documents", "reference prose", "Python code", "licences"]
    assert texts.pop("held-out documents") == ["A story."]
    assert hashlib.sha256(json.dumps(texts).encode()).hexdigest() == DIGEST


def test_no_package_of_the_machine_is_read(tmp_path, monkeypatch):
    broken = tmp_path / "aaa-1.0.dist-info"
    broken.mkdir()
    (broken / "METADATA").write_text("Metadata-Version: 2.1\nName: aaa\nVersion: 1.0\n")
    (broken / "RECORD").write_text("aaa-1.0.dist-info/LICENSE,,\n")
    (broken / "LICENSE").write_bytes("Frei für alle".encode("latin-1"))
    before = scoring.domains([])
    monkeypatch.syspath_prepend(tmp_path)
    assert scoring.domains([]) == before


def test_python_code_is_code_alone():
    """No comment, and no string that stands by itself, as a docstring does."""
    for text in scoring.domains([])["Python code"]:
        kinds = {token.type for token in tokenize.generate_tokens(io.StringIO(text).readline)}
        assert tokenize.COMMENT not in kinds and tokenize.NAME in kinds
        alone = [node.value for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Expr)]
        assert not [value for value in alone if isinstance(value, ast.Constant)]


def test_each_domain_is_long_enough_for_a_number_and_short_enough_for_a_laptop():
    """In characters: 2,600 to 3,600 tokens of SmolLM2's."""
    sizes = {domain: sum(map(len, texts)) for domain, texts in scoring.domains([]).items()}
    assert sizes.pop("held-out documents") == 0
    assert all(10_000 < size < 17_000 for size in sizes.values()), sizes


def test_comparison_table_and_figure():
    before, after = {"a": Score(30, 10, 40), "b": Score(20, 10, 40)}, {"a": Score(20, 10, 40), "b": Score(20, 10, 40)}
    table = scoring.compare(before, after)
    assert table.loc["a", "perplexity before"] == round(math.exp(3), 2)
    assert table.loc["a", "change"] == "-63.2%" and table.loc["b", "change"] == "+0.0%"
    ax = scoring.plot_comparison(before, after)
    assert [bar.get_height() for bar in ax.patches] == pytest.approx(
        [math.exp(3), math.exp(2), math.exp(2), math.exp(2)]
    )
