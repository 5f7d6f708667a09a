"""Preflight: failures that raise no error and waste a run, each looked for before it is paid for."""

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from cptlib import attention, hints, shapes, tokens
from cptlib.device import autocast
from cptlib.errors import PreflightError

SETTLING = 10  # steps in a row that float16's loss scale may skip until it fits; it halves with each


@dataclass(frozen=True)
class Finding:
    """The outcome of one check. name: what must hold. problem: what was found instead, None where all is well.
    why: what it would do to a run. mend: what to change."""

    name: str
    problem: str | None
    why: str
    mend: str

    def __str__(self) -> str:
        if self.problem is None:
            return f"ok      {self.name}"
        return f"FAILED  {self.name}: {self.problem}. {self.why} {self.mend}"


def preflight(trainer: "hints.Trainer", rows: int = 4, open_pieces: int | None = None) -> None:
    """Check a trainer, its model and all its rows just before `trainer.train()`; prints a table.

    The labels are looked at in its first `rows` rows. open_pieces: how many rows are pieces of a document that goes on and
    so need no EOS (`rows.open_pieces`; a trainer by `training.make_trainer` knows). Takes about a second and a forward pass
    or three. The last checks run the model, so only where the others pass. From then on the trainer stops at a step whose
    gradient is no number. Raises PreflightError with every failure.
    """
    if open_pieces is not None:
        trainer.open_pieces = open_pieces
    findings = [check(trainer, rows) for check in LOOKS]
    if not any(finding.problem for finding in findings):
        findings += [check(trainer, rows) for check in TRIALS]
    failed = [finding for finding in findings if finding.problem]
    width = max(len(finding.name) for finding in findings)
    print(f"{'check':{width}}  result", "-" * (width + 8), sep="\n")
    for finding in findings:
        print(f"{finding.name:{width}}  {'FAILED' if finding.problem else 'ok'}")
    if failed:
        raise PreflightError("\n".join(map(str, failed)))
    stop_at_nan(trainer)


def ids_fit(trainer: "hints.Trainer", rows: int = 0) -> Finding:
    """Each token id of the tokenizer has a row in the embedding."""
    size = trainer.model.get_input_embeddings().weight.shape[0]
    largest = max(trainer.processing_class.get_vocab().values())
    return Finding(
        "every token has a row in the embedding",
        f"the tokenizer's largest id is {largest}, the embedding has {size} rows" if largest >= size else None,
        "Training would stop with an index error, on a GPU one that names neither token nor line.",
        "Use the model's own tokenizer, or call model.resize_token_embeddings(len(tokenizer)) before adapters are added.",
    )


def positions_fit(trainer: "hints.Trainer", rows: int = 0) -> Finding:
    """No document is longer than the positions the model knows."""
    most = getattr(trainer.model.config, "max_position_embeddings", None)
    longest = max(map(len, _all_documents(trainer.train_dataset)))
    return Finding(
        "no document is longer than the model's positions",
        f"one has {longest} tokens, the model knows {most} positions" if most and longest > most else None,
        "Beyond its positions a model writes noise, and learns from noise.",
        f"Set the recipe's max_length to {most} or less.",
    )


def something_is_learned(trainer: "hints.Trainer", rows: int = 4) -> Finding:
    """Each row has tokens that the loss counts."""
    unread = [n for n, (_, labels) in enumerate(_documents(trainer, rows)) if all(label == -100 for label in labels)]
    return Finding(
        "the loss counts tokens of every document",
        f"all labels of document {unread[0]} are masked" if unread else None,
        "Nothing would be learned from it.",
        "Train on a plain text column, without masks for prompts or answers.",
    )


def eos_is_learned(trainer: "hints.Trainer", rows: int = 4) -> Finding:
    """In all rows: each document's last token is EOS, and no other is; in the first rows: the loss counts it.

    Of the pieces of a cut document only the last one has an EOS (`preflight`: open_pieces).
    """
    import numpy as np

    eos, allowed, problem = trainer.processing_class.eos_token_id, getattr(trainer, "open_pieces", 0), None
    batch = [(np.array(ids), labels) for ids, labels in _documents(trainer, rows)]
    documents = enumerate(_all_documents(trainer.train_dataset))
    begin = len(tokens.opening(trainer.processing_class))  # BOS may be the same token as EOS
    for number, ids in itertools.chain(documents, enumerate(ids for ids, _ in batch)):
        if (inside := np.flatnonzero(ids[begin:-1] == eos)).size:
            problem = f"document {number} has EOS ({eos}) in its middle, at token {begin + inside[0]}"
    endless = [(n, ids[-1]) for n, ids in enumerate(_all_documents(trainer.train_dataset)) if ids[-1] != eos]
    if len(endless) > allowed:
        number, last = endless[0]
        problem = f"{len(endless)} documents end without EOS ({eos})" + f" and {allowed} may" * bool(allowed)
        problem += f": document {number} ends with token {last}"
    for number, (ids, labels) in enumerate(batch):
        if ids[-1] == eos != labels[-1]:
            problem = f"the EOS of document {number} is masked out of the loss"
    return Finding(
        "every document ends with EOS, and the loss counts it",
        problem,
        "The model would not learn to stop, or learn to stop too early.",
        "Put EOS after each document and nowhere else (corpus.add_eos), cut what is longer than max_length before the "
        "trainer does (corpus.tokenize does both), and let the padding token be another one than EOS.",
    )


