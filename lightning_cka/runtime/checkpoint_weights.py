"""Copy a model, and read the weights of a checkpoint for it."""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lightning_cka.runtime.checkpoint_files import read_state_dict
from lightning_cka.runtime.eval_mode import temporary_eval_mode
from lightning_cka.runtime.module_names import match_keys, unwrapped_names
from lightning_cka.runtime.text import one_line, shortened


def detached_copy(model: nn.Module) -> nn.Module:
    """Return a deep copy in evaluation mode that shares nothing with the model.

    Raises:
        ValueError: The model cannot be copied.
    """
    try:
        with temporary_eval_mode(model):  # It clones the states of metrics: a state with a graph cannot be copied.
            duplicate = copy.deepcopy(model)
    except Exception as error:
        raise ValueError(f"{type(model).__name__} cannot be copied ({type(error).__name__}: {error})") from error
    # Compiling a LightningModule sets these methods on the instance. In the copy they would run the original model.
    for name in ("forward", "training_step", "validation_step", "test_step", "predict_step"):
        # The module that torch.compile returns has no other forward, and its copy makes a new one.
        if getattr(type(duplicate), name, None) is not nn.Module.forward:
            duplicate.__dict__.pop(name, None)
    return duplicate


def read_weights(path: Path, model: nn.Module, *, advice: str = "Pass the reference as a module") -> dict[str, Any]:
    """Return the weights in a Lightning checkpoint, or in a file with a plain ``state_dict``.

    Args:
        path: The file, of `torch.save` or of safetensors. Its keys are those of the model, or those of the only child
            of the model that has weights.
        model: Model of the architecture of the checkpoint.
        advice: What to do if it is of another one, for messages.

    Returns:
        Dense weights on the CPU, by the keys of the model's ``state_dict``.

    Raises:
        ValueError: The file is not a readable checkpoint, holds arbitrary Python objects, or does not match the
            architecture. In the last case, the message lists missing, unexpected and mismatched keys.
    """
    state = model.state_dict()
    unwrap = unwrapped_names(model)
    own = {unwrap(key): value for key, value in state.items()}
    content = read_state_dict(path)
    keys = match_keys(content, own)
    loaded = {keys[key]: value for key, value in content.items()}
    loaded = _with_tied_weights(_with_prefix(loaded, own), own)
    common = sorted(own.keys() & loaded.keys())
    weights = {key: _as_dense(loaded[key], own[key]) for key in common}
    problems = {
        "missing": sorted(own.keys() - loaded.keys()),
        "unexpected": sorted(loaded.keys() - own.keys()),
        "mismatched": [f"{key} {problem}" for key in common if (problem := _mismatch(weights[key], own[key]))],
    }
    if any(problems.values()):
        listed = "; ".join(f"{what}: {shortened(_short(keys))}" for what, keys in problems.items() if keys)
        if part := _part_of(loaded, own):
            advice = (
                f"It seems to have the weights of {part!r} alone: load them into such a module, and pass the module"
            )
        raise ValueError(
            f"checkpoint {path.name!r} has another architecture than {type(model).__name__}: {listed}. {advice}"
        )
    return {key: weights[unwrap(key)] for key in state}


def _part_of(keys: Collection[str], own: Collection[str]) -> str:
    """Return the only child of a model that most keys of a file fit, as of a bare backbone; empty if there is none."""
    children = {key.split(".")[0] for key in own}
    found = [name for name in children if 2 * sum(f"{name}.{key}" in own for key in keys) > len(keys)]
    return found[0] if len(found) == 1 else ""


def load_weights(model: nn.Module, weights: Mapping[str, Any]) -> None:
    """Load weights into a model.

    Raises:
        ValueError: The model refuses them, for example because a name of a layer has a dot in it.
    """
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise ValueError(one_line(f"{type(model).__name__} cannot load the weights: {error}")) from error


def _short(keys: Iterable[str]) -> list[str]:
    return [one_line(key, 120) for key in keys]


def _with_prefix(loaded: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Return weights by the model's keys, if the file has those of its only child with weights, such as ``model``."""
    prefixes = {key.split(".")[0] for key in own}
    if len(prefixes) == 1 and not loaded.keys() & own.keys():
        (prefix,) = prefixes
        prefixed = {f"{prefix}.{key}": value for key, value in loaded.items()}
        return prefixed if prefixed.keys() & own.keys() else dict(loaded)
    return dict(loaded)


def _with_tied_weights(loaded: dict[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Add the weights that the file has under another name, because safetensors stores tied weights once."""
    by_memory = {_memory(own[key]): key for key in loaded.keys() & own.keys()}
    by_memory.pop(None, None)
    tied = {key: by_memory[_memory(own[key])] for key in own.keys() - loaded.keys() if _memory(own[key]) in by_memory}
    return loaded | {key: loaded[other] for key, other in tied.items()}


def _memory(value: Any) -> tuple[object, ...] | None:
    """Return where a plain tensor is in memory, and how; None for other values."""
    if type(value) not in (Tensor, nn.Parameter) or value.layout != torch.strided or not value.numel():
        return None
    address = value.data_ptr()  # It is 0 on the meta device.
    return (address, value.device, value.dtype, tuple(value.shape), value.stride()) if address else None


def _as_dense(value: Any, own: Any) -> Any:
    """Return a sparse or quantised weight as the dense tensor that the model has."""
    if not isinstance(value, Tensor) or not isinstance(own, Tensor):
        return value
    if value.is_quantized and not own.is_quantized:
        value = value.dequantize()
    return value.to_dense() if value.layout != own.layout == torch.strided else value


def _mismatch(value: Any, own: Any) -> str:
    """Return how a weight differs in shape or kind from that of the model; an empty string if it does not."""
    if not isinstance(own, Tensor):
        return ""
    if not isinstance(value, Tensor):
        return f"{type(value).__name__} instead of a tensor"
    if value.shape != own.shape:
        return f"{tuple(value.shape)} instead of {tuple(own.shape)}"
    # Integers of quantised weights without their scales, say, would be copied as if they were the weights.
    if _kind(value) != _kind(own) or value.layout != own.layout:
        return f"{_description(value)} instead of {_description(own)}"
    return ""


def _kind(tensor: Tensor) -> tuple[bool, bool, bool]:
    return tensor.is_floating_point(), tensor.is_complex(), tensor.is_quantized


def _description(tensor: Tensor) -> str:
    layout = "" if tensor.layout == torch.strided else f" {tensor.layout}".replace("torch.", "")
    return f"{tensor.dtype}".replace("torch.", "") + layout
