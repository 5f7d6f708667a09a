"""Preflight: failures that raise no error and waste a run, each looked for before it is paid for."""

from collections.abc import Iterator
from dataclasses import dataclass

from cptlib import attention


class PreflightError(RuntimeError):
    """A check that failed: what is wrong, why it matters, how to mend it."""


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


def preflight(trainer, rows: int = 4) -> None:
    """Check a trainer, with its model and its first `rows` rows, just before `trainer.train()`; prints a line a check.

    Raises PreflightError with every failure.
    """
    findings = [check(trainer, rows) for check in CHECKS]
    print(*findings, sep="\n")
    if failed := [str(finding) for finding in findings if finding.problem]:
        raise PreflightError("\n".join(failed))


def eos_is_learned(trainer, rows: int = 4) -> Finding:
    """Each document's last token is EOS, and the loss counts it. Of cut documents only the last piece has one."""
    eos, problem = trainer.processing_class.eos_token_id, None
    pieces = getattr(trainer, "documents_are_cut", False)  # training.make_trainer sets it
    for number, (ids, labels) in enumerate(_documents(trainer, rows)):
        if ids[-1] != eos and not pieces:
            problem = f"document {number} ends with token {ids[-1]}, not with EOS ({eos})"
        elif ids[-1] == eos != labels[-1]:
            problem = f"the EOS of document {number} is masked out of the loss"
    return Finding(
        "every document ends with EOS, and the loss counts it",
        problem,
        "The model would not learn to stop.",
        "Put EOS after each document (corpus.add_eos), keep documents within max_length, and let the padding token be "
        "another one than EOS.",
    )


def one_bos(trainer, rows: int = 4) -> Finding:
    """No document begins with two BOS tokens."""
    bos, problem = trainer.processing_class.bos_token_id, None
    for number, (ids, _) in enumerate(_documents(trainer, rows)):
        if bos is not None and ids[:2] == [bos, bos]:
            problem = f"document {number} begins with two BOS ({bos})"
    return Finding(
        "no document begins with two BOS",
        problem,
        "The model would see a beginning that it never meets when used.",
        "Leave BOS out of the text: the tokenizer puts it there.",
    )


def embeddings_train(trainer, rows: int = 0) -> Finding:
    """If the embedding learning rate is set, embeddings and head are trainable, in float32."""
    import torch

    model, problem = trainer.model, None
    for part, module in (("embed_tokens", model.get_input_embeddings()), ("lm_head", model.get_output_embeddings())):
        weight = module.weight
        if trainer.args.embedding_learning_rate is None:
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


def two_learning_rates(trainer, rows: int = 0) -> Finding:
    """The optimizer trains the embeddings at the embedding learning rate and the rest at the learning rate."""
    args, problem = trainer.args, None
    if args.embedding_learning_rate is not None:
        wanted = {args.learning_rate, args.embedding_learning_rate}
        rates = {group["lr"] for group in _optimizer(trainer).param_groups}
        if rates != wanted:
            problem = f"its learning rates are {sorted(rates)}, not {sorted(wanted)}"
    return Finding(
        "the optimizer has a learning rate for the embeddings and one for the rest",
        problem,
        "The embeddings would be trained at the wrong rate.",
        "Use UnslothTrainer with UnslothTrainingArguments(embedding_learning_rate=…).",
    )


def documents_apart(trainer, rows: int = 0) -> Finding:
    """Where documents are packed into rows, none of them sees another: changing one leaves the others' logits as they are."""
    problem = None
    if trainer.args.packing:
        moved = attention.documents_apart(trainer.model)
        if not moved < 1e-3:
            problem = f"changing one document moved the others' logits by {moved:.1%}"
    return Finding(
        "packed documents do not see each other",
        problem,
        "The model would learn to continue one document from another.",
        "This machine's attention cannot keep them apart: set packing=False in the recipe.",
    )


CHECKS = (eos_is_learned, one_bos, embeddings_train, two_learning_rates, documents_apart)


def _optimizer(trainer):
    """The optimizer that `train` will make; the trainer is left without one, so that it makes its own."""
    before = trainer.optimizer
    optimizer = trainer.create_optimizer()
    trainer.optimizer = before
    return optimizer


def _documents(trainer, rows: int) -> Iterator[tuple[list[int], list[int]]]:
    """(ids, labels) of each document in the batch that the trainer's collator makes of its first rows, padding left out."""
    dataset = trainer.train_dataset
    batch = trainer.data_collator([dataset[i] for i in range(min(rows, len(dataset)))])
    for i, (ids, labels) in enumerate(zip(batch["input_ids"].tolist(), batch["labels"].tolist(), strict=True)):
        if "attention_mask" in batch:
            length = int(batch["attention_mask"][i].sum())
            yield ids[:length], labels[:length]
        else:  # documents packed into one row: positions begin at 0 with each
            starts = [n for n, position in enumerate(batch["position_ids"][i].tolist()) if position == 0]
            for start, end in zip(starts, [*starts[1:], len(ids)], strict=True):
                yield ids[start:end], labels[start:end]
