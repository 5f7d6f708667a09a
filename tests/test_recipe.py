import json
import math
from dataclasses import FrozenInstanceError, asdict, fields, replace
from pathlib import Path

import pytest
from datasets import Dataset

from cptlib import corpus, machine
from cptlib.bench import results
from cptlib.machine import _for_gpu
from cptlib.recipe import OPTIMIZERS, RECIPES, Recipe


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(ValueError, match="no recipe 'lapdog'.*smoke, laptop, t4, a100, post"):
        Recipe.named("lapdog")


def test_the_environment_overrules_the_machine(monkeypatch):
    monkeypatch.setenv("CPTLIB_RECIPE", "t4")
    recipe = machine.recipe()
    assert recipe.name == "t4" and "CPTLIB_RECIPE=t4" in recipe.why


def test_fields_can_be_overruled_in_text(monkeypatch):
    recipe = Recipe.parse("laptop,documents=60,rslora=False,learning_rate=1e-3,model=/some/folder")
    assert (recipe.documents, recipe.rslora, recipe.learning_rate, recipe.model) == (60, False, 1e-3, "/some/folder")
    with pytest.raises(ValueError, match="'ranks=3' is no field=value of a recipe. Its fields are: name, model"):
        Recipe.parse("laptop,ranks=3")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("train_embeddings=false", False),
        ("rslora=NO", False),
        ("rslora=Yes", True),
        ("packing=Off", False),
        ("load_in_4bit=on", True),
        ("packing=1", True),
        ("load_in_4bit=0", False),
        ("gradient_checkpointing=TRUE", True),
        ("gradient_checkpointing=off", False),
        ("gradient_checkpointing=unsloth", "unsloth"),
        ("documents=None", None),
        ("documents=NONE", None),
        ("dtype=none", None),
        ("dtype=float16", "float16"),
        ("epochs=2", 2),
        ("epochs=0.5", 0.5),
        ("warmup=0", 0),
        ("max_steps=-1", -1),
        ("corpus=2024", "2024"),
        ("corpus=1e5", "1e5"),
        ("model=None", "None"),
        ("model=true", "true"),
        ("prompt='It is 7'", "It is 7"),
        ("prompt=[1", "[1"),
        ("prompt=", ""),
    ],
)
def test_text_is_read_as_it_is_meant(text, value):
    read = getattr(Recipe.parse(f"laptop,{text}"), text.split("=")[0])
    assert read == value and type(read) is type(value)


WRONG = {
    "name": ["", 5],
    "model": ["", None, Path("a")],
    "corpus": [2024, " "],
    "documents": [0, -5, 2.5, True, "all"],
    "held_out": [0, -1, 2.5, None, "x"],
    "load_in_4bit": [1, None, "false"],
    "dtype": ["float8", "bf16", 16],
    "max_length": [0, 1, 7, 512.0],
    "packing": ["no", 0],
    "micro_batch": [0, False],
    "accumulation": [0, 1.0],
    "epochs": [0, -1, math.inf, math.nan, "1"],
    "max_steps": [0, -2, 1.5],
    "learning_rate": [-1e-5, math.nan, "abc"],
    "embedding_learning_rate": [-1, None],
    "warmup": [-0.1, 1, 10],
    "optimizer": ["nonsense", "", None],
    "gradient_checkpointing": ["maybe", 1, None],
    "save_minutes": [-1, math.inf],
    "keep_checkpoints": [0, -1],
    "rank": [0, 2.5, True, "abc"],
    "alpha": [0, -8],
    "rslora": ["off", 1],
    "train_embeddings": ["false", None],
    "prompt": [None, 5],
    "new_tokens": [0, -3],
    "temperature": [-0.1, math.nan],
    "seed": [-1, 2**32, "x", 1.0],
    "why": [None],
}


@pytest.mark.parametrize(("field", "value"), [(field, value) for field in WRONG for value in WRONG[field]])
def test_what_a_field_cannot_be_is_said_in_a_sentence(field, value):
    with pytest.raises(ValueError, match=rf"^{field}=.*: {field} must be .*[^.]\.$") as refused:
        replace(Recipe.named("laptop"), **{field: value})
    assert repr(value) in str(refused.value) and "\n" not in str(refused.value)


def test_every_field_is_checked():
    assert set(WRONG) == {field.name for field in fields(Recipe)}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ("rank=0", "rank=0: rank must be a whole number, at least 1."),
        ("documents=some", "documents='some': documents must be a whole number or None, at least 1."),
        ("rslora=flase", "rslora='flase': rslora must be True or False."),
        ("epochs=-2", "epochs=-2: epochs must be a number, more than 0."),
        ("epochs={[]}", "epochs='{[]}': epochs must be a number, more than 0."),
        ("corpus=", "corpus='': corpus must be text, not empty."),
        ("dtype=bf16", "dtype='bf16': dtype must be one of None, 'bfloat16', 'float16', 'float32'."),
        (
            "gradient_checkpointing=maybe",
            "gradient_checkpointing='maybe': gradient_checkpointing must be one of False, True, 'unsloth'.",
        ),
    ],
)
def test_the_sentence_names_the_choices_on_every_road(change, sentence, monkeypatch, call):
    with pytest.raises(ValueError) as refused:
        Recipe.parse(f"laptop,{change}")
    assert str(refused.value) == sentence
    monkeypatch.setenv("CPTLIB_RECIPE", f"laptop,{change}")
    with pytest.raises(ValueError) as refused:
        machine.recipe()
    assert str(refused.value) == sentence
    code, _, said = call("train", "--recipe", f"smoke,{change}")
    assert code == 2 and said.splitlines()[-1] == sentence


