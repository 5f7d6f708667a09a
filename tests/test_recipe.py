from dataclasses import FrozenInstanceError, fields, replace

import pytest

from cptlib.recipe import RECIPES, Recipe, _for_gpu


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(ValueError, match="no recipe 'lapdog'.*smoke, laptop, t4, a100, post"):
        Recipe.named("lapdog")


def test_the_environment_overrules_the_machine(monkeypatch):
    monkeypatch.setenv("CPTLIB_RECIPE", "t4")
    recipe = Recipe.for_this_machine()
    assert recipe.name == "t4" and "CPTLIB_RECIPE=t4" in recipe.why


def test_fields_can_be_overruled_in_text(monkeypatch):
    recipe = Recipe.parse("laptop,documents=60,rslora=False,learning_rate=1e-3,model=/some/folder")
    assert (recipe.documents, recipe.rslora, recipe.learning_rate, recipe.model) == (60, False, 1e-3, "/some/folder")
    with pytest.raises(ValueError, match="'ranks=3' is no field=value of a recipe. Its fields are: name, model"):
        Recipe.parse("laptop,ranks=3")


def test_a_machine_without_a_gpu_gets_laptop_and_a_reason(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    recipe = Recipe.for_this_machine()
    assert recipe.name == "laptop" and recipe.why == "there is no CUDA GPU here"


@pytest.mark.parametrize(
    ("gb", "bf16", "name"),
    [(14.7, False, "t4"), (22.2, True, "t4"), (39.6, True, "a100"), (31.7, False, "t4"), (8, True, "laptop")],
)
def test_a_gpu_gets_the_recipe_that_fits(gb, bf16, name):
    recipe = _for_gpu("Some GPU", gb, bf16)
    assert recipe.name == name and "Some GPU" in recipe.why


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
