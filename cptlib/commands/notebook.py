"""`cptlib run`."""

import time
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from cptlib.errors import UsageError


def run(
    notebook: Annotated[Path, Parameter(help="The .ipynb to execute; CPTLIB_RECIPE chooses its recipe.")],
    *,
    to: Annotated[Path, Parameter(help="Folder for the results.")] = Path("build"),
) -> dict:
    """Execute a notebook, show its output as it comes, and write it and an HTML page.

      cptlib run notebooks/01_continued_pretraining.ipynb
      CPTLIB_RECIPE=laptop,rank=32 cptlib run notebooks/01_continued_pretraining.ipynb
      cptlib run notebooks/05_save_and_serve.ipynb --to pages

    A notebook that is not there is a UsageError, one that stops at a cell a NotebookError.
    """
    if not notebook.is_file():
        raise UsageError(f"There is no notebook {notebook}.")
    from cptlib import walkthrough

    started = time.perf_counter()
    page = walkthrough.run(notebook, to)
    seconds = time.perf_counter() - started
    print(f"\n{seconds:.0f} seconds in all. The page to read: {page}")
    return {"page": str(page), "seconds": round(seconds)}
