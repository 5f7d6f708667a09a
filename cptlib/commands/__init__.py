"""The command line: a module a command, whose function's typed arguments are its options.

Only here are arguments parsed, errors printed and exit codes chosen. Commands raise what is wrong and return what they
made, a dict that `--json` prints.
"""

import json as _json
import sys
from collections.abc import Sequence
from contextlib import nullcontext, redirect_stdout
from typing import Annotated

from cyclopts import App, CycloptsError, Parameter

from cptlib import __version__
from cptlib.commands.bench import bench
from cptlib.commands.corpus import corpus
from cptlib.commands.evaluate import evaluate
from cptlib.commands.export import export
from cptlib.commands.generate import generate
from cptlib.commands.notebook import run
from cptlib.commands.train import train
from cptlib.errors import CptlibError, RecipeError, UsageError

COMMANDS = (run, corpus, train, generate, evaluate, export, bench)
CODES = "Exit codes: 0 all well, 1 it could not be done (one sentence on stderr), 2 wrong usage, 130 interrupted."

app = App(
    name="cptlib",
    help="Continued pre-training of a language model on raw text. `cptlib COMMAND --help` explains each command.",
    help_format="plaintext",
    help_epilogue=CODES,
    version=__version__,
    default_parameter=Parameter(negative=(), consume_multiple=True),
    suppress_keyboard_interrupt=False,  # `main` says it, and gives it a code of its own
)
app.meta.suppress_keyboard_interrupt = False
for command in COMMANDS:
    app.command(command)


@app.meta.default
def _call(
    *words: Annotated[str, Parameter(show=False, allow_leading_hyphen=True)],
    json: Annotated[bool, Parameter(help="Print one JSON object; everything else goes to stderr.")] = False,
) -> None:
    command, bound, _ = app.parse_args(words, exit_on_error=False, print_error=False)
    with redirect_stdout(sys.stderr) if json else nullcontext():
        result = command(*bound.args, **bound.kwargs)
    if json and result is not None:
        plain = _json.loads(_json.dumps(result, default=str), parse_constant=lambda name: None)  # JSON knows no NaN
        print(_json.dumps(plain, ensure_ascii=False))


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the words (the program's own, if not given) ask for; returns the exit code."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    try:
        app.meta(words, exit_on_error=False, print_error=False, result_action="return_none")
        return 0
    except (CycloptsError, RecipeError, UsageError) as error:
        return _said(error, 2)
    except (CptlibError, OSError) as error:
        return _said(error, 1)
    except ImportError as error:
        return _said(f"{error}. Install what is missing with: pip install 'cptlib[train]'", 1)
    except KeyboardInterrupt:
        return _said("Interrupted.", 130)


def _said(what: object, code: int) -> int:
    print(what, file=sys.stderr)
    return code
