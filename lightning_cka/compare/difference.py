"""`CKADifference`: by how much CKA differs between two results of one probe set, with paired errors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lightning_cka.compare.drawn_pairs import DrawnPairs
from lightning_cka.compare.intervals import interval, warn_if_too_few
from lightning_cka.compare.pairing import Pairing
from lightning_cka.compare.run_files import short_moment_text
from lightning_cka.compare.significance import significant_cells
from lightning_cka.hsic.measure import shared_title

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from lightning_cka.compare.result import CKAResult


@dataclass(frozen=True, eq=False, repr=False)
class CKADifference(DrawnPairs):
    """By how much CKA differs between two results of one probe set: later minus earlier.

    Both results share their probe batches, so that their errors are correlated and mostly cancel. The standard errors
    here are paired: they come from the jackknife over batches of the difference itself. The bands of the two results
    would suggest errors that are several times larger. `CKAResult.difference` makes these objects.

    Attributes:
        matrix: Later CKA minus earlier CKA, ``(L, R)`` float64, for the layers that both results have. ``nan`` where a
            value is.
        standard_error: Paired standard errors of ``matrix``, ``(L, R)`` float64; ``nan`` for fewer than 2 batches.
            Results that were saved, and those of a monitor, keep what it takes for paired layers only: there, the other
            pairs are ``nan``. Results of `compare_banks` and `compare_models` have all pairs.
        mean_standard_error: Paired standard error of `mean`, or of `mean_all_pairs` if no layers are paired.
        layers: Names of the rows.
        reference_layers: Names of the columns.
        later: The later result.
        earlier: The earlier result.
        effective_batches: Number of batches of equal size with the same variance.
        self_comparison: Whether both results compare a model with itself.
        pairing: The pairs of layers that both results have. None: layers of the same names.

    Example:
        >>> import torch
        >>> from lightning_cka import GramBank, compare_banks
        >>> _ = torch.manual_seed(0)
        >>> batches = [torch.randn(64, 16) for _ in range(8)]
        >>> net = torch.nn.Sequential(torch.nn.Linear(16, 32), torch.nn.ReLU(), torch.nn.Linear(32, 8))
        >>> start = GramBank.from_model(net, batches, progress_bar=False)
        >>> net[2].weight.data += 0.3 * torch.randn(8, 32)  # Training.
        >>> end = GramBank.from_model(net, batches, progress_bar=False)
        >>> change = compare_banks(end, start).difference(compare_banks(start, start))
        >>> change.significant().diagonal()
        tensor([False,  True])
        >>> change.within(0.01).diagonal()
        tensor([ True, False])
    """

    matrix: Tensor
    standard_error: Tensor
    mean_standard_error: float
    layers: tuple[str, ...]
    reference_layers: tuple[str, ...]
    later: CKAResult
    earlier: CKAResult
    effective_batches: float
    self_comparison: bool = False
    pairing: Pairing | None = None

    def __repr__(self) -> str:
        return (
            f"CKADifference({self.title}: {len(self.layers)} x {len(self.reference_layers)} layers, "
            f"{self.mean_name} {self.summary():+.3f} ± {self.mean_standard_error:.3f})"
        )

    @property
    def title(self) -> str:
        """What is subtracted from what, in words, such as "epoch 6 minus epoch 5"."""
        later, earlier = _names(self.later, self.earlier)
        return f"{later} minus {earlier}"

    def confidence_interval(self, level: float = 0.95) -> tuple[Tensor, Tensor]:
        """Return a confidence interval of each difference, from Student's t with ``effective_batches`` - 1 degrees.

        Each interval is for one pair of layers, without a correction for their number.

        Args:
            level: Probability, in (0, 1), that an interval contains the difference for infinitely many samples.

        Returns:
            Lower and upper bounds, each ``(L, R)``. With fewer than about four effective batches they are ``nan``, and
            a warning gives the reason.

        Raises:
            ValueError: The level is outside (0, 1).
        """
        warn_if_too_few(self.effective_batches)
        return self.bounds(level)

    def significant(self, level: float = 0.95) -> Tensor:
        """Return which differences are not zero, corrected for the number of layers by the method of Holm.

        With probability ``level``, no layer without a difference is among the significant ones. Paired layers are one
        family of tests, so that the other pairs do not cost them power. All other pairs are a second family.
        Differences of at most 1e-6, the rounding error of Gram matrices in float32, are never significant. That a
        difference is not significant does not mean that there is none: see `within`. Paper: Holm 1979
        (https://www.jstor.org/stable/4615733).

        Args:
            level: One minus the familywise error rate, in (0, 1).

        Returns:
            Booleans, ``(L, R)``. False where the standard error is ``nan``. With fewer than about four effective
            batches, all are False, and a warning gives the reason.

        Raises:
            ValueError: The level is outside (0, 1).
        """
        warn_if_too_few(self.effective_batches)
        return self.tested_cells(level)

    def tested_cells(self, level: float) -> Tensor:
        """Return `significant`, without a warning if there are too few batches."""
        cells = significant_cells(self.matrix, self.standard_error, self.effective_batches, self._families(), level)
        return cells | cells.T if self.self_comparison else cells

    def bounds(self, level: float) -> tuple[Tensor, Tensor]:
        """Return `confidence_interval`, without a warning if there are too few batches."""
        return interval(self.matrix, self.standard_error, self.effective_batches, level)

    def within(self, tolerance: float, level: float = 0.95) -> Tensor:
        """Return which differences are at most ``tolerance`` with confidence: equivalence, not lack of significance.

        Args:
            tolerance: Largest difference that does not matter, greater than 0, in units of CKA.
            level: Level of the confidence intervals, in (0, 1). There is no correction for the number of layers.

        Returns:
            Booleans, ``(L, R)``: True where the confidence interval lies inside [-tolerance, tolerance]. False where it
            is ``nan``.

        Raises:
            ValueError: The level or the tolerance is out of range.
        """
        if not tolerance > 0:
            raise ValueError(f"tolerance must be greater than 0, but is {tolerance}")
        warn_if_too_few(self.effective_batches)
        low, high = self.bounds(level)
        return (low >= -tolerance) & (high <= tolerance)

    def plot(self, ax: Axes | None = None, **kwargs: Any) -> tuple[Figure, Axes]:
        """Draw the differences.

        Args:
            ax: Axes to draw in; None: a new figure.
            **kwargs: Arguments of `lightning_cka.plotting.plot_difference`.

        Returns:
            The figure and the axes.
        """
        from lightning_cka.figures.differences import plot_difference

        return plot_difference(self, ax, **kwargs)

    def to_rows(self, level: float = 0.95) -> list[dict[str, Any]]:
        """Return the differences in long format: one row for each pair of layers, as for `pandas.DataFrame`.

        Args:
            level: Level of ``low``, ``high`` and ``significant``, in (0, 1).
        """
        warn_if_too_few(self.effective_batches)
        (low, high), significant = self.bounds(level), self.tested_cells(level)
        return [
            {
                "layer": layer,
                "reference_layer": other,
                "difference": float(self.matrix[row, column]),
                "standard_error": float(self.standard_error[row, column]),
                "low": float(low[row, column]),
                "high": float(high[row, column]),
                "significant": bool(significant[row, column]),
            }
            for row, layer in enumerate(self.layers)
            for column, other in enumerate(self.reference_layers)
        ]

    @property
    def value_title(self) -> str:
        """The measure of both results in words, or "similarity" if they have different measures."""
        return shared_title(each.measure for each in (self.later, self.earlier))

    def _families(self) -> list[Tensor]:
        """Return the cells ``(L, R)`` of each family of tests. Of a symmetric matrix, each pair is tested once."""
        named = torch.zeros(self.matrix.shape, dtype=torch.bool, device="cpu")
        for cell in self.same_named_pairs().values():
            named[cell] = True
        others = ~named
        return [named, others.triu() if self.self_comparison else others]


def _names(later: CKAResult, earlier: CKAResult) -> tuple[str, str]:
    """Return what tells the two results apart: the model, and the epoch, the reference or the measure."""
    candidates = (
        [short_moment_text(each.epoch, each.step) or None for each in (later, earlier)],
        [f"with {each.reference_name}" for each in (later, earlier)],
        [each.measure_label for each in (later, earlier)],
    )
    models = later.model_name, earlier.model_name
    start = (f"{models[0]}, ", f"{models[1]}, ") if models[0] != models[1] else ("", "")
    for one, other in candidates:
        if one != other and one is not None and other is not None:
            return start[0] + one, start[1] + other
    if models[0] != models[1]:
        return models
    return "later", "earlier"
