"""Continued pre-training from the command line: `python -m cptlib COMMAND --help` explains each command, with examples."""

import argparse
import sys
import time
from pathlib import Path

from cptlib import bench_command, cli, corpus_command


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m cptlib", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="execute a notebook, show its output, write it and an HTML page")
    run.add_argument("notebook", type=Path, help="the .ipynb to execute; CPTLIB_RECIPE chooses its recipe")
    run.add_argument("--to", type=Path, default=Path("build"), help="folder for the results (default: build)")
    corpus_command.add(commands)
    bench_command.add(commands)
    cli.add(commands)
    arguments = parser.parse_args()
    modules = {"corpus": corpus_command, "bench": bench_command, **dict.fromkeys(cli.COMMANDS, cli)}
    if arguments.command in modules:
        return modules[arguments.command].run(arguments)
    if not arguments.notebook.is_file():
        parser.error(f"there is no notebook {arguments.notebook}")

    from cptlib import walkthrough

    started = time.perf_counter()
    try:
        page = walkthrough.run(arguments.notebook, arguments.to)
    except RuntimeError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"\n{time.perf_counter() - started:.0f} seconds in all. The page to read: {page}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
