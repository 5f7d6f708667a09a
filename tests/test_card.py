from dataclasses import replace

import pandas
import pytest
import yaml

from cptlib import card
from cptlib.recipe import Recipe


def test_the_card_holds_what_was_done_measured_and_is_allowed():
    scores = pandas.DataFrame({"perplexity before": [8.5], "perplexity after": [5.25]}, index=["held-out documents"])
    text = card.model_card(Recipe.named("a100"), scores, report="156 steps", documents=2500)
    head, body = text.split("---\n", 2)[1:]
    assert yaml.safe_load(head) == {
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["continued-pretraining", "lora"],
        "base_model": "unsloth/mistral-7b-v0.3",
        "datasets": ["roneneldan/TinyStories"],
        "license": "apache-2.0",
    }
    assert "| held-out documents | 8.5 | 5.25 |" in body and "2,500 documents; 100 more" in body
    assert "156 steps" in body and "- learning_rate: 5e-05" in body and "cdla-sharing-1.0" in body


def test_a_local_path_is_not_told_and_a_licence_not_guessed(tmp_path):
    private = tmp_path / "someone" / "letters.jsonl"
    text = card.model_card(replace(Recipe.named("laptop"), corpus=str(private), model="some/model"))
    assert str(tmp_path) not in text and "letters.jsonl: unknown: look it up" in text
    assert "some/model: unknown" in text and "license: other" in text and "Not measured." in text


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("/home/alice/letters.jsonl", "letters.jsonl"),
        ("alice/private/letters.jsonl", "letters.jsonl"),  # it may not be there any more
        ("../alice/letters", "letters"),
        ("~/letters", "letters"),
        (r"C:\Users\alice\letters.txt", "letters.txt"),
        ("roneneldan/TinyStories", "roneneldan/TinyStories"),
        ("gpt2", "gpt2"),
        ("shape:mistral-7b", "shape:mistral-7b"),
    ],
)
def test_of_a_path_only_its_end_is_told_and_a_hub_id_whole(source, told):
    assert card.public_name(source) == told
