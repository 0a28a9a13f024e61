"""`plot_measures`: one line per measure over depth, one panel per layer over epochs."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from figure_contents import all_texts_are_inside, texts, visible_texts
from gram_banks import make_bank
from lightning_cka import compare_banks
from lightning_cka.plotting import plot_measures
from synthetic_results import LONG, result
from test_ceiling_lines import ceiling, dashed

# The banks have few samples, so comparing them warns of large standard errors and of flags.
ignore_small_banks = pytest.mark.filterwarnings("ignore:(CKA|mutual kNN|RSA|ridge CKA):UserWarning")

MEASURES = ("cka", "mutual_knn", "rsa", "ridge")
TITLES = ["CKA", "mutual kNN", "RSA", "ridge CKA"]


def one(size=3, pattern="layer{}", **kwargs):
    errors = torch.full((size, size), 0.02)
    return result(size, size, pattern, standard_error=errors, effective_batches=8.0, **kwargs)


def over_depth(size=3, pattern="layer{}"):
    values = one(size).matrix
    return {
        name: replace(one(size, pattern, measure=name), matrix=values * (1 - 0.1 * place))
        for place, name in enumerate(MEASURES)
    }


def over_epochs(size=3, count=4, pattern="layer{}"):
    return {
        name: [one(size, pattern, measure=name, epoch=2 * epoch, step=10 * epoch) for epoch in range(count)]
        for name in MEASURES
    }


def labels(ax):
    return [line.get_label() for line in ax.get_lines() if not line.get_label().startswith("_")]


def test_over_depth_there_is_a_line_and_a_band_per_measure():
    results = over_depth()
    figure, (ax,) = plot_measures(results)
    assert labels(ax) == texts(ax.get_legend().get_texts()) == TITLES
    assert texts(ax.get_xticklabels()) == ["layer0", "layer1", "layer2"]
    for line, band, each in zip(ax.get_lines(), ax.collections, results.values(), strict=False):
        assert line.get_ydata() == pytest.approx(each.matrix.diagonal().numpy())
        low, high = each.confidence_interval(0.95)
        edges = band.get_paths()[0].vertices[:, 1]
        assert (edges.min(), edges.max()) == pytest.approx((low.diagonal().min().item(), high.diagonal().max().item()))
    drawn = ax.get_lines()[:4]
    assert len({line.get_color() for line in drawn}) == len({line.get_marker() for line in drawn}) == 4
    assert ax.get_title() == "similarity of Live, epoch 2 with initial"
    assert all_texts_are_inside(figure)


def test_over_epochs_there_is_a_panel_per_layer():
    results = over_epochs()
    figure, axes = plot_measures(results)
    assert [ax.get_title() for ax in axes] == ["layer0", "layer1", "layer2"]
    for row, ax in enumerate(axes):
        assert labels(ax) == TITLES
        assert ax.get_lines()[2].get_xdata().tolist() == [0, 2, 4, 6]
        assert ax.get_lines()[2].get_ydata() == pytest.approx([each.matrix[row, row].item() for each in results["rsa"]])
    assert len({ax.get_ylim() for ax in axes}) == 1
    assert texts(figure.legends[0].get_texts()) == TITLES
    assert all_texts_are_inside(figure)


def test_each_measure_has_its_seed_ceiling():
    """A dashed line in its colour, over depth and in each panel, if there is one by this measure."""
    names = [f"layer{place}" for place in range(3)]
    tops = [ceiling(names), ceiling(names, measure="rsa")]
    figure, (ax,) = plot_measures(over_depth(), layers=names[1:], ceilings=tops)
    for line, owner in zip(dashed(ax), ("CKA", "RSA"), strict=True):
        (own,) = [each for each in ax.get_lines() if each.get_label() == owner]
        assert line.get_color() == own.get_color()
        assert np.array_equal(line.get_ydata(), tops[0].values[1:])
    assert texts(ax.get_legend().get_texts()) == [*TITLES, "seed ceiling (5 seeds)\nchance: 0"]
    assert all_texts_are_inside(figure)
    figure, grid = plot_measures(over_epochs(), ceilings=tops[:1])
    for panel, value in zip(grid, tops[0].values.tolist(), strict=True):
        (line,) = dashed(panel)
        assert set(line.get_ydata()) == {value}
    assert all_texts_are_inside(figure)
    assert texts(figure.legends[0].get_texts())[-1].startswith("seed ceiling")
    assert not dashed(plot_measures(over_epochs(), ceilings=[ceiling(names, kernel="rbf")])[1][0])


def test_many_layers_are_thinned_and_the_figure_says_so():
    figure, axes = plot_measures(over_epochs(40))
    assert len(axes) == 12
    assert [axes[0].get_title(), axes[-1].get_title()] == ["layer0", "layer39"]
    assert any("12 of 40 layers" in text.get_text() for text in visible_texts(figure))
    chosen = plot_measures(over_epochs(40), layers=["layer7", "layer3"])[1]
    assert [ax.get_title() for ax in chosen] == ["layer7", "layer3"]
    assert len(plot_measures(over_depth(40))[1][0].get_lines()[0].get_ydata()) == 40


@pytest.mark.parametrize("size", [1, 2, 5, 12])
@pytest.mark.parametrize("pattern", ["layer{}", LONG])
def test_all_texts_fit(size, pattern):
    for results in (over_depth(size, pattern), over_epochs(size, 30, pattern)):
        assert all_texts_are_inside(plot_measures(results)[0])


@ignore_small_banks
def test_two_banks_are_compared_by_all_measures():
    a, b = make_bank(sizes=(16, 16, 16)), make_bank(1, sizes=(16, 16, 16))
    _, (ax,) = plot_measures(a, b)
    expected = compare_banks(a, b, measures=MEASURES)
    assert labels(ax) == TITLES
    for line, each in zip(ax.get_lines(), expected.values(), strict=False):
        assert line.get_ydata() == pytest.approx(list(each.same_named().values()))


@ignore_small_banks
def test_files_of_banks(tmp_path):
    for variant in (0, 1):
        make_bank(variant, sizes=(16, 16)).save(tmp_path / str(variant))
    assert len(plot_measures(tmp_path / "0", tmp_path / "1")[1]) == 1


def test_undefined_values_leave_gaps():
    results = over_epochs()
    gone = results["ridge"][1].matrix.clone()
    gone[0, 0] = torch.nan
    results["ridge"][1] = replace(results["ridge"][1], matrix=gone)
    _, axes = plot_measures(results)
    assert np.isnan(axes[0].get_lines()[3].get_ydata()).tolist() == [False, True, False, False]
    nothing = {name: replace(each, matrix=torch.full((3, 3), torch.nan)) for name, each in over_depth().items()}
    assert plot_measures(nothing)[1][0].get_ylim()[1] > 1


def test_measures_with_equal_titles_have_their_keys():
    _, (ax,) = plot_measures({"initial/cka": one(), "teacher/cka": one()})
    assert labels(ax) == ["initial/cka", "teacher/cka"]


def test_kernels_are_measures():
    _, (ax,) = plot_measures({"linear": one(), "rbf": one(kernel="rbf")})
    assert labels(ax) == ["CKA", "CKA (rbf)"]


def test_wrong_arguments_raise():
    with pytest.raises(ValueError, match="needs the banks of two models"):
        plot_measures(make_bank())
    with pytest.raises(ValueError, match="results have a reference already"):
        plot_measures(over_depth(), make_bank())
    for nothing in ({}, {"cka": []}):
        with pytest.raises(ValueError, match="there is no result to draw"):
            plot_measures(nothing)
    with pytest.raises(ValueError, match=r"must have the same layers, but one has \['layer0'.*\['layer0', 'layer1'\]"):
        plot_measures({"cka": one(3), "rsa": one(2, measure="rsa")})
    with pytest.raises(ValueError, match=r"no values of paired layers for \['x'\]"):
        plot_measures(over_depth(), layers=["x"])
