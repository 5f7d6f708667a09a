"""`python -m cptlib train | generate | evaluate | export`: the notebooks' steps without a notebook."""

import argparse
import json
import sys
from contextlib import nullcontext, redirect_stdout
from dataclasses import asdict, replace
from pathlib import Path

from cptlib.recipe import RECIPES, Recipe

TRAIN = """\
Train a language model on raw text: load, measure, add adapters, check, train, measure again, save. The settings are
those of the notebooks: a recipe by its name, with fields changed behind commas. What is saved is the adapter, with a
model card; `export` makes a whole model of it.

  python -m cptlib train                                            this machine's recipe, on its own corpus
  python -m cptlib train --corpus my_texts                          on your text: a .txt or .jsonl file, or a folder
  python -m cptlib train --recipe laptop,epochs=2,rank=32           a named recipe, two fields changed
  python -m cptlib train --recipe a100 --json > run.json            for scripts: progress goes to stderr

Killed or interrupted, the same command goes on from the last checkpoint (in outputs/; one every ten minutes).
"""
GENERATE = """\
Let a model go on with a text. MODEL is a folder that `train` or `export` wrote, or a recipe's name: then the model from
which that recipe starts, to compare with.

  python -m cptlib generate outputs/laptop-1a2b3c4d/adapter --prompt "Once upon a time"
  python -m cptlib generate laptop --prompt "Once upon a time"      the same before training
  python -m cptlib generate MODEL --temperature 0                   the likeliest token each time (above 0: drawn)
"""
EVALUATE = """\
Measure how well a model predicts text it was not trained on, by domain: the held-out documents of its recipe, and three
kinds of text that every Python machine has. Perplexity 1 is certainty; lower is better. MODEL as in `generate`.

  python -m cptlib evaluate outputs/laptop-1a2b3c4d/adapter
  python -m cptlib evaluate laptop --json                           before training, for scripts
  python -m cptlib evaluate MODEL --text other.jsonl                on these documents alone
"""
EXPORT = """\
Make a whole model of an adapter: merged 16-bit weights that plain transformers (vLLM, …) loads, and, if asked, one GGUF
file for llama.cpp and Ollama. Nothing is installed or sent unless you ask for it here.

  python -m cptlib export outputs/laptop-1a2b3c4d/adapter --to my_model
  python -m cptlib export ADAPTER --to my_model --gguf q8_0         also my_model.gguf (needs llama.cpp's converter)
  python -m cptlib export ADAPTER --to my_model --upload me/name    also to the hub, private; the token is in HF_TOKEN
  transformers serve my_model                                       then: an OpenAI-compatible server
"""
CODES = (
    "Exit codes: 0 all well, 1 it could not be done (one sentence on stderr), 2 wrong usage, 130 interrupted and saved."
)


def add(commands) -> None:
    """Add the four subcommands to argparse's `commands`."""
    train = _command(commands, "train", "train on raw text, save the adapter", TRAIN)
    train.add_argument("--recipe", metavar="R", help=f"one of {', '.join(RECIPES)} (default: what suits this machine)")
    train.add_argument("--corpus", metavar="C", help="what to read instead of the recipe's corpus; all of it")
    train.add_argument(
        "--to", type=Path, metavar="FOLDER", help="where the adapter goes (default: outputs/RUN/adapter)"
    )
    generate = _command(commands, "generate", "let a model go on with a text", GENERATE)
    generate.add_argument("model", metavar="MODEL")
    generate.add_argument("--prompt", help="the text's beginning (default: the recipe's)")
    generate.add_argument("--new-tokens", type=int, metavar="N", help="at most so many (default: the recipe's)")
    generate.add_argument("--temperature", type=float, metavar="T", help="0 or above (default: the recipe's)")
    generate.add_argument("--seed", type=int, default=0, help="another number, another text (default: 0)")
    evaluate = _command(commands, "evaluate", "measure how well a model predicts text", EVALUATE)
    evaluate.add_argument("model", metavar="MODEL")
    evaluate.add_argument("--text", metavar="C", help="measure on these documents instead: a .txt or .jsonl file, …")
    export = _command(commands, "export", "make a whole model of an adapter", EXPORT)
    export.add_argument("adapter", metavar="ADAPTER", type=Path)
    export.add_argument("--to", type=Path, required=True, metavar="FOLDER", help="where the whole model goes")
    export.add_argument("--dtype", default="bfloat16", choices=("bfloat16", "float16", "float32"))
    export.add_argument("--gguf", metavar="KIND", choices=("q8_0", "f16", "bf16", "f32"), help="also FOLDER.gguf")
    export.add_argument("--upload", metavar="USER/NAME", help="also send FOLDER to the hub, as a private repository")


