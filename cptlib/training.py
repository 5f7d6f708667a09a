"""From a recipe, a model and documents to a trainer; then its history, its learning curve and its costs."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cptlib import checkpoints, estimate, hints, memory, rows, style
from cptlib.device import best_dtype
from cptlib.errors import CheckpointError
from cptlib.paths import OUTPUT_FOLDER
from cptlib.recipe import Recipe


def training_arguments(recipe: Recipe) -> dict[str, Any]:
    """What `UnslothTrainingArguments` is called with. Names as in the installed trl and transformers; a test compares."""
    dtype = recipe.dtype or best_dtype()
    return {
        "dataset_text_field": "text",
        "max_length": recipe.max_length,
        "packing": recipe.packing,
        # the GPU's fast matrix kernels want token counts divisible by 8; packed rows come in any length
        "pad_to_multiple_of": 8 if recipe.packing else None,
        "per_device_train_batch_size": recipe.micro_batch,
        "gradient_accumulation_steps": recipe.accumulation,
        "num_train_epochs": recipe.epochs,
        "max_steps": recipe.max_steps,
        "learning_rate": recipe.learning_rate,
        "embedding_learning_rate": recipe.embedding_learning_rate if recipe.train_embeddings else None,
        "lr_scheduler_type": "cosine",
        "warmup_steps": recipe.warmup,  # below 1 it is a fraction of the steps
        "bf16": dtype == "bfloat16",
        "fp16": dtype == "float16",
        "optim": recipe.optimizer,
        "weight_decay": 0.0,
        "gradient_checkpointing": bool(recipe.gradient_checkpointing),
        "logging_steps": 1,
        "logging_nan_inf_filter": False,  # it would hide a NaN, and wait for the GPU in every step to look for one
        "save_strategy": "no",  # `train` below saves by the clock
        "report_to": "none",
        "disable_tqdm": True,
        "seed": recipe.seed,
        "output_dir": f"{OUTPUT_FOLDER}/{recipe.run_name}",
    }


def make_trainer(
    model: "hints.Model", tokenizer: "hints.Tokenizer", documents: "hints.Dataset", recipe: Recipe
) -> "hints.Trainer":
    """An `UnslothTrainer` for `documents`, a Dataset with a column `text`; it prints its progress.

    Documents longer than a row are cut into pieces and each one ends with EOS (`rows.tokenize`); a Dataset that has
    `input_ids` is taken as it is. `trainer.open_pieces` counts the rows that are no document's end, for `checks.preflight`.
    """
    from unsloth import UnslothTrainer, UnslothTrainingArguments

    if "input_ids" not in documents.column_names:
        documents = rows.tokenize(documents, tokenizer, recipe.max_length)
    trainer = UnslothTrainer(
        model=model,
        processing_class=tokenizer,
        train_dataset=documents.select_columns("input_ids"),
        args=UnslothTrainingArguments(**training_arguments(recipe)),
    )
    trainer.open_pieces = rows.open_pieces(documents)
    return show_progress(trainer)


def show_progress(trainer: "hints.Trainer", lines: int = 10) -> "hints.Trainer":
    """Have the trainer print about `lines` lines of progress, with an estimate of the time left, in place of its own."""
    from transformers import PrinterCallback, TrainerCallback

    class Progress(TrainerCallback):
        def on_train_begin(self, args, state, control, **kwargs):
            self.started, self.first = time.perf_counter(), state.global_step  # above 0 in a run that goes on

        def on_log(self, args, state, control, logs, **kwargs):
            step, steps = state.global_step, state.max_steps
            if "loss" in logs and (step == 1 or step == steps or step % max(steps // lines, 1) == 0):
                left = (time.perf_counter() - self.started) / (step - self.first) * (steps - step)
                print(
                    f"step {step:4} of {steps}   loss {float(logs['loss']):.3f}   about {left:.0f} s left", flush=True
                )

    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(Progress())
    return trainer


def train(trainer: "hints.Trainer", recipe: Recipe) -> "hints.TrainOutput":
    """`trainer.train()` that can be stopped at any moment and goes on where it was; returns the same, for the whole run.

    It saves to `outputs/` every `recipe.save_minutes`, at the end, and after Ctrl-C. Started again with the same recipe,
    model and documents it goes on from the last whole checkpoint, and comes to the weights and losses of a run that was
    never stopped (the same bits on a CPU). A finished run is loaded. Raises CheckpointError where that cannot be, where
    there are several processes, or where another one trains in that folder, and `estimate.DoesNotFit`, with the nearest
    recipe that fits, where the GPU's memory runs out.
    """
    checkpoints.require_one_process()
    run = Path(trainer.args.output_dir)
    with checkpoints.alone_in(run):
        return _train(trainer, recipe, run)


def _train(trainer: "hints.Trainer", recipe: Recipe, run: Path) -> "hints.TrainOutput":
    data = checkpoints.digest(trainer.train_dataset)
    last = checkpoints.last_whole(run)
    seconds = _seconds_in(last, data) if last else 0.0
    if last and _is_finished(trainer, last):
        print(f"This run was finished before: {last} is loaded. To train anew, remove {run}.")
        return _load_finished(trainer, last, seconds)
    if last:
        print(f"Going on from {last}.")
    checkpoints.require_room(trainer.model, run, recipe.keep_checkpoints)
    saver = checkpoints.add_saver(
        trainer, minutes=recipe.save_minutes, keep=recipe.keep_checkpoints, data=data, seconds=seconds
    )
    try:
        with checkpoints.interruptible(saver), estimate.out_of_memory_explained(recipe, trainer.model.config):
            result = trainer.train(resume_from_checkpoint=str(last) if last else None)
    finally:
        trainer.remove_callback(saver)
    if saver.stop:
        print(f"Stopped and saved at step {result.global_step} of {trainer.state.max_steps}. Train again to go on.")
        raise KeyboardInterrupt
    result.metrics["train_runtime"] += seconds
    return result


def _seconds_in(checkpoint: Path, data: int) -> float:
    """Seconds of training in a checkpoint; CheckpointError if it was trained on other rows."""
    mark = checkpoints.read_mark(checkpoint)
    assert mark  # last_whole has read it
    if mark.data != data:
        raise CheckpointError(
            f"{checkpoint} was trained on other documents than these. Bring those back to go on, or remove "
            f"{checkpoint.parent} to begin anew."
        )
    return mark.seconds


def _is_finished(trainer: "hints.Trainer", checkpoint: Path) -> bool:
    from transformers import TrainerState

    state = TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))
    return state.global_step >= state.max_steps


def _load_finished(trainer: "hints.Trainer", checkpoint: Path, seconds: float) -> "hints.TrainOutput":
    from transformers import TrainerState
    from transformers.trainer_utils import TrainOutput

    trainer.model.load_adapter(str(checkpoint), "default", is_trainable=True)
    trainer.state = TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))
    losses = history(trainer)["loss"]
    metrics = {"train_runtime": seconds, "train_loss": losses.mean()}
    return TrainOutput(trainer.state.global_step, losses.mean(), metrics)


def tokens_per_epoch(trainer: "hints.Trainer") -> int:
    """Tokens of the trainer's prepared rows, padding not counted."""
    return sum(map(len, trainer.train_dataset["input_ids"]))


