"""`Reference`: a model that the live model is compared with, and its Gram bank."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from lightning.pytorch.utilities import rank_zero_info
from torch import nn

from lightning_cka.probe.bank import GramBank
from lightning_cka.probe.fingerprint import fingerprint
from lightning_cka.runtime.checkpoint_weights import detached_copy, load_weights, read_weights
from lightning_cka.runtime.eval_mode import temporary_eval_mode
from lightning_cka.runtime.file_names import file_key, take_file_name
from lightning_cka.runtime.lazy_modules import check_initialized
from lightning_cka.runtime.listed import listed
from lightning_cka.runtime.placement import kept_placement
from lightning_cka.runtime.sharding import is_sharded, temporary_weights

LIVE_NAMES = ("initial", "previous", "self")
"""References that are states of the live model."""


SAMPLES = "samples"
"""Key and folder of the pictures of samples."""

LABELS = "labels.json"
"""File in that folder, with the label of each sample."""

RESERVED = ("banks", "diagnostics", SAMPLES, "trajectory")
"""Keys and folder names that are used for something else. So are folders called ``earlier-1``, ``earlier-2``, ..."""

OUTPUT_ENDINGS = ("", ".csv", "-evolution.gif")
"""Endings of the names of a reference's folder and files."""


if TYPE_CHECKING:
    ReferenceSource = str | Path | int | nn.Module
else:
    ReferenceSource = str | Path | int  # With nn.Module, the help of LightningCLI would list all modules.


@dataclass
class Reference:
    """One reference and its Gram bank.

    Attributes:
        name: Name in logged keys and file names, unique in one monitor.
        source: "initial", "previous", "self", the number of an epoch, the path of a checkpoint, or a module.
        bank: The Gram bank; None while there is none, and for "self".
        identity: Hash of a frozen reference's weights.
        moment: The moment of training of the bank, for an earlier state of the model. It names the bank's file.
        restarted: "restarted at step N" if the bank was lost and replaced by that of step N; otherwise empty.
    """

    name: str
    source: ReferenceSource
    bank: GramBank | None = None
    identity: str = ""
    moment: str = ""
    restarted: str = ""

    def __getstate__(self) -> dict[str, Any]:
        """Return what copies and pickles have: not the bank, which belongs to the run in progress."""
        return self.__dict__ | {"bank": None}

    @property
    def title(self) -> str:
        """Return the name in results and figures."""
        return f"{self.name}, {self.restarted}" if self.restarted else self.name

    @property
    def is_frozen(self) -> bool:
        """Whether this is another model than the live one. It is shown the probe set once per run."""
        return self.epoch is None and self.source not in LIVE_NAMES

    @property
    def is_earlier_state(self) -> bool:
        """Whether this is an earlier state of the live model."""
        return self.epoch is not None or self.source in ("initial", "previous")

    @property
    def epoch(self) -> int | None:
        """Return the number of the epoch whose end is the reference; None for other references."""
        return self.source if isinstance(self.source, int) else None

    @property
    def is_ready(self) -> bool:
        """Whether the live model can be compared with this reference now."""
        return self.source == "self" or self.bank is not None

    def set_bank(self, bank: GramBank, moment: str, restarted: str = "") -> None:
        """Set the bank of an earlier state of the model; see the attributes."""
        self.bank, self.moment, self.restarted = bank, moment, restarted

    def clear_bank(self) -> None:
        """Remove the bank, as before training."""
        self.bank, self.moment, self.restarted = None, "", ""

    def read_weights(self, live: nn.Module) -> dict[str, Any] | None:
        """Return a checkpoint's weights by the keys of the live model; None if the reference is a module."""
        return None if isinstance(self.source, nn.Module) else read_weights(Path(str(self.source)), live)

    @contextmanager
    def as_model(self, live: nn.Module, weights: dict[str, Any] | None) -> Iterator[nn.Module]:
        """Provide a frozen reference as a model, and set `identity`.

        The model is a copy. A sharded model cannot be copied; it gets the weights inside the ``with`` block, and its
        own weights afterwards. So do other models that cannot be copied, for example because they hold a lock; a
        module is then used itself, and restored afterwards. Every process must call this.

        Args:
            live: The live model.
            weights: The value of `read_weights`.
        """
        if weights is not None and is_sharded(live):
            self.identity = fingerprint(weights)
            with temporary_weights(live, weights):
                yield live
            return
        source = live if weights is not None else cast(nn.Module, self.source)
        check_initialized(source)
        with ExitStack() as stack:
            try:
                model = detached_copy(source)
            except ValueError as error:
                rank_zero_info(
                    f"reference '{self.name}' is shown the probe set itself, and restored afterwards: {error}"
                )
                model = stack.enter_context(_used_in_place(source, weights))
            else:
                if weights is not None:
                    load_weights(model, weights)
            self.identity = fingerprint(model.state_dict())
            yield model


@contextmanager
def _used_in_place(model: nn.Module, weights: dict[str, Any] | None) -> Iterator[nn.Module]:
    """Provide a model itself, with other weights if there are any, and restore it afterwards."""
    with temporary_eval_mode(model), kept_placement(model), ExitStack() as stack:
        if weights is not None:
            stack.enter_context(temporary_weights(model, weights))
        yield model


def parse_references(reference: ReferenceSource | Sequence[ReferenceSource]) -> list[Reference]:
    """Return the references of a `CKAMonitor` argument, with unique names.

    Raises:
        ValueError: There is no reference, or one is neither a known name nor a file.
        FileNotFoundError: A path does not exist.
        TypeError: A reference has an unsupported type.
    """
    sources: tuple[ReferenceSource, ...] = listed(reference)
    if not sources:
        raise ValueError(
            "reference is empty; expected 'initial', 'previous', 'self', an epoch, a checkpoint or a module"
        )
    references: list[Reference] = []
    taken = set(RESERVED)
    for source in sources:
        base = _name(source)
        base = f"reference-{base}" if file_key(base).startswith("earlier-") else base
        references.append(Reference(take_file_name(base, taken, OUTPUT_ENDINGS), source))
    return references


_OF_MODULES = {
    "reference_layers": "are the layers of a reference that is a module",
    "reference_forward_fn": "shows batches to a reference that is a module",
}


def check_any_module(references: Sequence[Reference], **arguments: object) -> None:
    """Check that there is a reference for arguments that are about modules. Checkpoints have the live model's class.

    Raises:
        ValueError: An argument is not None, but no reference is a module.
    """
    if any(isinstance(reference.source, nn.Module) for reference in references):
        return
    for name, value in arguments.items():
        if value is not None:
            raise ValueError(f"{name} {_OF_MODULES[name]}, but there is none")


def _name(source: ReferenceSource) -> str:
    if isinstance(source, nn.Module):
        return type(source).__name__
    if isinstance(source, int) and not isinstance(source, bool):
        if source < 0:
            raise ValueError(f"a reference epoch must be at least 0, but is {source}")
        return f"epoch-{source}"
    if isinstance(source, str | Path):
        return str(source) if source in LIVE_NAMES else _checkpoint_name(source)
    raise TypeError(
        "a reference must be a name, the number of an epoch, a path or a module (an instance, not a class), but is "
        f"{source!r}"
    )


def _checkpoint_name(source: str | Path) -> str:
    path = Path(source)
    if path.exists():
        return path.stem
    if path.suffix or len(path.parts) > 1:
        raise FileNotFoundError(f"there is no reference checkpoint {str(path)!r}")
    raise ValueError(
        f"unknown reference {str(source)!r}; expected one of {LIVE_NAMES}, the number of an epoch, the path of a "
        "checkpoint or a module"
    )
