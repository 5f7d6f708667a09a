"""The clock, held against a GPU in made-up time and against a real one."""

import statistics
from types import SimpleNamespace

import pytest
import torch

from cptlib import models
from cptlib.bench.clock import watch


class MadeUpGPU:
    """Launched work waits in a queue and is done later, piece by piece; whoever wants a result waits for all of it."""

    now = done = 0.0

    def launch(self, seconds):
        self.done = max(self.now, self.done) + seconds

    def synchronize(self):
        self.now = max(self.now, self.done)


class Count(SimpleNamespace):
    """A number that lies on the GPU."""

    def sum(self):
        return self

    def __int__(self):
        self.gpu.synchronize()
        return 7


class Trainer(SimpleNamespace):
    """Calls in the order of transformers' own: passes, optimizer, on_step_end, and only then is the loss read, for the log."""

    def add_callback(self, callback):
        self.callback = callback

    def training_step(self, model, inputs):
        self.gpu.now += 0.5  # the CPU launches
        self.gpu.launch(2.0)

    def train(self, steps):
        state = SimpleNamespace(global_step=0, max_steps=steps)
        self.callback.on_train_begin(None, state, None)
        for state.global_step in range(1, steps + 1):
            self.training_step(None, {"attention_mask": Count(gpu=self.gpu)})
            self.optimizer(self.gpu)
            self.callback.on_step_end(None, state, None)
            self.gpu.synchronize()


def fused(gpu):
    gpu.launch(1.0)


def waiting(gpu):
    """As the 8-bit optimizer of bitsandbytes: it waits after each matrix, and something is launched after the last."""
    gpu.launch(0.75)
    gpu.synchronize()
    gpu.launch(0.25)


@pytest.fixture
def gpu(monkeypatch):
    models.quiet()  # while there is no GPU to be found: the libraries look for one when they load
    gpu = MadeUpGPU()
    monkeypatch.setattr("cptlib.bench.clock.time", SimpleNamespace(perf_counter=lambda: gpu.now))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "synchronize", gpu.synchronize)
    return gpu


@pytest.mark.parametrize("optimizer", [fused, waiting])
def test_a_step_has_taken_what_the_gpu_needed_for_it(gpu, optimizer):
    trainer = Trainer(gpu=gpu, optimizer=optimizer)
    clock = watch(trainer)
    trainer.train(steps=4)
    assert clock.seconds == [3.5] * 4 and sum(clock.seconds) == gpu.now  # no second of the whole run is missing
    assert clock.tokens == [7] * 4


def test_what_is_done_between_steps_is_off_the_clock_to_its_last_kernel(gpu):
    trainer = Trainer(gpu=gpu, optimizer=fused)
    clock = watch(trainer)
    clock.at_step = lambda step, steps: gpu.launch(100.0)
    trainer.train(steps=3)
    assert clock.seconds == [3.5] * 3


@pytest.mark.gpu
@pytest.mark.parametrize("optimizer", ["adamw_torch_fused", "adamw_8bit"])
def test_on_a_gpu_a_step_of_known_length_is_timed_right(optimizer, tmp_path):
    """Two sleeps in the GPU's queue, 0.1 s each: one in the forward pass, one behind all that the optimizer launches."""
    from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainerCallback, TrainingArguments

    cycles = cycles_in(seconds=0.1)

    class Sleep(TrainerCallback):
        def on_optimizer_step(self, *_, **__):
            torch.cuda._sleep(cycles)

    sizes = {"vocab_size": 256, "hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2}
    model = LlamaForCausalLM(LlamaConfig(**sizes, num_attention_heads=2))
    model.register_forward_hook(lambda *_: torch.cuda._sleep(cycles))
    row = {name: [1] * 16 for name in ("input_ids", "attention_mask", "labels")}
    arguments = TrainingArguments(
        output_dir=str(tmp_path), optim=optimizer, bf16=True, max_steps=8, per_device_train_batch_size=2,
        logging_steps=1, logging_nan_inf_filter=False, save_strategy="no", report_to="none", disable_tqdm=True,
    )  # fmt: skip
    trainer = Trainer(model=model, args=arguments, train_dataset=[row] * 16, callbacks=[Sleep()])
    clock = watch(trainer)
    trainer.train()
    steady = clock.seconds[3:]
    assert min(steady) > 0.19 and statistics.median(steady) == pytest.approx(0.2, rel=0.1)
    assert clock.tokens == [32] * 8


def cycles_in(seconds: float, tried: int = 10**9) -> int:
    """How many of its cycles this GPU makes in so many seconds, by its own events."""
    for _ in range(2):  # the first one wakes it up
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        torch.cuda._sleep(tried)
        end.record()
        end.synchronize()
    return round(tried * seconds / (start.elapsed_time(end) / 1000))
