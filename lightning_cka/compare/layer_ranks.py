"""`LayerRanks`: the effective rank of each layer of a model, and the largest one so far in its training."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import hypot, isnan, nan
from typing import TYPE_CHECKING, Any, NamedTuple

from lightning_cka.compare.run_files import is_of_training, moment_order, short_moment_text

if TYPE_CHECKING:
    from lightning_cka.compare.result import CKAResult


class LayerRank(NamedTuple):
    """The effective rank of one layer."""

    value: float
    """Mean over batches; 0 if the layer does not vary, ``nan`` if fewer than 4 samples of each batch are usable."""
    standard_error: float
    """Standard error over batches, from the jackknife; ``nan`` for fewer than 2 batches."""
    num_batches: int
    """Number of batches behind the mean. Batches of tokens of the same sequences count as one."""

    effective_dimension: float
    """Participation ratio of the eigenvalues, from all batches; see `LayerDiagnostics`."""


class PeakRank(NamedTuple):
    """The largest effective rank of one layer so far."""

    value: float
    """As in `LayerRank`."""
    standard_error: float
    """As in `LayerRank`."""
    num_batches: int
    """As in `LayerRank`."""
    epoch: int | None
    """Epoch of this value."""
    step: int | None
    """Step of this value."""


class RankLoss(NamedTuple):
    """Which part of its largest effective rank so far a layer has lost."""

    value: float
    """1 - rank / largest rank, in [0, 1]; ``nan`` if unknown."""
    standard_error: float
    """Standard error. The errors of both ranks are added as if they were independent. As both are of the same samples,
    this is too large rather than too small."""


@dataclass(frozen=True)
class LayerRanks:
    """The effective ranks of a model's layers on the probe set, without and with what came before.

    Attributes:
        layers: Rank by layer.
        peaks: Largest rank so far by layer, this moment included. Layers without any rank are missing.
        num_samples: Number n of samples in a batch, the smallest one if they differ. A rank is at most n - 1.
    """

    layers: Mapping[str, LayerRank]
    peaks: Mapping[str, PeakRank]
    num_samples: int

    def loss(self, layer: str) -> RankLoss:
        """Return which part of its largest rank so far a layer has lost."""
        now, peak = self.layers[layer], self.peaks.get(layer)
        if peak is None or not peak.value > 0:
            return RankLoss(nan, nan)
        if now[:3] == peak[:3]:
            return RankLoss(0.0, 0.0)
        share = now.value / peak.value
        return RankLoss(1 - share, hypot(now.standard_error, share * peak.standard_error) / peak.value)

    @property
    def smallest_share(self) -> float:
        """The smallest part of its largest rank so far that a layer still has; ``nan`` if no layer has a rank."""
        shares = [1 - value for name in self.layers if not isnan(value := self.loss(name).value)]
        return min(shares, default=nan)

    def words(self, layer: str, epoch: int | None, step: int | None) -> str:
        """Return the rank of a layer now and the largest one, such as "3.1 in epoch 7, but 9.6 in epoch 2".

        Args:
            layer: A layer that has a largest rank.
            epoch: Epoch of now.
            step: Step of now.
        """
        peak = self.peaks[layer]
        now, before = (short_moment_text(*when) for when in ((epoch, step), (peak.epoch, peak.step)))
        return f"{self.layers[layer].value:.1f}{now and f' in {now}'}, but {peak.value:.1f} in {before}"

    @classmethod
    def from_checked(cls, content: Mapping[str, Any]) -> LayerRanks:
        """Return the object from values that passed `lightning_cka.compare.result_fields.checked_result_fields`."""
        layers = {name: LayerRank(*map(_number, row)) for name, row in content["layers"].items()}
        peaks = {name: PeakRank(*map(_number, row[:3]), *row[3:]) for name, row in content["peaks"].items()}
        return cls(layers, peaks, content["num_samples"])


def ranks_with_peaks(
    layers: Mapping[str, LayerRank],
    num_samples: int,
    earlier: LayerRanks | None,
    epoch: int | None,
    step: int | None,
) -> LayerRanks:
    """Return ranks with the largest ones so far.

    Args:
        layers: Ranks of now.
        num_samples: See `LayerRanks`.
        earlier: The ranks before, with their peaks; None if there are none.
        epoch: Epoch of now.
        step: Step of now.
    """
    peaks = {}
    for name, rank in layers.items():
        peak = None if earlier is None else earlier.peaks.get(name)
        if not isnan(rank.value) and (peak is None or rank.value > peak.value):
            peak = PeakRank(*rank[:3], epoch, step)
        if peak is not None:
            peaks[name] = peak
    return LayerRanks(layers, peaks, num_samples)


def last_ranks(results: Iterable[Sequence[CKAResult]]) -> LayerRanks | None:
    """Return the ranks of the last moment of training that has any; None if there is none.

    Args:
        results: Histories of results of one model, each in order.
    """
    found = []
    for history in results:
        with_ranks = (each for each in reversed(history) if each.ranks is not None and is_of_training(each))
        found += [result for result in [next(with_ranks, None)] if result is not None]
    return max(found, key=lambda result: moment_order(result.epoch, result.step)).ranks if found else None


def _number(value: Any) -> Any:
    return nan if value is None else value
