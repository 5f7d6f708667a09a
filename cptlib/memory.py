"""Where the memory goes: the count that nvidia-smi shows, torch's own, a log of stages, and the stacked figure.

Everywhere in cptlib 1 GB is 2**30 bytes, as nvidia-smi and Colab count it.
"""

import os
import re
import subprocess
import sys
from dataclasses import dataclass, replace
from typing import Any

from cptlib import hints, style

GB = 2**30
CUDA_GB = 0.75  # of a GPU, what CUDA takes for its code and state in each process


@dataclass(frozen=True)
class Memory:
    """A device's memory at one moment. device: its name. used_gb: in use by all processes (a GPU) or resident in this
    one (a CPU). total_gb: what it has."""

    device: str
    used_gb: float
    total_gb: float

    def __str__(self) -> str:
        return f"{self.used_gb:.2f} of {self.total_gb:.1f} GB in use ({self.device})"


def probe() -> Memory:
    """The memory that counts on this machine: the GPU's where there is one, else this process's.

    Of a GPU what this process uses, where nvidia-smi tells processes apart, else what all do.
    """
    if (gpu := gpu_memory()) is None:
        return process_memory()
    own = gpu_process_gb()
    return gpu if own is None else replace(gpu, used_gb=own)


def gpu_memory() -> Memory | None:
    """The memory of the GPU this process uses, all that is in use there; None where it uses none or that cannot be known.

    CUDA's own context counts, where torch counts its tensors alone. Once torch is loaded, CUDA itself is asked, for what
    nvidia-smi shows of a whole GPU, and also of a slice of one (MIG), and where there is no nvidia-smi. Before, nvidia-smi.
    """
    torch = sys.modules.get("torch")
    if torch is None:
        return _by_nvidia_smi()
    if not torch.cuda.is_available():
        return None
    free, total = torch.cuda.mem_get_info()
    return Memory(torch.cuda.get_device_name(), (total - free) / GB, total / GB)


def gpu_name() -> str | None:
    """The GPU that torch would use, of which it takes no memory yet; None where there is none, or no torch."""
    try:
        import torch
    except ImportError:
        return None
    return torch.cuda.get_device_name() if torch.cuda.is_available() else None


# index, UUID, name, MiB in use, MiB in all; not of a GPU in MIG slices, whose count is not that of a slice
_ROW = re.compile(r"^(\d+), (GPU-\S+), (.+), (\d+), (\d+), (?!Enabled)", re.MULTILINE)


def _by_nvidia_smi() -> Memory | None:
    """nvidia-smi's row of the first GPU in CUDA_VISIBLE_DEVICES, where it can be told which that is."""
    rows = _ROW.findall(_nvidia_smi("--query-gpu=index,uuid,name,memory.used,memory.total,mig.mode.current"))
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0].strip()
    in_order = os.environ.get("CUDA_DEVICE_ORDER") == "PCI_BUS_ID" or len({name for _, _, name, *_ in rows}) == 1
    for index, uuid, name, used, total in rows:  # of unlike GPUs, CUDA gives the fastest the number 0
        if (visible == index and in_order) or (visible.startswith("GPU-") and uuid.startswith(visible)):
            return Memory(name, int(used) / 1024, int(total) / 1024)
    return None


def gpu_process_gb() -> float | None:
    """What nvidia-smi counts for this process on its GPU; None where it does not see processes, as in most containers."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return None
    uuid = getattr(torch.cuda.get_device_properties(torch.cuda.current_device()), "uuid", "unknown")
    rows = _nvidia_smi("--query-compute-apps=gpu_uuid,pid,used_memory")
    own = re.search(rf"^GPU-{uuid}, {os.getpid()}, (\d+)$", rows, re.MULTILINE)
    return int(own[1]) / 1024 if own else None


def _nvidia_smi(query: str) -> str:
    """The lines that nvidia-smi answers with; "" where there is none."""
    command = ["nvidia-smi", query, "--format=csv,noheader,nounits"]
    try:
        return subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=30, check=False).stdout
    except (OSError, subprocess.SubprocessError):
        return ""


def process_memory() -> Memory:
    """This process's resident memory."""
    import psutil

    return Memory("CPU", psutil.Process().memory_info().rss / GB, psutil.virtual_memory().total / GB)


def peak_process_gb() -> float:
    """The most memory this process has held resident, in GB."""
    import psutil

    info = psutil.Process().memory_info()
    if peak := getattr(info, "peak_wset", None):  # Windows
        return float(peak / GB)
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / GB


def torch_memory() -> dict[str, float]:
    """torch's own counts for its current GPU in GB: allocated and reserved now, and the peaks of both.

    {} where there is no GPU, or where this process has not loaded torch and so holds nothing by it.
    """
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return {}
    return {
        "allocated": torch.cuda.memory_allocated() / GB,
        "reserved": torch.cuda.memory_reserved() / GB,
        "peak allocated": torch.cuda.max_memory_allocated() / GB,
        "peak reserved": torch.cuda.max_memory_reserved() / GB,
    }


def available_gb() -> float:
    """The GPU memory that this process may use in all: what is free, and what it holds itself; inf without a GPU.

    At most what CPTLIB_GPU_GB holds it to. Where nvidia-smi does not tell processes apart, what it holds is torch's share
    and CUDA_GB.
    """
    import torch

    if not torch.cuda.is_available():
        return float("inf")
    free, total = torch.cuda.mem_get_info()
    own = gpu_process_gb() or torch.cuda.memory_reserved() / GB + CUDA_GB
    return min(free / GB + own, total / GB, float(os.environ.get("CPTLIB_GPU_GB") or "inf"))


