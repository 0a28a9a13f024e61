"""`RankHistory`: the effective rank of each layer over the training of a model, and which layers have lost it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from lightning_cka.compare.bank_series import moment_words
from lightning_cka.compare.find_flags import rank_flags
from lightning_cka.compare.flags import Thresholds
from lightning_cka.compare.intervals import interval, too_few_batches
from lightning_cka.compare.layer_ranks import LayerRanks
from lightning_cka.compare.run_files import short_moment_text
from lightning_cka.compare.tables import table
from lightning_cka.runtime.dataframes import dataframe
from lightning_cka.runtime.text import shortened

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


class RankFall(NamedTuple):
    """A layer that has lost more of its effective rank than it may."""

    layer: str
    """Name of the layer."""
    place: int
    """Place of the first moment at which it had lost too much, in `RankHistory.moments`."""
    moment: str
    """This moment in words, such as "epoch 3"."""
    peak_moment: str
    """The moment of its largest effective rank before; "" if unknown."""
    loss: float
    """Part of that rank that it had lost, in (0, 1]."""
    low: float
    """Lower end of the confidence interval of the loss; ``nan`` if there are too few batches for one."""
    high: float
    """Upper end of the confidence interval of the loss."""


@dataclass(frozen=True, eq=False, repr=False)
class RankHistory:
    """The effective ranks of L layers at M moments of training; `rank_history` makes these objects.

    Attributes:
        model_name: Name of the model.
        moments: Names of the moments: epochs and "init", or steps.
        ranks: Ranks at each moment, with the largest ones so far.
    """

    model_name: str
    moments: tuple[str, ...]
    ranks: tuple[LayerRanks, ...]

    def __repr__(self) -> str:
        falls = self.falls()
        lost = f", lost by {shortened([fall.layer for fall in falls], 3)}" if falls else ""
        return (
            f"RankHistory({self.model_name}: {len(self.layers)} layers, {len(self.moments)} moments, "
            f"ranks of at most {self.num_samples - 1}{lost})"
        )

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the layers."""
        return tuple(self.ranks[-1].layers)

    @property
    def num_samples(self) -> int:
        """Number n of samples in a batch, the smallest one if they differ. A rank is at most n - 1."""
        return min(ranks.num_samples for ranks in self.ranks)

    @property
    def rank(self) -> Tensor:
        """Effective ranks ``(L, M)`` float64; 0 where a layer does not vary, ``nan`` where it is not defined."""
        return self._values("value")

    @property
    def standard_error(self) -> Tensor:
        """Standard errors of `rank` over batches, ``(L, M)``; ``nan`` for fewer than 2 batches."""
        return self._values("standard_error")

    @property
    def effective_dimension(self) -> Tensor:
        """Effective dimensions ``(L, M)``; see `LayerDiagnostics`. They do not depend on the size of batches."""
        return self._values("effective_dimension")

    @property
    def note(self) -> str:
        """Why there are no intervals, and what it takes; "" if there are."""
        return too_few_batches(float(self._values("num_batches").max()))

    def bounds(self, level: float = 0.95) -> tuple[Tensor, Tensor]:
        """Return both ends of the confidence intervals of `rank`, each ``(L, M)``.

        Args:
            level: Confidence level in (0, 1).

        Returns:
            Lower and upper ends, from Student's t; ``nan`` with fewer than four batches.

        Raises:
            ValueError: The level is not in (0, 1).
        """
        counts, (low, high) = self._values("num_batches"), torch.full((2, *self.rank.shape), torch.nan, device="cpu")
        low, high = low.double(), high.double()
        for count in set(counts.flatten().tolist()):
            bounds = interval(self.rank, self.standard_error, count, level)
            low, high = (each.where(counts == count, old) for each, old in zip(bounds, (low, high), strict=True))
        return low, high

    def falls(self, rank_loss: float = 0.5, level: float = 0.95) -> list[RankFall]:
        """Return the layers that have lost more than a part of their largest rank so far, at the first such moment.

        As for the flags of `CKAMonitor`, the loss must exceed twice its standard error.

        Args:
            rank_loss: The part, at least 0.
            level: Level of the confidence intervals.

        Raises:
            ValueError: ``rank_loss`` is negative, or ``level`` is not in (0, 1).
        """
        if not rank_loss >= 0:
            raise ValueError(f"rank_loss must be at least 0, but is {rank_loss}")
        found: dict[str, RankFall] = {}
        for place, ranks in enumerate(self.ranks):
            for flag in rank_flags(ranks, Thresholds(rank_loss=rank_loss)):
                if flag.layer not in found:
                    found[flag.layer] = self._fall(flag.layer, place, level)
        return [found[name] for name in self.layers if name in found]

    def plot(self, **kwargs: Any) -> tuple[Figure, list[Axes]]:
        """Draw the effective rank and the effective dimension of layers over epochs.

        Args:
            **kwargs: Arguments of `lightning_cka.plotting.plot_ranks`.

        Returns:
            The figure and both axes.
        """
        from lightning_cka.figures.ranks import plot_ranks

        return plot_ranks(self, **kwargs)

    def to_dataframe(self) -> Any:
        """Return the values as a `pandas.DataFrame`: one row for each moment and layer, as in `to_rows`.

        Raises:
            ImportError: pandas is not installed.
        """
        return dataframe(self.to_rows())

    def to_rows(self, level: float = 0.95) -> list[dict[str, Any]]:
        """Return one row for each moment and layer, as for `pandas.DataFrame`.

        ``low`` and ``high`` are the ends of the confidence interval. ``lost`` is the part of the largest rank so far
        that the layer has lost.
        """
        low, high = (each.T.tolist() for each in self.bounds(level))
        return [
            {
                "moment": moment,
                "layer": name,
                "effective_rank": ranks.layers[name].value,
                "standard_error": ranks.layers[name].standard_error,
                "low": low[column][row],
                "high": high[column][row],
                "lost": ranks.loss(name).value,
                "effective_dimension": ranks.layers[name].effective_dimension,
                "num_samples": ranks.num_samples,
            }
            for column, (moment, ranks) in enumerate(zip(self.moments, self.ranks, strict=True))
            for row, name in enumerate(self.layers)
        ]

    def _values(self, name: str) -> Tensor:
        rows = [[getattr(ranks.layers[layer], name) for ranks in self.ranks] for layer in self.layers]
        return torch.tensor(rows, dtype=torch.float64, device="cpu")

    def _fall(self, layer: str, place: int, level: float) -> RankFall:
        ranks = self.ranks[place]
        loss, peak = ranks.loss(layer), ranks.peaks[layer]
        value, error = torch.tensor(loss, dtype=torch.float64, device="cpu")
        low, high = interval(value, error, ranks.layers[layer].num_batches, level)
        when = moment_words(self.moments[place]), short_moment_text(peak.epoch, peak.step)
        return RankFall(layer, place, *when, loss.value, float(low), float(high))


