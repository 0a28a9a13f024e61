"""Which layers of a model are alike, in which blocks, and which one could be removed with the least change."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from math import isnan, nan
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from lightning_cka.compare.intervals import batches_to_decide, interval_of_result, too_few_batches
from lightning_cka.compare.result import CKAResult
from lightning_cka.compare.run_files import moment_text
from lightning_cka.compare.tables import samples_text, table
from lightning_cka.decisions.alike_blocks import fewest_blocks
from lightning_cka.hsic.measure import measure_title
from lightning_cka.hsic.standard_error import check_level
from lightning_cka.runtime.dataframes import dataframe
from lightning_cka.runtime.text import shortened

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DEFAULT_ALIKE = 0.9
"""CKA above which two layers count as alike."""


class LayerStep(NamedTuple):
    """By how much the representation changes from one layer to the next."""

    before: str
    """Name of the layer before."""
    layer: str
    """Name of the layer."""
    change: float
    """1 - CKA of the two layers."""
    standard_error: float
    """Standard error of the change over probe batches; ``nan`` if unknown."""
    low: float
    """Lower end of the confidence interval; ``nan`` if there are too few batches for one. It may be below 0."""
    high: float
    """Upper end of the confidence interval."""


@dataclass(frozen=True, eq=False, repr=False)
class Redundancy:
    """Which layers of a model are alike; `CKAResult.redundancy` makes these objects.

    Layers that are alike by CKA may still differ in what they compute (Davari et al. 2022,
    https://arxiv.org/abs/2210.16156). Check the accuracy before you remove a layer.

    Attributes:
        result: The result, of a model with itself.
        alike: CKA above which two layers are alike.
        level: Level of the confidence intervals. There is no correction for the number of layers.
        consecutive: The change from each layer to the next, in the order of the result's layers.
        blocks: Names of the layers of each block: the fewest runs of consecutive layers in which each pair is alike,
            that is, the lower end of its confidence interval of CKA is above ``alike``. Among equally many runs, the
            sum of CKA over the pairs within runs is largest. A layer that is like none of its neighbours is a block of
            one. Empty without intervals.
        removable: The elements of ``consecutive`` that have an interval, with the smallest change first. Without
            ``layer``, the next layer would get the output of ``before`` instead. The first layer has no layer before
            it, so it is not in the list.
        undefined: Names of layers that are left out, because their CKA is ``nan``. The layers on both sides of one
            count as consecutive.
        note: Why there are no intervals, hence no blocks and nothing removable, and what it takes; "" if there are.
    """

    result: CKAResult
    alike: float
    level: float
    consecutive: list[LayerStep]
    blocks: list[list[str]]
    removable: list[LayerStep]
    undefined: list[str]
    note: str

    def __repr__(self) -> str:
        name = ", ".join(filter(None, (self.result.model_name, moment_text(self.result.epoch, self.result.step))))
        count = len(self.result.layers) - len(self.undefined)
        if self.note:
            return f"Redundancy({name}: {count} layers, {self.note})"
        least = "".join(f", least change {step.change:.3f} at {step.layer}" for step in self.removable[:1])
        title = measure_title(self.result.measure)
        return f"Redundancy({name}: {count} layers in {len(self.blocks)} blocks of {title} above {self.alike:g}{least})"

    def is_alike(self, step: LayerStep) -> bool | None:
        """Return whether two consecutive layers are alike with confidence; None if the interval includes ``alike``."""
        if 1 - step.high > self.alike:
            return True
        return False if 1 - step.low < self.alike else None

    def plot(self, **kwargs: Any) -> tuple[Figure, list[Axes]]:
        """Draw the heatmap with the blocks, and the change from each layer to the next.

        Args:
            **kwargs: Arguments of `lightning_cka.plotting.plot_redundancy`.

        Returns:
            The figure and both axes.
        """
        from lightning_cka.figures.redundant_layers import plot_redundancy

        return plot_redundancy(self, **kwargs)

    def to_dataframe(self) -> Any:
        """Return the changes as a `pandas.DataFrame`: one row for each pair of consecutive layers, as in `to_rows`.

        Raises:
            ImportError: pandas is not installed.
        """
        return dataframe(self.to_rows())

    def to_rows(self) -> list[dict[str, Any]]:
        """Return one row for each pair of consecutive layers, as for `pandas.DataFrame`.

        ``change`` is 1 - CKA, ``alike`` is True, False, or None if it is undecided. ``block`` and ``next_block`` are
        the places of both layers' blocks in ``blocks``, or None.
        """
        block_of = {name: place for place, names in enumerate(self.blocks) for name in names}
        return [
            {
                "layer": step.before,
                "next_layer": step.layer,
                "change": step.change,
                "standard_error": step.standard_error,
                "low": step.low,
                "high": step.high,
                "alike": self.is_alike(step),
                "block": block_of.get(step.before),
                "next_block": block_of.get(step.layer),
            }
            for step in self.consecutive
        ]


def redundancy(result: CKAResult, alike: float = DEFAULT_ALIKE, level: float = 0.95) -> Redundancy:
    """Return which layers of a model are alike; see `CKAResult.redundancy`. It gives no warning.

    Raises:
        ValueError: The result compares two models, or ``alike`` or ``level`` is out of range.
    """
    if not result.self_comparison:
        raise ValueError(
            f"redundancy looks for like layers within one model, but this result compares {result.model_name} with "
            f'{result.reference_name}: take a result of reference="self", or compare_banks(bank, bank)'
        )
    if not 0 < alike < 1:
        raise ValueError(f"alike must be in (0, 1), but is {alike}")
    check_level(level)
    low, high, note = _bounds(result, level)
    undefined = result.matrix.diagonal().isnan().tolist()
    places = [place for place, is_undefined in enumerate(undefined) if not is_undefined]
    steps = [_step(result, pair, low, high) for pair in pairwise(places)]
    blocks = [] if note else fewest_blocks((low > alike)[places][:, places], result.matrix[places][:, places])
    return Redundancy(
        result,
        alike,
        level,
        consecutive=steps,
        blocks=[[result.layers[places[place]] for place in block] for block in blocks],
        removable=sorted((step for step in steps if not isnan(step.high)), key=lambda step: step.change),
        undefined=[result.layers[place] for place, is_undefined in enumerate(undefined) if is_undefined],
        note=note,
    )


def _bounds(result: CKAResult, level: float) -> tuple[Tensor, Tensor, str]:
    """Return both ends of the confidence intervals of CKA, and why there are none; "" if there are."""
    low, high = interval_of_result(result, level)
    if result.standard_error is None or result.effective_batches is None:
        return low, high, "no advice: this result has no standard errors. Compare the Gram banks again"
    few = too_few_batches(result.effective_batches)
    return low, high, f"no advice: {few}" if few else ""


def _step(result: CKAResult, pair: tuple[int, int], low: Tensor, high: Tensor) -> LayerStep:
    before, after = (result.layers[place] for place in pair)
    error = torch.nan if result.standard_error is None else float(result.standard_error[pair])
    return LayerStep(before, after, 1 - float(result.matrix[pair]), error, 1 - float(high[pair]), 1 - float(low[pair]))


def redundancy_table(found: Redundancy) -> str:
    """Return a table with one row for each pair of consecutive layers, then the blocks and what is removable."""
    result, title = found.result, measure_title(found.result.measure)
    moment = ", ".join(filter(None, (result.model_name, moment_text(result.epoch, result.step))))
    heading = f"{moment}: {', '.join(filter(None, (result.measure_label, samples_text(result))))}"
    header = ("layer", "next layer", f"1 - {title}", f"{100 * found.level:g} % interval", "alike")
    rows = [(step.before, step.layer, f"{step.change:.4f}", *_verdict(found, step)) for step in found.consecutive]
    parts = [heading, table(header, rows)]
    if found.undefined:
        parts.append(f"left out, because their {title} is nan: {shortened(found.undefined)}")
    if found.note:
        return "\n\n".join([*parts, found.note])
    blocks = [f"  {names[0]} to {names[-1]} ({len(names)} layers)" for names in found.blocks if len(names) > 1]
    criterion = f"each pair has a {title} above {found.alike:g}, at a level of {100 * found.level:g} %"
    parts.append("\n".join([f"blocks of alike layers ({criterion}):", *(blocks or ["  none"])]))
    least = [f"{step.layer} ({step.change:.4f})" for step in found.removable]
    parts.append(f"least change if removed: {shortened(least) or 'no layer'}")
    return "\n\n".join(parts)


def _verdict(found: Redundancy, step: LayerStep) -> tuple[str, str]:
    """Return the interval and whether the layers are alike, in words."""
    if isnan(step.high):
        return "", ""
    words = {True: "yes", False: "no", None: "undecided"}[found.is_alike(step)]
    if words == "undecided" and (number := batches_needed(found, step)):
        words += f" (about {number} batches would do)"
    return f"{step.low:.4f} to {step.high:.4f}", words


def batches_needed(found: Redundancy, step: LayerStep) -> int | None:
    """Return about how many batches of the same size would show whether two layers are alike. None: too many."""
    batches = found.result.effective_batches or nan
    return batches_to_decide((step.high - step.low) / 2, batches, abs(1 - found.alike - step.change), found.level)
