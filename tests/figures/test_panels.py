"""Several heatmaps in one figure."""

import pytest
from figure_contents import all_texts_are_inside, texts
from lightning_cka.compare.flags import Flag
from lightning_cka.plotting import plot_comparison
from synthetic_results import LONG, result, with_flags


@pytest.mark.parametrize(("count", "across"), [(1, 4), (2, 4), (5, 2)])
@pytest.mark.parametrize(("rows", "columns", "pattern"), [(3, 4, "layer{}"), (45, 25, LONG)])
def test_several_heatmaps_share_a_range_and_fit(count, across, rows, columns, pattern):
    results = [result(rows, columns, pattern, epoch=epoch) for epoch in range(count)]
    results[-1] = with_flags(results[-1], Flag(results[-1].layers[1], "effective_dimension", 1.5, 2.0, ()))
    figure, grid = plot_comparison(results, across=across)
    assert [ax.get_title() for ax in grid] == [f"Live and initial, epoch {epoch}" for epoch in range(count)]
    assert {ax.get_images()[0].get_clim() for ax in grid} == {(0, 1)}
    assert all_texts_are_inside(figure)
    boxes = [ax.get_tightbbox() for ax in grid]
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
    assert texts(figure.texts)[0].startswith(f"Live and initial, epoch {count - 1}: ⚠ effective dimension < 2")
    # One bar for each line of panels.
    assert sum(len(ax.child_axes) for ax in grid) == -(-count // across)


def test_each_result_needs_one_title():
    with pytest.raises(ValueError, match="there is no result to draw"):
        plot_comparison([])
    with pytest.raises(ValueError, match="one title per result, but got 2 results and 1 titles"):
        plot_comparison([result(), result()], ["a"])
    assert [ax.get_title() for ax in plot_comparison([result(), result()], ["a", "b"])[1]] == ["a", "b"]
