"""Turn the path of a checkpoint into a model."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from torch import nn

from lightning_cka.runtime.checkpoint_files import is_lightning_checkpoint
from lightning_cka.runtime.checkpoint_weights import detached_copy, load_weights, read_weights
from lightning_cka.runtime.lazy_modules import check_initialized
from lightning_cka.runtime.rng import isolated_rng
from lightning_cka.runtime.text import one_line

ModelSource = nn.Module | str | os.PathLike[str]
"""A module, or the path of a checkpoint."""

Architecture = nn.Module | type[nn.Module]
"""A module of the class of a checkpoint, or the class itself."""

_ADVICE = "Pass a module of its class as architecture=, or load the checkpoint yourself and pass the module"


def check_sources(sources: Mapping[str, object], architecture: object) -> None:
    """Check models that are modules or paths, before anything is loaded.

    Args:
        sources: The models, by the user's names of the arguments.
        architecture: The user's ``architecture=``; None if it was not given.

    Raises:
        TypeError: A model is neither, or ``architecture`` is neither a module nor a class of modules.
        FileNotFoundError: A path does not exist.
        ValueError: ``architecture`` is given, but no path.
    """
    for argument, source in sources.items():
        if not isinstance(source, nn.Module | str | os.PathLike):
            raise TypeError(
                f"{argument} must be a module (an instance, not a class) or the path of a checkpoint, but is {source!r}"
            )
        if not isinstance(source, nn.Module) and not Path(source).exists():
            raise FileNotFoundError(f"{argument}: there is no checkpoint {os.fspath(source)!r}")
    if architecture is None:
        return
    if not isinstance(architecture, nn.Module) and not (
        isinstance(architecture, type) and issubclass(architecture, nn.Module)
    ):
        raise TypeError(f"architecture must be a module or a class of modules, but is {architecture!r}")
    if all(isinstance(source, nn.Module) for source in sources.values()):
        raise ValueError(
            f"architecture is for checkpoints that are given by a path, but {' and '.join(sources)} "
            f"{'is a module' if len(sources) == 1 else 'are modules'}"
        )


def source_name(source: ModelSource) -> str:
    """Return the class of a module, or the name of a file without its suffix."""
    return type(source).__name__ if isinstance(source, nn.Module) else Path(source).stem


def to_model(source: ModelSource, architecture: Architecture | None, argument: str = "model") -> nn.Module:
    """Return a module as it is, or a new one that has the weights of a checkpoint.

    Args:
        source: A module, or a path; see `check_sources`.
        architecture: A module of the checkpoint's class, which is copied and not changed. Or the class: its arguments
            are the hyperparameters in a Lightning checkpoint. For other files, it is called without arguments.
        argument: The user's name of the argument ``source``, for messages.

    Raises:
        ValueError: There is no ``architecture``, the model cannot be made, or the checkpoint does not fit; see
            `read_weights`.
    """
    if isinstance(source, nn.Module):
        return source
    if architecture is None:
        raise ValueError(
            f"{argument} is a path: pass architecture=, a module of the checkpoint's class, or the class itself"
        )
    path = Path(source)
    try:
        if isinstance(architecture, type):
            return _of_class(architecture, path)
        check_initialized(architecture)
        return _with_weights(_copy(architecture), path)
    except ValueError as error:
        raise ValueError(f"{argument}: {error}") from error


def _copy(architecture: nn.Module) -> nn.Module:
    try:
        return detached_copy(architecture)
    except ValueError as error:
        raise ValueError(f"{error}. Load the checkpoint yourself, and pass the module") from error


def _with_weights(model: nn.Module, path: Path) -> nn.Module:
    load_weights(model, read_weights(path, model, advice=_ADVICE))
    return model


def _of_class(architecture: type[nn.Module], path: Path) -> nn.Module:
    """Make a model of a class. The file is read safely first, since Lightning may run code in it."""
    load = getattr(architecture, "load_from_checkpoint", None)
    is_whole = load is not None and is_lightning_checkpoint(path)
    try:
        with isolated_rng(0):
            model: nn.Module = load(path, map_location="cpu") if load is not None and is_whole else architecture()
    except Exception as error:
        cause = one_line(f"{type(error).__name__}: {error}", 200)
        raise ValueError(
            f"{architecture.__name__} cannot be made for checkpoint {path.name!r} ({cause}). Pass a module as "
            f"architecture=, such as architecture={architecture.__name__}(...)"
        ) from error
    return model if is_whole else _with_weights(model, path)
