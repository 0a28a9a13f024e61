"""The figure of alike layers: frames, bars, notes, and that all texts fit."""

import itertools
from dataclasses import replace

import pytest
import torch
from figure_contents import all_texts_are_inside, is_inside, lay_out, texts
from lightning_cka import CKAResult
from lightning_cka.decisions.redundancy import redundancy
from lightning_cka.plotting import plot_redundancy
from matplotlib import rc_context
from matplotlib.patches import Rectangle
from synthetic_results import LONG, trace_flag, with_flags


def block_result(sizes, pattern="layer{}", error=0.01, **kwargs):
    """A model with itself: CKA of 0.97 within blocks, and less from block to block."""
    block = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    distance = (block[:, None] - block).abs()
    place = torch.arange(len(block))
    matrix = torch.where(distance == 0, 0.97, 0.85 - 0.1 * distance).double()
    matrix[place, place] = 1.0
    names = tuple(pattern.format(i) for i in range(len(block)))
    defaults = {"epoch": 4, "step": 50, "model_name": "Net", "effective_batches": 8.0, "num_samples": 512}
    errors = torch.full_like(matrix, error)
    return CKAResult(matrix, names, names, errors, self_comparison=True, **(defaults | kwargs))


def frames(ax):
    found = [patch for patch in ax.patches if isinstance(patch, Rectangle)]
    return [(*patch.get_xy(), patch.get_width(), patch.get_height()) for patch in found]


def test_frames_and_bars_are_those_of_the_numbers():
    found = redundancy(block_result([3, 1, 2]))
    figure, (heatmap, changes) = plot_redundancy(found)
    assert frames(heatmap) == [(-0.5, -0.5, 3, 3), (3.5, 3.5, 2, 2)]
    bars = changes.patches
    assert [bar.get_width() for bar in bars] == pytest.approx([step.change for step in found.consecutive])
    assert [bar.get_y() + bar.get_height() / 2 for bar in bars] == pytest.approx([0.5, 1.5, 2.5, 3.5, 4.5])
    shared = [bar.get_facecolor() for bar in bars]
    assert len(set(shared)) == 2
    assert [colour == shared[0] for colour in shared] == [True, True, False, False, True]
    (lines,) = changes.collections
    ends = [(segment[0][0], segment[1][0]) for segment in lines.get_segments()]
    assert ends == [(pytest.approx(step.low), pytest.approx(step.high)) for step in found.consecutive]
    assert changes.get_xlabel() == "1 - CKA\nwith the next layer"
    assert heatmap.get_title() == "epoch 4, step 50"
    notes = "\n".join(texts(heatmap.texts))
    assert "each pair has CKA above 0.9" in notes
    assert "95 % intervals" in notes
    assert found.plot(title="A title")[1][0].get_title() == "A title"
    assert figure.axes[1] in (changes, *heatmap.child_axes)


@pytest.mark.parametrize("flagged", [False, True])
@pytest.mark.parametrize("sizes", [[2, 1], [4, 3, 5], [10] * 4, [7] * 14 + [2]])
@pytest.mark.parametrize("pattern", ["layer{}", LONG])
def test_all_texts_fit(sizes, flagged, pattern):
    result = block_result(sizes, pattern)
    if flagged:
        result = with_flags(result, trace_flag(pattern.format(1)))
    figure, (heatmap, changes) = plot_redundancy(redundancy(result))
    assert all_texts_are_inside(figure)
    size = lay_out(figure)
    boxes = [label.get_window_extent() for label in (heatmap.xaxis.label, changes.xaxis.label, *heatmap.texts)]
    assert all(is_inside(box, size) for box in boxes)
    assert not any(one.overlaps(other) for one, other in itertools.combinations(boxes, 2))
    (bar,) = heatmap.child_axes
    assert bar.get_tightbbox().x1 <= changes.get_tightbbox().x0
    assert changes.get_ylim() == heatmap.get_ylim()
    assert (changes.bbox.y0, changes.bbox.y1) == pytest.approx((heatmap.bbox.y0, heatmap.bbox.y1))


@pytest.mark.parametrize("size", [10, 14])
@pytest.mark.parametrize("sizes", [[2, 1], [4, 3, 5]])
def test_long_names_of_values_and_large_letters_fit(size, sizes):
    with rc_context({"font.size": size}):
        figure, (heatmap, changes) = plot_redundancy(redundancy(block_result(sizes, kernel="rbf", unbiased=False)))
    assert all_texts_are_inside(figure)
    (bar,) = heatmap.child_axes
    assert bar.get_tightbbox().x1 <= changes.get_tightbbox().x0
    notes = [text.get_window_extent() for text in heatmap.texts]
    assert not any(changes.xaxis.label.get_window_extent().overlaps(note) for note in notes)


def test_the_size_of_the_figure_is_the_users():
    with rc_context({"figure.figsize": (9.0, 5.0)}):
        figure, _ = plot_redundancy(redundancy(block_result([3, 2])))
    assert tuple(figure.get_size_inches()) == (9.0, 5.0)
    assert all_texts_are_inside(figure)


def test_the_limit_is_left_out_where_it_would_hide_the_changes():
    near, far = (plot_redundancy(redundancy(block_result([3, 1]), alike))[1] for alike in (0.9, 0.2))
    for (heatmap, changes), is_shown in ((near, True), (far, False)):
        assert [line.get_linestyle() for line in changes.get_lines()] == ["--"] * is_shown
        assert ("dashed: CKA" in "\n".join(texts(heatmap.texts))) == is_shown


def test_without_intervals_there_are_no_frames_and_a_note():
    for result, note in (
        (block_result([3, 2], effective_batches=2.0), "the probe set has 2.0 effective batches"),
        (replace(block_result([3, 2]), standard_error=None), "no standard errors"),
    ):
        _, (heatmap, changes) = plot_redundancy(redundancy(result))
        assert frames(heatmap) == []
        assert len(changes.patches) == 4
        assert note in " ".join("\n".join(texts(heatmap.texts)).split())


def test_an_undefined_layer_is_inside_a_frame():
    result = block_result([3, 2])
    matrix = result.matrix.clone()
    matrix[1, :] = matrix[:, 1] = torch.nan
    _, (heatmap, changes) = plot_redundancy(redundancy(replace(result, matrix=matrix)))
    assert frames(heatmap) == [(-0.5, -0.5, 3, 3), (2.5, 2.5, 2, 2)]
    assert [bar.get_y() + bar.get_height() / 2 for bar in changes.patches] == pytest.approx([1, 2.5, 3.5])


def test_one_layer_has_no_bars():
    figure, (_, changes) = plot_redundancy(redundancy(block_result([1])))
    assert len(changes.patches) == 0
    assert all_texts_are_inside(figure)
