"""`cptlib train`."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from cptlib import hints
from cptlib.commands.options import RECIPE_HELP, recipe_of


def train(
    *,
    recipe: Annotated[str | None, Parameter(help=RECIPE_HELP)] = None,
    corpus: Annotated[str | None, Parameter(help="What to read instead of the recipe's corpus; all of it.")] = None,
    to: Annotated[Path | None, Parameter(help="Where the adapter goes (default: outputs/RUN/adapter).")] = None,
) -> dict:
    """Train a language model on raw text, and save the adapter.

    Load, measure, add adapters, check, train, measure again, save. The settings are those of the notebooks: a recipe by its
    name, with fields changed behind commas. What is saved is the adapter, with a model card; `export` makes a whole model
    of it.

      cptlib train                                            this machine's recipe, on its own corpus
      cptlib train --corpus my_texts                          on your text: a .txt or .jsonl file, or a folder
      cptlib train --recipe laptop,epochs=2,rank=32           a named recipe, two fields changed
      cptlib train --recipe a100 --json > run.json            for scripts: progress goes to stderr

    Killed or interrupted, the same command goes on from the last checkpoint (in outputs/; one every ten minutes).
    """
    settings = recipe_of(recipe)
    if corpus:
        settings = replace(settings, corpus=corpus, documents=None)
    from cptlib import card, checkpoints, checks, export, models, run, scoring, training
    from cptlib.rows import add_eos

    checkpoints.require_one_process()

    print(f"Recipe {settings.name!r}: {settings.model} on {settings.corpus}.")
    texts: dict[str, list[str]] = {}
    before: dict[str, scoring.Score] = {}

    def measure(model: "hints.Model", tokenizer: "hints.Tokenizer", documents: "hints.DatasetDict") -> None:
        texts.update(scoring.domains(add_eos(documents["held_out"], tokenizer)["text"]))
        before.update(scoring.score_domains(model, tokenizer, texts, settings.max_length))

    ready = run.prepare(settings, before=measure)
    checks.preflight(ready.trainer)
    report = training.report(ready.trainer, training.train(ready.trainer, settings))
    after = scoring.score_domains(models.for_inference(ready.model), ready.tokenizer, texts, settings.max_length)
    comparison = scoring.compare(before, after)
    folder = to or Path(ready.trainer.args.output_dir) / "adapter"
    export.save_adapter(ready.model, ready.tokenizer, settings, folder, ready.documents["held_out"])
    text = card.model_card(settings, comparison, report, len(ready.documents["train"]))
    (folder / "README.md").write_text(text, encoding="utf-8")
    print(f"{report}\n{comparison.to_string()}\nSaved: {folder}")
    scores = {"before": _numbers(before), "after": _numbers(after)}
    return {"adapter": str(folder), "recipe": asdict(settings), **asdict(report), "perplexity": scores}


def _numbers(scores: dict[str, Any]) -> dict[str, float]:
    return {domain: score.perplexity for domain, score in scores.items()}
