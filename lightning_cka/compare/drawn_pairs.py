"""`DrawnPairs`: pairs of layers that can be drawn, and saved as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_cka.compare.layer_pairs import LayerPairs

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_PICTURES = (".png", ".pdf", ".svg")
_OTHER_PICTURES = (".jpg", ".jpeg", ".eps", ".ps", ".gif", ".tif", ".tiff", ".webp")


class DrawnPairs(LayerPairs):
    """Saves what `plot` draws, and lets notebooks show it."""

    def plot(self, ax: Axes | None = None, **kwargs: Any) -> tuple[Figure, Axes]:
        """Draw the values."""
        raise NotImplementedError

    def save(self, path: str | Path) -> None:
        """Write what `plot` draws to a picture.

        Args:
            path: Path of the file, with the ending ``.png`` (200 dpi), ``.pdf`` or ``.svg``. Missing folders are
                created.

        Raises:
            ValueError: The file has another ending.
            OSError: The file cannot be written.
        """
        if not self._save_picture(Path(path)):
            raise ValueError(
                f"save() writes {', '.join(_PICTURES)}, but got {Path(path).name!r}: for a table, use to_rows(). Save "
                "the two results to have the difference again"
            )

    def _repr_png_(self) -> bytes:
        """Return the picture as PNG, for notebooks."""
        from lightning_cka.figures.pictures import png, render

        return png(render(self.plot()[0]))

    def _save_picture(self, path: Path) -> bool:
        """Write a picture, and return True; or return False if the ending is not that of a picture.

        Raises:
            ValueError: The ending is that of a picture in another format.
            OSError: The file cannot be written.
        """
        ending = path.suffix.lower()
        if ending in _OTHER_PICTURES:
            raise ValueError(
                f"save() writes pictures as {', '.join(_PICTURES)}, but got {path.name!r}: for other pictures, call "
                f"plot()[0].savefig({path.name!r})"
            )
        if ending not in _PICTURES:
            return False
        from lightning_cka.figures.pictures import write_figure

        write_figure(self.plot()[0], path)
        return True
