"""`python -m cptlib bench RECIPE…`: recipes measured side by side on this machine."""

import argparse
import json
import sys
from pathlib import Path

from cptlib import bench, results


def add(commands) -> None:
    """The subcommand's arguments."""
    parser = commands.add_parser(
        "bench", help="measure recipes side by side: a table, a figure, and build/bench-….json"
    )
    parser.add_argument("recipes", nargs="+", help="name or name,field=value,…; plain is post without unsloth")
    parser.add_argument("--shape", help="use random weights of this shape, such as mistral-7b")
    parser.add_argument("--rounds", type=int, default=2, help="how often each is measured (default: 2)")
    parser.add_argument("--steps", type=int, default=8, help="steps to time, after 3 others (default: 8)")
    parser.add_argument("--gb", type=float, help="hold each to so many GB of GPU memory")
    parser.add_argument("--curve", action="store_true", help="whole runs, with the held-out loss along the way")
    parser.add_argument("--to", type=Path, default=Path("build"), help="folder for the results (default: build)")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)  # one measurement, in this process


def run(arguments: argparse.Namespace) -> int:
    """Measure; 0 where all went well, 1 where a measurement failed, 2 for a recipe or shape that there is not."""
    texts, shape = arguments.recipes, arguments.shape
    try:
        for text in texts:
            bench.parse(text, shape)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    if arguments.here:
        print("\n" + json.dumps(bench.here(texts[0], shape, arguments.steps, arguments.curve)))
        return 0
    for result in bench.run(texts, shape, arguments.rounds, arguments.steps, arguments.curve, arguments.gb):
        # after each: what was measured is not lost if the rest is cut short
        file = results.save(result, arguments.to, "curves" if arguments.curve else "bench")
    print(results.summary(result, file))
    return int(any("error" in row for row in result["rows"]))
