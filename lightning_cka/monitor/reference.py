"""`Reference`: a model that the live model is compared with, and its Gram bank."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from lightning.pytorch.utilities import rank_zero_info
from torch import nn

from lightning_cka.compare.pairing import SAME_NAMES, Pair, Pairing, announced_pairing
from lightning_cka.probe.bank import GramBank
from lightning_cka.probe.fingerprint import fingerprint
from lightning_cka.runtime.checkpoint_weights import detached_copy, load_weights, read_weights
from lightning_cka.runtime.eval_mode import temporary_eval_mode
from lightning_cka.runtime.lazy_modules import check_initialized
from lightning_cka.runtime.placement import kept_placement
from lightning_cka.runtime.sharding import is_sharded, temporary_weights

LIVE_NAMES = ("initial", "previous", "self")
"""References that are states of the live model. "previous:3" is that of three comparisons ago."""


SAMPLES = "samples"
REPORT = "report.html"
"""Key and folder of the pictures of samples."""

RANKS = "effective-rank.png"
"""File of the figure of effective ranks."""

LABELS = "labels.json"
"""File in that folder, with the label of each sample."""

RESERVED = ("banks", "diagnostics", SAMPLES, "trajectory", REPORT)
"""Keys and folder names that are used for something else. So are folders called ``earlier-1``, ``earlier-2``, ..."""

FROZEN = "(frozen)"
"""Follows the name of a reference that is another model than the live one."""

OUTPUT_ENDINGS = ("", ".csv", "-evolution.gif")
"""Endings of the names of a reference's folder and files."""


if TYPE_CHECKING:
    ReferenceSource = str | Path | int | nn.Module
else:
    # With nn.Module, the help of LightningCLI would list all modules. With int last, it would write numbers as texts.
    ReferenceSource = int | str | Path