def _command(commands, name: str, line: str, text: str):
    parser = commands.add_parser(
        name, help=line, description=text, epilog=CODES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object, everything else to stderr")
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Do what the subcommand asks for; returns the exit code."""
    from cptlib.checkpoints import CheckpointError
    from cptlib.checks import PreflightError
    from cptlib.corpus import CorpusError
    from cptlib.export import ExportError
    from cptlib.model import ModelError

    try:
        with redirect_stdout(sys.stderr) if arguments.json else nullcontext():
            result = COMMANDS[arguments.command](arguments)
    except UsageError as error:
        print(error, file=sys.stderr)
        return 2
    except (CheckpointError, CorpusError, ExportError, ModelError, PreflightError) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    if arguments.json:
        print(json.dumps(result, ensure_ascii=False))
    return 0


class UsageError(ValueError):
    """Arguments that name nothing there is."""


def train(arguments) -> dict:
    """Load, measure, add adapters, check, train, measure, save."""
    from cptlib import card, checkpoints, checks, corpus, evaluate, export, lora, training
    from cptlib import model as models

    checkpoints.require_one_process()
    models.quiet()
    from unsloth import FastLanguageModel

    recipe = _recipe(arguments.recipe)
    if arguments.corpus:
        recipe = replace(recipe, corpus=arguments.corpus, documents=None)
    print(f"Recipe {recipe.name!r}: {recipe.model} on {recipe.corpus}.")
    model, tokenizer = models.load(recipe)
    parts = corpus.split(corpus.read(recipe.corpus, recipe.documents), recipe.held_out, recipe.seed)
    documents = corpus.add_eos(corpus.cut(parts["train"], tokenizer, recipe.max_length), tokenizer)
    texts = evaluate.domains(corpus.add_eos(parts["held_out"], tokenizer)["text"])
    before = evaluate.evaluate_domains(FastLanguageModel.for_inference(model), tokenizer, texts, recipe.max_length)
    model = lora.add_adapters(FastLanguageModel.for_training(model), recipe)
    trainer = training.make_trainer(model, tokenizer, documents, recipe)
    checks.preflight(trainer)
    report = training.report(trainer, training.train(trainer, recipe))
    after = evaluate.evaluate_domains(FastLanguageModel.for_inference(model), tokenizer, texts, recipe.max_length)
    comparison = evaluate.compare(before, after)
    folder = arguments.to or Path(trainer.args.output_dir) / "adapter"
    export.save_adapter(model, tokenizer, recipe, folder)
    (folder / "README.md").write_text(card.model_card(recipe, comparison, report, len(parts["train"])))
    print(f"{report}\n{comparison.to_string()}\nSaved: {folder}")
    scores = {"before": _numbers(before), "after": _numbers(after)}
    return {"adapter": str(folder), "recipe": asdict(recipe), **asdict(report), "perplexity": scores}


def generate(arguments) -> dict:
    """Stream a continuation."""
    from cptlib import streaming

    model, tokenizer, recipe = _load(arguments.model)
    result = streaming.stream(
        model,
        tokenizer,
        recipe.prompt if arguments.prompt is None else arguments.prompt,
        new_tokens=arguments.new_tokens or recipe.new_tokens,
        temperature=recipe.temperature if arguments.temperature is None else arguments.temperature,
        seed=arguments.seed,
    )
    print(f"\n{result}")
    return asdict(result)


def evaluate(arguments) -> dict:
    """Perplexity by domain."""
    from cptlib import corpus
    from cptlib import evaluate as evaluation

    model, tokenizer, recipe = _load(arguments.model)
    if arguments.text:
        texts = {arguments.text: corpus.read(arguments.text)["text"]}
    else:
        held_out = corpus.split(corpus.read(recipe.corpus, recipe.documents), recipe.held_out, recipe.seed)["held_out"]
        texts = evaluation.domains(corpus.add_eos(held_out, tokenizer)["text"])
    scores = evaluation.evaluate_domains(model, tokenizer, texts, recipe.max_length)
    for domain, score in scores.items():
        measures = f"perplexity {score.perplexity:8.2f}   {score.bits_per_byte:.3f} bits per byte"
        print(f"{domain:18} {score.tokens:6,} tokens   {measures}")
    return {domain: {**asdict(score), "perplexity": score.perplexity} for domain, score in scores.items()}


def export(arguments) -> dict:
    """Merge, and convert and upload where asked."""
    from cptlib import export as exports

    model, tokenizer, recipe = _load(str(arguments.adapter))
    made = {"model": str(exports.save_merged(model, tokenizer, recipe, arguments.to, arguments.dtype))}
    if (arguments.adapter / "README.md").exists():
        (arguments.to / "README.md").write_text((arguments.adapter / "README.md").read_text())
    if arguments.gguf:
        made["gguf"] = str(exports.save_gguf(arguments.to, f"{arguments.to.resolve()}.gguf", arguments.gguf))
    if arguments.upload:
        made["address"] = exports.upload(arguments.to, arguments.upload)
    print(*(f"{kind}: {place}" for kind, place in made.items()), sep="\n")
    return made


COMMANDS = {"train": train, "generate": generate, "evaluate": evaluate, "export": export}


def _recipe(text: str | None) -> Recipe:
    try:
        return Recipe.parse(text) if text else Recipe.for_this_machine()
    except ValueError as error:
        raise UsageError(str(error)) from None


def _load(name: str):
    """(model in inference mode, tokenizer, recipe) of an exported folder, or of a recipe's name."""
    from cptlib import export as exports
    from cptlib import model as models

    models.quiet()
    from unsloth import FastLanguageModel

    if Path(name).exists():
        return *exports.load(name), exports.recipe_in(Path(name))
    recipe = _recipe(name)
    model, tokenizer = models.load(recipe)
    return FastLanguageModel.for_inference(model), tokenizer, recipe


def _numbers(scores) -> dict[str, float]:
    return {domain: score.perplexity for domain, score in scores.items()}
