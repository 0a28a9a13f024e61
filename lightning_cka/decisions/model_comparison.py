"""`ModelComparison`: how alike many models are, with errors, and which of them belong together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lightning_cka.compare.intervals import interval, warn_if_too_few
from lightning_cka.compare.result import CKAResult
from lightning_cka.hsic.jackknife import effective_batches, jackknife_error
from lightning_cka.hsic.measure import measure_title
from lightning_cka.runtime.dataframes import dataframe
from lightning_cka.runtime.text import shortened

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True, eq=False, repr=False)
class ModelComparison:
    """CKA between M models: the mean over layers that all of them have. `lightning_cka.compare_many` makes these.

    Attributes:
        matrix: Mean CKA of the layers, ``(M, M)`` float64. For two models, layers whose CKA is ``nan`` are left out of
            the mean.
        standard_error: Standard errors of ``matrix`` by the jackknife over probe batches, ``(M, M)`` float64; ``nan``
            for fewer than 2 batches. They do not say how much other trainings of the models would differ.
        names: Names of the models.
        effective_batches: Number of batches of equal size with the same variance.
        by_layer: The result ``(M, M)`` of each layer, with its flags; models have the place of layers there. The names
            are those of the first model's layers.

    Example:
        >>> import torch
        >>> from lightning_cka import GramBank, compare_many
        >>> _ = torch.manual_seed(0)
        >>> batches = [torch.randn(64, 16) for _ in range(8)]
        >>> nets = [torch.nn.Sequential(torch.nn.Linear(16, 32), torch.nn.ReLU()) for _ in range(3)]
        >>> banks = [GramBank.from_model(net, batches, progress_bar=False) for net in nets]
        >>> comparison = compare_many(banks, names=["a", "b", "c"], progress_bar=False)
        >>> comparison.matrix.diagonal()
        tensor([1., 1., 1.], dtype=torch.float64)
        >>> low, high = comparison.confidence_interval()
        >>> bool((low < comparison.matrix)[0, 1])
        True
    """

    matrix: Tensor
    standard_error: Tensor
    names: tuple[str, ...]
    effective_batches: float
    by_layer: Mapping[str, CKAResult]

    @classmethod
    def of_layers(cls, names: Sequence[str], by_layer: Mapping[str, CKAResult]) -> ModelComparison:
        """Return the mean over layers of results that have records of all pairs; at least one result."""
        records = [result.left_out_batches for result in by_layer.values() if result.left_out_batches is not None]
        without = torch.stack([record.all_pairs for record in records if record.all_pairs is not None])
        values = torch.stack([result.matrix for result in by_layer.values()])
        known = ~values.isnan()
        shares = known / known.sum(0)
        matrix = (shares * values.nan_to_num(0.0)).sum(0)
        left_out = (shares[:, None] * without.where(known[:, None], torch.zeros_like(without))).sum(0)
        weights = records[0].weights
        error = jackknife_error(matrix, left_out, weights)
        return cls(matrix, error, tuple(names), effective_batches(weights), dict(by_layer))

    def __repr__(self) -> str:
        label = next(iter(self.by_layer.values())).measure_label
        return f"ModelComparison({len(self.names)} models, {label}, mean over {len(self.by_layer)} layers)"

    def confidence_interval(self, level: float = 0.95) -> tuple[Tensor, Tensor]:
        """Return confidence intervals over probe batches, from Student's t; see `CKAResult.confidence_interval`.

        Args:
            level: Probability, in (0, 1), that an interval contains the value for infinitely many samples.

        Returns:
            Lower and upper bounds, each ``(M, M)``. With fewer than about four effective batches they are ``nan``, and
            a warning gives the reason.

        Raises:
            ValueError: The level is outside (0, 1).
        """
        warn_if_too_few(self.effective_batches)
        return interval(self.matrix, self.standard_error, self.effective_batches, level)

    def linkage(self) -> NDArray[np.float64]:
        """Return which models are joined at which distance 1 - CKA, by average linkage, as `scipy` does.

        Returns:
            A row for each step ``(M - 1, 4)``; see `scipy.cluster.hierarchy.linkage`. Neighbouring leaves are alike.

        Raises:
            ValueError: A value is ``nan``.
        """
        from scipy.cluster.hierarchy import linkage

        if bool(self.matrix.isnan().any()):
            raise ValueError("models whose CKA is nan cannot be clustered")
        upper = np.triu_indices(len(self.names), 1)
        # Equal models have a CKA of 1 up to rounding.
        distances = np.maximum(1 - self.matrix.numpy()[upper], 0.0)
        found: NDArray[np.float64] = linkage(distances, "average", optimal_ordering=True)
        return found

    def problems(self) -> list[str]:
        """Return warnings about layers whose values are undefined or can mislead."""
        messages = []
        title = measure_title(next(iter(self.by_layer.values())).measure)
        for place, name in enumerate(self.names):
            if undefined := [layer for layer, each in self.by_layer.items() if each.matrix[place, place].isnan()]:
                messages.append(
                    f"{title} of {name} is nan for layers {shortened(undefined)}, which its means leave out"
                )
        flags = {layer: [flag.reason for flag in each.flags] for layer, each in self.by_layer.items()}
        if flagged := [layer for layer, reasons in flags.items() if set(reasons) - {"standard_error"}]:
            messages.append(
                f"{title} of layers {shortened(flagged)} can mislead for some models: see the flags of "
                "ModelComparison.by_layer, and compare_banks for two of the models"
            )
        return messages

    def plot(self, ax: Axes | None = None, **kwargs: Any) -> tuple[Figure, Axes]:
        """Draw the matrix in a clustered order, with a dendrogram and a map of the models.

        Args:
            ax: Axes to draw the matrix alone in; None: a new figure.
            **kwargs: Arguments of `lightning_cka.plotting.plot_models`.

        Returns:
            The figure and the axes of the matrix.
        """
        from lightning_cka.figures.models import plot_models

        return plot_models(self, ax, **kwargs)

    def to_rows(self, level: float = 0.95) -> list[dict[str, Any]]:
        """Return the values in long format: one row for each pair of different models, as for `pandas.DataFrame`.

        Args:
            level: Level of ``low`` and ``high``, in (0, 1). They are ``nan`` with too few batches.
        """
        measure = next(iter(self.by_layer.values())).measure
        low, high = interval(self.matrix, self.standard_error, self.effective_batches, level)
        return [
            {
                "model": self.names[row],
                "other_model": self.names[column],
                measure: float(self.matrix[row, column]),
                "standard_error": float(self.standard_error[row, column]),
                "low": float(low[row, column]),
                "high": float(high[row, column]),
            }
            for row in range(len(self.names))
            for column in range(row + 1, len(self.names))
        ]

    def to_dataframe(self) -> Any:
        """Return the rows of `to_rows` as a `pandas.DataFrame`.

        Raises:
            ImportError: pandas is not installed.
        """
        return dataframe(self.to_rows())
