"""What the live model is compared with."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from lightning_cka.bank import GramBank
from lightning_cka.layers import shortened, without_compiled
from lightning_cka.restore import left_as_found

LIVE = ("initial", "previous", "self")
RESERVED = ("banks", "diagnostics", "trajectory")
"""What else is logged, or written, under names beside the references'."""
ReferenceSource = str | Path | int | nn.Module


@dataclass
class Reference:
    """One reference: what it is, and the Gram matrices that stand for it.

    Attributes:
        name: in logged keys and file names; distinct among the references of one monitor.
        source: "initial", "previous", "self", the number of an epoch, the path of a checkpoint, or a module.
        bank: its Gram matrices; None until it was shown the probe set, and for "self".
        identity: of the weights of a frozen reference.
        snapshot: the moment that the bank of an earlier state of the model is of; names its file.
        anew: since when it stands for other weights than those that it is named after; empty if it does not.
    """

    name: str
    source: ReferenceSource
    bank: GramBank | None = None
    identity: str = ""
    snapshot: str = ""
    anew: str = ""

    @property
    def title(self) -> str:
        """Its name, in results and figures."""
        return f"{self.name}, {self.anew}" if self.anew else self.name

    @property
    def is_frozen(self) -> bool:
        """Whether it is another model than the live one, shown the probe set once per run."""
        return self.epoch is None and self.source not in LIVE

    @property
    def is_earlier(self) -> bool:
        """Whether it is an earlier state of the live model."""
        return self.epoch is not None or self.source in ("initial", "previous")

    @property
    def epoch(self) -> int | None:
        """The epoch whose end it is, if it is one."""
        return self.source if isinstance(self.source, int) else None

    @property
    def is_ready(self) -> bool:
        """Whether there is something to compare with."""
        return self.source == "self" or self.bank is not None

    def stand_for(self, bank: GramBank, snapshot: str, anew: str = "") -> None:
        """Take the bank of an earlier state of the model; see the attributes."""
        self.bank, self.snapshot, self.anew = bank, snapshot, anew

    def forget(self) -> None:
        """Have no bank, as before training."""
        self.bank, self.snapshot, self.anew = None, "", ""

    def load(self, live: nn.Module) -> nn.Module:
        """A copy of a frozen reference, of the live model's architecture if it is a checkpoint."""
        if isinstance(self.source, nn.Module):
            return detached_copy(self.source)
        model = detached_copy(live)
        load_weights(model, Path(str(self.source)))
        return model


def parse_references(reference: ReferenceSource | Sequence[ReferenceSource]) -> list[Reference]:
    """The references that a user asked for, with distinct names.

    Raises:
        ValueError: none, or one that is neither a known name nor a file.
        FileNotFoundError: a path with no file.
        TypeError: of no known kind.
    """
    several = isinstance(reference, list | tuple)
    sources = cast(Sequence[ReferenceSource], reference if several else [reference])
    if not sources:
        raise ValueError(
            "reference is empty; expected 'initial', 'previous', 'self', an epoch, a checkpoint or a module"
        )
    references: list[Reference] = []
    for source in sources:
        base = _name(source)
        taken = {*RESERVED, *(other.name for other in references)}
        name = next(n for n in (base, *(f"{base}-{i}" for i in range(2, len(sources) + 3))) if n not in taken)
        references.append(Reference(name, source))
    return references


def _name(source: ReferenceSource) -> str:
    if isinstance(source, nn.Module):
        return type(source).__name__
    if isinstance(source, int) and not isinstance(source, bool):
        if source < 0:
            raise ValueError(f"a reference epoch is counted from 0, but is {source}")
        return f"epoch-{source}"
    if not isinstance(source, str | Path):
        raise TypeError(
            "a reference must be a name, the number of an epoch, a path or a module (an instance, not a class), but is "
            f"{source!r}"
        )
    if source in LIVE:
        return str(source)
    path = Path(source)
    if not path.exists():
        if path.suffix or len(path.parts) > 1:
            raise FileNotFoundError(f"there is no reference checkpoint {str(path)!r}")
        raise ValueError(
            f"unknown reference {str(source)!r}; expected one of {LIVE}, the number of an epoch, the path of a "
            "checkpoint or a module"
        )
    return path.stem


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


def load_weights(model: nn.Module, path: Path) -> None:
    """Load a Lightning checkpoint, or a file with a plain ``state_dict``, into a model of the same architecture.

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
    model.load_state_dict({key: loaded[without_compiled(key)] for key in state})


def _read_state_dict(path: Path) -> Mapping[str, Any]:
    if path.is_dir():
        raise ValueError(f"checkpoint {path.name!r} is a folder (a sharded checkpoint?), but must be one file")
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
