"""Print text while a model generates it, wrapped to a width."""

import math
import re
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from queue import SimpleQueue

from wcwidth import iter_graphemes, wcswidth

from cptlib import hints, tokens
from cptlib.device import autocast, device_of
from cptlib.errors import UsageError

# Of what a model's generation_config may hold, these would make another token than the likeliest win.
GREEDY = {"do_sample": False, "repetition_penalty": 1.0, "no_repeat_ngram_size": 0}


@dataclass(frozen=True)
class Generation:
    """What `stream` made. prompt, text: before and after the join. new_tokens: EOS included. seconds: to generate them.
    ended: the model ended by itself, with EOS. full: it stopped at the last of the model's positions."""

    prompt: str
    text: str
    new_tokens: int
    seconds: float
    ended: bool
    full: bool = False

    @property
    def tokens_per_second(self) -> float:
        """New tokens over seconds, the prompt's own pass included."""
        return self.new_tokens / self.seconds

    def __str__(self) -> str:
        limit = "model's last position" if self.full else "length limit"
        end = "ended by itself (EOS)" if self.ended else f"stopped at the {limit}"
        return f"{self.new_tokens} tokens in {self.seconds:.1f} s, {self.tokens_per_second:.1f} tokens/s; {end}"


class LineWrapper:
    """Wraps text that arrives in pieces: `feed` returns what can be printed now, `flush` the rest.

    The result is the same however the text was cut into pieces. A line holds at most `width` terminal columns (a wide
    character, such as 漢 or an emoji, takes two). Newlines and indentation in the text stay; the spaces at which a line
    is broken go; a word longer than a line is cut.
    """

    def __init__(self, width: int = 80) -> None:
        if width < 2:
            raise ValueError(f"A line of {width} columns cannot hold a wide character; width must be at least 2.")
        self.width, self.column = width, 0
        self._tail, self._spaces, self._word = "", "", ""

    def feed(self, piece: str) -> str:
        """Take the next piece of text; returns what can be printed now."""
        # The last character waits: an accent or a part of an emoji may still join it.
        characters = list(iter_graphemes(self._tail + piece))
        self._tail = characters.pop() if characters else ""
        return "".join(map(self._take, characters))

    def flush(self) -> str:
        """What is still held back, at the end of the text."""
        out = self._take(self._tail) + self._place()
        self._tail = self._spaces = ""
        return out

    def _take(self, character: str) -> str:
        """Accept one character as a reader sees it (a grapheme); returns what it lets out."""
        if character.endswith("\n"):
            out = self._place() + "\n"
            self.column, self._spaces = 0, ""
            return out
        if character.isspace():
            out = self._place()
            self._spaces += character
            return out
        if _columns(character) > 1:  # a line may break on either side of a wide character
            out = self._place()
            self._word = character
            return out + self._place()
        self._word += character
        return ""

    def _place(self) -> str:
        """Put the waiting word on this line or the next."""
        word, self._word = self._word, ""
        if not word:
            return ""
        spaces, self._spaces = self._spaces, ""
        if self.column and self.column + _columns(spaces) + _columns(word) > self.width:
            spaces, self.column = "\n", 0
        else:
            self.column += _columns(spaces)
        return spaces + self._cut(word)

    def _cut(self, word: str) -> str:
        """The word, with a newline wherever it reaches the width."""
        out = ""
        for character in iter_graphemes(word):
            if self.column + _columns(character) > self.width:
                out, self.column = out + "\n", 0
            out, self.column = out + character, self.column + _columns(character)
        return out


def _columns(text: str) -> int:
    return max(wcswidth(text), 0)  # -1 for control characters


def wrap(text: str, width: int = 80) -> str:
    """The whole text, wrapped as `stream` prints it."""
    wrapper = LineWrapper(width)
    return wrapper.feed(text) + wrapper.flush()


class TextQueue:
    """A streamer for `generate`: takes the prompt's ids and then each new token's, gives whoever iterates the new text.

    All ids are decoded together, the prompt's too, and what was given before is cut off. Alone, new tokens would lose a
    blank: a SentencePiece decoder (Mistral's) drops the one before the first word of what it decodes.
    """

    def __init__(self, tokenizer: "hints.Tokenizer") -> None:
        self._tokenizer, self._given = tokenizer, 0
        self._ids: list[int] = []
        self._pieces: SimpleQueue[str | None] = SimpleQueue()

    def __iter__(self) -> Iterator[str]:
        return iter(self._pieces.get, None)

    def put(self, ids: "hints.Tensor") -> None:
        """Ids in a tensor of any shape. The first call brings the prompt's, whose text is not given."""
        is_prompt = not self._ids
        self._ids += ids.flatten().tolist()
        text = self._decode()
        if is_prompt:
            self._given = len(text)
        elif not self._may_change(text):
            self._give(text)

    def end(self) -> None:
        """All ids have come: give the rest."""
        self._give(self._decode())
        self.close()

    def close(self) -> None:
        """End the iteration."""
        self._pieces.put(None)

    def _decode(self) -> str:
        return self._tokenizer.decode(self._ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)

    def _may_change(self, text: str) -> bool:
        """Whether the text ends within a character, or with single bytes (`<0xE2>`), which are decoded as one run."""
        last = str(self._tokenizer.convert_ids_to_tokens(self._ids[-1]))
        return text.endswith("\ufffd") or re.fullmatch("<0x[0-9A-F]{2}>", last) is not None

    def _give(self, text: str) -> None:
        self._pieces.put(text[self._given :])
        self._given = len(text)


