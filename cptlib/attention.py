"""Attention over packed rows: one kernel call for all the documents of a row, where unsloth would make one for each.

unsloth keeps the documents of a packed row apart with what it finds: flash-attn, xformers, or torch's own kernel for
sequences of varying length. That last one it takes from torch 2.12 on. torch 2.11, Colab's, has the same kernel behind a
signature without `enable_gqa`, and there unsloth calls attention once for every document, hundreds of times a step.
"""

from typing import Any

from cptlib import hints
from cptlib.device import autocast, device_of


def one_call_for_packed_rows() -> bool:
    """On torch 2.11, hand unsloth torch's kernel for packed rows; True where that was done.

    Needs no call anywhere else: with flash-attn or xformers unsloth uses those, from torch 2.12 on it has the kernel, and on
    a GPU before Ampere (a T4) the kernel does not exist and unsloth's own gate leaves it out. Raises RuntimeError when
    unsloth no longer has the place it is handed to.
    """
    import torch

    if not (torch.cuda.is_available() and torch.__version__.startswith("2.11.")):
        return False
    from unsloth.utils import attention_dispatch

    return _hand_over(attention_dispatch)


def _hand_over(dispatch: Any) -> bool:
    """Put the kernel where `dispatch`, unsloth's module of attention, looks for torch's; False where it has one."""
    missing = {"_TORCH_VARLEN_ATTN", "_LeanFlashVarlen", "_torch_varlen_takes"} - vars(dispatch).keys()
    if missing:
        raise RuntimeError(
            f"unsloth.utils.attention_dispatch has no {', '.join(sorted(missing))}: cptlib.attention was written for another "
            "unsloth. Install the version that pyproject.toml names, or torch 2.12 or newer, which needs no help."
        )
    if dispatch._TORCH_VARLEN_ATTN is not None:
        return False

    def varlen(q, k, v, starts, _, longest, __, *, scale, window_size, enable_gqa):
        # the kernel shares key and value heads among query heads by itself: enable_gqa only lets torch's check pass
        causal = window_size == (-1, 0)
        return dispatch._LeanFlashVarlen.apply(q, k, v, starts, longest, causal, scale, *window_size)

    dispatch._TORCH_VARLEN_ATTN = varlen
    return True


def documents_apart(model: "hints.Model", lengths: tuple[int, ...] = (9, 14, 6), seed: int = 0) -> float:
    """How far the logits of a packed row's other documents move when one document is changed, relative to their size.

    Exactly 0.0 where documents are kept apart. Three random documents of `lengths` tokens are packed into one row as the
    trainer's collator does it, and run with and without another first document. The model's mode is left as it was.
    """
    import torch

    generator = torch.Generator().manual_seed(seed)
    row = torch.randint(model.config.vocab_size, (1, sum(lengths)), generator=generator)
    other = row.clone()
    other[0, : lengths[0]] = (row[0, : lengths[0]] + 1) % model.config.vocab_size
    device = device_of(model)
    packed = _packing(lengths, device)
    with torch.no_grad(), autocast(model):
        before, after = (model(input_ids=ids.to(device), **packed).logits[0, lengths[0] :] for ids in (row, other))
    return ((before - after).abs().max() / before.abs().max()).item()


def _packing(lengths: tuple[int, ...], device: "hints.device") -> dict[str, Any]:
    """What the trainer's collator adds to a packed row, and no cache, as in training."""
    import torch

    return {
        "position_ids": torch.cat([torch.arange(length) for length in lengths])[None].to(device),
        "packed_seq_lengths": torch.tensor(lengths, dtype=torch.int32),
        "use_cache": False,
    }
