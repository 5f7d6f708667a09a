"""A model with adapters as a plain one: each adapter added to its weight, and files that transformers loads."""

import json
from pathlib import Path

SHARD_BYTES = 2 * 10**9


class ExportError(RuntimeError):
    """A model that cannot be saved, loaded or sent, and the way out."""


def tensors(base, config):
    """(name, tensor) of the model that `config` describes, one after the other, on the CPU, named as in published files.

    base: a transformers model with LoRA in its layers, or none. Each adapter is added in float32 and the sum rounded to
    `config.dtype`. Raises ExportError, before the first tensor, where something that was trained would be left out.
    """
    import torch
    from transformers.core_model_loading import revert_weight_conversion

    with torch.device("meta"):
        plain = type(base)(config)  # has no weights: it knows what a reader will look for
    weights, adapters = _weights(base, plain), _adapters(base)
    _require_all(base, weights, adapters)
    if config.tie_word_embeddings:
        del weights["lm_head.weight"]  # the embedding again

    def one_by_one():
        with torch.no_grad():
            for name, weight in weights.items():
                whole = _merged(weight, adapters.get(id(weight)), config.dtype)
                # what transformers 5 stacks in memory, as experts, is many tensors in files
                for part, tensor in revert_weight_conversion(plain, {name: whole}).items():
                    yield part, tensor.contiguous()

    return one_by_one()


def _weights(base, plain) -> dict:
    """All that makes the model, by its name in `plain`: parameters, and the buffers that are saved with them.

    Raises ExportError where those are not the names and shapes of `plain`.
    """
    import torch

    expected = {name: tensor.shape for name, tensor in plain.state_dict().items()}
    found = {}
    for name, tensor in [*base.named_parameters(remove_duplicate=False), *base.named_buffers()]:
        name = name.replace(".base_layer", "").replace(".modules_to_save.default", "")
        if name in expected or (isinstance(tensor, torch.nn.Parameter) and not _is_beside(name)):
            found[name] = tensor
    shapes = {name: _shape(tensor) for name, tensor in found.items()}
    if wrong := [name for name in expected | shapes if expected.get(name) != shapes.get(name)]:
        raise ExportError(
            f"A plain {type(plain).__name__} has other weights than this model ({wrong[0]} and {len(wrong) - 1} more "
            f"differ). {_WAY_OUT}"
        )
    return found


_WAY_OUT = "It cannot be merged: keep its adapter (save_adapter), which holds all that was learned."


def _is_beside(name: str) -> bool:
    """Whether a parameter belongs to an adapter, or is the untrained one that a trained one stands for."""
    return "lora_" in name or ".original_module." in name


def _shape(tensor):
    return tensor.quant_state.shape if getattr(tensor, "quant_state", None) else tensor.shape


def _adapters(base) -> dict:
    """The LoRA layer of each weight that has one, by the weight's id."""
    from peft.tuners.lora import LoraLayer

    layers = [module for module in base.modules() if isinstance(module, LoraLayer)]
    # peft.tuners.lora.layer.ParamWrapper, for the experts of a layer, names the parameter it adds to
    return {
        id(getattr(layer.get_base_layer(), getattr(layer, "parameter_name", "weight"), None)): layer for layer in layers
    }


def _require_all(base, weights: dict, adapters: dict) -> None:
    """Raise ExportError unless every trained parameter is one of `weights`, or of an adapter that is added to one."""
    merged = {id(weight) for weight in weights.values()}
    for weight in merged & adapters.keys():
        layer = adapters[weight]
        merged |= {id(matrix["default"].weight) for matrix in (layer.lora_A, layer.lora_B) if "default" in matrix}
    trained = {name: id(p) for name, p in base.named_parameters() if p.requires_grad or "lora_" in name}
    if lost := [name for name, parameter in trained.items() if parameter not in merged]:
        raise ExportError(
            f"{len(lost)} of {len(trained)} trained weights would be lost, {lost[0]} among them. {_WAY_OUT}"
        )


def _merged(weight, adapter, dtype):
    """A weight, with its adapter if it has one, in `dtype` on the CPU; a buffer as it is."""
    import torch

    if not isinstance(weight, torch.nn.Parameter):
        return weight.cpu()
    whole = _dequantized(weight).float()
    if adapter is not None:
        whole = whole + adapter.get_delta_weight("default")
    return whole.to(dtype).cpu()


def _dequantized(parameter):
    if getattr(parameter, "quant_state", None) is None:
        return parameter.data
    from bitsandbytes.functional import dequantize_4bit

    return dequantize_4bit(parameter.data, parameter.quant_state)


def write(tensors, folder: Path) -> None:
    """Safetensors as transformers names them: one file, or shards with an index."""
    from safetensors.torch import save_file

    parts, part, size, total = [], {}, 0, 0

    def finish():
        save_file(part, folder / f"{len(parts)}.part", metadata={"format": "pt"})
        parts.append(list(part))
        part.clear()

    for name, tensor in tensors:
        if part and size + tensor.nbytes > SHARD_BYTES:
            finish()
            size = 0
        part[name], size, total = tensor, size + tensor.nbytes, total + tensor.nbytes
    finish()
    names = [f"model-{n + 1:05}-of-{len(parts):05}.safetensors" for n in range(len(parts))]
    if len(parts) == 1:
        names = ["model.safetensors"]
    for n, name in enumerate(names):
        (folder / f"{n}.part").rename(folder / name)
    if len(parts) > 1:
        where = {tensor: name for name, inside in zip(names, parts, strict=True) for tensor in inside}
        index = {"metadata": {"total_size": total}, "weight_map": where}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2))
