"""Which values hold no state of a model's forward pass, and are therefore neither searched nor restored."""

from __future__ import annotations

import enum
import types

import torch

_ATOMS = (bool, int, float, complex, str, bytes, type(None), torch.dtype, torch.device, torch.Size, slice, range)
_DEFINITIONS = (types.BuiltinFunctionType, types.ModuleType, property, enum.Enum)

_FRAMEWORKS = frozenset(
    (
        *("torch", "torchmetrics", "torchvision", "lightning", "lightning_fabric", "pytorch_lightning"),
        *("lightning_cka", "lightning_utilities", "numpy", "datasets", "pyarrow", "pandas", "polars", "h5py"),
        # Clients of loggers write to their attributes in threads of their own.
        *(
            "matplotlib",
            "tqdm",
            "rich",
            "wandb",
            "mlflow",
            "tensorboard",
            "tensorboardX",
            "comet_ml",
            "neptune",
            "clearml",
        ),
        *("logging", "threading", "_thread", "multiprocessing", "concurrent", "queue", "_queue", "asyncio"),
        *("subprocess", "socket", "io", "_io", "random", "inspect", "functools", "pathlib", "weakref", "_weakrefset"),
    )
)


def is_atom(value: object) -> bool:
    """Whether a value cannot be written to, such as a number or a string."""
    kind = type(value)
    return kind in _ATOMS or issubclass(kind, _ATOMS) or issubclass(kind, _DEFINITIONS)


def is_framework(module: str) -> bool:
    """Whether a Python module of this name is part of a framework, of Python's threads and files, or of a logger."""
    return module.partition(".")[0] in _FRAMEWORKS


def belongs_to_framework(cls: type) -> bool:
    """Whether a class is defined in a framework, in Python's library of threads and files, or in a logger's client."""
    return is_framework(str(getattr(cls, "__module__", "")))


def is_left_alone(cls: type) -> bool:
    """Whether objects of a class belong to a framework, also of a user's subclass: a Trainer, a dataset, a logger."""
    return any(map(belongs_to_framework, cls.__mro__))
