import json
import urllib.request

import pytest

from cptlib import lora, serving
from cptlib.errors import ServingError
from cptlib.export import save_merged


def test_a_saved_model_answers_and_the_server_ends(tiny, smoke, tmp_path):
    model, tokenizer = tiny
    folder = save_merged(lora.add_adapters(model, smoke), tokenizer, smoke, tmp_path / "model")
    with serving.serve(folder) as address:
        question = {"model": str(folder), "prompt": "The fox", "max_tokens": 3}
        request = urllib.request.Request(f"{address}/completions", json.dumps(question).encode())
        request.add_header("Content-Type", "application/json")
        with urllib.request.urlopen(request) as answer:
            [choice] = json.load(answer)["choices"]
    assert choice["text"]
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(f"{address}/models")


def test_a_server_that_dies_is_said_with_its_last_words(tmp_path):
    with pytest.raises(ServingError, match="did not come up; its last words: "), serving.serve(tmp_path / "nothing"):
        pass


def test_missing_packages_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ServingError, match="needs fastapi, uvicorn, openai. Run: pip install"), serving.serve(tmp_path):
        pass