def one_bos(trainer: "hints.Trainer", rows: int = 0) -> Finding:
    """No document begins with two BOS tokens."""
    bos = trainer.processing_class.bos_token_id
    double = [n for n, ids in enumerate(_all_documents(trainer.train_dataset)) if ids[:2].tolist() == [bos, bos]]
    return Finding(
        "no document begins with two BOS",
        f"document {double[0]} begins with two BOS ({bos})" if double else None,
        "The model would see a beginning that it never meets when used.",
        "Leave BOS out of the text: the tokenizer puts it there.",
    )


def linear_layers_are_adapted(trainer: "hints.Trainer", rows: int = 0) -> Finding:
    """Each linear layer of the transformer blocks has an adapter, or is trained itself; each stack of experts too."""
    layers = shapes.linear_weights(trainer.model)
    left = [name for name, weight in layers.items() if ".base_layer" not in name and not weight.requires_grad]
    return Finding(
        "every linear layer has an adapter",
        f"of {len(layers)} linear layers {len(left)} have no adapter, {left[0]} among them" if left else None,
        "They would stay as they were, and the run learn less than it could.",
        "Add the adapters with lora.add_adapters; where it leaves layers out as well, choose a model of another family.",
    )


def embeddings_train(trainer: "hints.Trainer", rows: int = 0) -> Finding:
    """If the embedding learning rate is set, embeddings and head are trainable, in float32."""
    import torch

    model, problem = trainer.model, None
    for part, module in (("embed_tokens", model.get_input_embeddings()), ("lm_head", model.get_output_embeddings())):
        weight = module.weight
        if _embedding_rate(trainer) is None:
            continue
        if not weight.requires_grad:
            problem = f"{part} is frozen"
        elif weight.dtype != torch.float32:
            problem = f"{part} is trained as {str(weight.dtype).removeprefix('torch.')}"
    return Finding(
        "embeddings and head are trainable, in float32",
        problem,
        "They would not learn: frozen, or with updates that round away in 16 bits.",
        'Name "embed_tokens" and "lm_head" in target_modules, and call lora.train_in_float32(model) after the trainer is made.',
    )


def tied_stay_tied(trainer: "hints.Trainer", rows: int = 0) -> Finding:
    """A model whose config ties embedding and head uses one matrix for both."""
    model = trainer.model
    embedding, head = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    untied = model.config.tie_word_embeddings and head is not embedding and head.data_ptr() != embedding.data_ptr()
    return Finding(
        "tied embeddings are still tied",
        "embedding and head are two matrices now, and the config says they are one" if untied else None,
        "They would drift apart, and whoever loads the saved model would lose the trained head.",
        "Add the adapters with ensure_weight_tying=True.",
    )


def two_learning_rates(trainer: "hints.Trainer", rows: int = 0) -> Finding:
    """The optimizer trains the embeddings at the embedding learning rate and the rest at the learning rate."""
    rate, problem = _embedding_rate(trainer), None
    if rate is not None:
        wanted, before = {trainer.args.learning_rate, rate}, trainer.optimizer
        rates = {group["lr"] for group in trainer.create_optimizer().param_groups}
        trainer.optimizer = before  # so that `train` makes its own
        if rates != wanted:
            problem = f"its learning rates are {sorted(rates)}, not {sorted(wanted)}"
    return Finding(
        "the optimizer has a learning rate for the embeddings and one for the rest",
        problem,
        "The embeddings would be trained at the wrong rate.",
        "Use UnslothTrainer with UnslothTrainingArguments(embedding_learning_rate=…).",
    )


def steps_suffice(trainer: "hints.Trainer", rows: int = 0) -> Finding:
    """A float16 run has more steps than its loss scale takes to settle."""
    steps = trainer.args.max_steps
    return Finding(
        "the run is long enough for float16",
        f"it has {steps} steps, and the first four may be skipped" if trainer.args.fp16 and 0 < steps < 5 else None,
        "The loss scale starts high and halves at each overflow: all steps may be skipped, and nothing trained.",
        "Set max_steps to 5 or more, or train in bfloat16 or float32.",
    )