def history(trainer: "hints.Trainer") -> "hints.DataFrame":
    """A `pandas.DataFrame`, a row a logged step: step, tokens trained so far, loss (nats a token), learning_rate, grad_norm.

    The tokens follow from the share of the epoch that the trainer logs. ValueError before the first step.
    """
    import pandas

    logged = [line for line in trainer.state.log_history if "loss" in line]
    if not logged:
        raise ValueError("The trainer has logged no step yet: call trainer.train() first.")
    table = pandas.DataFrame(logged)[["step", "epoch", "loss", "learning_rate", "grad_norm"]].astype(float)
    tokens = (table.pop("epoch") * tokens_per_epoch(trainer)).round().astype(int)
    table.insert(1, "tokens", tokens)
    return table.astype({"step": int})


@style.styled
def plot_learning_curve(table: "hints.DataFrame", axes: "Sequence[hints.Axes] | None" = None) -> "Sequence[hints.Axes]":
    """Loss over tokens trained, raw and smoothed, and the learning rate beneath. `axes`: a pair to draw in."""
    top, bottom = axes = style.subplots(2, size=(6, 4.6), sharex=True, height_ratios=[3, 1]) if axes is None else axes
    tokens = table["tokens"] / 1000
    top.plot(tokens, table["loss"], color=style.color(0), alpha=0.35, label="each step")
    top.plot(tokens, table["loss"].ewm(span=max(len(table) // 5, 2)).mean(), color=style.color(0), label="smoothed")
    top.set(title="Learning curve", ylabel="training loss (nats per token)")
    top.legend()
    bottom.plot(tokens, table["learning_rate"], color=style.color(1))
    bottom.set(xlabel="tokens trained (thousands)", ylabel="learning rate")
    bottom.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
    return axes


@dataclass(frozen=True)
class Report:
    """What a run took. seconds; tokens trained, padding not counted; peak_gb by counter, in GB."""

    seconds: float
    tokens: int
    steps: int
    peak_gb: dict[str, float]

    def __str__(self) -> str:
        peaks = ", ".join(f"{gb:.2f} GB {counter}" for counter, gb in self.peak_gb.items())
        return (
            f"{self.steps} steps, {self.tokens:,} tokens in {self.seconds:.0f} s: {self.tokens / self.seconds:,.0f} "
            f"tokens/s\npeak memory: {peaks}"
        )


def report(trainer: "hints.Trainer", result: "hints.TrainOutput") -> Report:
    """Costs of the run whose `trainer.train()` returned `result`.

    On a GPU the peak by nvidia-smi is what it shows now and what torch has given back since its own peak.
    """
    peaks = {name: gb for name, gb in memory.torch_memory().items() if name.startswith("peak")}
    counts = {f"{name} by torch": gb for name, gb in peaks.items()}
    peak = memory.peak_gpu_gb()
    counts = {"by nvidia-smi": peak, **counts} if peak else counts or {"resident": memory.peak_process_gb()}
    tokens = round(trainer.state.epoch * tokens_per_epoch(trainer))
    return Report(result.metrics["train_runtime"], tokens, result.global_step, counts)
