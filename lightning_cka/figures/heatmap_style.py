"""How a heatmap is drawn into given axes, alone in a figure or as one of several."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from lightning_cka.compare.flag_messages import flag_summary
from lightning_cka.compare.flags import INPUT
from lightning_cka.compare.intervals import too_few_batches
from lightning_cka.compare.run_files import short_moment_text
from lightning_cka.figures.cell_text import write_values
from lightning_cka.figures.cells import draw_cells
from lightning_cka.figures.flag_notes import FLAG, marked
from lightning_cka.figures.labels import MAX_LABEL, axis_title, short_labels
from lightning_cka.figures.layout import MAX_TICKS
from lightning_cka.figures.ticks import set_ticks
from lightning_cka.hsic.measure import measure_title

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.image import AxesImage
    from numpy.typing import NDArray

    from lightning_cka.compare.result import CKAResult


class HeatmapLabels(NamedTuple):
    """Texts of a heatmap.

    Attributes:
        rows: Labels of the model's layers, with a sign before flagged ones.
        columns: Labels of the reference's layers, with a sign before flagged ones.
        notes: Reasons of the flags, one text per reason.
    """

    rows: list[str]
    columns: list[str]
    notes: list[str]


@dataclass(frozen=True)
class HeatmapStyle:
    """Options of a heatmap; see `plot_cka`.

    Attributes:
        max_titles: Maximum number of characters of the titles of x and y.
        moment: Whether the title of the model's axis has the moment of training.
    """

    add_text: bool = False
    cmap: str | Colormap = "magma"
    vmin: float = 0.0
    vmax: float = 1.0
    triangle: bool = False
    max_ticks: int = MAX_TICKS
    max_label: int = MAX_LABEL
    flags: bool = True
    max_titles: tuple[int, int] = (40, 40)
    moment: bool = True

    def labels(self, result: CKAResult) -> HeatmapLabels:
        """Return the labels of rows and columns, and the notes on flags if ``flags`` is True."""
        rows, columns = (
            marked(short_labels(names, self.max_label)[0], flagged)
            for names, flagged in zip((result.layers, result.reference_layers), self.flagged(result), strict=True)
        )
        if not self.flags:
            return HeatmapLabels(rows, columns, [])
        kind = result.diagnostics.sample_kind if result.diagnostics else "sample"
        notes = flag_summary(result.flags, kind, measure_title(result.measure))
        return HeatmapLabels(rows, columns, [f"{FLAG} {note}" for note in notes])

    def draw(self, result: CKAResult, ax: Axes) -> AxesImage:
        """Draw the cells, the ticks and the titles of the axes.

        Returns:
            The image of the cells.

        Raises:
            ValueError: ``triangle`` is True, but the result compares two models.
        """
        if self.triangle and not result.self_comparison:
            raise ValueError("triangle=True draws half of a symmetric matrix, but this one compares two models")
        values = result.matrix.numpy()
        hidden = np.triu(np.ones(values.shape, dtype=bool), 1) if self.triangle else None
        image = draw_cells(ax, values, self.cmap, self.vmin, self.vmax, hidden)
        self.set_ticks(result, ax)
        across, up = self.titles(result)
        ax.set_xlabel(across)
        ax.set_ylabel(up)
        if self.add_text:
            write_values(ax, image, values, _known_errors(result), hidden)
        return image

    def titles(self, result: CKAResult) -> tuple[str, str]:
        """Return the titles of the x and the y axis."""
        when = short_moment_text(result.epoch, result.step) if self.moment else ""
        model = (result.model_name, short_labels(result.layers)[1], f", {when}" if when else "")
        reference = (result.reference_name, short_labels(result.reference_layers)[1], "")
        across = axis_title(*(model if result.self_comparison else reference), self.max_titles[0])
        return across, axis_title(*model, self.max_titles[1])

    def set_ticks(self, result: CKAResult, ax: Axes) -> None:
        """Label as many layers along both axes as there is room for."""
        rows, columns, _ = self.labels(result)
        flagged_rows, flagged_columns = self.flagged(result)
        set_ticks(ax.xaxis, columns, flagged_columns, self.max_ticks, result.reference_layers)
        set_ticks(ax.yaxis, rows, flagged_rows, self.max_ticks, result.layers)

    def flagged(self, result: CKAResult) -> tuple[set[int], set[int]]:
        """Return the indices of flagged rows and columns; empty if ``flags`` is False."""
        return _flagged(result) if self.flags else (set(), set())


def _flagged(result: CKAResult) -> tuple[set[int], set[int]]:
    """Return the indices of flagged rows and columns."""
    flags = [flag for flag in result.flags if flag.layer != INPUT]
    rows = {result.layers.index(flag.layer) for flag in flags if not flag.of_reference}
    columns = {result.reference_layers.index(flag.layer) for flag in flags if flag.of_reference}
    return rows, rows if result.self_comparison else columns


def _known_errors(result: CKAResult) -> NDArray[np.float64] | None:
    """Return the standard errors, or None if all are ``nan``, or if there are too few batches for an interval."""
    errors = result.standard_error
    if errors is None or errors.isnan().all() or too_few_batches(result.effective_batches):
        return None
    return errors.numpy()
