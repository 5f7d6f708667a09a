"""Shared by all tests: no hub, a cache of their own for built models, figures without a screen."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.pop("CPTLIB_RECIPE", None)

import matplotlib
import pytest

from cptlib import corpus
from cptlib import model as models
from cptlib.recipe import Recipe

matplotlib.use("agg")


@pytest.fixture(scope="session")
def smoke():
    return Recipe.named("smoke")


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cache")
    os.environ["CPTLIB_CACHE"] = str(folder)
    return folder


@pytest.fixture
def tiny(smoke):
    """(model, tokenizer): two layers of random weights, fresh for each test."""
    return models.load(smoke)


@pytest.fixture
def tokenizer(tiny):
    return tiny[1]


@pytest.fixture
def documents(smoke, tokenizer):
    """train and held_out, with EOS."""
    return corpus.add_eos(corpus.split(corpus.read("stories", 12), 4, smoke.seed), tokenizer)
