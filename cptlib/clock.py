"""A trainer's steps, timed one by one, with the tokens that they trained on."""

import time


class Clock:
    """Seconds and real tokens (padding not counted) of each step. at_step: called after each, off the clock."""

    def __init__(self):
        self.seconds: list[float] = []
        self.tokens: list[int] = []
        self.at_step = lambda step, steps: None
        self.passes: list = []  # real tokens of this step's passes, as tensors: to read one is to wait for the GPU
        self.since = 0.0


def watch(trainer) -> Clock:
    """A Clock that the trainer keeps while it trains."""
    from transformers import TrainerCallback

    clock, training_step = Clock(), trainer.training_step

    def counted(model, inputs, *rest, **options):
        packed = "packed_seq_lengths" in inputs
        clock.passes.append(inputs["packed_seq_lengths" if packed else "attention_mask"].sum())
        return training_step(model, inputs, *rest, **options)

    class Watch(TrainerCallback):
        # No waiting for the GPU here: the trainer does, when it logs the loss, at the same place in each step.
        def on_train_begin(self, args, state, control, **kwargs):
            clock.since = time.perf_counter()

        def on_step_end(self, args, state, control, **kwargs):
            clock.seconds.append(time.perf_counter() - clock.since)
            before = time.perf_counter()
            clock.tokens.append(sum(map(int, clock.passes)))
            clock.passes.clear()
            clock.at_step(state.global_step, state.max_steps)
            clock.since += clock.seconds[-1] + time.perf_counter() - before

    trainer.training_step = counted
    trainer.add_callback(Watch())
    return clock
