"""Figures of the samples of a probe batch."""

import numpy as np
import pytest
import torch
from figure_contents import all_texts_are_inside, is_inside, lay_out, texts
from gram_banks import bank_of_features, make_bank
from lightning_cka.compare.sample_maps import sample_maps
from lightning_cka.plotting import plot_samples
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox
from synthetic_results import result, trace_flag, with_flags

MANY = {sample: sample % 13 for sample in range(300)}


def points(ax):
    """The coordinates of all samples, sorted, without the rings around marked ones."""
    drawn = [each for each in ax.collections if isinstance(each, PathCollection) and len(each.get_facecolors())]
    found = np.concatenate([each.get_offsets() for each in drawn])
    return found[np.lexsort(found.T)]


def in_order(coordinates):
    coordinates = coordinates.numpy()
    return coordinates[np.lexsort(coordinates.T)]


def test_a_panel_shows_the_coordinates_and_the_shares():
    bank = make_bank(epoch=3, step=40)
    figure, (ax,) = plot_samples(bank, "b.c", MANY)
    (found,) = sample_maps(bank, "b.c").by_layer["b.c"]
    assert np.allclose(points(ax), in_order(found.coordinates))
    assert ax.get_xlabel() == f"axis 1: {100 * found.shares[0]:.0f} % of variance"
    assert ax.get_ylabel() == f"axis 2: {100 * found.shares[1]:.0f} % of variance"
    assert ax.get_title() == "b.c, epoch 3"
    assert texts(figure.texts) == ["Probe batch 0, 16 samples. Unit: RMS distance from the mean."]
    assert texts(ax.get_legend().get_texts()) == list(map(str, range(13)))
    assert all_texts_are_inside(figure)


def test_without_labels_there_is_no_legend():
    _, (ax,) = plot_samples(make_bank(), "a")
    assert ax.get_legend() is None
    assert ax.get_title() == "a"
    assert len({tuple(colour) for each in ax.collections for colour in each.get_facecolors()}) == 1


def test_samples_that_flags_name_are_marked():
    one = with_flags(result(), trace_flag("a", (205, 201)), trace_flag("b.c", (102,)))
    figure, grid = plot_samples(make_bank(), None, MANY, result=one)
    assert [texts(ax.texts) for ax in grid] == [["205", "201"], []]
    assert "⚠ In other probe batches: dataset index 102." in figure.texts[0].get_text()
    assert texts(grid[1].get_legend().get_texts())[-1] == "⚠ dataset index"
    _, (ax,) = plot_samples(make_bank(), "b.c", result=one)
    assert texts(ax.texts) == ["102"]


def test_numbers_of_samples_at_one_place_do_not_overlap():
    x = 0.01 * torch.randn(20, 3)
    x[0] += 1
    figure, (ax,) = plot_samples(bank_of_features([[x]]), "a", marked=[0, 3, 4, 5, 6, 7, 8])
    size = lay_out(figure)
    boxes = [Text.get_window_extent(text) for text in ax.texts]  # Without the line to the point.
    assert all(is_inside(box, size) for box in boxes)
    assert not any(a.overlaps(b) for place, a in enumerate(boxes) for b in boxes[:place])


def test_a_number_does_not_cover_the_rings_of_other_samples():
    x = torch.randn(40, 2, generator=torch.Generator().manual_seed(0)) * torch.tensor([2.0, 1.0])
    for place, (first, second) in enumerate([(1, 1), (1, -1), (-1, 1), (-1, -1)]):
        x[4 + place] = x[3] + 0.25 * torch.tensor([first, second])
    figure, (ax,) = plot_samples(bank_of_features([[x]]), "a", marked=range(3, 8))
    lay_out(figure)
    rings = [each for each in ax.collections if not len(each.get_facecolors())]
    radius = figure.dpi / 72 * rings[0].get_sizes()[0] ** 0.5 / 2
    centers = [ax.transData.transform(ring.get_offsets()[0]) for ring in rings]
    boxes = [Bbox([center - radius, center + radius]) for center in centers]
    numbers = [Text.get_window_extent(text) for text in ax.texts]
    assert len(boxes) == len(numbers) == 5
    covers = [(a, b) for a, number in enumerate(numbers) for b, box in enumerate(boxes) if number.overlaps(box)]
    assert [(a, b) for a, b in covers if a != b] == []


