"""Read the weights of a checkpoint, and copy a model."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lightning_cka.runtime.module_names import without_compiled
from lightning_cka.runtime.restore import left_as_found
from lightning_cka.runtime.text import shortened


def detached_copy(model: nn.Module) -> nn.Module:
    """A deep copy that shares nothing with the model, a compiled LightningModule's methods included."""
    try:
        with left_as_found(model):  # Metrics of a loss hold its graph, which cannot be copied.
            duplicate = copy.deepcopy(model)
    except Exception as error:
        raise ValueError(f"{type(model).__name__} cannot be copied ({type(error).__name__}: {error})") from error
    # `torch.compile` of a LightningModule sets these on the instance, bound to the model that was copied.
    for name in ("forward", "training_step", "validation_step", "test_step", "predict_step"):
        duplicate.__dict__.pop(name, None)
    return duplicate


def read_weights(path: Path, model: nn.Module) -> dict[str, Any]:
    """The weights in a Lightning checkpoint, or in a file with a plain ``state_dict``, by the keys of a model.

    Raises:
        ValueError: not a readable checkpoint, one that holds arbitrary Python objects, or one of another
            architecture; the message lists missing, unexpected and mismatched keys.
    """
    loaded = {without_compiled(key): value for key, value in _read_state_dict(path).items()}
    state = model.state_dict()
    own = {without_compiled(key): value for key, value in state.items()}
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
            f"checkpoint {path.name!r} is of another architecture than {type(model).__name__}: {listed}. "
            "Pass the reference as a module, with reference_layers="
        )
    return {key: loaded[without_compiled(key)] for key in state}


def _read_state_dict(path: Path) -> Mapping[str, Any]:
    if path.is_dir():
        raise ValueError(
            f"checkpoint {path.name!r} is a folder, but must be one file; a sharded checkpoint becomes one by "
            f"`python -m lightning.pytorch.utilities.consolidate_checkpoint {path.name}`"
        )
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "Unsupported global" not in str(error) and "Unsupported class" not in str(error):
            raise ValueError(f"checkpoint {path.name!r} cannot be read: {error}") from error
        raise ValueError(
            f"checkpoint {path.name!r} holds Python objects besides tensors, which torch.load(weights_only=True) "
            "refuses. If you trust the file: torch.save(torch.load(path, weights_only=False)['state_dict'], new_path), "
            "and pass new_path"
        ) from error
    except (RuntimeError, EOFError, KeyError, OSError) as error:
        raise ValueError(f"checkpoint {path.name!r} cannot be read: {error}") from error
    state = content.get("state_dict", content) if isinstance(content, Mapping) else None
    if not isinstance(state, Mapping) or not any(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"{path.name!r} is no checkpoint: it has neither a 'state_dict' nor is it one")
    return state
