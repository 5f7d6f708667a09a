"""`cptlib generate`."""

from dataclasses import asdict
from typing import Annotated

from cyclopts import Parameter
from cyclopts.types import NonNegativeFloat, NonNegativeInt, PositiveInt

from cptlib.commands.options import load


def generate(
    model: Annotated[str, Parameter(help="A folder that train or export wrote, or a recipe's name.")],
    *,
    prompt: Annotated[str | None, Parameter(help="The text's beginning (default: the recipe's).")] = None,
    new_tokens: Annotated[PositiveInt | None, Parameter(help="At most so many (default: the recipe's).")] = None,
    temperature: Annotated[NonNegativeFloat | None, Parameter(help="0 or above (default: the recipe's).")] = None,
    seed: Annotated[NonNegativeInt, Parameter(help="Another number, another text.")] = 0,
) -> dict:
    """Let a model go on with a text.

    MODEL is a folder that `train` or `export` wrote, or a recipe's name: then the model from which that recipe starts, to
    compare with.

      cptlib generate outputs/laptop-1a2b3c4d/adapter --prompt "Once upon a time"
      cptlib generate laptop --prompt "Once upon a time"      the same before training
      cptlib generate MODEL --temperature 0                   the likeliest token each time (above 0: drawn)
    """
    loaded, tokenizer, recipe = load(model)
    from cptlib import streaming

    result = streaming.stream(
        loaded,
        tokenizer,
        recipe.prompt if prompt is None else prompt,
        new_tokens=recipe.new_tokens if new_tokens is None else new_tokens,
        temperature=recipe.temperature if temperature is None else temperature,
        seed=seed,
    )
    print(f"\n{result}")
    return asdict(result)
