"""Checkpoints that a kill at any moment leaves usable: marked once whole, the last few kept, found again by themselves."""

import json
import os
import re
import shutil
import signal
import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cptlib import hints
from cptlib.errors import CheckpointError
from cptlib.memory import GB

MARK = "whole.json"  # in a checkpoint's folder, written last
LOCK = ".lock"  # in a run's folder
BYTES_PER_WEIGHT = 12  # in float32: the weight and the two averages of AdamW, which an 8-bit optimizer stores smaller


def require_one_process() -> None:
    """Raise CheckpointError where torchrun or accelerate started several: at a checkpoint they would wait for each other."""
    if (number := int(os.environ.get("WORLD_SIZE", 1))) > 1:
        raise CheckpointError(
            f"This run was started as {number} processes, and cptlib trains with one. Start it with python, not with "
            "torchrun or accelerate."
        )


@contextmanager
def alone_in(run: Path) -> Iterator[None]:
    """Within it this process alone trains in a run's folder; CheckpointError where another one does.

    The lock goes with the process, so that a killed run leaves none behind.
    """
    from filelock import FileLock, Timeout

    run.mkdir(parents=True, exist_ok=True)
    try:
        lock = FileLock(run / LOCK).acquire(timeout=0)
    except Timeout:
        raise CheckpointError(
            f"Another process is training in {run}: wait until it has ended, or end it; then this run goes on from its "
            "last checkpoint."
        ) from None
    with lock:
        yield


@dataclass(frozen=True)
class Mark:
    """What is said of a whole checkpoint. files: the checksum of each. data: the digest of the rows it was trained on.
    seconds: of training that went into it, over all processes that took part."""

    files: dict[str, int]
    data: int
    seconds: float


def mark(folder: Path, data: int, seconds: float) -> None:
    """Declare the checkpoint in `folder` whole. Its files are on the disk by then, and the mark appears all at once."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MARK)
    for path in paths:
        _flush(path)
    content = Mark({str(path.relative_to(folder)): _checksum(path) for path in paths}, data, seconds)
    fresh = folder / f"{MARK}.new"
    fresh.write_text(json.dumps(asdict(content)), encoding="utf-8")
    _flush(fresh)
    fresh.replace(folder / MARK)
    _flush(folder)


def read_mark(folder: Path) -> Mark | None:
    """The mark of a checkpoint, None where there is none."""
    try:
        return Mark(**json.loads((folder / MARK).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def damage(folder: Path) -> str | None:
    """What is wrong with a checkpoint; None for a whole one."""
    content = read_mark(folder)
    if content is None:
        return "it was not finished"
    for name, checksum in content.files.items():
        if not (folder / name).is_file():
            return f"its file {name} is missing"
        if _checksum(folder / name) != checksum:
            return f"its file {name} is damaged"
    return None


def folders(run: Path) -> list[Path]:
    """The checkpoints in a run's folder, by their steps. Of other names are a user's copies: not ours to read or remove."""
    ours = [path for path in run.glob("checkpoint-*") if re.fullmatch(r"checkpoint-\d+", path.name) and path.is_dir()]
    return sorted(ours, key=lambda folder: int(folder.name.removeprefix("checkpoint-")))


def last_whole(run: Path) -> Path | None:
    """The latest whole checkpoint in a run's folder, None without one; prints a line for each that is passed over."""
    for folder in reversed(folders(run)):
        problem = damage(folder)
        if problem is None:
            return folder
        print(f"{folder} is passed over: {problem}.")
    return None


def keep_last(run: Path, number: int) -> None:
    """Remove all checkpoints of a run but the `number` that were marked last."""

    def marked(folder: Path) -> float:
        return (folder / MARK).stat().st_mtime if (folder / MARK).exists() else 0.0

    for folder in sorted(folders(run), key=marked)[:-number]:
        shutil.rmtree(folder)


def require_room(model: "hints.Module", run: Path, keep: int) -> None:
    """Raise CheckpointError unless the disk has room for `keep` checkpoints and the one that is being written."""
    run.mkdir(parents=True, exist_ok=True)
    size = BYTES_PER_WEIGHT * sum(weight.numel() for weight in model.parameters() if weight.requires_grad) / GB
    there = sum(path.stat().st_size for folder in folders(run) for path in folder.rglob("*") if path.is_file()) / GB
    free = shutil.disk_usage(run).free / GB
    if free < size * (keep + 1) - there:
        raise CheckpointError(
            f"A checkpoint takes up to {size:.1f} GB, and {keep + 1} of them must fit on the disk of {run}, which has "
            f"{free:.1f} GB free. Make room there, or work in a folder on a larger disk."
        )


def digest(dataset: "hints.Dataset") -> int:
    """A number that tells the rows of a prepared dataset, in their order, from any others."""
    value = 0
    for batch in dataset.select_columns("input_ids").with_format("numpy").iter(1000):
        for row in batch["input_ids"]:
            value = zlib.crc32(row.astype("int32").tobytes(), value)
    return value


def add_saver(trainer: "hints.Trainer", *, minutes: float, keep: int, data: int, seconds: float) -> Any:
    """Have the trainer save every so many minutes, at its end, and when told to by `saver.stop`; returns the saver."""
    from transformers import TrainerCallback

    class Saver(TrainerCallback):
        stop = False
        started = saved = time.perf_counter()

        def on_train_begin(self, args, state, control, **kwargs):
            self.started = self.saved = time.perf_counter()

        def on_step_end(self, args, state, control, **kwargs):
            due = time.perf_counter() - self.saved >= 60 * minutes
            control.should_save = due or self.stop or state.global_step >= state.max_steps
            control.should_training_stop = control.should_training_stop or self.stop

        def on_save(self, args, state, control, **kwargs):
            run = Path(args.output_dir)
            if state.is_world_process_zero:
                taken = seconds + time.perf_counter() - self.started
                mark(run / f"checkpoint-{state.global_step}", data, taken)
                keep_last(run, keep)
            self.saved = time.perf_counter()

    saver = Saver()
    trainer.add_callback(saver)
    return saver


@contextmanager
def interruptible(saver: Any) -> Iterator[None]:
    """Within it, the first interrupt (Ctrl-C, a notebook's stop button) only sets `saver.stop`; a second one interrupts."""
    if threading.current_thread() is not threading.main_thread():  # signals reach the main thread alone
        yield
        return

    def interrupt(number: int, frame: object) -> None:
        saver.stop = True
        signal.signal(signal.SIGINT, before)
        print("Interrupted: saving after this step. Once more stops without saving.", flush=True)

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _checksum(path: Path) -> int:
    value = 0
    with path.open("rb") as file:
        while block := file.read(2**20):
            value = zlib.crc32(block, value)
    return value


def _flush(path: Path) -> None:
    """Have the operating system write a file, or a folder's list of files, to the disk now."""
    if path.is_dir() and os.name == "nt":
        return
    handle = os.open(path, os.O_RDWR if path.is_file() else os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
