"""Heatmaps that are drawn over what they have in common: the pixels are those of `plot_cka`, whatever changes."""

import gc
import weakref
from contextlib import nullcontext
from dataclasses import replace

import matplotlib
import numpy as np
import pytest
import torch
from lightning_cka import plot_cka
from lightning_cka.figures import heatmap_series
from lightning_cka.figures.heatmap_background import HeatmapBackground
from lightning_cka.figures.heatmap_series import HeatmapSeries, common_content
from lightning_cka.figures.pictures import PRINT_DPI, pixels_of, png, render
from synthetic_results import LONG, result, self_result, trace_flag, with_flags

_in_full = {}
"""By result and style: the result, and its pixels in a full draw. Many are compared with more than once."""


def drawn_in_full(one):
    key = id(one), str(matplotlib.rcParams)
    if key not in _in_full:
        _in_full[key] = one, render(plot_cka(one)[0], PRINT_DPI)
    return _in_full[key][1]


@pytest.fixture(autouse=True)
def _forget_pixels():
    """Forget all pixels at the end, except those of the results that all tests share."""
    yield
    shared = set(map(id, BEFORE))
    for key in [key for key in _in_full if key[0] not in shared]:
        del _in_full[key]


def random_values(one, seed, low=-0.1, high=1.05):
    values = low + (high - low) * torch.rand(one.matrix.shape, generator=torch.Generator().manual_seed(seed))
    if one.self_comparison:
        values = (values + values.T) / 2
    return replace(one, matrix=values.to(one.matrix.dtype))


def with_nan(one, *cells):
    matrix = one.matrix.clone()
    for cell in cells:
        matrix[cell] = torch.nan
    return replace(one, matrix=matrix)


def epochs(one, count=3, **ranges):
    """Results that differ in values and in the moment, with titles of several lengths."""
    return [replace(random_values(one, seed, **ranges), epoch=9**seed, step=11**seed) for seed in range(count)]


def check(results, series=None):
    """Assert that each of the results, drawn one after another, has the pixels of a full draw."""
    series = HeatmapSeries() if series is None else series
    for place, one in enumerate(results):
        assert np.array_equal(pixels_of(series.png("cka/initial/", one)), drawn_in_full(one)), place


BEFORE = epochs(result(4, 4))


@pytest.fixture
def backgrounds(monkeypatch):
    """The backgrounds that are made."""
    made = []

    class Counted(HeatmapBackground):
        def __init__(self, one):
            super().__init__(one)
            made.append(self)

    monkeypatch.setattr(heatmap_series, "HeatmapBackground", Counted)
    return made


DOUBLE = {"matrix": torch.rand(5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))}
KINDS = {
    "small": result(2, 2),
    "float64": replace(result(5, 5), **DOUBLE),
    "rectangular": result(3, 7),
    "one column": result(6, 1),
    "many layers": result(50, 20),
    "long names": result(4, 4, LONG),
    "self": self_result(5, model_name="Live"),
    "other measure": result(4, 4, measure="mutual_knn"),
    "other kernel": result(4, 4, kernel="rbf"),
    "biased": result(4, 4, unbiased=False),
    "long title": replace(result(2, 2), model_name="A network with a long name", reference_name="$x$ (frozen)"),
    "flag": with_flags(result(4, 4), trace_flag()),
    "flag of the reference": with_flags(result(4, 4), trace_flag(of_reference=True), trace_flag("layer2")),
}


@pytest.mark.parametrize("kind", KINDS)
def test_all_kinds_of_heatmaps_have_the_pixels_of_a_full_draw(kind, backgrounds):
    check(epochs(KINDS[kind]))
    assert [each.is_exact for each in backgrounds] == [True]  # The second and the third are drawn over it.


def test_cells_without_a_value_are_hatched(backgrounds):
    one = with_nan(result(4, 5), (0, 1), (0, 2), (3, 4))
    check([with_nan(each, (0, 1), (0, 2), (3, 4)) for each in epochs(one)])
    assert len(backgrounds) == 1


def test_values_at_the_edges_of_colours_have_the_same_colours():
    """magma has 256 colours."""
    edges = torch.linspace(0, 1, 257, dtype=torch.float64)
    values = torch.cat([edges, torch.nextafter(edges, edges - 1), torch.nextafter(edges, edges + 1)])
    check(replace(result(3, 257), matrix=each.reshape(3, 257)) for each in (values, values.flip(0), values.roll(99)))


