"""`HeatmapBackground`: a heatmap without what changes from one epoch to the next, to draw that alone."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg, RendererAgg
from matplotlib.text import Text

from lightning_cka.compare.run_files import moment_text
from lightning_cka.figures.heatmap import notes_below, plot_cka
from lightning_cka.figures.heatmap_style import HeatmapStyle
from lightning_cka.figures.pictures import PRINT_DPI, rgb_pixels
from lightning_cka.figures.title_room import title_lengths

if TYPE_CHECKING:
    from matplotlib.image import AxesImage
    from numpy.typing import NDArray

    from lightning_cka.compare.result import CKAResult
    from lightning_cka.figures.png_encoder import Pixels

_OPAQUE = 255


class HeatmapBackground:
    """What heatmaps with the same ticks, colours, undefined cells and numbers of notes have in common.

    The colours of the cells, their frame, the titles and the notes are drawn over it. The cells are not drawn by
    matplotlib, which takes longer than all else, but copied to the pixels where it has drawn them once.

    Args:
        result: A result with that in common.

    Attributes:
        size: Width and height in pixels.
        is_exact: Whether other values give the picture that matplotlib draws of them. They do not if the user's style
            draws a grid or ticks over the cells.
    """

    def __init__(self, result: CKAResult) -> None:
        figure, ax = plot_cka(result)
        figure.set_dpi(PRINT_DPI)
        canvas: Any = FigureCanvasAgg(figure)  # Its methods have no types, nor do those of a renderer.
        self._style = replace(HeatmapStyle(), max_titles=title_lengths([ax]))
        self._image = ax.images[0]
        titles = [child for child in ax.get_children() if isinstance(child, Text) and child not in ax.texts]
        title = max(titles, key=lambda text: len(text.get_text()))  # In the middle, or where the user's style has it.
        self._texts = [title, ax.xaxis.label, ax.yaxis.label, *ax.texts]
        in_order = (*ax.patches, *ax.spines.values(), *self._texts)
        self._artists = [artist for artist in in_order if artist.get_visible()]
        values = result.matrix.numpy()
        others = np.random.default_rng(0).random(values.shape).astype(values.dtype)
        others[np.isnan(values)] = np.nan
        self._image.set_data(np.ma.masked_invalid(others))
        canvas.draw()  # It also finds the places of texts.
        expected, places = rgb_pixels(canvas), [text.get_position() for text in self._texts]
        self._cells = _CellPlaces(self._image, canvas.get_renderer(), values.shape)
        for artist in (self._image, *self._artists):
            artist.set_visible(False)
        canvas.draw()
        self.size = canvas.get_width_height()
        self._background = np.array(canvas.buffer_rgba())
        for artist in (self._image, *self._artists):
            artist.set_visible(True)
        for text, place in zip(self._texts, places, strict=True):
            text.set_position(place)  # Those that are not drawn have moved.
        self.is_exact = np.array_equal(self._draw_values(others, self.new_renderer()), expected)

    @property
    def num_bytes(self) -> int:
        """Return the memory that the picture without what changes takes."""
        return self._background.nbytes

    def new_renderer(self) -> Any:
        """Return a renderer for `draw`, which all backgrounds of its size can use in turn."""
        make: Any = RendererAgg
        return make(*self.size, PRINT_DPI)

    def draw(self, result: CKAResult, renderer: Any) -> Pixels:
        """Return the pixels that `plot_cka` gives.

        Args:
            result: A result that has in common what this background has.
            renderer: From `new_renderer`.
        """
        across, up = self._style.titles(result)
        notes = notes_below(result, self._style, self._style.labels(result))
        texts = [moment_text(result.epoch, result.step), across, up, *("\n".join(lines) for lines in notes if lines)]
        for artist, text in zip(self._texts, texts, strict=True):
            artist.set_text(text)
        return self._draw_values(result.matrix.numpy(), renderer)

    def _draw_values(self, values: NDArray[Any], renderer: Any) -> Pixels:
        np.copyto(np.asarray(renderer.buffer_rgba()), self._background)
        self._cells.fill(renderer, self._image.to_rgba(np.ma.masked_invalid(values), bytes=True))
        for artist in self._artists:
            artist.draw(renderer)
        return rgb_pixels(renderer)


class _CellPlaces:
    """The pixels of each cell, as matplotlib chooses them.

    Args:
        image: The image of the cells.
        renderer: Its content is lost.
        shape: Numbers of rows and columns of the cells.
    """

    def __init__(self, image: AxesImage, renderer: Any, shape: tuple[int, ...]) -> None:
        codes = np.arange(shape[0] * shape[1], dtype="<u4").reshape(shape)  # One colour for each cell.
        colours = codes[..., None].view(np.uint8)
        colours[..., 3] = _OPAQUE
        image.set_data(colours)
        renderer.clear()
        image.draw(renderer)
        found = np.asarray(renderer.buffer_rgba())
        is_drawn = found[..., 3] == _OPAQUE
        (rows,), (columns,) = (np.nonzero(is_drawn.any(axis=axis)) for axis in (1, 0))
        self._area = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        numbers = found[self._area].copy().view("<u4")[..., 0] & 0xFFFFFF
        self._rows, self._columns = numbers[:, 0] // shape[1], numbers[0] % shape[1]

    def fill(self, renderer: Any, colours: NDArray[np.uint8]) -> None:
        """Give the pixels of each cell its colour ``(rows, columns, 4)``."""
        lines = colours.view(np.uint32)[..., 0][:, self._columns]
        np.asarray(renderer.buffer_rgba()).view(np.uint32)[..., 0][self._area] = lines[self._rows]
