"""`LayerPairs`: what results and differences of results have in common, a value for each pair of layers."""

from __future__ import annotations

import torch
from torch import Tensor


class LayerPairs:
    """A matrix of values for all L layers of a model and all R layers of a reference."""

    matrix: Tensor
    layers: tuple[str, ...]
    reference_layers: tuple[str, ...]
    self_comparison: bool

    def same_named(self) -> dict[str, float]:
        """Return the value of each layer with the reference's layer of the same name, by name."""
        return {name: float(self.matrix[cell]) for name, cell in self.same_named_pairs().items()}

    def same_named_pairs(self) -> dict[str, tuple[int, int]]:
        """Return the row and column of each layer that the reference also has, by name."""
        columns = {name: column for column, name in enumerate(self.reference_layers)}
        return {name: (row, columns[name]) for row, name in enumerate(self.layers) if name in columns}

    def mean_cells(self) -> Tensor:
        """Return which cells of the matrix `mean` averages, ``(L, R)`` bool.

        They are the pairs of layers with the same name, or all pairs if no names agree. If a model is compared with
        itself, they are the pairs of different layers. Cells that are ``nan`` are left out.
        """
        shape = (len(self.layers), len(self.reference_layers))
        if self.self_comparison:
            cells = ~torch.eye(*shape, dtype=torch.bool, device="cpu")
        else:
            cells = torch.zeros(shape, dtype=torch.bool, device="cpu")
            for row, column in self.same_named_pairs().values():
                cells[row, column] = True
            if not cells.any():
                cells[:] = True
        return cells & ~self.matrix.isnan()

    def mean(self) -> float:
        """Return the mean value of layers with the same name; see `mean_cells` for the other cases.

        It is ``nan`` if there are no such cells.
        """
        return float(self.matrix[self.mean_cells()].mean())
