"""Several heatmaps in one figure."""

from dataclasses import replace

import pytest
from figure_contents import all_texts_are_inside, texts
from lightning_cka.compare.flags import Flag
from lightning_cka.figures.panel_grid import panels_across
from lightning_cka.plotting import plot_comparison
from matplotlib import rc_context
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
    assert panels_across("ab", "ab", count, 4) == across
    assert lines * across - count < lines * across / 4


def test_long_titles_say_only_what_differs():
    names = {"model_name": "BertForSequenceClassification", "reference_name": "pretrained (frozen)"}
    epochs = [replace(result(epoch=epoch), **names) for epoch in range(2)]
    _, grid = plot_comparison(epochs)
    assert [ax.get_title() for ax in grid] == ["epoch 0", "epoch 1"]
    references = [replace(epochs[0], reference_name=name) for name in ("pretrained (frozen)", "initial")]
    assert [ax.get_title() for ax in plot_comparison(references)[1]] == ["pretrained (frozen)", "initial"]
    assert [ax.get_title() for ax in plot_comparison(epochs[:1] * 2)[1]] == ["BertForSequ…d pretrained"] * 2


def test_equal_rows_are_labelled_once():
    results = [result(epoch=epoch) for epoch in range(3)]
    figure, grid = plot_comparison(results, across=2)
    figure.draw_without_rendering()
    shown = [any(tick.label1.get_visible() for tick in ax.yaxis.get_major_ticks()) for ax in grid]
    assert shown == [True, False, True]
    assert [ax.get_ylabel() for ax in grid] == ["layer of Live", "", "layer of Live"]  # The titles have the epochs.
    _, grid = plot_comparison(results, ["a", "b", "c"])
    assert [ax.get_ylabel() for ax in grid] == [f"layer of Live, epoch {epoch}" for epoch in range(3)]
    _, grid = plot_comparison([results[0], result(4, 4)])
    assert [ax.get_ylabel() != "" for ax in grid] == [True, True]


@pytest.mark.parametrize("size", [(3.3, 2.8), (6.9, 4.4)])
def test_panels_have_the_width_of_the_user_and_are_not_much_taller_than_wide(size):
    with rc_context({"figure.figsize": size, "font.size": 7.0}):
        figure, grid = plot_comparison([result(12, 12, epoch=epoch) for epoch in range(3)])
    assert figure.get_figwidth() == size[0]
    assert all(0.8 * figure.dpi <= ax.bbox.height <= 1.51 * ax.bbox.width for ax in grid)
    assert all_texts_are_inside(figure)


def test_each_result_needs_one_title():
    with pytest.raises(ValueError, match="there is no result to draw"):
        plot_comparison([])
    with pytest.raises(ValueError, match="one title per result, but got 2 results and 1 titles"):
        plot_comparison([result(), result()], ["a"])
    assert [ax.get_title() for ax in plot_comparison([result(), result()], ["a", "b"])[1]] == ["a", "b"]
