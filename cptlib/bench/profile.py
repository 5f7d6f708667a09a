"""Where a step's time goes: a profiler's kernels, by what they do."""

import re
from dataclasses import replace
from typing import Any

from cptlib.bench.clock import Clock, watch
from cptlib.bench.measure import WARM_UP, prepared, settings, silence
from cptlib.recipe import Recipe

KINDS = {  # what a GPU kernel does, by a piece of its name; the first that matches counts
    "attention": "flash|fmha|attention",
    "matrix products": "gemm|nvjet|cutlass|xmma|cublas|splitk|aten::.*mm",
    "4-bit weights to 16 bits": "quant",
    "optimizer": "optimizer|adam|multi_tensor",
    "copies between CPU and GPU": "memcpy htod|memcpy dtoh",
    "everything else: casts, sums, norms": "",
}


def kind_of(kernel: str) -> str:
    """What a kernel of that name does, in the words of KINDS."""
    return next(kind for kind, pattern in KINDS.items() if re.search(pattern, kernel, re.IGNORECASE))


def profile(recipe: Recipe, steps: int = 2) -> dict[str, Any]:
    """Where a step's time goes: wall clock and GPU work in ms a step, the work by kind, and the 25 longest kernels.

    Without a GPU: the operations of the CPU.
    """
    import torch
    from torch.profiler import ProfilerActivity

    gpu = torch.cuda.is_available()
    recipe = replace(recipe, max_steps=WARM_UP + steps)
    with silence():
        trainer = prepared(recipe).trainer
    clock = watch(trainer)
    profiler = torch.profiler.profile(activities=[ProfilerActivity.CUDA if gpu else ProfilerActivity.CPU])
    clock.at_step = lambda step, _: {WARM_UP: profiler.start, WARM_UP + steps: profiler.stop}.get(step, lambda: None)()
    with silence():
        trainer.train()
    return {**summary(profiler, clock, steps), "settings": settings(recipe)}


def summary(profiler: Any, clock: Clock, steps: int) -> dict[str, Any]:
    """What a profiler saw in the last `steps` steps of `clock`."""
    import torch
    from torch.autograd import DeviceType

    events = profiler.key_averages()
    kernels = [(e.key, e.self_device_time_total, e.count) for e in events if e.device_type == DeviceType.CUDA]
    kernels = kernels if torch.cuda.is_available() else [(e.key, e.self_cpu_time_total, e.count) for e in events]
    kinds = dict.fromkeys(KINDS, 0.0)
    for name, microseconds, _ in kernels:
        kinds[kind_of(name)] += microseconds / 1000 / steps
    longest = sorted(kernels, key=lambda kernel: -kernel[1])[:25]
    return {
        "wall_ms": round(1000 * sum(clock.seconds[-steps:]) / steps, 1),
        "gpu_ms": round(sum(kinds.values()), 1),
        "kinds_ms": {kind: round(ms, 1) for kind, ms in kinds.items()},
        "launches": round(sum(calls for _, _, calls in kernels) / steps),
        "kernels": [{"name": n[:120], "ms": round(us / 1000 / steps, 2), "calls": c // steps} for n, us, c in longest],
        "tokens_per_step": round(sum(clock.tokens[-steps:]) / steps),
    }
