"""What version 0.1 wrote is read: recipes as text and as JSON, their runs' names, and an adapter.

The files in tests/data were made by the code of 0.1: recipes-0.1.jsonl by Recipe.parse, adapter-0.1 by
`train --recipe smoke,rank=1,train_embeddings=False,learning_rate=0.05`.
"""

import json
from pathlib import Path

import pytest
import torch

from cptlib import export
from cptlib.recipe import Recipe

DATA = Path(__file__).parent / "data"
RECIPES = [json.loads(line) for line in (DATA / "recipes-0.1.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("saved", RECIPES, ids=lambda saved: saved["text"])
def test_a_recipe_of_0_1_is_the_same_recipe(saved):
    recipe = Recipe(**saved["recipe"])
    assert Recipe.parse(saved["text"]) == recipe
    assert recipe.run_name == saved["run_name"]  # under which its checkpoints lie


def test_an_adapter_of_0_1_gives_the_logits_that_it_gave():
    model, tokenizer = export.load(DATA / "adapter-0.1")
    expected = json.loads((DATA / "adapter-0.1-logits.json").read_text(encoding="utf-8"))
    with torch.no_grad():
        logits = model(**tokenizer(expected["prompt"], return_tensors="pt")).logits[0, -1]
    assert logits[expected["ids"]].tolist() == pytest.approx(expected["logits"], abs=1e-3)
    assert logits.topk(5).indices.tolist() == expected["ids"]


def test_what_was_held_out_from_it_is_said_to_be_unknown(call):
    code, out, said = call("evaluate", DATA / "adapter-0.1", "--json")
    assert code == 0 and "held-out documents" not in json.loads(out)
    assert "does not say which documents it was not trained on" in said
