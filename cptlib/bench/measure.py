"""Recipes measured side by side on the machine at hand: speed, memory, and the time to a loss.

Every measurement runs in a process of its own, so that none inherits another's memory, and in rounds, so that whatever
drifts on the machine meets all recipes alike.
"""

import contextlib
import io
import json
import math
import os
import random
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, replace
from datetime import date
from typing import Any

from cptlib import hints, memory, shapes
from cptlib.bench import baseline
from cptlib.bench.clock import now, watch
from cptlib.device import best_dtype, device_of
from cptlib.errors import MeasurementError
from cptlib.models import require_gpu
from cptlib.recipe import SHAPE, Recipe
from cptlib.run import Run, prepare
from cptlib.tokens import encode
from cptlib.weights import config_of, resolve

PLAIN = "plain"  # recipe `post` on transformers, peft and trl alone
WARM_UP = 3  # steps left out of every timing: they compile kernels and fill torch's memory pool
PACKAGES = ("torch", "transformers", "trl", "peft", "bitsandbytes", "unsloth", "unsloth_zoo")


def parse(text: str, shape: str | None = None) -> Recipe:
    """The recipe that `text` names (see Recipe.parse; `plain` and its changes are `post`'s), on random weights of `shape`."""
    name, comma, changes = text.partition(",")
    recipe = Recipe.parse(("post" if name == PLAIN else name) + comma + changes)
    return replace(recipe, model=SHAPE + shape) if shape else recipe


def run(
    texts: Sequence[str],
    shape: str | None = None,
    rounds: int = 3,
    steps: int = 8,
    curve: bool = False,
    gb: float | None = None,
) -> Iterator[dict[str, Any]]:
    """Measure each recipe of `texts` `rounds` times, interleaved; prints a line each and yields all there is to keep so far.

    curve: follow the held-out loss over a whole run of each recipe, instead of timing `steps` steps. gb: hold each to so
    much GPU memory. A measurement that fails is a row with `error`, the last line it wrote.
    """
    result: dict[str, Any] = {
        "device": memory.gpu_name() or "CPU",
        "date": date.today().isoformat(),
        "versions": _versions(),
        "shape": shape,
        "gb": gb,
        "rows": [],
    }
    for number in range(rounds):
        for text in texts:
            row = {"recipe": text, "round": number, **_in_a_process(text, shape, steps, curve, gb)}
            result["rows"].append(row)
            print(_line(row), flush=True)
            yield result


def here(text: str, shape: str | None, steps: int, curve: bool) -> dict[str, Any]:
    """One measurement, in this process."""
    recipe, plain = parse(text, shape), text.split(",")[0] == PLAIN
    return measure_curve(recipe, plain) if curve else measure(recipe, steps, plain=plain)


def _in_a_process(text: str, shape: str | None, steps: int, curve: bool, gb: float | None) -> dict[str, Any]:
    command = [sys.executable, "-m", "cptlib", "bench", text, "--here", "--json", "--steps", str(steps)]
    command += ["--shape", str(shape)] * bool(shape) + ["--curve"] * curve
    environment = os.environ | ({"CPTLIB_GPU_GB": str(gb)} if gb else {})
    ended = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    last = (ended.stdout.strip().splitlines() or [""])[-1]
    if ended.returncode == 0 and last.startswith("{"):
        return json.loads(last)
    said = [line for line in ended.stderr.splitlines() if line.strip()]
    return {"error": (said or [f"it ended with status {ended.returncode}"])[-1]}


def _line(row: dict[str, Any]) -> str:
    if "error" in row:
        return f"{row['recipe']}: {row['error']}"
    if "curve" in row:
        last = row["curve"][-1]
        return f"{row['recipe']}: held-out loss {last['loss']:.3f} nats after {last['seconds']:.0f} s"
    return f"{row['recipe']}: {row['tokens_per_second']:,.0f} tokens/s, {row['memory_gb']:.1f} GB"


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    return {"python": sys.version.split()[0], **{name: version(name) for name in PACKAGES}}


# One measurement, in this process


def measure(
    recipe: Recipe, steps: int = 8, warm_up: int = WARM_UP, plain: bool = False, before: "hints.Measure | None" = None
) -> dict[str, Any]:
    """Train `warm_up` steps by a recipe, then time `steps` more; one row's numbers. plain: without unsloth. before: called
    with the model, the tokenizer and the documents ahead of the adapters."""
    recipe = replace(recipe, max_steps=warm_up + steps)
    with silence():
        trainer = prepared(recipe, plain, before).trainer
        clock = watch(trainer)
        trainer.train()
    measured = row(trainer, recipe, clock.seconds[warm_up:], clock.tokens[warm_up:])
    return measured | {"first_seconds": clock.seconds[:warm_up]}


def row(trainer: "hints.Trainer", recipe: Recipe, seconds: list[float], tokens: list[int]) -> dict[str, Any]:
    """What is kept of a measurement whose steps took so many seconds and tokens each."""
    used, by_torch = memory.peak_gpu_gb() or memory.probe().used_gb, memory.torch_memory()
    rate, ceiling = sum(tokens) / sum(seconds), matmul_flops()
    return {
        "tokens_per_second": round(rate, 1),
        "seconds_per_step": round(sum(seconds) / len(seconds), 4),
        "tokens_per_step": round(sum(tokens) / len(tokens)),
        "utilisation": round(rate * flops_per_token(trainer.model.config, recipe) / ceiling, 4),
        "ceiling_tflops": round(ceiling / 1e12, 1),
        "memory_gb": round(used, 3),
        "torch_gb": {name: round(gb, 3) for name, gb in by_torch.items()},
        "step_seconds": [round(s, 4) for s in seconds],
        "gradient_norms": [line["grad_norm"] for line in trainer.state.log_history if "grad_norm" in line],
        "settings": settings(recipe),
    }