def stream(
    model: "hints.Model",
    tokenizer: "hints.Tokenizer",
    prompt: str,
    *,
    new_tokens: int = 256,
    temperature: float = 0.0,
    seed: int = 0,
    width: int = 80,
) -> Generation:
    """Continue `prompt` with at most `new_tokens` tokens, printing words as they come; an empty one starts from BOS.

    It stops where the model's positions end: beyond them a model writes noise.

    temperature 0 takes the likeliest token each time; above 0 it samples, the same text for the same seed, within the
    top_k, top_p and penalties of the model's generation_config. The caller's random numbers stay as they are. `generate`
    runs in a thread of its own and puts text into a queue, from which this one prints. An error in that thread is
    raised here; interrupting stops it. The model must be in inference mode (`FastLanguageModel.for_inference`).
    Raises ValueError where the prompt is empty and the tokenizer has no BOS, and where it takes all positions.
    """
    import torch
    from transformers import StoppingCriteriaList

    prompt_ids = torch.tensor([_ids_of(prompt, tokenizer)], device=device_of(model))
    room = _room(model, prompt_ids.shape[1])
    sampling = {"do_sample": True, "temperature": temperature} if temperature else GREEDY
    pieces, stop, result = TextQueue(tokenizer), threading.Event(), {}

    def interrupted(ids, scores):
        return torch.full_like(ids[:, 0], stop.is_set(), dtype=torch.bool)

    def generate():
        try:
            # autocast holds for one thread: this one
            with torch.random.fork_rng(range(torch.cuda.device_count())), autocast(model):
                torch.manual_seed(seed)
                result["ids"] = model.generate(
                    input_ids=prompt_ids,
                    attention_mask=torch.ones_like(prompt_ids),
                    **sampling,
                    max_new_tokens=min(new_tokens, room),
                    use_cache=True,
                    streamer=pieces,
                    stopping_criteria=StoppingCriteriaList([interrupted]),
                )
        except BaseException as error:  # whatever it is, the printing thread must hear of it
            result["error"] = error
            pieces.close()

    thread, started = threading.Thread(target=generate, daemon=True), time.perf_counter()
    thread.start()
    try:
        text = _print_wrapped(prompt, pieces, width)
    finally:
        stop.set()
        thread.join()
    if "error" in result:
        raise result["error"]
    ids = result["ids"][0, prompt_ids.shape[1] :].tolist()
    seconds, ended = time.perf_counter() - started, _ends_with_eos(ids, model, tokenizer)
    return Generation(prompt, text, len(ids), seconds, ended, full=not ended and len(ids) == room < new_tokens)


def _ids_of(prompt: str, tokenizer: "hints.Tokenizer") -> list[int]:
    """What the tokenizer puts before the prompt, once, and the prompt; no EOS, with which some tokenizers would end it."""
    begin, ids = tokens.opening(tokenizer), tokenizer(prompt, add_special_tokens=False)["input_ids"]
    ids = ids if ids[: len(begin)] == begin else begin + ids
    if not ids and tokenizer.bos_token_id is None:
        raise UsageError("The prompt is empty, and this tokenizer has no token to begin with (BOS): give it some text.")
    return ids or [tokenizer.bos_token_id]


def _room(model: "hints.Model", taken: int) -> float:
    """How many of the model's positions are left after `taken` of them; without end where it has no such limit."""
    positions = getattr(model.config.get_text_config(), "max_position_embeddings", None) or math.inf
    if taken >= positions:
        raise UsageError(
            f"The prompt has {taken:,} tokens and the model knows {positions:,} positions: shorten the prompt."
        )
    return positions - taken


def _print_wrapped(prompt: str, pieces: Iterable[str], width: int) -> str:
    wrapper, text = LineWrapper(width), ""
    print(wrapper.feed(prompt), end="", flush=True)
    for piece in pieces:
        text += piece
        print(wrapper.feed(piece), end="", flush=True)
    print(wrapper.flush(), file=sys.stdout, flush=True)
    return text


def _ends_with_eos(ids: list[int], model: "hints.Model", tokenizer: "hints.Tokenizer") -> bool:
    eos = model.generation_config.eos_token_id
    return bool(ids) and ids[-1] in {tokenizer.eos_token_id, *(eos if isinstance(eos, list) else [eos])}
