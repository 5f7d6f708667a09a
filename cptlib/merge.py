"""A model with adapters as a plain one: each adapter added to its weight, and files that transformers loads."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from cptlib import hints
from cptlib.errors import ExportError

SHARD_BYTES = 2 * 10**9


def tensors(base: "hints.PreTrainedModel", config: "hints.PreTrainedConfig") -> Iterator[tuple[str, "hints.Tensor"]]:
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

    def one_by_one() -> Iterator[tuple[str, "hints.Tensor"]]:
        with torch.no_grad():
            for name, weight in weights.items():
                whole = _merged(weight, adapters.get(id(weight)), config.dtype)
                # what transformers 5 stacks in memory, as experts, is many tensors in files
                for part, tensor in revert_weight_conversion(plain, {name: whole}).items():
                    yield part, tensor.contiguous()

    return one_by_one()


def _weights(base: "hints.PreTrainedModel", plain: "hints.PreTrainedModel") -> dict[str, "hints.Tensor"]:
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


def _shape(tensor: Any) -> tuple[int, ...]:
    return tensor.quant_state.shape if getattr(tensor, "quant_state", None) else tensor.shape


def _adapters(base: "hints.PreTrainedModel") -> dict[int, Any]:
    """The LoRA layer of each weight that has one, by the weight's id."""
    from peft.tuners.lora import LoraLayer

    layers = [module for module in base.modules() if isinstance(module, LoraLayer)]
    # peft.tuners.lora.layer.ParamWrapper, for the experts of a layer, names the parameter it adds to
    return {
        id(getattr(layer.get_base_layer(), getattr(layer, "parameter_name", "weight"), None)): layer for layer in layers
    }


def _require_all(base: "hints.PreTrainedModel", weights: dict[str, "hints.Tensor"], adapters: dict[int, Any]) -> None:
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


def _merged(weight: "hints.Tensor", adapter: Any, dtype: "hints.dtype") -> "hints.Tensor":
    """A weight, with its adapter if it has one, in `dtype` on the CPU; a buffer as it is."""
    import torch

    if not isinstance(weight, torch.nn.Parameter):
        return weight.cpu()
    whole = _dequantized(weight).float()
    if adapter is not None:
        whole = whole + adapter.get_delta_weight("default")
    return whole.to(dtype).cpu()


def _dequantized(parameter: Any) -> "hints.Tensor":
    if getattr(parameter, "quant_state", None) is None:
        return parameter.data
    from bitsandbytes.functional import dequantize_4bit

    return dequantize_4bit(parameter.data, parameter.quant_state)


def write(tensors: Iterable[tuple[str, "hints.Tensor"]], folder: Path) -> None:
    """Safetensors as transformers names them: one file, or shards with an index."""
    from safetensors.torch import save_file

    parts: list[list[str]] = []
    part: dict[str, hints.Tensor] = {}
    size = total = 0

    def finish() -> None:
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
        (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2), encoding="utf-8")


def save_config(config: "hints.PreTrainedConfig", folder: Path) -> None:
    """Write config.json for transformers 5, and for transformers 4 and what was written for it."""
    config.save_pretrained(folder)
    text, file = config.get_text_config(), folder / "config.json"
    # A setting that version 5 has renamed, as Qwen3's number of experts, it still knows by its other name.
    renamed = {old: getattr(text, name) for old, name in text.attribute_map.items() if hasattr(text, name)}
    old = renamed | _rope_of_version_4(text)
    edit_json(file, old if text is config else {"text_config": read_json(file).get("text_config", {}) | old})


def _rope_of_version_4(config: "hints.PreTrainedConfig") -> dict[str, Any]:
    """RoPE's settings under their names in transformers 4, which without them takes a base of 10,000 and says nothing."""
    rope, old = dict(getattr(config, "rope_parameters", None) or {}), {}
    if "full_attention" in rope:  # one setting for each kind of layer
        if not config.model_type.startswith("gemma3"):
            return {}  # newer than version 4
        old["rope_local_base_freq"] = rope["sliding_attention"]["rope_theta"]
        rope = dict(rope["full_attention"])
    old |= {name: rope.pop(name) for name in ("rope_theta", "partial_rotary_factor") if name in rope}
    if hasattr(config, "original_max_position_embeddings"):  # Phi-3 has it at the top, and takes it nowhere else
        rope.pop("original_max_position_embeddings", None)
    rope.pop("type", None)
    kind = rope.pop("rope_type", "default")
    if kind != "default":
        old["rope_scaling"] = {"type" if kind == "longrope" else "rope_type": kind, **rope}
    return old


def save_tokenizer(tokenizer: "hints.Tokenizer", config: "hints.PreTrainedConfig", folder: Path) -> None:
    """Write the tokenizer so that transformers 4 reads it too; of its length say the model's, not the recipe's rows'."""
    tokenizer.save_pretrained(folder)
    file = folder / "tokenizer_config.json"
    old: dict[str, Any] = {"is_local": None, "local_files_only": None}
    old["model_max_length"] = getattr(config.get_text_config(), "max_position_embeddings", None)
    if extra := read_json(file).get("extra_special_tokens"):
        old |= {"extra_special_tokens": None, "additional_special_tokens": extra}
    if (folder / "tokenizer.json").exists():  # all there is to know, and this class of versions 4 and 5 reads it alone
        old |= {"tokenizer_class": "PreTrainedTokenizerFast", "model_input_names": tokenizer.model_input_names}
    edit_json(file, old)


def read_json(file: Path) -> Any:
    """What a JSON file holds."""
    return json.loads(file.read_text(encoding="utf-8"))


def edit_json(file: Path, changes: dict[str, Any]) -> None:
    """Change fields of a JSON file; what is changed to None goes."""
    settings = read_json(file) | changes
    kept = {name: value for name, value in settings.items() if name not in changes or value is not None}
    file.write_text(json.dumps(kept, indent=2, sort_keys=True), encoding="utf-8")
