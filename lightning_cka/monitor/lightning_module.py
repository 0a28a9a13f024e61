"""Run a LightningModule as the validation loop does, without logging."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from lightning.pytorch import Trainer
from torch import nn

from lightning_cka.runtime.namespaces import class_names
from lightning_cka.runtime.rng import isolated_rng


@contextmanager
def as_validation(trainer: Trainer) -> Iterator[None]:
    """Set the Trainer's stage to validation, for hooks and models that read it, and restore the stage afterwards."""
    stage = trainer.state.stage
    trainer.validating = True
    try:
        yield
    finally:
        trainer.state.stage = stage


def configure(model: nn.Module, seed: int, device: torch.device) -> None:
    """Call ``configure_model``, in which a LightningModule creates its layers.

    Args:
        model: The LightningModule.
        seed: Random seed of the initial weights.
        device: The device whose random state is restored.

    Raises:
        ValueError: ``configure_model`` failed.
    """
    try:
        with isolated_rng(seed, device):
            model.configure_model()  # type: ignore[operator]  # A LightningModule has one.
    except Exception as error:
        raise ValueError(
            f"{type(model).__name__} has no layers yet, and configure_model() raised {type(error).__name__}: {error}. "
            "Outside a strategy there is no device_mesh; pass a module that has its layers, or a checkpoint"
        ) from error


def is_lightning_module(module: nn.Module) -> bool:
    """Whether this is a LightningModule, of ``lightning.pytorch`` or of ``pytorch_lightning``."""
    return "LightningModule" in class_names(module)


@contextmanager
def without_log(module: nn.Module) -> Iterator[None]:
    """Disable ``log`` of a LightningModule: values of probe batches must not count as validation data."""
    if not is_lightning_module(module):
        yield
        return
    names = ("log", "log_dict")
    found = {name: module.__dict__[name] for name in names if name in module.__dict__}
    try:
        module.__dict__.update({name: _NoLog(module, name, found.get(name)) for name in names})
        yield
    finally:
        for name in names:
            module.__dict__.pop(name, None)
        module.__dict__.update(found)


class _NoLog:
    """Takes the place of ``log`` on a LightningModule. Copies and pickles of the module have their own ``log`` again.

    Args:
        module: The module.
        name: Name of the method.
        found: The user's function that the module itself had under this name; None if there was none.
    """

    def __init__(self, module: nn.Module, name: str, found: Callable[..., Any] | None) -> None:
        self._arguments = module, name, found

    def __call__(self, *_args: Any, **_kwargs: Any) -> None:
        """Log nothing."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        """Return what a copy or a pickle of the module has instead."""
        return _own_method, self._arguments


def _own_method(module: nn.Module, name: str, found: Callable[..., Any] | None) -> Callable[..., Any]:
    if found is not None:
        return found
    method: Callable[..., Any] = getattr(type(module), name).__get__(module)
    return method