@pytest.mark.parametrize(
    "change",
    [
        lambda one: with_nan(one, (1, 1)),
        lambda one: with_flags(one, trace_flag()),
        lambda one: with_flags(one, trace_flag("layer3", of_reference=True)),
        lambda one: with_flags(one, trace_flag(samples=tuple(range(100, 140)))),
        lambda one: replace(one, matrix=0.5 + one.matrix / 1000),
        lambda one: replace(one, layers=tuple(f"block{i}" for i in range(4))),
        lambda one: replace(one, reference_layers=("a", "b", "c", "d")),
        lambda one: replace(one, model_name="Other", reference_name="another"),
        lambda one: replace(one, kernel="rbf"),
        lambda one: replace(one, epoch=None, step=None),
        lambda one: result(5, 4),
    ],
    ids=[
        "nan",
        "flag",
        "flag of reference",
        "long note",
        "narrow",
        "rows",
        "columns",
        "names",
        "kernel",
        "moment",
        "size",
    ],
)
def test_any_other_change_is_in_the_picture(change):
    """Also the change back."""
    changed = [change(one) for one in epochs(result(4, 4))]
    check([*BEFORE, *changed, *BEFORE])


def test_notes_of_other_words_are_drawn_over_the_same_background(backgrounds):
    samples = ((17,), (4,), (999,))
    check(
        [with_flags(one, trace_flag(samples=each)) for one, each in zip(epochs(result(4, 4), 3), samples, strict=True)]
    )
    check([replace(one, matrix=one.matrix / 30 + 0.4) for one in epochs(result(4, 4), 3)])
    assert len(backgrounds) == 2


STYLES = {
    "dark": {"figure.facecolor": "black", "axes.facecolor": "black", "text.color": "white", "axes.edgecolor": "grey"},
    "large letters": {"font.size": 17},
    "size": {"figure.figsize": (3.4, 2.6)},
    "no frame": {"axes.spines.top": False, "axes.spines.right": False},
    "wide frame": {"axes.linewidth": 6},
    "title at the left": {"axes.titlelocation": "left", "axes.titley": 1.02},
    "image origin": {"image.resample": False, "image.composite_image": False},
    "ticks inside": {"xtick.direction": "in", "ytick.direction": "in"},
    "ticks on top": {"xtick.top": True, "xtick.labeltop": True, "xtick.bottom": False},
    "grid": {"axes.grid": True},
    "ticks above": {"axes.axisbelow": False, "axes.grid": True, "grid.alpha": 0.3},
}
OVER_CELLS = {"ticks inside", "grid", "ticks above"}


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.filterwarnings("ignore:.*axes.grid")
def test_styles_of_the_user_are_kept(style, backgrounds):
    """Where a style draws over the cells, all heatmaps are drawn in full."""
    with matplotlib.rc_context(STYLES[style]):
        check([with_nan(one, (0, 3)) for one in epochs(with_flags(result(4, 4), trace_flag()), 3)])
    assert len(backgrounds) == 1
    assert style in OVER_CELLS or backgrounds[0].is_exact


def test_a_style_that_changes_during_the_run_is_used():
    series, results = HeatmapSeries(), epochs(result(3, 3), 3)
    for style in (nullcontext(), matplotlib.rc_context({"axes.linewidth": 3}), matplotlib.rc_context({"font.size": 8})):
        with style:
            check(results, series)


def test_keys_and_sizes_do_not_mix():
    series = HeatmapSeries()
    histories = {"a": epochs(result(3, 4)), "b": epochs(self_result(6)), "c": epochs(result(4, 3))}
    for place in range(3):
        for key, history in histories.items():
            assert np.array_equal(pixels_of(series.png(key, history[place])), drawn_in_full(history[place])), (
                key,
                place,
            )


def test_a_file_of_a_run_does_not_depend_on_what_was_drawn_before():
    series = HeatmapSeries()
    results = epochs(result(3, 3))
    assert [series.png("a", one) for one in results] == [png(drawn_in_full(one), PRINT_DPI) for one in results]


def test_memory_is_bounded_and_freed(monkeypatch):
    one = epochs(result(3, 3))[0]
    size = 3 * drawn_in_full(one)[..., 0].size
    monkeypatch.setattr(heatmap_series, "MAX_BYTES", 12 * size)
    series, most = HeatmapSeries(), 0
    for place, each in enumerate(epochs(result(3, 3)) * 2):
        for key in range(14):
            content = series.png(str(key), each)
            most = max(most, series.num_bytes)
            if key in (0, 13) and place > 1:
                assert np.array_equal(pixels_of(content), drawn_in_full(each))
    assert 5 * size < most < 15 * size
    series.clear()
    assert series.num_bytes == 0


def test_no_result_is_kept():
    series, results = HeatmapSeries(), epochs(result(3, 3))
    seen = [weakref.ref(each.matrix) for each in results]
    for each in results:
        series.png("a", each)
    del each, results
    gc.collect()
    assert [ref() for ref in seen] == [None] * len(seen)


def test_what_is_common_ignores_values_and_moments():
    first, second = epochs(result(3, 3), 2)
    assert common_content(first) == common_content(second)
    assert common_content(first) != common_content(with_nan(second, (0, 0)))