def held_gb() -> float:
    """The GPU memory of this process's living tensors; 0 without a GPU."""
    import gc

    import torch

    gc.collect()  # unsloth's models refer to themselves: without this they live on
    return torch.cuda.memory_allocated() / GB if torch.cuda.is_available() else 0.0


def free_gb() -> float:
    """Memory that this process could still take: the GPU's, within CPTLIB_GPU_GB, or without a GPU the machine's."""
    import psutil
    import torch

    if not torch.cuda.is_available():
        return psutil.virtual_memory().available / GB
    free = (torch.cuda.mem_get_info()[0] + torch.cuda.memory_reserved()) / GB
    return min(free, available_gb()) - held_gb()


def hold_to(gb: float) -> None:
    """Let this process use at most `gb` GB of the GPU, as if the GPU had no more: torch then raises OutOfMemoryError.

    Counted as nvidia-smi does, with what CUDA holds beside torch's tensors. Does nothing without a GPU.
    """
    import torch

    if not torch.cuda.is_available():
        return
    torch.zeros(1, device="cuda")  # CUDA's own share is taken with the first tensor
    free, total = torch.cuda.mem_get_info()
    used = (gpu_process_gb() or (total - free) / GB) * GB
    beside = used - torch.cuda.memory_reserved()
    torch.cuda.set_per_process_memory_fraction(min((gb * GB - beside) / total, 1.0))


def forget_peaks() -> None:
    """Free what nothing refers to any more and start torch's peaks anew, so that the next ones belong to what comes next."""
    import gc

    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def peak_gpu_gb() -> float | None:
    """The most GPU memory since torch's peaks were last reset: what is in use now, and what torch has given back since its
    peak.

    unsloth gives memory back when a run ends, so that what nvidia-smi shows afterwards is not the run's peak. Of this
    process alone where nvidia-smi tells processes apart, else of all.
    """
    gpu, by_torch = gpu_memory(), torch_memory()
    if gpu is None or not by_torch:
        return None
    return (gpu_process_gb() or gpu.used_gb) + by_torch["peak reserved"] - by_torch["reserved"]


@dataclass(frozen=True)
class Stage:
    """One line of a MemoryLog: what was just done, and the memory in use after it. torch: its own counts."""

    name: str
    memory: Memory
    torch: dict[str, float]


class MemoryLog:
    """Notes the memory in use after each named stage of a run; `plot_breakdown` draws it."""

    def __init__(self) -> None:
        self.stages: list[Stage] = []

    def note(self, name: str) -> None:
        """Measure now, print one line, keep it."""
        before = self.stages[-1].memory.used_gb if self.stages else 0.0
        stage = Stage(name, probe(), torch_memory())
        self.stages.append(stage)
        by_torch = f"; torch counts {stage.torch['allocated']:.2f} GB in tensors" if stage.torch else ""
        print(f"{name}: {stage.memory}, {stage.memory.used_gb - before:+.2f} GB{by_torch}")


@style.styled
def plot_breakdown(log: MemoryLog, ax: "hints.Axes | None" = None) -> "hints.Axes":
    """One stacked bar, a part for each stage that added memory, with lines at what is used and at what there is.

    A stage that freed memory lowers the bar's top, so that the bar ends at what the last stage left in use. The line at
    what there is lies above the figure where that is more than three times what is used; the legend has it in any case.
    ValueError for an empty log.
    """
    if not log.stages:
        raise ValueError("The log is empty: call log.note('…') after each stage first.")
    ax = ax or style.subplots()
    for number, (name, gb, bottom) in reversed(list(enumerate(_parts(log.stages)))):
        ax.bar(
            0, gb, bottom=bottom, width=0.5, color=style.color(number), edgecolor="white", label=f"{gb:5.2f} GB  {name}"
        )
    last = log.stages[-1].memory
    ax.axhline(last.used_gb, color="0.1", linestyle="--", label=f"{last.used_gb:5.2f} GB  in use")
    ax.axhline(last.total_gb, color="0.1", linestyle=":", label=f"{last.total_gb:5.2f} GB  there is")
    ax.set(
        title=f"Memory by stage, {last.device}",
        ylabel="memory (GB = 2³⁰ bytes)",
        xlim=(-0.6, 0.6),
        xticks=[],
        ylim=(0, 1.05 * (last.total_gb if last.used_gb <= last.total_gb <= 3 * last.used_gb else last.used_gb)),
    )
    ax.grid(axis="x", visible=False)
    ax.legend(loc="center left", bbox_to_anchor=(1.02, 0.5), prop={"family": "monospace", "size": 8})
    return ax


def _parts(stages: list[Stage]) -> list[tuple[str, float, float]]:
    """(name, GB, GB below it) of each stage's share of what the last stage has in use, none below 0."""
    parts: list[list[Any]] = []
    used = 0.0
    for stage in stages:
        change, used = stage.memory.used_gb - used, stage.memory.used_gb
        parts.append([stage.name, max(change, 0.0)])
        for part in reversed(parts):  # what was freed came off the latest parts first
            taken = min(part[1], max(-change, 0.0))
            part[1], change = part[1] - taken, change + taken
    bottoms = [sum(gb for _, gb in parts[:i]) for i in range(len(parts))]
    return [(name, gb, bottom) for (name, gb), bottom in zip(parts, bottoms, strict=True)]
