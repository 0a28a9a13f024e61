"""Mark flagged layers in a figure, and write below it why they are flagged."""

from __future__ import annotations

import textwrap
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

from lightning_cka.figures.backgrounds import is_dark
from lightning_cka.figures.labels import plain
from lightning_cka.figures.layout import figure_of
from lightning_cka.figures.user_style import font_size, text_scale

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FLAG = "⚠"
"""Sign in the label of a flagged layer."""

FLAG_COLOUR = "#b3261e"
_ON_DARK = "#ff7b6b"
"""The colour of flags on a dark background."""

_LINE_HEIGHT = 0.14
_CHARACTER = 0.068
"""Mean width in inches of a character of a note."""


def colour_on(background: Axes | Figure, colour: Any = FLAG_COLOUR) -> Any:
    """Return the colour of flags that can be seen on a background; other colours are returned as they are."""
    return _ON_DARK if colour == FLAG_COLOUR and is_dark(background) else colour


def marked(labels: Sequence[str], flagged: Collection[int]) -> list[str]:
    """Return the labels, with a warning sign before those of flagged layers."""
    return [f"{FLAG} {label}" if place in flagged else label for place, label in enumerate(labels)]


def wrap_notes(notes: Sequence[str], width: float) -> list[str]:
    """Wrap notes into lines that fit into a figure.

    Args:
        notes: One text per note.
        width: Width of the figure in inches.
    """
    lines = (
        textwrap.wrap(note, int(width / _CHARACTER / text_scale("note")), subsequent_indent="    ") for note in notes
    )
    return [plain(line) for wrapped in lines for line in wrapped]


def notes_height(lines: Sequence[str]) -> float:
    """Return the height of the lines in inches."""
    return _LINE_HEIGHT * text_scale("note") * (len(lines) + 0.5) if lines else 0.0


def write_below_axes(ax: Axes, lines: Sequence[str], distance: float, colour: str | None = FLAG_COLOUR) -> None:
    """Write lines at the left edge of the figure.

    Args:
        ax: Axes in the figure.
        lines: Lines of the notes.
        distance: Distance in inches between the axes and the notes, for the labels and the title of the x axis.
        colour: Colour of the lines. None: that of other texts.
    """
    figure, box = figure_of(ax), ax.get_position()
    width, height = box.width * figure.get_figwidth(), box.height * figure.get_figheight()
    left = -(box.x0 * figure.get_figwidth() - 0.1) / width
    ax.text(
        left,
        -(distance - 0.05) / height,
        "\n".join(lines),
        transform=ax.transAxes,
        va="top",
        fontsize=font_size("note"),
        color=colour_on(figure, colour),
        linespacing=1.25,
    )


def write_at_bottom(
    figure: Figure, lines: Sequence[str], colour: str | None = FLAG_COLOUR, height: float = 0.0
) -> None:
    """Write lines into the lower left corner of the figure, ``height`` inches above its edge.

    ``colour`` None is that of other texts.
    """
    if not lines:
        return
    total_width, total_height = figure.get_size_inches()
    figure.text(
        0.1 / total_width,
        (0.05 + height) / total_height,
        "\n".join(lines),
        va="bottom",
        fontsize=font_size("note"),
        color=colour_on(figure, colour),
    )


def write_above_axes(ax: Axes, text: str) -> None:
    """Write one line between the axes and their title."""
    write_at_height(ax, f"{FLAG} {text}", 4, FLAG_COLOUR)


def write_short_notes(ax: Axes, lines: Sequence[tuple[str, str | None]]) -> None:
    """Write lines between the axes and their title, which moves up.

    The lines have no part in the layout of the figure, except for the place of the title.

    Args:
        ax: Axes with a title.
        lines: Texts from top to bottom, each with its colour. Colour None is that of other texts.
    """
    if not lines:
        return
    step = font_size("note") * 1.3
    for place, (text, colour) in enumerate(reversed(lines)):
        write_at_height(ax, text, 3 + place * step, colour)
    ax.set_title(ax.get_title(), fontsize=font_size("title"), pad=5 + len(lines) * step)


def write_at_height(ax: Axes, text: str, height: float, colour: str | None = None) -> None:
    """Write one line above the axes.

    Args:
        ax: The axes.
        text: The line.
        height: Distance of the line from the axes, in points.
        colour: Colour of the line. None: that of other texts.
    """
    ax.annotate(
        text,
        (0.5, 1.0),
        (0, height),
        xycoords="axes fraction",
        textcoords="offset points",
        ha="center",
        va="bottom",
        fontsize=font_size("note"),
        color=colour_on(figure_of(ax), colour),
        annotation_clip=False,
    ).set_in_layout(False)
