"""Draw one map of samples: points with colours, and numbers beside marked samples."""

from __future__ import annotations

import textwrap
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator

from lightning_cka.figures.flag_notes import colour_on
from lightning_cka.figures.layout import figure_of
from lightning_cka.figures.own_cell import axes_size
from lightning_cka.figures.user_style import font_size, text_scale

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from lightning_cka.compare.sample_maps import SampleMap
    from lightning_cka.figures.label_colours import LabelColours

_DIRECTIONS = ((1, 1), (-1, 1), (1, -1), (-1, -1), (0, 1), (0, -1), (1, 0), (-1, 0))
_DISTANCES = (4, 11, 19, 27)
"""Where a number is written beside its point: in the first direction and at the first distance, in points, where it is
inside the axes and no other number and no ring is."""

_SIDE = 2.0
"""Length in inches of a side of a panel below which points are smaller."""

_RADIUS = 4.5
"""Radius of a ring around a marked sample, in points."""

_HORIZONTAL, _VERTICAL = {1: "left", 0: "center", -1: "right"}, {1: "bottom", 0: "center", -1: "top"}


def draw_map(ax: Axes, each: SampleMap, colours: LabelColours, limit: float) -> None:
    """Draw the samples of a map, without marks; see `draw_marks`.

    Args:
        ax: Axes to draw into.
        each: The map. If it has a problem, the axes stay empty and say which.
        colours: Colours of the samples.
        limit: Half the length of both axes.
    """
    ax.set_xlim(-limit, limit)
    ax.set_ylim(-limit, limit)
    ax.set_aspect("equal")
    ax.tick_params(labelsize=font_size("note"), length=2)
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
    if each.problem:
        _say(ax, each.problem)
        return
    _draw_points(ax, each, colours)
    ax.set_xlabel(axis_label(1, each.shares[0]), fontsize=font_size("tick"), labelpad=2)
    ax.set_ylabel(axis_label(2, each.shares[1]), fontsize=font_size("tick"), labelpad=2)


def reach(each: SampleMap) -> float:
    """Return how far the samples of a map are from its center, along the axes; 0 without samples."""
    return float(each.coordinates.abs().max()) if len(each.samples) else 0.0


def flag_colour(ax: Axes) -> str:
    """Return the colour of marks that can be seen on the background of the axes."""
    return str(colour_on(ax))


def mark_handle(ax: Axes) -> Line2D:
    """Return what a legend shows of a mark."""
    style: dict[str, Any] = {"markerfacecolor": "none", "markeredgecolor": flag_colour(ax), "markeredgewidth": 1.2}
    return Line2D([], [], linestyle="none", marker="o", markersize=6.5, **style)


def _say(ax: Axes, problem: str) -> None:
    ax.set_xticks([])
    ax.set_yticks([])
    ax.text(
        0.5,
        0.5,
        textwrap.fill(problem, max(8, int(9 * axes_size(ax)[0] / text_scale("tick")))),
        transform=ax.transAxes,
        ha="center",
        va="center",
        fontsize=font_size("tick"),
    )


def axis_label(number: int, share: float) -> str:
    """Return the title of one of the two axes of a map: which part of the variance it shows."""
    percent = "<1" if 0.0005 < share < 0.005 else f"{100 * share:.0f}"
    return f"axis {number}: {percent} % of variance"


def _draw_points(ax: Axes, each: SampleMap, colours: LabelColours) -> None:
    labels: Sequence[int | str | None] = colours.of(each.samples) or [None] * len(each.samples)
    places = defaultdict(list)
    for place, label in enumerate(labels):
        places[colours.style(label)[1]].append(place)
    size = (16.0 if len(labels) <= 300 else 7.0) * min(1.0, axes_size(ax)[0] / _SIDE)
    for marker, own in places.items():
        x, y = each.coordinates[own].T.numpy()
        ax.scatter(
            x,
            y,
            s=size,
            c=[colours.style(labels[place])[0] for place in own],
            marker=marker,
            linewidths=0.3,
            edgecolors=[ax.get_facecolor()],
            clip_on=False,
            zorder=2,
        )


