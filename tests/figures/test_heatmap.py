"""The heatmap of one result: axes, ranges, flags, and whether everything fits."""

import numpy as np
import pytest
from figure_contents import is_inside, lay_out, neighbours_overlap, texts
from lightning_cka import plot_cka
from lightning_cka.compare.flags import Flag
from lightning_cka.figures.layout import MAX_TICKS
from matplotlib.figure import Figure
from synthetic_results import LONG, diagnostics, result, self_result, trace_flag


def test_rows_are_the_model_upwards_and_columns_the_reference():
    figure, ax = plot_cka(result())
    image = ax.get_images()[0]
    assert image.origin == "lower"
    assert np.allclose(image.get_array(), result().matrix)
    assert image.get_clim() == (0, 1)
    assert image.get_cmap().name == "magma"
    assert (ax.get_ylabel(), ax.get_xlabel()) == ("layer of Live, epoch 2", "layer of initial")
    assert texts(ax.get_yticklabels()) == ["layer0", "layer1", "layer2"]
    assert texts(ax.get_xticklabels()) == ["layer0", "layer1", "layer2", "layer3"]
    assert ax.get_title() == "epoch 2, step 30"
    assert isinstance(figure, Figure)


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (4, 4), (20, 20), (100, 100), (3, 90), (90, 3)])
@pytest.mark.parametrize("pattern", ["layer{}", LONG])
def test_everything_is_inside_the_figure_and_nothing_overlaps(rows, columns, pattern):
    figure, ax = plot_cka(result(rows, columns, pattern))
    size = lay_out(figure)
    assert max(size) <= 1600
    labels = [*ax.get_xticklabels(), *ax.get_yticklabels(), ax.xaxis.label, ax.yaxis.label, ax.title]
    assert all(is_inside(label.get_window_extent(), size) for label in labels)
    for labels in (ax.get_xticklabels(), ax.get_yticklabels()):
        assert len(labels) <= MAX_TICKS
        assert not neighbours_overlap(labels)


def test_flagged_layers_are_marked_and_a_line_gives_the_reason():
    flags = (trace_flag(), Flag("layer3", "effective_dimension", 1.2, 2.0, of_reference=True))
    _, ax = plot_cka(result(diagnostics=diagnostics(*flags)))
    assert texts(ax.get_yticklabels()) == ["layer0", "⚠ layer1", "layer2"]
    assert texts(ax.get_xticklabels()) == ["layer0", "layer1", "layer2", "⚠ layer3"]
    assert len({label.get_color() for label in ax.get_yticklabels()}) == 2
    note = " ".join(ax.texts[-1].get_text().split())
    assert "⚠ effective dimension < 2: layer3 of the reference (1.2)" in note
    assert "⚠ single samples with > 20 times the mean squared distance: layer1 (83 at dataset index 17)" in note
    with_itself = result(3, 3, self_comparison=True, diagnostics=diagnostics(flags[0]))
    assert texts(plot_cka(with_itself)[1].get_xticklabels()) == ["layer0", "⚠ layer1", "layer2"]
    assert texts(plot_cka(result())[1].texts) == []


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (4, 4), (100, 100), (3, 90)])
@pytest.mark.parametrize("pattern", ["layer{}", LONG])
def test_the_lines_of_flags_are_inside_the_figure_and_under_the_labels(rows, columns, pattern):
    flags = [
        Flag(pattern.format(i), reason, 12.3, 2.0, (17, 1234, 99999), of_reference)
        for reason in ("effective_dimension", "trace_ratio", "leave_one_out", "standard_error")
        for of_reference, count in ((False, rows), (True, columns))
        for i in range(0, count, 30)
    ]
    figure, ax = plot_cka(result(rows, columns, pattern, diagnostics=diagnostics(*flags)))
    size = lay_out(figure)
    note = ax.texts[-1].get_window_extent()
    assert is_inside(note, size)
    assert note.y1 <= ax.xaxis.label.get_window_extent().y0
    assert not neighbours_overlap(ax.get_yticklabels())


def test_the_colour_bar_names_kernel_and_estimator():
    _, ax = plot_cka(result(kernel="rbf", unbiased=False))
    assert ax.child_axes[0].get_ylabel() == "CKA (rbf, biased)"


def test_into_axes_of_the_user():
    figure = Figure()
    ax = figure.add_subplot()
    assert plot_cka(result(), ax) == (figure, ax)
    assert result().plot(ax, cmap="viridis", vmin=-1)[1].get_images()[-1].get_clim() == (-1, 1)


def test_one_triangle_of_a_symmetric_matrix():
    _, ax = plot_cka(self_result(), add_text=True, triangle=True)
    cells, cover = ax.get_images()
    assert not cells.get_array().mask.any()
    assert (~cover.get_array().mask).tolist() == [[False, True, True], [False, False, True], [False, False, False]]
    assert cover.get_cmap().colors == ["#ffffff"]
    assert [t.get_position() for t in ax.texts] == [(0, 0), (0, 1), (1, 1), (0, 2), (1, 2), (2, 2)]
    with pytest.raises(ValueError, match="half of a symmetric matrix, but this one compares two models"):
        plot_cka(result(), triangle=True)


def test_ticks_colours_and_range_are_the_users():
    _, ax = plot_cka(result(30, 30, LONG), max_ticks=10, max_label=12, cmap="viridis", vmin=-1, vmax=0.5)
    assert len(ax.get_xticklabels()) == 10
    assert max(map(len, texts(ax.get_yticklabels()))) <= 12
    image = ax.get_images()[0]
    assert (image.get_cmap().name, image.get_clim()) == ("viridis", (-1, 0.5))
    with pytest.raises(KeyError, match="no such map"):
        plot_cka(result(), cmap="no such map")