def rank_table(history: RankHistory, rank_loss: float = 0.5, level: float = 0.95) -> str:
    """Return a table with one row per layer: its last effective rank, its largest one, and what it has lost."""
    last, (low, high) = history.ranks[-1], history.bounds(level)
    rows = []
    for row, name in enumerate(history.layers):
        rank, peak = last.layers[name], last.peaks.get(name)
        ends = "" if low[row, -1].isnan() else f"{low[row, -1]:.2f} to {high[row, -1]:.2f}"
        lost = last.loss(name).value
        rows.append(
            (
                name,
                f"{rank.value:.2f}",
                ends,
                "" if peak is None else f"{peak.value:.2f}",
                "" if peak is None else short_moment_text(peak.epoch, peak.step),
                "" if lost != lost else f"{100 * lost:.0f} %",
                f"{rank.effective_dimension:.2f}",
            )
        )
    header = ("layer", "effective rank", f"{100 * level:g} % interval", "largest", "at", "lost", "effective dimension")
    moment = moment_words(history.moments[-1])
    title = f"{history.model_name}{moment and f', {moment}'}: ranks are at most {history.num_samples - 1}"
    falls = [
        f"  {fall.layer}: {100 * fall.loss:.0f} % lower in {fall.moment} than in {fall.peak_moment}"
        for fall in history.falls(rank_loss, level)
    ]
    lost_text = "\n".join([f"lost more than {100 * rank_loss:g} % of the largest rank so far:", *(falls or ["  none"])])
    return "\n\n".join(filter(None, [title, table(header, rows), lost_text, history.note]))
