"""Figures of many models."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from figure_contents import all_texts_are_inside, texts, visible_texts
from lightning_cka import CKAResult
from lightning_cka.decisions.model_comparison import ModelComparison
from lightning_cka.plotting import plot_models
from matplotlib import rc_context
from matplotlib.figure import Figure


def comparison(count=4, names=None, batches=8.0):
    """Models 0, 2, 4, ... are alike, and so are models 1, 3, 5, ..."""
    group = torch.arange(count) % 2
    matrix = 0.3 + 0.6 * (group[:, None] == group).double()
    matrix[range(count), range(count)] = 1.0
    names = tuple(f"seed{i}" for i in range(count)) if names is None else names
    result = CKAResult(matrix, names, names, self_comparison=True, num_samples=64)
    errors = torch.full_like(matrix, 0.02)
    return ModelComparison(matrix, errors, names, batches, {"a": result, "b": result})


def panels(figure):
    """The axes of the heatmap, of the map and of the dendrogram."""
    return figure.axes


def test_neighbours_are_alike():
    found = comparison()
    figure, ax = found.plot()
    labels = texts(ax.get_yticklabels())
    assert {frozenset(labels[:2]), frozenset(labels[2:])} == {
        frozenset(("seed0", "seed2")),
        frozenset(("seed1", "seed3")),
    }
    assert texts(ax.get_xticklabels()) == labels
    order = [found.names.index(label) for label in labels]
    assert np.array_equal(ax.images[0].get_array(), found.matrix[order][:, order])
    assert ax.images[0].get_clim() == (0.0, 1.0)
    assert all_texts_are_inside(figure)


def test_the_dendrogram_joins_models_at_their_distance():
    figure, ax = plot_models(comparison())
    _, _, tree = panels(figure)
    assert sorted(max(line.get_ydata()) for line in tree.lines) == pytest.approx([0.1, 0.1, 0.7])
    assert tree.get_xlim() == ax.get_xlim()
    assert sorted(x for line in tree.lines for x, y in zip(*line.get_data(), strict=True) if y == 0) == [0, 1, 2, 3]
    assert (tree.get_title(), tree.get_ylabel()) == ("CKA of 4 models, mean of 2 layers", "1 − CKA")
    assert tree.get_position().x0 == pytest.approx(ax.get_position().x0)
    assert tree.get_position().width == pytest.approx(ax.get_position().width)


def test_distances_in_the_map_follow_from_cka():
    """Three models span a plane, so that the map is exact."""
    matrix = torch.tensor([[1.0, 0.8, 0.3], [0.8, 1.0, 0.5], [0.3, 0.5, 1.0]], dtype=torch.float64)
    figure, ax = plot_models(replace(comparison(3), matrix=matrix))
    _, beside, _ = panels(figure)
    places = dict(zip(texts(beside.texts), (text.xy for text in beside.texts), strict=True))
    for row in range(3):
        for column in range(3):
            distance = np.subtract(places[f"seed{row}"], places[f"seed{column}"])
            assert (distance**2).sum() == pytest.approx(2 - 2 * float(matrix[row, column]), abs=1e-9)
    assert beside.get_position().y1 <= ax.get_position().y1 + 1e-9
    assert beside.get_aspect() == 1.0


@pytest.mark.parametrize("count", [2, 3, 9, 20])
def test_all_texts_fit(count):
    figure, ax = plot_models(comparison(count, tuple(f"resnet{i % 3}/with_a_long_name/seed{i}" for i in range(count))))
    assert all_texts_are_inside(figure)
    for text in panels(figure)[1].texts:
        assert text.get_text().isdigit() == (count > 8)
    if count > 8:  # The labels of the heatmap have the numbers of the map.
        assert [label.split()[-1] for label in texts(ax.get_yticklabels())] == [str(i + 1) for i in range(count)]


def test_values_that_are_not_known():
    matrix = comparison().matrix.clone()
    matrix[1] = matrix[:, 1] = torch.nan
    figure, ax = plot_models(replace(comparison(), matrix=matrix))
    assert texts(ax.get_yticklabels()) == ["seed0", "seed1", "seed2", "seed3"]
    assert len(figure.axes) == 1
    assert "hatched: nan" in [text.get_text() for text in ax.child_axes[0].texts]
    assert ax.get_title() == "CKA of 4 models, mean of 2 layers"
    equal = replace(comparison(), matrix=torch.ones(4, 4, dtype=torch.float64))
    assert len(plot_models(equal)[0].axes) == 2  # There is no map.


def test_errors_are_written_if_there_are_enough_batches():
    def written(**options):
        figure, ax = plot_models(comparison(3, **options))
        figure.draw_without_rendering()
        return texts(ax.texts)

    assert any("±0.020" in text for text in written())
    assert not any("±" in text for text in written(batches=2.0))
    assert written(batches=2.0)
    assert len(plot_models(comparison(3), add_text=False)[1].texts) == 0


def test_options():
    figure, ax = plot_models(comparison(), vmin="auto", title="of $mine$", colorbar=False, cmap="viridis")
    assert ax.images[0].get_clim() == pytest.approx((0.3, 1.0))
    assert ax.images[0].get_cmap().name == "viridis"
    assert ax.child_axes == []
    assert panels(figure)[2].get_title() == r"of \$mine\$"
    close = comparison()
    close = replace(close, matrix=0.99 + 0.01 * close.matrix)
    figure, ax = plot_models(close)
    assert 'vmin="auto"' in " ".join(texts(ax.texts))
    assert all_texts_are_inside(figure)


def test_one_layer_and_other_measures_are_named():
    found = comparison()
    one = replace(found, by_layer={"blocks.3": replace(found.by_layer["a"], measure="mutual_knn")})
    tree = panels(plot_models(one)[0])[2]
    assert (tree.get_title(), tree.get_ylabel()) == ("mutual kNN of 4 models, blocks.3", "1 − mutual kNN")


def test_own_axes_have_the_heatmap_alone():
    figure = Figure((8, 4))
    one, other = figure.subplots(1, 2)
    assert plot_models(comparison(), one) == (figure, one)
    plot_models(comparison(12), other, vmin="auto")
    assert figure.axes == [one, other]
    assert one.get_title() == "CKA, mean of 2 layers"  # There is no room for more.
    assert all_texts_are_inside(figure)


def test_the_users_figure_size_is_kept():
    with rc_context({"figure.figsize": (9.0, 5.0)}):
        figure, _ = plot_models(comparison())
        assert tuple(figure.get_size_inches()) == pytest.approx((9.0, 5.0), abs=0.3)
        assert visible_texts(figure)
        assert all_texts_are_inside(figure)
