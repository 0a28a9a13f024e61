"""`LayerPairs`: what results and differences of results have in common, a value for each pair of layers."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from lightning_cka.compare.pairing import Pairing


class LayerPairs:
    """A matrix of values for all L layers of a model and all R layers of a reference."""

    matrix: Tensor
    layers: tuple[str, ...]
    reference_layers: tuple[str, ...]
    self_comparison: bool
    pairing: Pairing | None

    def paired(self) -> Pairing:
        """Return which layers are paired: ``pairing``, or the layers of the same names."""
        return self.pairing or Pairing.of_same_names(self.layers, self.reference_layers)

    def same_named(self) -> dict[str, float]:
        """Return the value of each paired layer with its partner, by the name of the model's layer.

        Layers are paired by name, or as ``pairing`` says.
        """
        return {name: float(self.matrix[cell]) for name, cell in self.same_named_pairs().items()}

    def same_named_pairs(self) -> dict[str, tuple[int, int]]:
        """Return the row and column of each paired layer, by the name of the model's layer."""
        return self.cells(self.paired())

    def cells(self, pairing: Pairing) -> dict[str, tuple[int, int]]:
        """Return row and column of the pairs whose layers are here, by the name of the model's layer."""
        rows, columns = ({name: place for place, name in enumerate(n)} for n in (self.layers, self.reference_layers))
        pairs = pairing.layers.items()
        return {name: (rows[name], columns[other]) for name, other in pairs if name in rows and other in columns}

    @property
    def mean_name(self) -> str:
        """What averages `mean_cells`: "mean", or "mean_all_pairs" if no layers are paired."""
        return "mean" if self.self_comparison or self.same_named_pairs() else "mean_all_pairs"

    def mean_cells(self) -> Tensor:
        """Return the cells that `mean` averages, or `mean_all_pairs` if no layers are paired, ``(L, R)`` bool.

        If a model is compared with itself, they are the pairs of different layers. Cells that are ``nan`` are left out.
        """
        if self.self_comparison or not (pairs := self.same_named_pairs()):
            return self._all_cells()
        cells = torch.zeros(len(self.layers), len(self.reference_layers), dtype=torch.bool, device="cpu")
        for cell in pairs.values():
            cells[cell] = True
        return cells & ~self.matrix.isnan()

    def mean(self) -> float:
        """Return the mean value of paired layers. If a model is compared with itself, that of different layers.

        It is ``nan`` if all these values are, and with a warning if no layers are paired; see `mean_all_pairs`.
        """
        if self.mean_name != "mean":
            warnings.warn(
                "no layers are paired, so that the mean of pairs is nan: mean_all_pairs() averages all pairs. pair= "
                "pairs layers",
                stacklevel=2,
            )
            return torch.nan
        return float(self.matrix[self.mean_cells()].mean())

    def mean_all_pairs(self) -> float:
        """Return the mean value of all L R pairs of layers, paired or not, without values that are ``nan``.

        If a model is compared with itself, its layers' pairs with themselves are left out.
        """
        return float(self.matrix[self._all_cells()].mean())

    def summary(self) -> float:
        """Return `mean`, or `mean_all_pairs` if no layers are paired; ``mean_name`` says which."""
        return float(self.matrix[self.mean_cells()].mean())

    def _all_cells(self) -> Tensor:
        is_defined = ~self.matrix.isnan()
        if self.self_comparison:
            is_defined &= ~torch.eye(len(is_defined), dtype=torch.bool, device="cpu")
        return is_defined
