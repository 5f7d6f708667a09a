"""What several commands share: how a recipe and a saved model are named."""

from pathlib import Path

from cptlib import hints
from cptlib.errors import UsageError
from cptlib.recipe import RECIPES, Recipe

RECIPE_HELP = f"One of {', '.join(RECIPES)}, with fields changed behind commas (default: what suits this machine)."


def recipe_of(text: str | None) -> Recipe:
    """The recipe that `text` names, or this machine's."""
    from cptlib import machine

    return Recipe.parse(text) if text else machine.recipe()


def load(name: str) -> tuple["hints.Model", "hints.Tokenizer", Recipe]:
    """(model in inference mode, tokenizer, recipe) of an exported folder, or of a recipe's name."""
    folder = Path(name)
    recipe = None if folder.is_dir() else _named(name)
    from cptlib import export, models

    if recipe is None:
        return *export.load(folder), export.recipe_in(folder)
    model, tokenizer = models.load(recipe)
    return models.for_inference(model), tokenizer, recipe


def _named(name: str) -> Recipe:
    try:
        return Recipe.parse(name)
    except ValueError as error:
        raise UsageError(f"There is no folder {name!r}, and as a recipe: {error}") from None
