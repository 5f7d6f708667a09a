"""A trainer's steps, timed one by one by the wall, with the tokens that they trained on."""

import time
from collections.abc import Callable

from cptlib import hints


def now() -> float:
    """The time in seconds, once the GPU has done all that it was given: its work is queued, and launching it proves nothing."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


class Clock:
    """Seconds and real tokens (padding not counted) of each step. at_step: called after each, off the clock."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.tokens: list[int] = []
        self.at_step: Callable[[int, int], object] = lambda step, steps: None
        # real tokens of this step's passes, as tensors: to read one is to wait for the GPU
        self.passes: list[hints.Tensor] = []
        self.since = 0.0


def watch(trainer: "hints.Trainer") -> Clock:
    """A Clock that the trainer keeps while it trains."""
    from transformers import TrainerCallback

    clock, training_step = Clock(), trainer.training_step

    def counted(model, inputs, *rest, **options):
        packed = "packed_seq_lengths" in inputs
        clock.passes.append(inputs["packed_seq_lengths" if packed else "attention_mask"].sum())
        return training_step(model, inputs, *rest, **options)

    class Watch(TrainerCallback):
        # Waiting for the GPU slows no step down: the trainer waits itself, for the loss, as soon as on_step_end is over.
        def on_train_begin(self, args, state, control, **kwargs):
            clock.since = now()

        def on_step_end(self, args, state, control, **kwargs):
            clock.seconds.append(now() - clock.since)
            clock.tokens.append(sum(map(int, clock.passes)))
            clock.passes.clear()
            clock.at_step(state.global_step, state.max_steps)
            clock.since = now()

    trainer.training_step = counted
    trainer.add_callback(Watch())
    return clock
