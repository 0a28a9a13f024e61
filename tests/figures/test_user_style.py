"""Figures have the size and the fonts that users set in rcParams."""

import pytest
from figure_contents import all_texts_are_inside
from lightning_cka import plot_cka
from lightning_cka.figures.user_style import chosen_size, font_size
from lightning_cka.plotting import plot_comparison, plot_drift
from matplotlib import rc_context
from synthetic_results import diagnostics, history, result, trace_flag


def test_sizes_of_fonts():
    assert [font_size(kind) for kind in ("title", "tick", "legend", "note")] == [10, 8, 7, 7]
    with rc_context({"font.size": 20.0}):
        assert [font_size(kind) for kind in ("title", "tick", "legend", "note")] == [20, 16, 14, 14]
    with rc_context({"xtick.labelsize": 5, "axes.titlesize": "small"}):
        assert font_size("tick") == 5
        assert font_size("title") == pytest.approx(8.33)


@pytest.mark.parametrize(
    "plot",
    [
        lambda: plot_cka(result(8, 8, diagnostics=diagnostics(trace_flag()))),
        lambda: plot_drift(history()),
        lambda: plot_comparison([result(), result()]),
    ],
)
@pytest.mark.parametrize("size", [(5.0, 4.5), (9.0, 8.0)])
def test_a_figure_has_the_size_of_the_user(plot, size):
    assert chosen_size() is None
    with rc_context({"figure.figsize": size}):
        figure = plot()[0]
        assert tuple(figure.get_size_inches()) == pytest.approx(size)
        assert all_texts_are_inside(figure)


@pytest.mark.parametrize("size", [6.0, 16.0])
def test_texts_of_other_sizes_fit(size):
    with rc_context({"font.size": size}):
        for figure in (plot_cka(result(8, 8, diagnostics=diagnostics(trace_flag())))[0], plot_drift(history())[0]):
            assert all_texts_are_inside(figure)
