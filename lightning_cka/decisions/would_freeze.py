"""`would_freeze`: which layers `FreezeConverged` would have frozen in a finished run, and when."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from math import isnan, nan
from pathlib import Path
from typing import NamedTuple

from lightning_cka.compare.bank_series import BankSource
from lightning_cka.compare.banks import compare_banks
from lightning_cka.compare.intervals import interval_of_result
from lightning_cka.compare.result import CKAResult
from lightning_cka.compare.run_files import short_moment_text
from lightning_cka.compare.tables import table
from lightning_cka.decisions.converged_prefix import converged_prefix
from lightning_cka.decisions.layer_convergence import FoundByLayer
from lightning_cka.decisions.run_results import read_run
from lightning_cka.hsic.measure import CKA
from lightning_cka.probe.bank import GramBank
from lightning_cka.runtime.integers import at_least


class FrozenLayer(NamedTuple):
    """When one layer would have been frozen."""

    layer: str
    """Name of the layer."""
    place: int | None
    """Index of the comparison after which it would have been frozen; None: never."""
    epoch: int | None
    """Epoch of that comparison."""
    step: int | None
    """Step of that comparison."""
    cka: float
    """CKA with the state some comparisons ago, at that comparison; at the last one for a layer that stays trainable."""
    low: float
    """Lower end of its confidence interval; ``nan`` if there is none."""


@dataclass(frozen=True, eq=False, repr=False)
class WouldFreeze(FoundByLayer):
    """What `FreezeConverged` would have frozen; `would_freeze` makes these objects.

    It is what the run itself shows: with frozen layers, training would have gone on differently. The last layers may be
    in it, although `FreezeConverged` leaves each optimizer something to train.

    Attributes:
        tolerance: Largest change of CKA that does not matter.
        patience: Number of comparisons to look back.
        level: Level of the confidence intervals.
        results: Results with the state ``patience`` comparisons ago, in order.
        found: What was found for each layer, in the order of the results' layers.
        note: Why the first layer that stays trainable is not frozen; "" if all would have been.
    """

    tolerance: float
    patience: int
    level: float
    results: list[CKAResult]
    found: tuple[FrozenLayer, ...]
    note: str

    def __repr__(self) -> str:
        shown = (each.epoch for each in self.found), (each.step for each in self.found)
        when = [short_moment_text(*moment) for moment in zip(*shown, strict=True)]
        rows = [
            (each.layer, when[row] or "no", f"{each.cka:.4f}", "" if isnan(each.low) else f"{each.low:.4f}")
            for row, each in enumerate(self.found)
        ]
        heading = f"FreezeConverged(tolerance={self.tolerance:g}, patience={self.patience}) would have frozen"
        lines = table(("layer", "after", "CKA", f"lower end ({100 * self.level:g} %)"), rows)
        return "\n\n".join(filter(None, [f"{heading}, if training went on like this:", lines, self.note]))


def would_freeze(
    source: str | Path | Sequence[BankSource], tolerance: float = 0.01, patience: int = 3, level: float = 0.95
) -> WouldFreeze:
    """Return which layers `FreezeConverged` would have frozen in a finished run, and when.

    Use it to choose ``tolerance`` and ``patience`` before you let a training freeze layers. Layers are tested in the
    order of the results, which is that of execution unless several patterns chose them.

    Args:
        source: The folder of a run that has banks (``CKAMonitor(save_banks=True)``) or results with
            ``"previous:PATIENCE"``; or its banks in order of time, or their files.
        tolerance: As for `FreezeConverged`.
        patience: As for `FreezeConverged`.
        level: As for `FreezeConverged`.

    Raises:
        ValueError: There are too few banks and no such results, the banks do not belong together, or a number is out of
            range.
        FileNotFoundError: There is no such folder.

    Example:
        >>> import torch
        >>> from lightning_cka import GramBank, would_freeze
        >>> _ = torch.manual_seed(0)
        >>> batches = [torch.randn(64, 16) for _ in range(8)]
        >>> net = torch.nn.Sequential(torch.nn.Linear(16, 32), torch.nn.ReLU(), torch.nn.Linear(32, 8))
        >>> banks = []
        >>> for epoch in range(3):
        ...     net[2].weight.data += torch.randn(8, 32)  # Training.
        ...     banks.append(GramBank.from_model(net, batches, progress_bar=False))
        >>> [each.place for each in would_freeze(banks, patience=1).found]
        [0, None]
    """
    results = _results(source, at_least(1, "patience", patience))
    order = list(results[0].layers)
    frozen: dict[str, FrozenLayer] = {}
    note = ""
    for place, result in enumerate(results):
        prefix = converged_prefix(result, order, tolerance, level, frozen)
        values = result.same_named()
        for name, low in prefix.bounds.items():
            frozen[name] = FrozenLayer(name, place, result.epoch, result.step, values[name], low)
        cause = prefix.problem or f"is not above {1 - tolerance:g} with confidence"
        note = f"layer '{prefix.stopped_by}' {cause} at the end" if prefix.stopped_by else ""
    last, cells = results[-1], results[-1].same_named_pairs()
    lows = interval_of_result(last, level)[0]
    values = last.same_named()
    bounds = {name: float(lows[cell]) for name, cell in cells.items()}
    others = {name: FrozenLayer(name, None, None, None, values.get(name, nan), bounds.get(name, nan)) for name in order}
    return WouldFreeze(tolerance, patience, level, results, tuple((others | frozen).values()), note)


def _results(source: str | Path | Sequence[BankSource], patience: int) -> list[CKAResult]:
    """Return linear CKA or what the run has, with the state some comparisons ago."""
    banks: Sequence[BankSource]
    if isinstance(source, str | Path):
        run = read_run(source)
        key = "previous" if patience == 1 else f"previous-{patience}"
        for name, history in run.results.items():
            if key in name.split("/") and history[-1].measure == CKA.key and len(history) >= patience:
                return history[patience - 1 :]
        banks = run.banks
    else:
        banks = source
    if len(banks) <= patience:
        raise ValueError(
            f"patience={patience} needs the banks of at least {patience + 1} moments, which "
            f"CKAMonitor(save_banks=True) keeps, but there are {len(banks)}; or results with 'previous:{patience}'"
        )
    return [_compared(banks[place], banks[place - patience]) for place in range(patience, len(banks))]


def _compared(later: BankSource, earlier: BankSource) -> CKAResult:
    banks = [each if isinstance(each, GramBank) else GramBank.load(each) for each in (later, earlier)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Flags count.
        return compare_banks(*banks, reference_name="an earlier state")
