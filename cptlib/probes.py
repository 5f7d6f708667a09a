"""Small questions with known answers, asked by likelihood: which continuation does the model find likeliest?"""

import math
from dataclasses import dataclass

from cptlib import hints, style
from cptlib.device import autocast, device_of


@dataclass(frozen=True)
class Question:
    """A beginning, its right continuation, and wrong ones of the same kind; each continuation begins with its space."""

    prompt: str
    right: str
    wrong: tuple[str, ...]


def match(prompt: str, pairs: dict[str, str]) -> list[Question]:
    """A question for each key of `pairs`: which of all the values is its own? `{}` in the prompt stands for the key."""
    return [
        Question(prompt.format(key), f" {value}", tuple(f" {other}" for other in pairs.values() if other != value))
        for key, value in pairs.items()
    ]


def ask(model: "hints.Module", tokenizer: "hints.Tokenizer", questions: list[Question]) -> "hints.DataFrame":
    """A `pandas.DataFrame`, a row a question: prompt, right (the answer), chosen (the continuation with the most
    probability per token), and probability (of the right one: the geometric mean over its tokens).

    The model must be in inference mode.
    """
    import pandas

    rows = []
    for question in questions:
        choices = (question.right, *question.wrong)
        means = [log_probability(model, tokenizer, question.prompt, choice) for choice in choices]
        chosen = choices[means.index(max(means))]
        rows.append((question.prompt, question.right.strip(), chosen.strip(), math.exp(means[0])))
    return pandas.DataFrame(rows, columns=["prompt", "right", "chosen", "probability"])


def log_probability(model: "hints.Module", tokenizer: "hints.Tokenizer", prompt: str, continuation: str) -> float:
    """The mean log-probability (nats) of the continuation's tokens after the prompt."""
    return sum(nats := _log_probabilities(model, tokenizer, prompt + continuation, len(prompt))) / len(nats)


def _log_probabilities(model: "hints.Module", tokenizer: "hints.Tokenizer", text: str, start: int) -> list[float]:
    """Of each token of `text` that ends after character `start`, given all before it; the first token is not counted."""
    import torch

    encoded = tokenizer(text, return_offsets_mapping=True)
    ids = torch.tensor([encoded["input_ids"]], device=device_of(model))
    with torch.no_grad(), autocast(model):
        logits = model(input_ids=ids).logits[0, :-1].float()
    nats = logits.log_softmax(-1).gather(1, ids[0, 1:, None])[:, 0].tolist()
    return [value for value, (_, end) in zip(nats, encoded["offset_mapping"][1:], strict=True) if end > start]


def share_right(answers: "hints.DataFrame") -> float:
    """The share of questions whose chosen continuation is the right one."""
    return float((answers["chosen"] == answers["right"]).mean())


@style.styled
def plot_share_right(
    results: dict[str, tuple["hints.DataFrame", "hints.DataFrame"]], chance: float, ax: "hints.Axes | None" = None
) -> "hints.Axes":
    """Of each named set of questions the share answered rightly before and after, and what guessing gives.

    results: name -> (answers before, answers after), each from `ask`.
    """
    ax = ax or style.subplots()
    places = range(len(results))
    for number, label in enumerate(("before", "after")):
        shares = [100 * share_right(pair[number]) for pair in results.values()]
        bars = ax.bar([x - 0.2 + 0.4 * number for x in places], shares, width=0.38, label=label)
        ax.bar_label(bars, fmt="{:.0f}", padding=2)
    ax.axhline(100 * chance, color=style.color(6), linestyle=":", label=f"guessing, {100 * chance:.3g}%")
    ax.set_xticks(places, list(results))
    ax.set(title="Questions answered rightly", ylabel="share of questions (%)", ylim=(0, 112))
    ax.grid(axis="x", visible=False)
    ax.legend()
    return ax
