"""Recipe `post` without unsloth, as the pages of transformers, peft and trl show it: the baseline that `bench` measures."""

from cptlib import corpus, hints, rows, training
from cptlib.device import best_dtype
from cptlib.errors import ModelError
from cptlib.recipe import PROJECTIONS, Recipe
from cptlib.run import Run
from cptlib.weights import resolve


def prepare(recipe: Recipe, documents: "hints.DatasetDict | None" = None, before: "hints.Measure | None" = None) -> Run:
    """As `run.prepare`, without unsloth."""
    documents = documents or corpus.split(corpus.read(recipe.corpus, recipe.documents), recipe.held_out, recipe.seed)
    model, tokenizer = load(recipe)
    if before:
        before(model, tokenizer, documents)
    return Run(recipe, model, tokenizer, documents, make_trainer(model, tokenizer, documents["train"], recipe))


def load(recipe: Recipe) -> tuple["hints.PreTrainedModel", "hints.Tokenizer"]:
    """(model, tokenizer) of a recipe, on the GPU; ModelError where there is none."""
    import torch

    if not torch.cuda.is_available():
        raise ModelError("plain needs a CUDA GPU, and there is none here: trl computes its loss in a GPU kernel.")
    from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

    dtype, folder = getattr(torch, recipe.dtype or best_dtype()), resolve(recipe.model)
    nf4 = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype
    )
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=dtype, device_map={"": "cuda"}, quantization_config=nf4 if recipe.load_in_4bit else None
    )
    return model, AutoTokenizer.from_pretrained(folder)


def make_trainer(
    model: "hints.PreTrainedModel", tokenizer: "hints.Tokenizer", documents: "hints.Dataset", recipe: Recipe
) -> "hints.Trainer":
    """An `SFTTrainer` for `documents` with a column `text` (or `input_ids`), with adapters on `model`; one learning rate for
    all. Documents are cut and marked as everywhere (`rows.tokenize`)."""
    from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
    from trl import SFTConfig, SFTTrainer

    if "input_ids" not in documents.column_names:
        documents = rows.tokenize(documents, tokenizer, recipe.max_length)
    if recipe.load_in_4bit:
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=bool(recipe.gradient_checkpointing))
    adapters = LoraConfig(
        r=recipe.rank,
        lora_alpha=recipe.alpha,
        use_rslora=recipe.rslora,
        target_modules=list(PROJECTIONS),
        modules_to_save=["embed_tokens", "lm_head"] if recipe.train_embeddings else None,
        ensure_weight_tying=recipe.train_embeddings,
        task_type="CAUSAL_LM",
    )
    arguments = training.training_arguments(recipe)
    del arguments["embedding_learning_rate"]
    return SFTTrainer(
        model=get_peft_model(model, adapters),
        processing_class=tokenizer,
        train_dataset=documents.select_columns("input_ids"),
        args=SFTConfig(**arguments),
    )
