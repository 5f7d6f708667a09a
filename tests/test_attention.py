"""Packed documents do not see each other, on every path there is on this machine, and what is packed equals what is not."""

import types

import pytest
import torch

from cptlib import attention, checks, models

LENGTHS = (9, 14, 6)


def test_the_models_own_path_keeps_documents_apart(tiny):
    assert attention.documents_apart(tiny[0]) == 0.0


def test_documents_that_see_each_other_are_noticed(tiny, monkeypatch):
    monkeypatch.setattr("transformers.masking_utils.find_packed_sequence_indices", lambda position_ids: None)
    monkeypatch.setattr(attention, "_packing", lambda lengths, device: {}, raising=True)
    assert attention.documents_apart(tiny[0]) > 0.01


def dispatch():
    import unsloth.models.llama  # noqa: F401  the order in which its modules can be imported
    from unsloth.utils import attention_dispatch

    return attention_dispatch


def run_packed(q, k, v, lengths, device="cpu"):
    """unsloth's attention for one packed row; q, k, v of shape (1, heads, tokens, width)."""
    module = dispatch()
    sizes = torch.tensor(lengths, dtype=torch.int32, device=device)
    starts = torch.cat([torch.zeros(1, dtype=torch.int32, device=device), sizes.cumsum(0, dtype=torch.int32)])
    tokens = sum(lengths)
    config = module.AttentionConfig(backend=module.SDPA, n_kv_heads=k.shape[1], n_groups=q.shape[1] // k.shape[1])
    context = module.AttentionContext(
        bsz=1,
        q_len=tokens,
        kv_seq_len=tokens,
        n_heads=q.shape[1],
        head_dim=q.shape[-1],
        requires_grad=q.requires_grad,
        seq_info=(sizes, starts, max(lengths)),
        attention_mask=None,
        causal_mask=None,
    )
    return module.run_attention(config=config, context=context, Q=q, K=k, V=v)


def one_by_one(q, k, v, lengths):
    """The same by torch's plain attention, each document on its own."""
    groups = q.shape[1] // k.shape[1]
    parts = [x.split(lengths, dim=2) for x in (q, k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1))]
    plain = torch.nn.functional.scaled_dot_product_attention
    return torch.cat([plain(*each, is_causal=True) for each in zip(*parts, strict=True)], dim=2).transpose(1, 2)


def heads(dtype=torch.float32, device="cpu", lengths=LENGTHS):
    generator = torch.Generator().manual_seed(1)
    shapes = [(1, n, sum(lengths), 64) for n in (8, 2, 2)]
    return [torch.randn(shape, generator=generator).to(device, dtype).requires_grad_() for shape in shapes]


def test_unsloths_dispatch_on_a_cpu_keeps_documents_apart():
    q, k, v = heads()
    assert torch.allclose(run_packed(q, k, v, LENGTHS), one_by_one(q, k, v, LENGTHS), atol=1e-6)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_one_call_equals_many_forward_and_backward(dtype):
    attention.one_call_for_packed_rows()
    assert dispatch()._TORCH_VARLEN_ATTN is not None
    lengths = (190, 7, 333, 64, 1)
    ours, reference = heads(dtype, "cuda", lengths), heads(torch.float64, "cuda", lengths)
    for x, exact in zip(ours, reference, strict=True):
        exact.data.copy_(x.data)
    out, exact_out = run_packed(*ours, lengths, "cuda"), one_by_one(*reference, lengths)
    weight = torch.randn_like(exact_out)
    (out.double() * weight).sum().backward()
    (exact_out * weight).sum().backward()
    pairs = [(out, exact_out), *((x.grad, exact.grad) for x, exact in zip(ours, reference, strict=True))]
    for got, wanted in pairs:
        assert (got.double() - wanted).norm() / wanted.norm() < 1e-2


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_packed_row_on_a_gpu_equals_its_documents_alone(smoke, dtype):
    from dataclasses import replace

    model, _ = models.load(replace(smoke, dtype=dtype))
    assert attention.documents_apart(model) == 0.0
    row = torch.randint(1000, (1, sum(LENGTHS)), device="cuda")
    with torch.no_grad():
        packed = model(input_ids=row, **attention._packing(LENGTHS, "cuda")).logits[0].split(LENGTHS)
        for ids, logits in zip(row[0].split(LENGTHS), packed, strict=True):
            alone = model(input_ids=ids[None], use_cache=False).logits[0]
            assert (alone - logits).norm() / alone.norm() < 1e-2


def test_another_unsloth_is_refused_with_a_sentence():
    with pytest.raises(RuntimeError, match="has no _LeanFlashVarlen, _TORCH_VARLEN_ATTN, .* another unsloth"):
        attention._hand_over(types.SimpleNamespace())


def test_the_installed_unsloth_has_the_place_and_keeps_its_own_kernel():
    module = dispatch()
    before, given = module._TORCH_VARLEN_ATTN, types.SimpleNamespace(**vars(module))
    given._TORCH_VARLEN_ATTN = before or (lambda: None)
    assert attention._hand_over(given) is False
    given._TORCH_VARLEN_ATTN = None
    assert attention._hand_over(given) is True and given._TORCH_VARLEN_ATTN is not None
    assert module._TORCH_VARLEN_ATTN is before


def test_the_preflight_refuses_to_pack_what_it_cannot_keep_apart(tiny, documents, smoke, tmp_path, monkeypatch):
    from cptlib import lora, training

    monkeypatch.chdir(tmp_path)
    model, tokenizer = tiny
    trainer = training.make_trainer(lora.add_adapters(model, smoke), tokenizer, documents["train"], smoke)
    trainer.args.packing = True
    assert checks.documents_apart(trainer).problem is None
    monkeypatch.setattr(attention, "documents_apart", lambda model: 0.25)
    finding = checks.documents_apart(trainer)
    assert "moved the others' logits by 25.0%" in str(finding) and "set packing=False" in str(finding)
