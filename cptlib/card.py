"""The model card: what a saved model is, made from, and good for, as measured."""

import re
from importlib.metadata import version
from pathlib import Path, PureWindowsPath

from cptlib import hints
from cptlib.recipe import SMOLLM2, STORIES, Recipe

# Licences of what the named recipes use; of anything else we cannot know.
LICENCES = {
    SMOLLM2: "apache-2.0",
    "unsloth/mistral-7b-v0.3": "apache-2.0",
    STORIES: "apache-2.0",
    "roneneldan/TinyStories": "cdla-sharing-1.0",
}
NAMES = {SMOLLM2: "SmolLM2-135M-Instruct", STORIES: "cptlib's bundled bedtime stories"}
UNKNOWN = "unknown: look it up before you share the model"


def model_card(
    recipe: Recipe, comparison: "hints.DataFrame | None" = None, report: object = None, documents: int | None = None
) -> str:
    """The text of a README.md, with the hub's metadata at its head.

    comparison: the table of `scoring.compare`. report: of `training.report`. documents: how many were trained on.
    """
    model, corpus = (NAMES.get(source) or public_name(source) for source in (recipe.model, recipe.corpus))
    licence = LICENCES.get(recipe.model)
    sections = [
        _metadata(recipe, licence),
        f"# {model}, continued on {corpus}",
        f"A language model that goes on with text in the manner of its corpus: {model}, trained further on raw text "
        "(continued pre-training, with LoRA) by [cptlib](https://github.com/cptlib/cptlib). It has not been taught to "
        "answer questions or to decline, and what it states may be false.",
        f"## Data\n\n{corpus}{f', {documents:,} documents' if documents else ''}; {recipe.held_out} more were held out "
        "to measure with.",
        "## Measured before and after\n\n" + _table(comparison),
        "## How it was trained\n\n" + (f"{report}\n\n" if report else "") + _settings(recipe),
        f"## Licences\n\n- {model}: {licence or UNKNOWN}\n- {corpus}: {LICENCES.get(recipe.corpus, UNKNOWN)}",
        "Versions: "
        + ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "peft", "trl", "unsloth")),
    ]
    return "\n\n".join(sections) + "\n"


def public_name(source: str) -> str:
    """A model's or corpus's name as others may read it: a hub's or our own as it is, of a path on this machine the end."""
    ours_or_a_hubs = re.fullmatch(r"shape:[\w.-]+|\w[\w.-]*(/[\w.-]+)?", source)
    return source if ours_or_a_hubs and not Path(source).exists() else PureWindowsPath(source).name  # knows / and \


def _metadata(recipe: Recipe, licence: str | None) -> str:
    lines = [
        "---",
        "library_name: transformers",
        "pipeline_tag: text-generation",
        "tags: [continued-pretraining, lora]",
    ]
    if recipe.model in LICENCES and "/" in recipe.model:
        lines.append(f"base_model: {recipe.model}")
    if recipe.corpus in LICENCES and "/" in recipe.corpus:
        lines.append(f"datasets: [{recipe.corpus}]")
    return "\n".join([*lines, f"license: {licence or 'other'}", "---"])


def _table(comparison: "hints.DataFrame | None") -> str:
    """A pandas table in Markdown."""
    if comparison is None:
        return "Not measured."
    rows = [["text", *comparison.columns], ["---"] * (len(comparison.columns) + 1)]
    rows += [[name, *map(str, row)] for name, row in zip(comparison.index, comparison.values, strict=True)]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def _settings(recipe: Recipe) -> str:
    shown = ["max_length", "packing", "micro_batch", "accumulation", "epochs", "max_steps", "learning_rate"]
    shown += ["embedding_learning_rate", "rank", "alpha", "rslora", "train_embeddings", "load_in_4bit", "seed"]
    return "\n".join(f"- {field}: {getattr(recipe, field)}" for field in shown)