@dataclass
class Reference:
    """One reference and its Gram bank.

    Attributes:
        usual_name: Name that follows from the source.
        source: "initial", "previous", "previous:N", "self", the number of an epoch, the path of a checkpoint, or a
            module.
        bank: The Gram bank; None while there is none, and for "self".
        identity: Hash of a frozen reference's weights.
        moment: The moment of training of the bank, for an earlier state of the model. It names the bank's file.
        restarted: "restarted at step N" if the bank was lost and replaced by that of step N; otherwise empty.
        label: The name that the user gave, in titles; None: there is none.
        name: Name in logged keys and file names, unique in one monitor; see `name_references`.
        pairing: Which layers are paired with those of a frozen reference. None: layers of the same names.
        waiting: The banks after that of "previous:N", by moment, in order. Each becomes the reference in its turn.
    """

    usual_name: str
    source: ReferenceSource
    bank: GramBank | None = None
    identity: str = ""
    moment: str = ""
    restarted: str = ""
    label: str | None = None
    name: str = ""
    pairing: Pairing | None = None
    waiting: dict[str, GramBank | None] = field(default_factory=dict)

    def __getstate__(self) -> dict[str, Any]:
        """Return what copies and pickles have: not the banks, which belong to the run in progress."""
        return self.__dict__ | {"bank": None, "waiting": {}}

    @property
    def title(self) -> str:
        """Return the name in results and figures."""
        name = (str(self.source) if self.lag > 1 else self.name) if self.label is None else self.label
        if self.is_frozen:
            return f"{name} {FROZEN}"
        return f"{name}, {self.restarted}" if self.restarted else name

    @property
    def description(self) -> str:
        """Return what identifies a frozen reference: its weights, its layers and how they are paired; else ""."""
        if not self.is_frozen or self.bank is None:
            return ""
        # Earlier versions paired layers of the same names only.
        is_usual = self.pairing is None or self.pairing.how == SAME_NAMES
        return f"{self.identity} {self.bank.layers}{'' if is_usual else f' {self.pairing}'}"

    @property
    def is_frozen(self) -> bool:
        """Whether this is another model than the live one. It is shown the probe set once per run."""
        return self.epoch is None and self.source not in LIVE_NAMES and not self.lag

    @property
    def is_fixed(self) -> bool:
        """Whether the reference is the same at all comparisons, so that the change of CKA tells what has converged."""
        return self.is_frozen or self.epoch is not None or self.source == "initial"

    @property
    def is_earlier_state(self) -> bool:
        """Whether this is an earlier state of the live model."""
        return self.epoch is not None or self.source == "initial" or self.lag > 0

    @property
    def lag(self) -> int:
        """Return how many comparisons ago the reference was the live model; 0 if it does not follow it."""
        return lag_of(self.source)

    @property
    def kept(self) -> dict[str, GramBank | None]:
        """Return the banks that later comparisons need, by moment: the reference's, and those that wait."""
        return ({self.moment: self.bank} if self.moment else {}) | self.waiting

    @property
    def epoch(self) -> int | None:
        """Return the number of the epoch whose end is the reference; None for other references."""
        return self.source if isinstance(self.source, int) else None

    @property
    def is_ready(self) -> bool:
        """Whether the live model can be compared with this reference now."""
        return self.source == "self" or self.bank is not None

    def set_bank(self, bank: GramBank, moment: str, restarted: str = "") -> None:
        """Set the bank of an earlier state of the model; see the attributes. No other bank waits then."""
        self.bank, self.moment, self.restarted, self.waiting = bank, moment, restarted, {}

    def follow(self, bank: GramBank, moment: str) -> None:
        """Let a bank of the live model wait for its turn, which comes `lag` comparisons later."""
        self.waiting[moment] = bank
        if len(self.waiting) >= self.lag:
            self.moment = next(iter(self.waiting))
            self.bank, self.restarted = self.waiting.pop(self.moment), ""

    def clear_bank(self) -> None:
        """Remove the banks, as before training."""
        self.bank, self.moment, self.restarted, self.waiting = None, "", "", {}

    def moments(self) -> dict[str, Any]:
        """Return the moments of the banks that later comparisons need, for a checkpoint."""
        waiting = {"waiting": list(self.waiting)} if self.waiting else {}
        return {"snapshot": self.moment, "restarted": self.restarted} | waiting

    def restore_moments(self, saved: Mapping[str, Any]) -> None:
        """Restore what `moments` returned, without the banks, which are None."""
        self.bank, self.moment, self.restarted = None, saved.get("snapshot", ""), restarted_title(saved)
        self.waiting = dict.fromkeys(saved.get("waiting", ()))

    def pair_layers(self, layers: Sequence[str], reference_layers: Sequence[str], pair: Pair) -> None:
        """Set and log which layers of the live model and of a frozen reference are paired.

        Args:
            layers: Names of the live model's layers.
            reference_layers: Names of the reference's layers.
            pair: How to pair the layers of a module. A checkpoint has the same layers as the live model.

        Raises:
            ValueError: The layers cannot be paired.
        """
        pair = pair if isinstance(self.source, nn.Module) else "name"
        self.pairing = announced_pairing(layers, reference_layers, pair=pair, reference=f"reference '{self.name}'")

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


def restarted_title(saved: Mapping[str, Any]) -> str:
    """Return "restarted at step N" from the state of a reference in a checkpoint; empty if it was not restarted."""
    # Version 0.1.0 called it "anew".
    return str(saved.get("restarted", saved.get("anew", "")))


def lag_of(source: object) -> int:
    """Return N for "previous:N", 1 for "previous", and 0 for other sources."""
    if source == "previous":
        return 1
    found = re.fullmatch(r"previous:(\d{1,9})", source) if isinstance(source, str) else None
    return int(found[1]) if found else 0


@contextmanager
def _used_in_place(model: nn.Module, weights: dict[str, Any] | None) -> Iterator[nn.Module]:
    """Provide a model itself, with other weights if there are any, and restore it afterwards."""
    with temporary_eval_mode(model), kept_placement(model), ExitStack() as stack:
        if weights is not None:
            stack.enter_context(temporary_weights(model, weights))
        yield model
