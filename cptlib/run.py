"""The one road from a recipe to a model that is ready to train; every command and every measurement takes it."""

from dataclasses import dataclass

from cptlib import corpus, hints, lora, machine, models, training
from cptlib.recipe import Recipe


@dataclass(frozen=True)
class Run:
    """A recipe made real. model: with adapters, in training mode. tokenizer: the model's. documents: the `DatasetDict` of
    `corpus.split`, with `train` and `held_out`. trainer: for the rows of `train`; `training.train(trainer, recipe)` next."""

    recipe: Recipe
    model: "hints.PeftModel"
    tokenizer: "hints.Tokenizer"
    documents: "hints.DatasetDict"
    trainer: "hints.Trainer"


def prepare(recipe: Recipe, documents: "hints.DatasetDict | None" = None, before: "hints.Measure | None" = None) -> Run:
    """Load, split, add adapters, cut and mark the documents, make the trainer: a Run.

    documents: a `DatasetDict` with `train` and `held_out` in place of the recipe's corpus. before: called with the model in
    inference mode, the tokenizer and the documents ahead of the adapters, to measure what the model was. Raises, before
    anything is downloaded, DoesNotFit where the GPU's memory is too small; CorpusError and ModelError.
    """
    machine.require_memory(recipe)
    documents = documents or corpus.split(corpus.read(recipe.corpus, recipe.documents), recipe.held_out, recipe.seed)
    model, tokenizer = models.load(recipe)
    if before:
        before(models.for_inference(model), tokenizer, documents)
    model = lora.add_adapters(models.for_training(model), recipe)
    return Run(recipe, model, tokenizer, documents, training.make_trainer(model, tokenizer, documents["train"], recipe))
