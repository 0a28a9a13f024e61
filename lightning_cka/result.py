"""`CKAResult`: one comparison of two models, or of a model with itself."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True, eq=False)
class CKAResult:
    """CKA of all pairs of layers of two models.

    Attributes:
        matrix: ``(L, R)`` float64; rows are the model's layers, columns the reference's. ``nan`` where
            a layer has no variance or is not finite.
        layers: names of the rows.
        reference_layers: names of the columns.
        standard_error: ``(L, R)`` float64 standard errors of ``matrix``, over probe batches.
        num_samples: number of samples behind each value.
        num_batches: number of batches behind each value.
        epoch: of training, counted from 0; None for a comparison outside training.
        step: of training, on the axis of Lightning's own scalars.
        model_name: for titles and axis labels.
        reference_name: likewise.
        kernel: of the Gram matrices.
        within: both sides are one and the same model.
    """

    matrix: Tensor
    layers: tuple[str, ...]
    reference_layers: tuple[str, ...]
    standard_error: Tensor | None = None
    num_samples: int | None = None
    num_batches: int | None = None
    epoch: int | None = None
    step: int | None = None
    model_name: str = "model"
    reference_name: str = "reference"
    kernel: str = "linear"
    within: bool = False

    def __post_init__(self) -> None:
        """Normalise types, and check shapes.

        Raises:
            ValueError: the matrix is not (layers, reference layers).
        """
        object.__setattr__(self, "layers", tuple(self.layers))
        object.__setattr__(self, "reference_layers", tuple(self.reference_layers))
        shape = (len(self.layers), len(self.reference_layers))
        for name in ("matrix", "standard_error"):
            value = getattr(self, name)
            if value is None:
                continue
            value = torch.as_tensor(value).detach().to("cpu", torch.float64)
            if value.shape != shape:
                raise ValueError(f"{name} must have shape {shape} to fit the layers, but has {tuple(value.shape)}")
            object.__setattr__(self, name, value)

    def same_named(self) -> dict[str, float]:
        """CKA of each layer with the reference's layer of the same name."""
        columns = {name: column for column, name in enumerate(self.reference_layers)}
        return {name: float(self.matrix[i, columns[name]]) for i, name in enumerate(self.layers) if name in columns}

    def mean(self) -> float:
        """Mean CKA of same-named layers; of all pairs where there are none; within one model, of different layers.

        Cells that are ``nan`` are left out; ``nan`` if no cell is left.
        """
        if self.within:
            values = self.matrix[~torch.eye(len(self.layers), dtype=torch.bool)]
        else:
            values = torch.tensor(list(self.same_named().values()) or self.matrix.tolist(), dtype=torch.float64)
        return float(values.nanmean())

    def plot(self, ax: Axes | None = None, **kwargs: Any) -> tuple[Figure, Axes]:
        """Draw the heatmap; see `lightning_cka.plot_cka`."""
        from lightning_cka.plotting import plot_cka

        return plot_cka(self, ax, **kwargs)

    def save(self, path: str | Path) -> None:
        """Write to a JSON file, floats in full and ``nan`` as null."""
        content = asdict(self)
        for name in ("matrix", "standard_error"):
            if content[name] is not None:
                rows = content[name].tolist()
                content[name] = [[None if value != value else value for value in row] for row in rows]
        Path(path).write_text(json.dumps(content, indent=1, allow_nan=False))

    @classmethod
    def load(cls, path: str | Path) -> CKAResult:
        """Read what `save` wrote."""
        content = json.loads(Path(path).read_text())
        for name in ("matrix", "standard_error"):
            if content[name] is not None:
                rows = [[float("nan") if value is None else value for value in row] for row in content[name]]
                content[name] = torch.tensor(rows, dtype=torch.float64)
        return cls(**content)
