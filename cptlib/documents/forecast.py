"""What a corpus will cost: tokens, steps and time under a recipe, and how long its documents are."""

from dataclasses import dataclass
from math import ceil

from cptlib import hints, style
from cptlib.recipe import Recipe
from cptlib.tokens import encode

SAMPLE = 1000  # documents tokenized for an estimate
# Training speed, tokens/s: one run, 2026-11, timed as a whole by the trainer itself; and a CPU has no queue of work that a
# clock could leave out. The GPUs' speeds are being measured again.
SPEEDS = {"laptop": (230, "two CPU cores")}


@dataclass(frozen=True)
class Forecast:
    """tokens of the whole corpus, EOS counted, and whether every document was counted or a sample (`exact`); rows of at
    most max_length tokens; optimizer steps; seconds of training, None where no speed is known; where that was measured."""

    tokens: int
    exact: bool
    rows: int
    steps: int
    seconds: float | None
    measured_on: str

    def __str__(self) -> str:
        about = "" if self.exact else "about "
        if not self.rows:
            return f"{about}{self.tokens:,} tokens, and all documents would be held out: lower the recipe's held_out"
        out = f"{about}{self.tokens:,} tokens, {about}{self.rows:,} rows, {about}{self.steps:,} optimizer steps\n"
        if self.seconds is None:
            return out + "time: no speed is known for this recipe; give one in tokens per second"
        minutes = f"{self.seconds / 60:,.0f} minutes" if self.seconds > 90 else f"{self.seconds:.0f} seconds"
        return out + f"training: about {minutes}, at the speed measured on {self.measured_on}"


def forecast(
    documents: "hints.Dataset",
    lengths: "hints.Lengths",
    tokenizer: "hints.Tokenizer",
    recipe: Recipe,
    speed: float | None = None,
) -> Forecast:
    """The Forecast for training on all but `recipe.held_out` of `documents`, cut to the recipe's max_length.

    lengths: characters of each document. Up to 1,000 documents are tokenized; a larger corpus is judged by every n-th.
    speed: tokens per second, where you know it.
    """
    step = ceil(len(documents) / SAMPLE)
    sample = documents.select(range(0, len(documents), step))["text"]
    counted = [len(ids) for ids in encode(sample[:], tokenizer)]
    each = sum(counted) / sum(map(len, sample))  # tokens a character
    sizes = [count + 1 for count in counted] if step == 1 else [length * each + 1 for length in lengths]
    train = max(1 - recipe.held_out / len(sizes), 0)
    if recipe.packing:
        rows = ceil(train * sum(sizes) / recipe.max_length)
    else:
        rows = ceil(train * sum(ceil(size / recipe.max_length) for size in sizes))
    steps = ceil(ceil(rows / recipe.micro_batch) / recipe.accumulation * recipe.epochs)
    limited = min(steps, recipe.max_steps) if recipe.max_steps > 0 else steps
    known, where = SPEEDS.get(recipe.name, (None, ""))
    speed, where = (speed, "the machine you named") if speed else (known, where)
    trained = train * sum(sizes) * recipe.epochs * limited / max(steps, 1)
    return Forecast(round(sum(sizes)), step == 1, rows, limited, trained / speed if speed else None, where)


def length_table(lengths: "hints.Lengths", width: int = 40) -> str:
    """A histogram in text: a line for each doubling of the number of characters."""
    classes = [max(int(length).bit_length() - 1, 0) for length in lengths]
    counts = {size: classes.count(size) for size in range(min(classes), max(classes) + 1)}
    most = max(counts.values())
    lines = [
        f"{2**size:>11,} to {2 ** (size + 1) - 1:>11,}  {'█' * ceil(width * count / most):{width}}  {count:,}"
        for size, count in counts.items()
    ]
    return "\n".join(["characters                 documents", *lines])


@style.styled
def plot_lengths(lengths: "hints.Lengths", ax: "hints.Axes | None" = None) -> "hints.Axes":
    """A histogram of the documents' lengths in characters, on a logarithmic axis."""
    import numpy as np

    ax = ax or style.subplots(size=(6, 3))
    title = f"How long the {len(lengths):,} documents are: {np.median(lengths):,.0f} characters at the median"
    bins = np.geomspace(max(min(lengths), 1), max(lengths) + 1, 30).tolist()
    ax.hist(lengths, bins=bins, color=style.color(0))
    ax.set_xscale("log")
    ax.set(title=title, xlabel="length (characters)", ylabel="documents")
    return ax
