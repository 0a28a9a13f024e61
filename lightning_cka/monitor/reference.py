"""What the live model is compared with."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from torch import nn

from lightning_cka.probe.bank import GramBank
from lightning_cka.probe.fingerprint import fingerprint
from lightning_cka.runtime.listed import listed
from lightning_cka.runtime.sharding import is_sharded, temporary_weights
from lightning_cka.runtime.weights import detached_copy, read_weights

LIVE = ("initial", "previous", "self")


RESERVED = ("banks", "diagnostics", "trajectory")
"""What else is logged, or written, under names beside the references'."""


if TYPE_CHECKING:
    ReferenceSource = str | Path | int | nn.Module
else:
    ReferenceSource = str | Path | int  # In the help of LightningCLI, nn.Module would be all classes that there are.


@dataclass
class Reference:
    """One reference: what it is, and the Gram matrices that stand for it.

    Attributes:
        name: in logged keys and file names; distinct among the references of one monitor.
        source: "initial", "previous", "self", the number of an epoch, the path of a checkpoint, or a module.
        bank: its Gram matrices; None until it was shown the probe set, and for "self".
        identity: of the weights of a frozen reference.
        snapshot: the moment that the bank of an earlier state of the model is of; names its file.
        restarted: since when it stands for other weights than those that it is named after; empty if it does not.
    """

    name: str
    source: ReferenceSource
    bank: GramBank | None = None
    identity: str = ""
    snapshot: str = ""
    restarted: str = ""

    @property
    def title(self) -> str:
        """Its name, in results and figures."""
        return f"{self.name}, {self.restarted}" if self.restarted else self.name

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

    def set_bank(self, bank: GramBank, snapshot: str, restarted: str = "") -> None:
        """Take the bank of an earlier state of the model; see the attributes."""
        self.bank, self.snapshot, self.restarted = bank, snapshot, restarted

    def forget(self) -> None:
        """Have no bank, as before training."""
        self.bank, self.snapshot, self.restarted = None, "", ""

    def read_weights(self, live: nn.Module) -> dict[str, Any] | None:
        """Those of a checkpoint, by the keys of the live model; None of a module."""
        return None if isinstance(self.source, nn.Module) else read_weights(Path(str(self.source)), live)

    @contextmanager
    def opened(self, live: nn.Module, weights: dict[str, Any] | None) -> Iterator[nn.Module]:
        """A frozen reference as a model: a copy, or, of a sharded one, the live model with these weights for a while.

        Every process must call this.
        """
        if weights is not None and is_sharded(live):
            self.identity = fingerprint(weights)
            with temporary_weights(live, weights):
                yield live
            return
        if weights is None:
            model = detached_copy(cast(nn.Module, self.source))
        else:
            model = detached_copy(live)
            model.load_state_dict(weights)
        self.identity = fingerprint(model.state_dict())
        yield model


def parse_references(reference: ReferenceSource | Sequence[ReferenceSource]) -> list[Reference]:
    """The references that a user asked for, with distinct names.

    Raises:
        ValueError: none, or one that is neither a known name nor a file.
        FileNotFoundError: a path with no file.
        TypeError: of no known kind.
    """
    sources: tuple[ReferenceSource, ...] = listed(reference)
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
