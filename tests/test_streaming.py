import random
import threading

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from unsloth import FastLanguageModel

# isort: split
from transformers import PreTrainedTokenizerFast  # after unsloth, which patches it

from cptlib.streaming import LineWrapper, TextQueue, _ids_of, stream, wrap

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


PROMPT = "Once upon a time, in a galaxy far, far away,"
WHOLE = PROMPT + " there lived a boy.\n\n    def f():\n        return 1\n 😀é漢😀😀 end\n\n"


def one_by_one(tokenizer, text=WHOLE):
    """(the prompt's ids, those of what follows)"""
    begin, ids = _ids_of(PROMPT, tokenizer), _ids_of(text, tokenizer)
    assert ids[: len(begin)] == begin
    return begin, ids[len(begin) :]


@pytest.fixture
def saying(ready, monkeypatch):
    """Makes of the tiny model one that generates the ids that it is told."""

    def script(ids):
        def generate(input_ids, streamer, **settings):
            streamer.put(input_ids)
            for token in ids:
                streamer.put(torch.tensor([token]))
            streamer.end()
            return torch.cat([input_ids, torch.tensor([ids], dtype=torch.long)], dim=1)

        monkeypatch.setattr(ready[0], "generate", generate)
        return ready[0]

    return script


def test_a_continuation_keeps_its_blanks_and_line_breaks(saying, any_tokenizer, capsys):
    generation = stream(saying(one_by_one(any_tokenizer)[1]), any_tokenizer, PROMPT)
    assert PROMPT + generation.text == WHOLE
    assert capsys.readouterr().out == wrap(WHOLE) + "\n"


def test_wherever_it_stops_all_ids_decoded_are_returned_and_printed(saying, any_tokenizer, capsys):
    begin, ids = one_by_one(any_tokenizer)
    for length in range(len(ids) + 1):  # some stop within an emoji
        generation = stream(saying(ids[:length]), any_tokenizer, PROMPT)
        assert PROMPT + generation.text == any_tokenizer.decode(begin + ids[:length], skip_special_tokens=True)
        assert capsys.readouterr().out == wrap(PROMPT + generation.text) + "\n"


def test_a_character_of_several_tokens_comes_in_one_piece(any_tokenizer):
    begin, ids = one_by_one(any_tokenizer)
    pieces = TextQueue(any_tokenizer)
    pieces.put(torch.tensor([begin]))
    for token in ids:
        pieces.put(torch.tensor([token]))
    pieces.end()
    pieces = list(pieces)
    assert "\ufffd" not in "".join(pieces) and len(pieces) > 20  # it does not wait for the end either


def test_special_tokens_are_not_text(saying, any_tokenizer):
    _, ids = one_by_one(any_tokenizer, PROMPT + " there lived a boy.")
    generation = stream(saying([*ids, any_tokenizer.eos_token_id]), any_tokenizer, PROMPT)
    assert generation.text == " there lived a boy." and generation.new_tokens == len(ids) + 1


def test_no_blank_is_tidied_away(saying, capsys):
    words = {word: number for number, word in enumerate(["<unk>", "One", "boy", ".", "ran"])}
    tidying = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(WordLevel(words, unk_token="<unk>")), clean_up_tokenization_spaces=True
    )
    generation = stream(saying([2, 3, 4]), tidying, "One")
    assert generation.text == " boy . ran" and capsys.readouterr().out == "One boy . ran\n"


def test_an_empty_prompt_starts_from_bos(ready, any_tokenizer):
    model, _ = ready
    begin = any_tokenizer.bos_token_id or pytest.skip("it has no BOS: refused, as the next test shows")
    expected = model.generate(torch.tensor([[begin]]), max_new_tokens=8, do_sample=False)[0].tolist()
    assert stream(model, any_tokenizer, "", new_tokens=8).text == any_tokenizer.decode(
        expected, skip_special_tokens=True
    )


def test_an_empty_prompt_and_no_bos_is_refused(ready):
    model, tokenizer = ready
    tokenizer.bos_token = None
    with pytest.raises(ValueError, match=r"prompt is empty.*no token to begin with"):
        stream(model, tokenizer, "")


def test_no_prompt_ends_with_eos_or_begins_with_two_bos(any_tokenizer):
    """Whatever the tokenizer adds: else the model would go on after an end, or from a beginning it never met."""
    begin, text = any_tokenizer("")["input_ids"][:1], any_tokenizer("The fox", add_special_tokens=False)["input_ids"]
    assert _ids_of("The fox", any_tokenizer) == begin + text
    typed = _ids_of(any_tokenizer.decode(begin) + "The fox", any_tokenizer)
    assert typed[: len(begin)] == begin and not {1, 2} & set(typed[len(begin) :])


def test_it_stops_where_the_models_positions_end_and_says_so(ready):
    model, tokenizer = ready
    model.generation_config.eos_token_id = -1  # this model never ends by itself
    prompt = "fox " * 250
    left = 512 - len(tokenizer(prompt)["input_ids"])
    generation = stream(model, tokenizer, prompt, new_tokens=left + 30)
    assert generation.new_tokens == left and "stopped at the model's last position" in str(generation)
    assert "stopped at the length limit" in str(stream(model, tokenizer, prompt, new_tokens=left))


def test_a_prompt_that_takes_all_positions_is_refused(ready):
    with pytest.raises(ValueError, match="prompt has 1,202 tokens and the model knows 512 positions"):
        stream(*ready, "fox " * 600)


def test_temperature_zero_takes_the_likeliest_token_whatever_the_models_own_settings(ready):
    model, tokenizer = ready
    ids = tokenizer("The fox", return_tensors="pt")["input_ids"]
    begin = ids.shape[1]
    for _ in range(20):
        ids = torch.cat([ids, model(ids).logits[:, -1:].argmax(-1)], dim=1)
    likeliest = tokenizer.decode(ids[0, begin:], skip_special_tokens=True)
    model.generation_config.repetition_penalty, model.generation_config.no_repeat_ngram_size = 5.0, 1
    assert stream(model, tokenizer, "The fox", new_tokens=20).text == likeliest


def test_temperature_sharpens(ready):
    texts = [stream(*ready, "The fox", new_tokens=20, temperature=temperature).text for temperature in (0, 1e-5, 1.0)]
    assert texts[0] == texts[1] != texts[2]


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


def test_an_error_in_the_decoding_reaches_the_caller(ready, monkeypatch):
    def fail(*args, **kwargs):
        raise OverflowError("an id beyond the vocabulary")

    monkeypatch.setattr(ready[1], "decode", fail)
    with pytest.raises(OverflowError, match="beyond the vocabulary"):
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


def test_the_callers_random_numbers_are_left_as_they_were(ready):
    texts, states = [], []
    for seed in (5, 6):
        torch.manual_seed(seed)
        before = [torch.get_rng_state(), *torch.cuda.get_rng_state_all()]
        texts.append(stream(*ready, "A boat", new_tokens=10, temperature=1.0, seed=3).text)
        after = [torch.get_rng_state(), *torch.cuda.get_rng_state_all()]
        states.append(all(map(torch.equal, before, after)))
    assert states == [True, True] and texts[0] == texts[1]
