import random
import threading

import pytest
import torch
from unsloth import FastLanguageModel

from cptlib.streaming import LineWrapper, stream, wrap

TEXT = (
    "Once upon a time 漢字漢字漢字 👩‍👩‍👧‍👦👩‍👩‍👧‍👦 went to a cafe\u0301.\r\n\n    indented  code\tline\n"
    + "long" * 20
    + "   end "
)


@pytest.mark.parametrize("seed", range(20))
def test_the_result_does_not_depend_on_how_the_text_was_cut(seed):
    cut, wrapper, rest, out = random.Random(seed), LineWrapper(20), TEXT, ""
    while rest:
        length = cut.randint(0, 5)  # empty pieces too
        out, rest = out + wrapper.feed(rest[:length]), rest[length:]
    assert out + wrapper.flush() == wrap(TEXT, 20)


@pytest.mark.parametrize(
    ("text", "wrapped"),
    [
        ("one two three", "one two\nthree"),
        ("one\ntwo", "one\ntwo"),
        ("one\n\n  two", "one\n\n  two"),
        ("abcdefghijkl mn", "abcdefgh\nijkl mn"),
        ("a 漢字漢字漢字", "a 漢字漢\n字漢字"),
        ("ab 👩‍👩‍👧‍👦 👩‍👩‍👧‍👦", "ab 👩‍👩‍👧‍👦 👩‍👩‍👧‍👦"),
        ("", ""),
    ],
)
def test_lines_hold_eight_columns(text, wrapped):
    assert wrap(text, 8) == wrapped


def test_a_line_that_cannot_hold_a_wide_character_is_refused():
    with pytest.raises(ValueError, match="at least 2"):
        LineWrapper(1)


@pytest.fixture
def ready(tiny):
    FastLanguageModel.for_inference(tiny[0])
    return tiny


def test_what_is_printed_is_what_is_generated(ready, capsys):
    model, tokenizer = ready
    prompt = "Once upon a time,\nthere was"
    generation = stream(model, tokenizer, prompt, new_tokens=30, width=40)
    ids = tokenizer(prompt, return_tensors="pt")["input_ids"]
    expected = model.generate(ids, max_new_tokens=30, do_sample=False)[0, ids.shape[1] :]
    assert generation.text == tokenizer.decode(expected, skip_special_tokens=True)
    assert capsys.readouterr().out == wrap(prompt + generation.text, 40) + "\n"
    assert generation.new_tokens == len(expected) and generation.tokens_per_second > 0


def test_sampling_repeats_by_seed(ready):
    texts = [stream(*ready, "The fox", new_tokens=20, temperature=1.0, seed=seed).text for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]


def test_it_says_whether_the_model_ended_by_itself(ready):
    model, tokenizer = ready
    assert not stream(model, tokenizer, "The fox", new_tokens=5).ended
    first = stream(model, tokenizer, "The fox", new_tokens=1).text
    model.generation_config.eos_token_id = tokenizer(first)["input_ids"][0]
    generation = stream(model, tokenizer, "The fox", new_tokens=5)
    assert generation.ended and generation.new_tokens == 1


def test_an_error_in_the_generating_thread_reaches_the_caller(ready, monkeypatch):
    def fail(**kwargs):
        raise MemoryError("no room for the cache")

    monkeypatch.setattr(ready[0], "generate", fail)
    with pytest.raises(MemoryError, match="no room"):
        stream(*ready, "The fox", new_tokens=5)


def test_interrupting_stops_the_thread(ready, monkeypatch):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("cptlib.streaming._print_wrapped", interrupt)
    with pytest.raises(KeyboardInterrupt):
        stream(*ready, "The fox", new_tokens=100_000)
    assert threading.active_count() == 1 or not any(
        thread.name.endswith("(generate)") for thread in threading.enumerate()
    )


def test_the_callers_random_numbers_are_its_own_seed(ready):
    """Sampling seeds torch; the same call in another place gives the same text."""
    torch.manual_seed(5)
    one = stream(*ready, "A boat", new_tokens=10, temperature=1.0, seed=3).text
    torch.manual_seed(6)
    assert stream(*ready, "A boat", new_tokens=10, temperature=1.0, seed=3).text == one
