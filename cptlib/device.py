"""Where, and in which number format, a model computes."""

import functools
from contextlib import AbstractContextManager

from cptlib import hints


@functools.cache
def best_dtype() -> str:
    """The 16-bit type the GPU computes in, or on a CPU the faster of bfloat16 and float32, found by trying.

    Trying beats asking: a processor may list bfloat16 instructions and run them at half its float32 speed.
    """
    import torch

    if torch.cuda.is_available():
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float16"
    return min(("float32", "bfloat16"), key=lambda name: _seconds_to_multiply(getattr(torch, name)))


def _seconds_to_multiply(dtype: "hints.dtype") -> float:
    """The best of three timings of a matrix product of the size that a small model's layers have."""
    import time

    import torch

    a, b = torch.randn(1024, 576, dtype=dtype), torch.randn(576, 1536, dtype=dtype)
    seconds = []
    for _ in range(4):  # the first one also sets the library up
        start = time.perf_counter()
        a @ b
        seconds.append(time.perf_counter() - start)
    return min(seconds[1:])


def device_of(model: "hints.Module") -> "hints.device":
    """Where the model computes. Its first weight may lie elsewhere: unsloth's checkpointing moves embeddings to the CPU."""
    return max((parameter.device for parameter in model.parameters()), key=lambda device: device.type == "cuda")


def autocast(model: "hints.Module") -> AbstractContextManager[object]:
    """A context in which a model of 16-bit frozen and float32 trained weights computes in 16 bits; for float32, none.

    The trainer makes its own; scoring and generation need this one.
    """
    import torch

    dtype = next((p.dtype for p in model.parameters() if p.dtype in (torch.bfloat16, torch.float16)), None)
    return torch.autocast(device_of(model).type, dtype=dtype, enabled=dtype is not None)
