import json
import sys
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


STUBBORN = """#!{python}
import http.server, signal, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)  # as uvicorn waits, while an answer is on its way
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
http.server.HTTPServer(("127.0.0.1", int(sys.argv[-1])), Answer).serve_forever()
"""


@pytest.fixture
def stubborn(tmp_path, monkeypatch):
    """In place of the server, one that comes up and does not end when it is told to."""
    program = tmp_path / "stubborn"
    program.write_text(STUBBORN.format(python=sys.executable))
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    monkeypatch.setattr(serving, "GRACE", 0.5)


def test_a_server_that_does_not_end_is_ended(stubborn, tmp_path):
    with serving.serve(tmp_path / "model") as address:
        pass
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(f"{address}/models")


def test_models_of_like_names_have_logs_of_their_own(stubborn, tmp_path):
    with serving.serve(tmp_path / "model-0.9.1"), serving.serve(str(tmp_path / "model-0.9.2") + "/"):
        names = sorted(path.name for path in tmp_path.glob("*.log"))
    assert names == ["model-0.9.1.server.log", "model-0.9.2.server.log"]