def loss_is_a_number(trainer: "hints.Trainer", rows: int = 4) -> Finding:
    """The first batch, in the number format of the training, has a finite loss."""
    import torch

    batch = _batch(trainer, min(rows, trainer.args.per_device_train_batch_size))
    with torch.no_grad(), autocast(trainer.model):
        loss = trainer.model(**trainer._prepare_inputs(dict(batch))).loss.item()
    return Finding(
        "the first batch has a finite loss",
        None if -float("inf") < loss < float("inf") else f"it is {loss}",
        "The first step would turn every trained weight into NaN, or, in float16, be skipped like all others.",
        "A number overflows: train in bfloat16 or float32 (the recipe's dtype), since float16 ends at 65,504.",
    )


def documents_apart(trainer: "hints.Trainer", rows: int = 0) -> Finding:
    """Where documents are packed into rows, none of them sees another: changing one leaves the others' logits as they are."""
    problem = None
    if trainer.args.packing or getattr(trainer.args, "padding_free", False):  # unsloth's default on a GPU
        moved = attention.documents_apart(trainer.model)
        if not moved < 1e-3:
            problem = f"changing one document moved the others' logits by {moved:.1%}"
    return Finding(
        "packed documents do not see each other",
        problem,
        "The model would learn to continue one document from another.",
        "This machine's attention cannot keep them apart: set packing=False in the recipe.",
    )


LOOKS = [ids_fit, positions_fit, something_is_learned, eos_is_learned, one_bos, linear_layers_are_adapted]
LOOKS += [embeddings_train, tied_stay_tied, two_learning_rates, steps_suffice]
TRIALS = [loss_is_a_number, documents_apart]


def stop_at_nan(trainer: "hints.Trainer") -> None:
    """Have the trainer raise PreflightError at a step whose gradient is no number, before it saves what that left.

    In float16 the first steps may be skipped while the loss scale finds its size, so there it takes SETTLING in a row.
    """
    from transformers import TrainerCallback

    class StopAtNan(TrainerCallback):
        lost = 0

        def on_log(self, args, state, control, logs, **kwargs):
            if "grad_norm" in logs:
                finite = abs(float(logs["grad_norm"])) < float("inf")
                self.lost = 0 if finite else self.lost + 1
            if self.lost >= (SETTLING if args.fp16 else 1):
                raise PreflightError(
                    f"The gradient of step {state.global_step} is {float(logs['grad_norm'])}: the run is lost from here "
                    "on. Lower the learning rate, or train in bfloat16 or float32; then start again."
                )

    if not getattr(trainer, "stops_at_nan", False):
        trainer.add_callback(StopAtNan())
        trainer.stops_at_nan = True


def _embedding_rate(trainer: "hints.Trainer") -> float | None:
    return getattr(trainer.args, "embedding_learning_rate", None)


def _all_documents(dataset: "hints.Dataset") -> Iterator[Any]:
    """The ids of every document in a trainer's dataset, arrays; rows, where the dataset does not tell documents apart."""
    import numpy as np

    packed = "seq_lengths" in dataset.column_names
    for batch in dataset.select_columns(["input_ids", *["seq_lengths"] * packed]).with_format("numpy").iter(1000):
        for number, ids in enumerate(batch["input_ids"]):
            yield from np.split(ids, np.cumsum(batch["seq_lengths"][number])[:-1]) if packed else [ids]


def _batch(trainer: "hints.Trainer", rows: int) -> dict[str, Any]:
    """What the trainer's collator makes of its first rows."""
    dataset = trainer.train_dataset
    return trainer.data_collator([dataset[i] for i in range(min(rows, len(dataset)))])


def _documents(trainer: "hints.Trainer", rows: int) -> Iterator[tuple[list[int], list[int]]]:
    """(ids, labels) of each document in the batch of the trainer's first rows, padding left out."""
    import torch

    batch = _batch(trainer, rows)
    ids, labels = batch["input_ids"], batch["labels"]
    parts: Iterable[Any]
    if "packed_seq_lengths" in batch:  # one row; padding may follow its last document
        lengths = batch["packed_seq_lengths"].tolist()
        parts = zip(*(row[0, : sum(lengths)].split(lengths) for row in (ids, labels)), strict=True)
    else:
        masks = batch.get("attention_mask", torch.ones_like(ids)).bool()
        parts = ((row[mask], row_labels[mask]) for row, row_labels, mask in zip(ids, labels, masks, strict=True))
    for document, document_labels in parts:
        yield document.tolist(), document_labels.tolist()
