"""Where things are in a figure, and what its texts say."""

from __future__ import annotations

from itertools import pairwise


def texts(labels):
    return [label.get_text() for label in labels]


def lay_out(figure):
    """Place everything without drawing pixels, which takes most of the time. Return width and height in pixels."""
    figure.draw_without_rendering()
    return figure.canvas.get_width_height()


def is_inside(box, size):
    """Whether a box is inside a figure of that width and height."""
    width, height = size
    return box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height


def visible_texts(figure):
    """All texts of a figure and of its axes that are not empty."""
    labels = list(figure.texts)
    for ax in figure.axes:
        labels += [ax.title, ax.xaxis.label, ax.yaxis.label, *(ax.get_legend().get_texts() if ax.get_legend() else ())]
        for axis in (ax.xaxis, ax.yaxis):
            low, high = axis.get_view_interval()
            labels += [tick.label1 for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]
    return [label for label in labels if label.get_text()]


def all_texts_are_inside(figure):
    size = lay_out(figure)
    return all(is_inside(label.get_window_extent(), size) for label in visible_texts(figure))


def neighbours_overlap(labels):
    """Whether a label overlaps the next one along the axis."""
    boxes = [label.get_window_extent() for label in labels]
    return any(a.overlaps(b) for a, b in pairwise(boxes))
