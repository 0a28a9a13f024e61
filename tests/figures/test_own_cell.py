"""Figures that are drawn into axes of the user's figure stay in their part of it."""

import itertools

import pytest
from figure_contents import all_texts_are_inside, texts
from lightning_cka import plot_cka
from lightning_cka.compare.flags import Flag
from lightning_cka.plotting import plot_drift
from matplotlib.figure import Figure
from synthetic_results import LONG, diagnostics, result, settling_history

LAYOUTS = ["constrained", "tight", "compressed", None]
FLAGS = diagnostics(*(Flag("block.1.out", reason, 83.0, 20.0, (17,)) for reason in ("trace_ratio", "standard_error")))


def overlapping(figure):
    """Pairs of axes that overlap, with their labels, titles and colour bars."""
    figure.draw_without_rendering()
    boxes = [ax.get_tightbbox() for ax in figure.axes]
    return [(i, j) for i, j in itertools.combinations(range(len(boxes)), 2) if boxes[i].overlaps(boxes[j])]


def shares(figure, lines, across):
    """Width and height of each axes, as parts of an even share of the figure."""
    whole = figure.bbox
    return [
        share
        for ax in figure.axes
        for share in (ax.bbox.width / whole.width * across, ax.bbox.height / whole.height * lines)
    ]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("kind", "lines"), [("flagged", 1), ("flagged", 2), ("long names", 1), ("100 layers", 1)])
def test_heatmaps_in_subplots_keep_their_size_and_do_not_overlap(layout, lines, kind):
    across = 2
    figure = Figure((8, 3.6 * lines), layout=layout)
    drawn = {
        "flagged": result(8, 8, "block.{}.out", diagnostics=FLAGS),
        "long names": result(8, 8, LONG),
        "100 layers": result(100, 100),
    }[kind]
    for ax in figure.subplots(lines, across).flat:
        plot_cka(drawn, ax)
    assert overlapping(figure) == []
    assert min(shares(figure, lines, across)) >= 0.4
    assert all_texts_are_inside(figure)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_heatmap_beside_other_plots(layout):
    figure = Figure((8, 6), layout=layout)
    grid = figure.subplots(2, 2)
    for ax in grid.flat:
        ax.set(title="a title", xlabel="time", ylabel="value")
    plot_cka(result(8, 8, diagnostics=diagnostics()), grid[0, 0])
    assert [pair for pair in overlapping(figure) if 0 in pair] == []
    others = [ax.get_position().bounds for ax in (grid[0, 1], grid[1, 0], grid[1, 1])]
    if layout is None:
        untouched = [ax.get_position().bounds for ax in Figure((8, 6)).subplots(2, 2).flat[1:]]
        assert others == untouched


@pytest.mark.parametrize("layout", LAYOUTS)
def test_heatmaps_in_subfigures(layout):
    figure = Figure((8, 4), layout=layout)
    for part in figure.subfigures(1, 2):
        plot_cka(result(8, 8, "block.{}.out", diagnostics=FLAGS), part.subplots())
    assert overlapping(figure) == []
    assert min(shares(figure, 1, 2)) >= 0.4


def test_drift_maps_in_subplots():
    for layout in LAYOUTS:
        figure = Figure((8, 4), layout=layout)
        for ax in figure.subplots(1, 2):
            plot_drift(settling_history(5, 3), ax)
        assert overlapping(figure) == []
        assert min(shares(figure, 1, 2)) >= 0.4


def test_notes_in_own_axes_are_one_short_line_that_can_be_left_out():
    drawn = result(8, 8, "block.{}.out", diagnostics=FLAGS)
    _, ax = plot_cka(drawn, Figure((8, 4), layout="constrained").subplots(1, 2)[0])
    assert texts(ax.texts) == ["⚠ see the result's flags"]
    assert not ax.texts[0].get_in_layout()
    _, ax = plot_cka(drawn, Figure((8, 4)).subplots(1, 2)[0], flags=False)
    assert texts(ax.texts) == []


def test_drawing_again_into_the_same_axes():
    figure = Figure((8, 4))
    first, second = figure.subplots(1, 2)
    for ax in (first, second):
        plot_cka(result(8, 8), ax)
    before = first.get_position().bounds
    first.clear()
    plot_cka(result(8, 8), first)
    assert first.get_position().bounds == pytest.approx(before)


def test_tight_layout_afterwards():
    figure = Figure((8, 4))
    for ax in figure.subplots(1, 2):
        plot_cka(result(8, 8, "block.{}.out", diagnostics=FLAGS), ax)
    for _ in range(2):
        figure.tight_layout()
        assert overlapping(figure) == []
        assert min(shares(figure, 1, 2)) >= 0.4
        assert all_texts_are_inside(figure)
    figure.set_size_inches(11, 7)
    assert overlapping(figure) == []
