"""`cptlib corpus`."""

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from cyclopts.types import NonNegativeInt, PositiveInt

from cptlib.commands.options import RECIPE_HELP, recipe_of
from cptlib.errors import ModelError


def corpus(
    path: Annotated[Path, Parameter(help="A folder, or one file.")],
    *,
    recipe: Annotated[str | None, Parameter(help="Whose tokenizer and batch to reckon with. " + RECIPE_HELP)] = None,
    column: Annotated[str, Parameter(help="The field that holds the text, in .json, .csv and the like.")] = "text",
    language: Annotated[list[str] | None, Parameter(help="Keep documents in these languages only: en de")] = None,
    shortest: Annotated[NonNegativeInt, Parameter(help="Leave out documents of fewer characters.")] = 1,
    longest: Annotated[PositiveInt | None, Parameter(help="Leave out documents of more characters.")] = None,
    keep_markup: Annotated[bool, Parameter(help="Leave HTML tags and entities in the text.")] = False,
    strict: Annotated[bool, Parameter(help="Stop with an error at the first thing that cannot be read.")] = False,
    out: Annotated[Path | None, Parameter(help="Write the documents to this .jsonl file.")] = None,
) -> dict:
    """Read a folder of documents the way training will, and report on it.

    Files, documents, tokens, duplicates, everything that was left out and why, how long the documents are, and the steps
    and time that training on them would take.

    Formats: .txt .md .html .pdf .docx .epub .json .jsonl .csv .parquet, each also with .gz behind, in nested folders. A .txt
    file is one document, or several between lines that hold only `<|endoftext|>`. Nothing in PATH is changed.

      cptlib corpus my_texts                                   a report
      cptlib corpus my_texts --language en de --shortest 200   only English and German, from 200 characters
      cptlib corpus my_texts --out corpus.jsonl                also write what training would read
      cptlib corpus my_texts --json | jq .left_out             for scripts
    """
    settings = recipe_of(recipe) if recipe else None
    from cptlib.documents import folder, forecast

    documents, report = folder.from_folder(
        path,
        column=column,
        languages=set(language) if language else None,
        shortest=shortest,
        longest=longest,
        markup=keep_markup,
        strict=strict,
    )
    if out:
        out.parent.mkdir(parents=True, exist_ok=True)
        documents.to_json(out, force_ascii=False)
    print(report, forecast.length_table(report.lengths), sep="\n\n")
    try:  # the report is worth having without
        from cptlib import models

        settings = settings or recipe_of(None)
        cost = forecast.forecast(documents, report.lengths, models.load_tokenizer(settings), settings)
        print(f"\nwith the recipe {settings.name!r}: {cost}")
    except (ModelError, ImportError) as error:
        print(f"{error} So there is no count of tokens, steps and time.", file=sys.stderr)
        cost = None
    expected = asdict(cost) if cost else None
    return {**report.as_dict(), "recipe": settings.name if settings else None, "forecast": expected}
