"""How well a model predicts text it was not trained on: loss, perplexity and bits per byte, by domain."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass

from cptlib import hints, style, tokens
from cptlib.device import autocast, device_of
from cptlib.errors import CorpusError
from cptlib.paths import DOMAINS_FILE


@dataclass(frozen=True)
class Score:
    """Sums over texts. nats: negative log-likelihood of the predicted tokens; tokens: how many these are; bytes: of the
    texts in UTF-8; unpredicted: tokens of the texts with nothing before them to be predicted from."""

    nats: float
    tokens: int
    bytes: int
    unpredicted: int = 0

    @property
    def loss(self) -> float:
        """Mean negative log-likelihood, nats per token."""
        return self.nats / self.tokens

    @property
    def perplexity(self) -> float:
        """exp(loss): the number of equally likely tokens that would be as hard to choose among; inf beyond a float's range."""
        try:
            return math.exp(self.loss)
        except OverflowError:
            return math.inf

    @property
    def bits_per_byte(self) -> float:
        """Bits to encode a byte of the text, its unpredicted tokens taken to be as hard as the others. Unlike perplexity,
        comparable between models of different vocabularies."""
        return self.loss / math.log(2) * (self.tokens + self.unpredicted) / self.bytes


def score(model: "hints.Module", tokenizer: "hints.Tokenizer", texts: Sequence[str], max_length: int = 512) -> Score:
    """Score `texts`, each predicted from its own beginning, in windows of `max_length` tokens.

    One window at a time, so the logits take max_length × vocabulary numbers and no more. An EOS at the end of a text
    is predicted like any token, and is no byte of it. The first token of a window is not predicted. The model must be in
    inference mode. Raises CorpusError where no text has two tokens, or as `tokens.require_plain` does.
    """
    tokens.require_plain(texts, tokenizer)
    rows = tokens.encode(texts, tokenizer)
    windows = [ids[start : start + max_length] for ids in rows for start in range(0, len(ids) - 1, max_length)]
    if not windows:
        raise CorpusError("There is no text to evaluate: every one has fewer than two tokens.")
    predicted = sum(len(window) - 1 for window in windows)
    begun = len(rows) * bool(tokens.opening(tokenizer))  # BOS is not predicted either, and is no token of the text
    eos = tokenizer.eos_token or ""
    return Score(
        nats=sum(_nats(model, window) for window in windows),
        tokens=predicted,
        bytes=sum(len(text.removesuffix(eos).encode()) for text in texts),
        unpredicted=sum(map(len, rows)) - begun - predicted,
    )


def _nats(model: "hints.Module", ids: list[int]) -> float:
    """The negative log-likelihood of all ids but the first, summed."""
    import torch

    row = torch.tensor([ids], device=device_of(model))
    with torch.no_grad(), autocast(model):
        logits = model(input_ids=row).logits
    return torch.nn.functional.cross_entropy(logits[0, :-1].float(), row[0, 1:], reduction="sum").item()


def domains(held_out: list[str]) -> dict[str, list[str]]:
    """What to measure on: the held-out documents, and three domains that are the same on every machine.

    Prose of a reference work, Python code without docstrings and comments, and software licences: some 2,700, 3,200 and
    3,600 tokens in SmolLM2's vocabulary.
    """
    texts = {"held-out documents": list(held_out)}
    with DOMAINS_FILE.open(encoding="utf-8") as file:
        for row in map(json.loads, file):
            texts.setdefault(row["domain"], []).append(row["text"])
    return texts


def score_domains(
    model: "hints.Module", tokenizer: "hints.Tokenizer", texts: dict[str, list[str]], max_length: int = 512
) -> dict[str, Score]:
    """The Score of each domain of `texts`."""
    return {domain: score(model, tokenizer, some, max_length) for domain, some in texts.items()}


def compare(before: dict[str, Score], after: dict[str, Score]) -> "hints.DataFrame":
    """A `pandas.DataFrame`, a row a domain: tokens, perplexity and bits per byte before and after, perplexity's change."""
    import pandas

    rows = {
        domain: {
            "tokens": before[domain].tokens,
            "perplexity before": round(before[domain].perplexity, 2),
            "perplexity after": round(after[domain].perplexity, 2),
            "change": f"{after[domain].perplexity / before[domain].perplexity - 1:+.1%}",
            "bits per byte before": round(before[domain].bits_per_byte, 3),
            "bits per byte after": round(after[domain].bits_per_byte, 3),
        }
        for domain in before
    }
    return pandas.DataFrame.from_dict(rows, orient="index")


@style.styled
def plot_comparison(before: dict[str, Score], after: dict[str, Score], ax: "hints.Axes | None" = None) -> "hints.Axes":
    """Perplexity by domain, two bars each: before and after."""
    ax = ax or style.subplots()
    places = range(len(before))
    for shift, scores, label in ((-0.2, before, "before"), (0.2, after, "after")):
        heights = [score.perplexity for score in scores.values()]
        ax.bar_label(ax.bar([x + shift for x in places], heights, width=0.38, label=label), fmt="{:.1f}", padding=2)
    ax.set_xticks(places, list(before))
    ax.set(title="Perplexity on text the model was not trained on", ylabel="perplexity (lower is better)")
    ax.margins(y=0.12)
    ax.grid(axis="x", visible=False)
    ax.legend()
    return ax
