"""From a recipe, a model and documents to a trainer; then its history, its learning curve and its costs."""

import time
from dataclasses import dataclass

from cptlib import memory, style
from cptlib.model import best_dtype
from cptlib.recipe import Recipe

OUTPUT_FOLDER = "outputs"


def training_arguments(recipe: Recipe) -> dict:
    """What `UnslothTrainingArguments` is called with. Names as in the installed trl and transformers; a test compares."""
    dtype = recipe.dtype or best_dtype()
    return {
        "dataset_text_field": "text",
        "max_length": recipe.max_length,
        "packing": recipe.packing,
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
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "seed": recipe.seed,
        "output_dir": OUTPUT_FOLDER,
    }


def make_trainer(model, tokenizer, documents, recipe: Recipe):
    """An `UnslothTrainer` for `documents`, a Dataset whose `text` ends with EOS; it prints its progress.

    Pieces of long documents (`corpus.cut`, a column `ends`) are tokenized here: to a text, TRL would add an EOS of its own.
    """
    from unsloth import UnslothTrainer, UnslothTrainingArguments

    cut = "ends" in documents.column_names and not all(documents["ends"][:])
    if cut:
        documents = documents.map(lambda rows: {"input_ids": tokenizer(rows["text"])["input_ids"]}, batched=True)
        documents = documents.select_columns(["input_ids"])
    trainer = UnslothTrainer(
        model=model,
        processing_class=tokenizer,
        train_dataset=documents,
        args=UnslothTrainingArguments(**training_arguments(recipe)),
    )
    trainer.documents_are_cut = cut  # for checks.eos_is_learned
    return show_progress(trainer)


def show_progress(trainer, lines: int = 10):
    """Have the trainer print about `lines` lines of progress, with an estimate of the time left, in place of its own."""
    from transformers import PrinterCallback, TrainerCallback

    class Progress(TrainerCallback):
        def on_train_begin(self, args, state, control, **kwargs):
            self.started = time.perf_counter()

        def on_log(self, args, state, control, logs, **kwargs):
            step, steps = state.global_step, state.max_steps
            if "loss" in logs and (step == 1 or step == steps or step % max(steps // lines, 1) == 0):
                left = (time.perf_counter() - self.started) / step * (steps - step)
                print(
                    f"step {step:4} of {steps}   loss {float(logs['loss']):.3f}   about {left:.0f} s left", flush=True
                )

    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(Progress())
    return trainer


def tokens_per_epoch(trainer) -> int:
    """Tokens of the trainer's prepared rows, padding not counted."""
    return sum(map(len, trainer.train_dataset["input_ids"]))


def history(trainer):
    """A `pandas.DataFrame`, a row a logged step: step, tokens trained so far, loss (nats a token), learning_rate, grad_norm.

    The tokens follow from the share of the epoch that the trainer logs.
    """
    import pandas

    rows = [row for row in trainer.state.log_history if "loss" in row]
    if not rows:
        raise ValueError("The trainer has logged no step yet: call trainer.train() first.")
    table = pandas.DataFrame(rows)[["step", "epoch", "loss", "learning_rate", "grad_norm"]].astype(float)
    tokens = (table.pop("epoch") * tokens_per_epoch(trainer)).round().astype(int)
    table.insert(1, "tokens", tokens)
    return table.astype({"step": int})


@style.styled
def plot_learning_curve(table, axes=None):
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


def report(trainer, result) -> Report:
    """Costs of the run whose `trainer.train()` returned `result`.

    On a GPU the memory by nvidia-smi is read now; torch gives none back to the GPU during a run, so that is its peak.
    """
    peaks = {name: gb for name, gb in memory.torch_memory().items() if name.startswith("peak")}
    counts = {f"{name} by torch": gb for name, gb in peaks.items()}
    gpu = memory.gpu_memory()
    counts = {"by nvidia-smi": gpu.used_gb, **counts} if gpu else counts or {"resident": memory.peak_process_gb()}
    tokens = round(trainer.state.epoch * tokens_per_epoch(trainer))
    return Report(result.metrics["train_runtime"], tokens, result.global_step, counts)