def measure_curve(recipe: Recipe, plain: bool = False, points: int = 20) -> dict[str, Any]:
    """Train by a recipe to its end; the held-out loss (nats a token) at `points` steps, and the seconds of training to each.

    The clock stands still while the loss is measured.
    """
    with silence():
        run = prepared(recipe, plain)
    trainer, batches = run.trainer, _padded_batches(run.documents["held_out"], run.tokenizer, recipe)
    clock = watch(trainer)
    curve: list[dict[str, Any]] = []

    def note(step: int, steps: int) -> None:
        if step % max(steps // points, 1) == 0 or step == steps:
            seconds, tokens = sum(clock.seconds), sum(clock.tokens)
            curve.append({"step": step, "seconds": seconds, "tokens": tokens, "loss": _loss(trainer, batches)})

    clock.at_step = note
    start = _loss(trainer, batches)
    with silence():
        trainer.train()
    return {"curve": [{"step": 0, "seconds": 0.0, "tokens": 0, "loss": start}, *curve], "settings": settings(recipe)}


def settings(recipe: Recipe) -> dict[str, Any]:
    """The recipe's fields, those of text aside."""
    return {name: value for name, value in asdict(recipe).items() if name not in ("prompt", "why", "temperature")}


def silence() -> AbstractContextManager[object]:
    """A context in which nothing is printed: measurements speak for themselves."""
    return contextlib.redirect_stdout(io.StringIO())


def prepared(recipe: Recipe, plain: bool = False, before: "hints.Measure | None" = None) -> Run:
    """The Run of a recipe, by this library's own steps or (plain) by those of the baseline; of a shape, on random documents."""
    require_gpu(recipe)  # before gigabytes are written
    resolve(recipe.model)  # random weights are made now, so that the peak is not theirs
    memory.forget_peaks()
    documents = None
    if recipe.model.startswith(SHAPE):
        drawn = random_documents(config_of(recipe.model).vocab_size, recipe.seed)
        documents = {"train": drawn, "held_out": drawn}
    return (baseline.prepare if plain else prepare)(recipe, documents, before)


def random_documents(vocabulary: int, seed: int, number: int = 1000) -> "hints.Dataset":
    """Tokenized documents of random tokens, of lengths as TinyStories has them: median 195 and mean 214 tokens."""
    from datasets import Dataset

    draw = random.Random(seed)
    lengths = [min(max(round(draw.lognormvariate(5.27, 0.43)), 40), 1000) for _ in range(number)]
    return Dataset.from_dict({"input_ids": [[draw.randrange(3, vocabulary) for _ in range(n)] for n in lengths]})


def _padded_batches(
    documents: "hints.Dataset", tokenizer: "hints.Tokenizer", recipe: Recipe, rows: int = 16
) -> list[dict[str, Any]]:
    """The documents in batches of like length, padded on the right, the padding left out of the loss."""
    import torch

    if "input_ids" not in documents.column_names:
        documents = {"input_ids": encode(documents["text"][:], tokenizer)}
    ids = sorted((torch.tensor(row[: recipe.max_length]) for row in documents["input_ids"]), key=len)
    batches = [ids[i : i + rows] for i in range(0, len(ids), rows)]
    pad = torch.nn.utils.rnn.pad_sequence
    return [
        {"input_ids": pad(b, batch_first=True), "labels": pad(b, batch_first=True, padding_value=-100)} for b in batches
    ]


def _loss(trainer: "hints.Trainer", batches: list[dict[str, Any]]) -> float:
    """Mean loss of the batches, nats a predicted token, with the model as it stands in training."""
    import torch

    nats = tokens = 0.0
    for batch in batches:
        predicted = int((batch["labels"][:, 1:] != -100).sum())
        with torch.no_grad(), trainer.compute_loss_context_manager():
            loss = trainer.model(**{name: part.to(device_of(trainer.model)) for name, part in batch.items()}).loss
        nats, tokens = nats + loss.item() * predicted, tokens + predicted
    if not math.isfinite(nats):
        raise MeasurementError(f"The held-out loss is {nats}: lower the learning rate, or use bfloat16 or float32.")
    return nats / tokens


def flops_per_token(config: hints.Config, recipe: Recipe) -> int:
    """Floating-point operations that training needs for a token: 4 for a frozen weight (the product forward, and the one that
    passes the gradient on), 6 for a trained one, which has a gradient of its own. What checkpointing computes twice is
    not counted, nor attention's own products, under 2% for documents of some 200 tokens.
    """
    counts = shapes.count_from_config(config, recipe)
    head = config.vocab_size * config.hidden_size  # the embedding is looked up, not multiplied
    return 4 * shapes.count_projections(config) + 6 * counts["adapters"] + (6 if recipe.train_embeddings else 4) * head


def matmul_flops(repeats: int = 20) -> float:
    """Operations a second in a product of two matrices of random numbers: the ceiling that utilisation is a share of."""
    import torch

    gpu = torch.cuda.is_available()
    size, device, dtype = (8192, "cuda", getattr(torch, best_dtype())) if gpu else (1024, "cpu", torch.float32)
    a, b = torch.randn(2, size, size, device=device, dtype=dtype)
    for _ in range(3):
        a @ b
    started = now()
    for _ in range(repeats):
        a @ b
    return repeats * 2 * size**3 / (now() - started)
