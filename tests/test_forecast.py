from dataclasses import replace

from cptlib import corpus
from cptlib.documents import forecast
from cptlib.recipe import RECIPES


def test_a_time_is_forecast_where_the_recipes_speed_is_known_and_nowhere_else(tokenizer):
    documents = corpus.read("stories", 32)
    lengths = [len(text) for text in documents["text"]]
    for name, recipe in RECIPES.items():
        expected = forecast.forecast(documents, lengths, tokenizer, replace(recipe, held_out=8))
        assert (expected.seconds is not None) == (name == "laptop"), name  # the GPUs' speeds are being measured again