def test_several_epochs_have_one_scale_and_their_own_shares():
    banks = [make_bank(variant, epoch=variant, step=variant) for variant in range(9)]
    figure, grid = plot_samples(banks, "a", MANY)
    assert [ax.get_title() for ax in grid] == [f"epoch {epoch}" for epoch in (0, 2, 3, 5, 6, 8)]
    assert len({ax.get_xlim() for ax in grid} | {ax.get_ylim() for ax in grid}) == 1
    assert len({ax.get_xlabel() for ax in grid}) > 1
    assert texts(figure.texts)[1] == "Net: a"
    assert all_texts_are_inside(figure)
    assert len({round(ax.get_position().y0, 6) for ax in grid}) == 2  # Three above three.


def test_layers_are_rows_and_epochs_are_columns():
    banks = [make_bank(step=0), *(make_bank(variant, epoch=variant, step=variant) for variant in (1, 2))]
    figure, grid = plot_samples(banks, None, epochs=["init", 2])
    assert [ax.get_title() for ax in grid] == [
        "a, before training",
        "a, epoch 2",
        "b.c, before training",
        "b.c, epoch 2",
    ]
    rows = [round(ax.get_position().y0, 6) for ax in grid]
    assert rows[0] == rows[1] > rows[2] == rows[3]
    assert all_texts_are_inside(figure)


def test_samples_that_are_left_out_are_named():
    x = torch.randn(20, 3)
    bad = x.clone()
    bad[[4, 11]] = torch.nan
    bank = bank_of_features([[x, bad, torch.ones(20, 2), x * torch.nan]], ("good", "bad", "constant", "nan"))
    figure, grid = plot_samples(bank, None, MANY, exclude=[7])
    note = figure.texts[0].get_text()
    assert "Left out in bad (nan, infinite or missing): dataset index 4, 11." in note
    assert "Without dataset index 7." in note
    assert "Left out in nan" not in note
    assert len(points(grid[1])) == 17
    assert "all samples are equal" in grid[2].texts[0].get_text().replace("\n", " ")
    assert "fewer than 4 samples are usable" in grid[3].texts[0].get_text().replace("\n", " ")
    assert all_texts_are_inside(figure)


def test_the_user_s_axes_are_used():
    figure = Figure()
    ax = figure.add_subplot()
    found, (same,) = plot_samples(make_bank(), "a", MANY, ax=ax, marked=[3])
    assert (found, same) == (figure, ax)
    assert figure.texts == []
    assert len(points(ax)) == 16
    with pytest.raises(ValueError, match="ax takes a single panel, but there are 2"):
        plot_samples(make_bank(), None, ax=ax)


@pytest.mark.parametrize(("background", "expected"), [("white", "#b3261e"), ("black", "#ff7b6b")])
def test_marks_can_be_seen_on_any_background(background, expected):
    ax = Figure().add_subplot(facecolor=background)
    plot_samples(make_bank(), "a", ax=ax, marked=[3])
    assert ax.texts[0].get_color() == expected


def test_a_share_that_is_small_is_not_zero():
    x = torch.randn(20, 3) * torch.tensor([1, 0.05, 0.01])
    bank = bank_of_features([[x]])
    _, (ax,) = plot_samples(bank, "a")
    assert ax.get_ylabel() == "axis 2: <1 % of variance"


def test_a_missing_label_raises():
    with pytest.raises(ValueError, match="labels has 5 labels, but none for dataset index 5"):
        plot_samples(make_bank(), "a", [0] * 5)
