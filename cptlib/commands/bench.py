"""`cptlib bench`."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from cyclopts.types import PositiveFloat, PositiveInt

from cptlib.errors import MeasurementError


def bench(
    *recipes: Annotated[str, Parameter(help="A name, or name,field=value,…; plain is post without unsloth.")],
    shape: Annotated[str | None, Parameter(help="Use random weights of this shape, such as mistral-7b.")] = None,
    rounds: Annotated[PositiveInt, Parameter(help="How often each is measured.")] = 3,
    steps: Annotated[PositiveInt, Parameter(help="Steps to time, after 3 others.")] = 8,
    gb: Annotated[PositiveFloat | None, Parameter(help="Hold each to so many GB of GPU memory.")] = None,
    curve: Annotated[bool, Parameter(help="Whole runs, with the held-out loss along the way.")] = False,
    to: Annotated[Path, Parameter(help="Folder for the results.")] = Path("build"),
    here: Annotated[bool, Parameter(show=False)] = False,
) -> dict:
    """Measure recipes side by side on this machine: a table, a figure, and build/bench-….json.

    Each measurement runs in a process of its own, in interleaved rounds, by wall time with the GPU synchronised at both ends.

      cptlib bench t4 a100 --shape mistral-7b                 Mistral-7B's shape, random weights
      cptlib bench laptop laptop,micro_batch=8 --rounds 3     two settings, three rounds
      cptlib bench post a100 --curve                          how fast the held-out loss falls

    What failed is a row with its error, and in the end a MeasurementError.
    """
    from cptlib.bench import measure, results

    for text in recipes:
        measure.parse(text, shape)
    if here:  # one measurement, in this process
        return measure.here(recipes[0], shape, steps, curve)
    for result in measure.run(recipes, shape, rounds, steps, curve, gb):
        # after each: what was measured is not lost if the rest is cut short
        file = results.save(result, to, "curves" if curve else "bench")
    print(results.summary(result, file))
    if failed := sum("error" in row for row in result["rows"]):
        raise MeasurementError(f"{failed} of {len(result['rows'])} measurements failed: {file}")
    return result