def draw_marks(ax: Axes, each: SampleMap) -> None:
    """Draw rings around the marked samples of a map and their numbers beside them, for axes that have their size."""
    if each.problem or not each.marked:
        return
    colour = flag_colour(ax)
    places = {str(sample): each.coordinates[each.samples.index(sample)].tolist() for sample in each.marked}
    for first, second in places.values():
        ax.scatter(
            [first], [second], s=52, facecolors="none", edgecolors=colour, linewidths=1.2, clip_on=False, zorder=4
        )
    write_beside(ax, places, colour)


def write_beside(ax: Axes, places: Mapping[str, Sequence[float]], colour: Any, *, radius: float = _RADIUS) -> None:
    """Write texts beside points, such that they cover neither each other nor points, as far as there is room.

    Args:
        ax: Axes that have their size.
        places: Points in units of the data, by text.
        colour: Colour of the texts.
        radius: Radius of the points, in points of typography.
    """
    ax.apply_aspect()  # Otherwise the places of points are known when the figure is drawn.
    pixels_per_point = figure_of(ax).dpi / 72
    area = _Box(*(side / pixels_per_point for side in ax.bbox.bounds))
    points = {
        text: [pixels / pixels_per_point for pixels in ax.transData.transform(place)] for text, place in places.items()
    }
    rings = [_Box(x - radius, y - radius, 2 * radius, 2 * radius) for x, y in points.values()]
    taken: list[_Box] = []
    for text, (first, second) in places.items():
        dx, dy, box = _free_place(points[text], text, area, taken, rings)
        taken.append(box)
        ax.annotate(
            text,
            (first, second),
            (dx, dy),
            textcoords="offset points",
            ha=_HORIZONTAL[_sign(dx)],
            va=_VERTICAL[_sign(dy)],
            fontsize=font_size("note"),
            color=colour,
            annotation_clip=False,
            zorder=5,
            path_effects=[withStroke(linewidth=1.5, foreground=ax.get_facecolor())],
            arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.5} if max(abs(dx), abs(dy)) > 8 else None,
        )


class _Box(NamedTuple):
    """A rectangle, in points."""

    left: float
    bottom: float
    width: float
    height: float

    def overlaps(self, other: _Box) -> bool:
        return (
            self.left < other.left + other.width
            and other.left < self.left + self.width
            and self.bottom < other.bottom + other.height
            and other.bottom < self.bottom + self.height
        )

    def is_inside(self, other: _Box) -> bool:
        return (
            other.left <= self.left
            and self.left + self.width <= other.left + other.width
            and other.bottom <= self.bottom
            and self.bottom + self.height <= other.bottom + other.height
        )


def _free_place(
    point: Sequence[float], text: str, area: _Box, numbers: Sequence[_Box], rings: Sequence[_Box]
) -> tuple[float, float, _Box]:
    """Return where to write a text beside a point: its distance from the point, and its box.

    It overlaps no number and no ring and is inside the area; if there is no such place, it overlaps no number.
    """
    size = font_size("note")
    (x, y), width, height = point, 0.6 * size * len(text), 1.1 * size
    places = []
    for distance in _DISTANCES:
        for dx, dy in _DIRECTIONS:
            left = x + distance * dx - width * (1 - dx) / 2
            bottom = y + distance * dy - height * (1 - dy) / 2
            places.append((float(distance * dx), float(distance * dy), _Box(left, bottom, width, height)))
    beside = [place for place in places if not any(map(place[2].overlaps, numbers))]
    inside = [place for place in beside if place[2].is_inside(area)]
    free = [place for place in inside if not any(map(place[2].overlaps, rings))]
    return (free or inside or beside or places)[0]


def _sign(value: float) -> int:
    return (value > 0) - (value < 0)
