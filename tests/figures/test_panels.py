"""Several heatmaps in one figure."""

import pytest
from figure_contents import all_texts_are_inside, texts
from lightning_cka.compare.flags import Flag
from lightning_cka.figures.layout import panels_across
from lightning_cka.plotting import plot_comparison
from synthetic_results import LONG, result, with_flags


@pytest.mark.parametrize(("count", "across"), [(1, 4), (2, 4), (5, 2)])
@pytest.mark.parametrize(("rows", "columns", "pattern"), [(3, 4, "layer{}"), (45, 25, LONG)])
def test_several_heatmaps_share_a_range_and_fit(count, across, rows, columns, pattern):
    results = [result(rows, columns, pattern, epoch=epoch) for epoch in range(count)]
    results[-1] = with_flags(results[-1], Flag(results[-1].layers[1], "effective_dimension", 1.5, 2.0, ()))
    figure, grid = plot_comparison(results, across=across)
    assert [ax.get_title() for ax in grid] == [f"Live, epoch {epoch}, and initial" for epoch in range(count)]
    assert {ax.get_images()[0].get_clim() for ax in grid} == {(0, 1)}
    assert all_texts_are_inside(figure)
    assert texts(figure.texts)[0].startswith(f"Live, epoch {count - 1}, and initial: ⚠ effective dimension < 2")
    (bar,) = (child for ax in grid for child in ax.child_axes)
    assert (bar.bbox.y0, bar.bbox.y1) == pytest.approx((grid[-1].bbox.y0, grid[0].bbox.y1))
    bar.set_in_layout(False)
    boxes = [ax.get_tightbbox() for ax in grid]
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
    assert bar.bbox.x0 > max(ax.bbox.x1 for ax in grid)


@pytest.mark.parametrize(
    ("count", "lines", "across"), [(1, 1, 1), (4, 1, 4), (5, 2, 3), (6, 2, 3), (9, 3, 3), (13, 4, 4)]
)
def test_less_than_a_quarter_of_the_panels_is_empty(count, lines, across):
    assert panels_across(count, 4) == across
    assert lines * across - count < lines * across / 4


def test_each_result_needs_one_title():
    with pytest.raises(ValueError, match="there is no result to draw"):
        plot_comparison([])
    with pytest.raises(ValueError, match="one title per result, but got 2 results and 1 titles"):
        plot_comparison([result(), result()], ["a"])
    assert [ax.get_title() for ax in plot_comparison([result(), result()], ["a", "b"])[1]] == ["a", "b"]