def test_a_saved_recipe_comes_back_as_it_was_and_a_damaged_one_does_not():
    for recipe in RECIPES.values():
        saved = json.loads(json.dumps(asdict(recipe)))
        assert Recipe(**saved) == recipe and Recipe(**saved).run_name == recipe.run_name
        with pytest.raises(ValueError, match="rslora='false': rslora must be True or False"):
            Recipe(**{**saved, "rslora": "false"})


def test_a_run_has_one_name_whether_text_or_python_asked_for_it():
    asked = Recipe.parse("smoke,epochs=2,rank=8,rslora=no,documents=none")
    changed = replace(Recipe.named("smoke"), epochs=2, rank=8, rslora=False, documents=None)
    assert asked == changed and asked.run_name == changed.run_name


def test_the_optimizers_are_those_of_transformers():
    from transformers.training_args import OptimizerNames

    assert set(OPTIMIZERS) == {optimizer.value for optimizer in OptimizerNames}


def test_the_shortest_row_holds_any_character(any_tokenizer):
    recipe = replace(Recipe.named("smoke"), max_length=8)
    texts = Dataset.from_dict({"text": ["😀漢 é😀\n" * 20]})
    pieces = corpus.cut(texts, any_tokenizer, recipe.max_length)["text"][:]
    assert "".join(pieces) == texts["text"][0]
    assert max(map(len, corpus.tokenize(texts, any_tokenizer, recipe.max_length)["input_ids"])) <= recipe.max_length


def test_a_machine_without_a_gpu_gets_laptop_and_a_reason(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    recipe = machine.recipe()
    assert recipe.name == "laptop" and recipe.why == "there is no CUDA GPU here"


@pytest.mark.parametrize(
    ("gb", "bf16", "name"),
    [(14.7, False, "t4"), (22.2, True, "t4"), (39.6, True, "a100"), (31.7, False, "t4"), (6, True, "laptop")],
)
def test_a_gpu_gets_the_recipe_that_fits(gb, bf16, name):
    recipe = _for_gpu("Some GPU", gb, bf16)
    assert recipe.name == name and "Some GPU" in recipe.why


@pytest.mark.parametrize(
    ("gb", "name", "why"),
    [
        (13.9, "gpu12", "has 14 GB of memory to use; a 7B model needs about 10.7 with rank 64"),
        (11.6, "gpu12", "has 12 GB of memory to use; a 7B model needs about 10.7 with rank 64"),
        (9.8, "gpu8", "about 7.2 with rank 32 and embeddings that stay as they are"),
        (7.75, "gpu8", "has 8 GB of memory to use; a 7B model needs about 7.2 with rank 32"),
        (
            5.8,
            "laptop",
            "a 7B model needs about 7.2 even with rank 32 and embeddings that stay as they are: the small model",
        ),
    ],
)
def test_a_small_card_gets_the_7b_model_with_less_to_train_and_the_true_reason(gb, name, why, gpu, monkeypatch):
    monkeypatch.setenv("PATH", "")
    gpu(free=gb, total=gb)
    recipe = machine.recipe()
    assert recipe.name == name and why in recipe.why
    if name != "laptop":
        assert machine.estimated(recipe).gb < gb and recipe.model == Recipe.named("t4").model
        assert replace(recipe, why="") == Recipe.named(name)


def test_what_small_cards_need_is_what_was_measured():
    rows = results.committed("small-cards-h100")["rows"]
    measured = {"gpu12": [0.0], "gpu8": [0.0]}
    for row in rows:
        name = row["recipe"].split(",")[0]
        if all(row["settings"][field] == getattr(Recipe.named(name), field) for field in ("rank", "micro_batch")):
            measured[name].append(row["memory_gb"])
    assert {name: round(max(gb), 1) for name, gb in measured.items()} == {
        n: gb for n, (gb, _) in machine.SMALL_CARDS.items()
    }


@pytest.mark.parametrize(
    ("counts", "name", "said"),
    [
        ({"free": 14.5, "total": 14.75}, "t4", "the Tesla T4 has 15 GB of memory to use"),
        ({"free": 78.5, "total": 79.0}, "a100", "the Tesla T4 has 79 GB of memory to use"),
        ({"free": 20.0, "total": 79.0}, "t4", "the Tesla T4 has 21 GB of memory to use"),
        ({"free": 5.0, "total": 14.75}, "laptop", "the Tesla T4 has 6 GB of memory to use"),
        # the same as before this process had a model: what it holds, it can let go
        ({"free": 1.0, "total": 14.75, "reserved": 13.0, "allocated": 12.0}, "t4", "has 15 GB of memory to use"),
    ],
)
def test_a_gpu_that_others_use_gets_the_recipe_that_fits_beside_them(gpu, monkeypatch, counts, name, said):
    monkeypatch.setenv("PATH", "")
    gpu(**counts)
    recipe = machine.recipe()
    assert recipe.name == name and said in recipe.why


def test_recipes_are_frozen_and_replaceable():
    recipe = Recipe.named("laptop")
    with pytest.raises(FrozenInstanceError):
        recipe.rank = 8
    assert replace(recipe, rank=8).rank == 8 and recipe.rank == 128


def test_every_field_is_documented():
    for field in fields(Recipe):
        assert field.name in Recipe.__doc__, field.name


def test_the_post_recipe_has_the_posts_numbers():
    post = RECIPES["post"]
    assert post.micro_batch * post.accumulation == 16 and not post.packing and post.gradient_checkpointing == "unsloth"
    assert (post.learning_rate, post.embedding_learning_rate, post.rank, post.alpha) == (5e-5, 5e-6, 128, 32)
    assert post.documents - post.held_out == 2500
