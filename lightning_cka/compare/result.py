"""`CKAResult`: one comparison of two models, or of a model with itself."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lightning_cka.compare.diagnostics import Diagnostics
from lightning_cka.compare.flags import Flag
from lightning_cka.compare.result_format import (
    MATRICES,
    nan_to_null,
    number,
    read_diagnostics,
    to_plain,
    with_new_names,
)
from lightning_cka.hsic.uncertainty import student_interval
from lightning_cka.runtime.deprecation import renamed_arguments, renamed_attribute
from lightning_cka.runtime.files import write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@renamed_arguments(within="self_comparison")
@dataclass(frozen=True, eq=False, repr=False)
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
        self_comparison: both sides are one and the same model.
        unbiased: the estimator of HSIC. Values of the biased one compare across papers, not across batch sizes.
        effective_batches: number of batches of equal size that would tell as much.
        mean_standard_error: of `mean`; ``nan`` for fewer than 2 batches.
        diagnostics: when not to trust the values, and because of which samples.
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
    self_comparison: bool = False
    unbiased: bool = True
    effective_batches: float | None = None
    mean_standard_error: float | None = None
    diagnostics: Diagnostics | None = None

    within = renamed_attribute("within", "self_comparison")

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
            value = torch.as_tensor(value, device="cpu").detach().to("cpu", torch.float64)
            if value.shape != shape:
                raise ValueError(f"{name} must have shape {shape} to fit the layers, but has {tuple(value.shape)}")
            object.__setattr__(self, name, value)

    def __repr__(self) -> str:
        moment = "" if self.epoch is None else f", epoch {self.epoch}, step {self.step}"
        return (
            f"CKAResult({self.model_name}{moment} and {self.reference_name}: {len(self.layers)} x "
            f"{len(self.reference_layers)} layers, {self.kernel} kernel, {self.num_samples} samples, mean "
            f"{self.mean():.3f}, {len(self.flags)} flags)"
        )

    def same_named(self) -> dict[str, float]:
        """CKA of each layer with the reference's layer of the same name."""
        return {name: float(self.matrix[cell]) for name, cell in self.same_named_pairs().items()}

    def same_named_pairs(self) -> dict[str, tuple[int, int]]:
        """Row and column of each layer that has a namesake in the reference."""
        columns = {name: column for column, name in enumerate(self.reference_layers)}
        return {name: (row, columns[name]) for row, name in enumerate(self.layers) if name in columns}

    @property
    def flags(self) -> tuple[Flag, ...]:
        """Why which layers' values are not to be trusted; empty if nothing was found, or looked for."""
        return self.diagnostics.flags if self.diagnostics else ()

    def mean_cells(self) -> Tensor:
        """``(L, R)`` bool, the cells of `mean`.

        Same-named layers; all pairs where there are none; within one model, different layers. Not those that are
        ``nan``.
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
        """Mean CKA of same-named layers; of all pairs where there are none; within one model, of different layers.

        Cells that are ``nan`` are left out; ``nan`` if no cell is left.
        """
        return float(self.matrix[self.mean_cells()].mean())

    def confidence_interval(self, level: float = 0.95) -> tuple[Tensor, Tensor]:
        """Lower and upper bounds ``(L, R)`` of each value, from Student's t with ``effective_batches`` - 1 degrees.

        Args:
            level: probability, in (0, 1), that an interval holds the value that infinitely many samples would give.

        Returns:
            Not clipped to [-1, 1]; ``nan`` for fewer than 2 batches.

        Raises:
            ValueError: a level outside (0, 1), or a result without standard errors.
        """
        if self.standard_error is None or self.effective_batches is None:
            raise ValueError("this result has no standard errors, or not the number of batches behind them")
        return student_interval(self.matrix, self.standard_error, self.effective_batches, level)

    def plot(self, ax: Axes | None = None, **kwargs: Any) -> tuple[Figure, Axes]:
        """Draw the heatmap; see `lightning_cka.plot_cka`."""
        from lightning_cka.figures.heatmap import plot_cka

        return plot_cka(self, ax, **kwargs)

    def to_rows(self) -> list[dict[str, Any]]:
        """The values in long format: a row for each pair of layers, for a table or a data frame."""
        errors = torch.full_like(self.matrix, torch.nan) if self.standard_error is None else self.standard_error
        return [
            {
                "epoch": self.epoch,
                "step": self.step,
                "layer": layer,
                "reference_layer": other,
                "cka": value,
                "standard_error": error,
            }
            for layer, values, layer_errors in zip(self.layers, self.matrix.tolist(), errors.tolist(), strict=True)
            for other, value, error in zip(self.reference_layers, values, layer_errors, strict=True)
        ]

    def state(self) -> dict[str, Any]:
        """All of it as tensors, numbers, strings, lists and dicts, for a checkpoint; see `from_state`."""
        content: dict[str, Any] = to_plain(self)
        return content

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> CKAResult:
        """What `state` gave."""
        content = with_new_names(state)
        if content.get("diagnostics") is not None:
            content["diagnostics"] = read_diagnostics(content["diagnostics"])
        return cls(**content)

    def save(self, path: str | Path) -> None:
        """Write to a JSON file, whole or not at all, floats in full and ``nan`` as null.

        Raises:
            OSError: it cannot be written.
        """
        content = self.state()
        for name in MATRICES:
            if content[name] is not None:
                content[name] = content[name].tolist()
        write_atomically(Path(path), json.dumps(nan_to_null(content), indent=1, allow_nan=False).encode())

    @classmethod
    def load(cls, path: str | Path) -> CKAResult:
        """Read what `save` wrote.

        Raises:
            ValueError: it is no such file.
        """
        path = Path(path)
        try:
            content = json.loads(path.read_text())
            for name in MATRICES:
                if content[name] is not None:
                    content[name] = torch.tensor(
                        [[number(value) for value in row] for row in content[name]], dtype=torch.float64, device="cpu"
                    )
            return cls.from_state(content)
        except (KeyError, TypeError, AttributeError, json.JSONDecodeError, UnicodeDecodeError) as error:
            raise ValueError(f"{path.name!r} is no result of lightning_cka: {type(error).__name__}: {error}") from error
