"""Read the ``state_dict`` in a file of `torch.save` or of safetensors, without running code in it."""

from __future__ import annotations

import struct
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from lightning_cka.runtime.text import about_file, one_line

BANK_HEADER = "lightning_cka"
"""Key of a Gram bank's header in the metadata of its safetensors file."""


def is_bank(path: Path) -> bool:
    """Whether a safetensors file is a Gram bank, which has no weights.

    Raises:
        SafetensorError: The file is damaged.
    """
    with safe_open(path, framework="pt") as file:
        return BANK_HEADER in (file.metadata() or {})


def read_state_dict(path: Path) -> Mapping[str, Any]:
    """Return the ``state_dict`` in a file, with the keys of the file.

    Args:
        path: A Lightning checkpoint, a ``state_dict`` of `torch.save`, or a safetensors file.

    Raises:
        ValueError: The file cannot be read, or holds something else. The message is one line that names the file.
    """
    if path.is_dir():
        raise ValueError(
            f"checkpoint {path.name!r} must be one file, but is a folder. Convert a sharded checkpoint with "
            f"`python -m lightning.pytorch.utilities.consolidate_checkpoint {path.name}`"
        )
    content = _read(path)
    state = content.get("state_dict", content) if isinstance(content, Mapping) else None
    if not isinstance(state, Mapping) or not any(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(
            about_file(
                path.name,
                "is no checkpoint: expected a dictionary of tensors, or one under the key 'state_dict', but got "
                f"{_content_of(content, state)}",
            )
        )
    if others := [key for key in state if not isinstance(key, str)]:
        raise ValueError(
            about_file(
                path.name, f"is no checkpoint: the keys of its tensors must be strings, but one is {_short(others[0])}"
            )
        )
    return state


def is_lightning_checkpoint(path: Path) -> bool:
    """Whether a file is a checkpoint of a Lightning Trainer, which may have hyperparameters.

    Raises:
        ValueError: The file cannot be read without running code in it; see `read_state_dict`.
    """
    content = _read(path)
    return isinstance(content, Mapping) and "pytorch-lightning_version" in content


def _read(path: Path) -> Any:
    try:
        if path.is_file() and path.stat().st_size == 0:
            raise ValueError("it is empty")
        if path.suffix.lower() == ".json":
            raise ValueError("it is a JSON file, such as a result, and has no weights")
        if _is_safetensors(path):
            if is_bank(path):
                raise ValueError("it is a Gram bank, which has no weights. compare_banks compares banks")
            return load_file(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Of torch, about files of other kinds. The error says enough.
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch and safetensors raise anything for damaged files.
        if "Unsupported global" in str(error) or "Unsupported class" in str(error):
            raise ValueError(
                f"checkpoint {one_line(repr(path.name), 60)} holds Python objects besides tensors, which "
                "torch.load(weights_only=True) rejects. If you trust the file, run "
                "torch.save(torch.load(path, weights_only=False)['state_dict'], new_path) and pass new_path"
            ) from error
        cause = str(error) if type(error) is ValueError else f"{type(error).__name__}: {error}"
        raise ValueError("checkpoint " + about_file(path.name, f"cannot be read: {one_line(cause, 120)}")) from error


def _is_safetensors(path: Path) -> bool:
    """Whether a file is of safetensors, by its name or by its content: the length of a JSON text, and its start."""
    if path.suffix.lower() == ".safetensors":
        return True
    with path.open("rb") as file:
        start = file.read(9)
    is_long_enough = len(start) == 9 and struct.unpack("<Q", start[:8])[0] + 8 <= path.stat().st_size
    return is_long_enough and start[8:] == b"{"


def _content_of(content: object, state: object) -> str:
    """Return what a file has instead of a ``state_dict``."""
    if content is state and isinstance(content, Mapping):
        return f"a dictionary of {len(content)} other values"
    return f"{type(content if state is None or state is content else state).__name__}"


def _short(key: object) -> str:
    return one_line(f"{repr(key)[:60]} ({type(key).__name__})", 80)
