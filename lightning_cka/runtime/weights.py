"""Copy a model, and read the weights of a checkpoint for it."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lightning_cka.runtime.module_names import match_keys, unwrapped_names
from lightning_cka.runtime.restore import temporary_eval_mode
from lightning_cka.runtime.text import shortened


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
        duplicate.__dict__.pop(name, None)
    return duplicate


def read_weights(path: Path, model: nn.Module) -> dict[str, Any]:
    """Return the weights in a Lightning checkpoint, or in a file with a plain ``state_dict``.

    Args:
        path: The file.
        model: Model of the architecture of the checkpoint.

    Returns:
        Weights on the CPU, by the keys of the model's ``state_dict``.

    Raises:
        ValueError: The file is not a readable checkpoint, holds arbitrary Python objects, or does not match the
            architecture. In the last case, the message lists missing, unexpected and mismatched keys.
    """
    state = model.state_dict()
    unwrap = unwrapped_names(model)
    own = {unwrap(key): value for key, value in state.items()}
    content = _read_state_dict(path)
    keys = match_keys(content, own)
    loaded = {keys[key]: value for key, value in content.items()}
    problems = {
        "missing": sorted(own.keys() - loaded.keys()),
        "unexpected": sorted(loaded.keys() - own.keys()),
        "mismatched": [
            f"{key} {tuple(getattr(loaded[key], 'shape', ()))} instead of {tuple(own[key].shape)}"
            for key in sorted(own.keys() & loaded.keys())
            if isinstance(own[key], Tensor) and getattr(loaded[key], "shape", None) != own[key].shape
        ],
    }
    if any(problems.values()):
        listed = "; ".join(f"{what}: {shortened(keys)}" for what, keys in problems.items() if keys)
        raise ValueError(
            f"checkpoint {path.name!r} has another architecture than {type(model).__name__}: {listed}. "
            "Pass the reference as a module, with reference_layers="
        )
    return {key: loaded[unwrap(key)] for key in state}


def _read_state_dict(path: Path) -> Mapping[str, Any]:
    """Return the ``state_dict`` in a file, with the keys of the file."""
    if path.is_dir():
        raise ValueError(
            f"checkpoint {path.name!r} must be one file, but is a folder. Convert a sharded checkpoint with "
            f"`python -m lightning.pytorch.utilities.consolidate_checkpoint {path.name}`"
        )
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "Unsupported global" not in str(error) and "Unsupported class" not in str(error):
            raise ValueError(f"checkpoint {path.name!r} cannot be read: {error}") from error
        raise ValueError(
            f"checkpoint {path.name!r} holds Python objects besides tensors, which torch.load(weights_only=True) "
            "rejects. If you trust the file, run torch.save(torch.load(path, weights_only=False)['state_dict'], "
            "new_path) and pass new_path"
        ) from error
    except (RuntimeError, EOFError, KeyError, OSError) as error:
        raise ValueError(f"checkpoint {path.name!r} cannot be read: {error}") from error
    state = content.get("state_dict", content) if isinstance(content, Mapping) else None
    if not isinstance(state, Mapping) or not any(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(
            f"{path.name!r} is no checkpoint: expected a dictionary of tensors, or one under the key 'state_dict'"
        )
    return state
