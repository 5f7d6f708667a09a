"""`cptlib evaluate`."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from cptlib import hints
from cptlib.commands.options import load
from cptlib.recipe import Recipe


def evaluate(
    model: Annotated[str, Parameter(help="A folder that train or export wrote, or a recipe's name.")],
    *,
    text: Annotated[str | None, Parameter(help="Measure on these documents instead: a .txt or .jsonl file, …")] = None,
) -> dict:
    """Measure how well a model predicts text it was not trained on.

    By domain: the documents held out when it was trained (of a recipe: those that would be), and three kinds of text that
    are the same on every machine. Perplexity 1 is certainty; lower is better. MODEL as in `generate`.

      cptlib evaluate outputs/laptop-1a2b3c4d/adapter
      cptlib evaluate laptop --json                           before training, for scripts
      cptlib evaluate MODEL --text other.jsonl                on these documents alone
    """
    loaded, tokenizer, recipe = load(model)
    from cptlib import corpus, scoring

    if text:
        texts = {text: corpus.read(text)["text"]}
    else:
        texts = scoring.domains(corpus.add_eos(_held_out(Path(model), recipe), tokenizer)["text"])
        texts = {domain: some for domain, some in texts.items() if some}
    scores = scoring.score_domains(loaded, tokenizer, texts, recipe.max_length)
    for domain, score in scores.items():
        measures = f"perplexity {score.perplexity:8.2f}   {score.bits_per_byte:.3f} bits per byte"
        print(f"{domain:18} {score.tokens:6,} tokens   {measures}")
    derived = ("loss", "perplexity", "bits_per_byte")
    return {d: asdict(score) | {name: getattr(score, name) for name in derived} for d, score in scores.items()}


def _held_out(folder: Path, recipe: Recipe) -> "hints.Dataset":
    """What the model in `folder` was not trained on (nothing where that is not known, which is said); of a recipe, what its
    training would hold out."""
    from cptlib import corpus, export

    documents = corpus.read(recipe.corpus, recipe.documents)
    if not folder.is_dir():
        return corpus.split(documents, recipe.held_out, recipe.seed)["held_out"]
    if digests := export.held_out_digests(folder):
        return corpus.with_digests(documents, digests, recipe.seed)
    print(f"{folder} does not say which documents it was not trained on, so none are measured: name some with --text.")
    return documents.select([])
