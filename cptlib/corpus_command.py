"""`python -m cptlib corpus PATH`: what a folder of documents holds, and what training on it would take."""

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

HELP = """\
Read a folder of documents the way training will, and report on it: files, documents, tokens, duplicates, everything
that was left out and why, how long the documents are, and the steps and time that training on them would take.

Formats: .txt .md .html .pdf .docx .epub .json .jsonl .csv .parquet, each also with .gz behind, in nested folders. A .txt
file is one document, or several between lines that hold only <|endoftext|>. Nothing in PATH is changed.

  python -m cptlib corpus my_texts                                   a report
  python -m cptlib corpus my_texts --language en de --shortest 200   only English and German, from 200 characters
  python -m cptlib corpus my_texts --out corpus.jsonl                also write what training would read
  python -m cptlib corpus my_texts --json | jq .left_out             for scripts

Exit codes: 0 all well, 1 there is nothing to train on (or, with --strict, something cannot be read), 2 wrong usage.
"""


def add(commands) -> None:
    """Add the subcommand to argparse's `commands`."""
    corpus = commands.add_parser(
        "corpus",
        help="read a folder of documents and report on it",
        description=HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    corpus.add_argument("path", type=Path, help="a folder, or one file")
    corpus.add_argument(
        "--recipe", help="whose tokenizer and batch to reckon with, as in laptop,epochs=3 (default: this machine's)"
    )
    corpus.add_argument(
        "--column", default="text", help="the field that holds the text, in .json, .csv and the like (default: text)"
    )
    corpus.add_argument(
        "--language", nargs="+", metavar="CODE", help="keep documents in these languages only, as in: en de"
    )
    corpus.add_argument("--shortest", type=int, default=1, metavar="N", help="leave out documents of fewer characters")
    corpus.add_argument("--longest", type=int, metavar="N", help="leave out documents of more characters")
    corpus.add_argument("--keep-markup", action="store_true", help="leave HTML tags and entities in the text")
    corpus.add_argument(
        "--strict", action="store_true", help="stop with an error at the first thing that cannot be read"
    )
    corpus.add_argument("--out", type=Path, metavar="FILE", help="write the documents to this .jsonl file")
    corpus.add_argument("--json", action="store_true", help="print one JSON object instead of text")


def run(arguments) -> int:
    """Print the report; returns the exit code."""
    from cptlib import forecast as forecasts
    from cptlib import ingest
    from cptlib.model import ModelError
    from cptlib.recipe import Recipe

    try:
        recipe = Recipe.parse(arguments.recipe) if arguments.recipe else Recipe.for_this_machine()
        documents, report = ingest.from_folder(
            arguments.path,
            column=arguments.column,
            languages=arguments.language,
            shortest=arguments.shortest,
            longest=arguments.longest,
            markup=arguments.keep_markup,
            strict=arguments.strict,
        )
        if arguments.out:
            arguments.out.parent.mkdir(parents=True, exist_ok=True)
            documents.to_json(arguments.out, force_ascii=False)
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    try:
        cost = forecasts.forecast(documents, report.lengths, forecasts.tokenizer_for(recipe), recipe)
    except ModelError as error:  # the report is worth having without
        print(f"{error} So there is no count of tokens, steps and time.", file=sys.stderr)
        cost = None
    if arguments.json:
        expected = asdict(cost) if cost else None
        print(json.dumps({**report.as_dict(), "recipe": recipe.name, "forecast": expected}, ensure_ascii=False))
    else:
        print(report, forecasts.length_table(report.lengths), sep="\n\n")
        print(f"\nwith the recipe {recipe.name!r}: {cost}" if cost else "")
    return 0
