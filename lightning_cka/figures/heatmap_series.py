"""`HeatmapSeries`: the heatmaps of a run as PNG files, where what stays the same is drawn once."""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING, Any

from matplotlib import rcParams

from lightning_cka.compare.run_files import moment_text
from lightning_cka.figures.heatmap import notes_below, plot_cka
from lightning_cka.figures.heatmap_background import HeatmapBackground
from lightning_cka.figures.heatmap_style import HeatmapStyle
from lightning_cka.figures.labels import value_label
from lightning_cka.figures.pictures import PRINT_DPI, png, render
from lightning_cka.figures.png_encoder import PngEncoder

if TYPE_CHECKING:
    from lightning_cka.compare.result import CKAResult
    from lightning_cka.figures.png_encoder import Pixels

MAX_BYTES = 2**27
"""Memory beyond which nothing more is kept. A heatmap of 40 layers takes 30 MiB, one of 6 layers 4 MiB."""


class HeatmapSeries:
    """Draws the heatmaps of several keys, each key's one after another, as `plot_cka` does and with the same pixels.

    A heatmap that differs from the last one of its key in values, titles and the words of notes alone is drawn over
    what the two have in common: a tenth of the time. No result is kept.
    """

    def __init__(self) -> None:
        self._keys: dict[str, _OfOneKey] = {}
        self._renderers: dict[tuple[int, int], Any] = {}

    @property
    def num_bytes(self) -> int:
        """Return the memory that is kept."""
        return sum(each.num_bytes for each in self._keys.values()) + 4 * sum(w * h for w, h in self._renderers)

    def png(self, key: str, result: CKAResult) -> bytes:
        """Return the PNG file of a heatmap.

        Args:
            key: Heatmaps of one key follow each other.
            result: The next result of this key.
        """
        if self.num_bytes > MAX_BYTES and (key not in self._keys or self._keys[key].grows_with(result)):
            self._keys.pop(key, None)
            return png(render(plot_cka(result)[0], PRINT_DPI), PRINT_DPI)
        return self._keys.setdefault(key, _OfOneKey()).png(result, self._renderers)

    def clear(self) -> None:
        """Free the memory."""
        self._keys.clear()
        self._renderers.clear()


class _OfOneKey:
    """Heatmaps of one key. From the second one with the same in common, they are drawn over a background."""

    def __init__(self) -> None:
        self._encoder = PngEncoder(PRINT_DPI)
        self._common: Hashable = None
        self._background: HeatmapBackground | None = None
        self._is_second = False

    @property
    def num_bytes(self) -> int:
        return self._encoder.num_bytes + (0 if self._background is None else self._background.num_bytes)

    def grows_with(self, result: CKAResult) -> bool:
        """Whether the heatmap of a result needs a new background."""
        return self._is_second or common_content(result) != self._common

    def png(self, result: CKAResult, renderers: dict[tuple[int, int], Any]) -> bytes:
        common = common_content(result)
        if common != self._common:
            self._common, self._background, self._is_second = common, None, True
        elif self._is_second:  # Not the first one: a heatmap with notes of changing length has no successor.
            background = HeatmapBackground(result)
            self._background, self._is_second = (background if background.is_exact else None), False
        return self._encoder.encode(self._pixels(result, renderers))

    def _pixels(self, result: CKAResult, renderers: dict[tuple[int, int], Any]) -> Pixels:
        if self._background is None:
            return render(plot_cka(result)[0], PRINT_DPI)
        if self._background.size not in renderers:
            renderers.clear()  # One is enough: the heatmaps of a run have the same size as a rule.
            renderers[self._background.size] = self._background.new_renderer()
        return self._background.draw(result, renderers[self._background.size])


def common_content(result: CKAResult) -> Hashable:
    """Return what must be equal for two heatmaps to have a `HeatmapBackground` in common.

    These are the labels of ticks and colour bar, the cells that are ``nan``, the numbers of lines of notes, whether
    there is a title, and the user's style.
    """
    values, style = result.matrix.numpy(), HeatmapStyle()
    labels = style.labels(result)
    return (
        (values.dtype.str, values.shape, (values != values).tobytes()),
        (tuple(labels.rows), tuple(labels.columns), result.layers, result.reference_layers),
        tuple(map(frozenset, style.flagged(result))),
        tuple(map(len, notes_below(result, style, labels))),
        (value_label(result), bool(moment_text(result.epoch, result.step))),
        repr(sorted(rcParams.items(), key=lambda item: item[0])),
    )
