"""Figures of differences: a heatmap around zero, or an interval for each layer."""

import numpy as np
import pytest
import torch
from lightning_cka.compare.left_out_batches import LeftOutBatches
from lightning_cka.plotting import plot_difference
from matplotlib.figure import Figure
from synthetic_results import result


def note(ax):
    """The lines below the axes, as one."""
    return " ".join(ax.texts[0].get_text().split())


def pair(rows=3, columns=3, batches=8, change=0.2, all_pairs=True, **kwargs):
    """Two results whose first row differs by much, and whose other rows differ by chance."""
    generator = torch.Generator().manual_seed(0)
    found = []
    for epoch in (5, 6):
        one = result(rows, columns, epoch=epoch, **kwargs)
        matrix = one.matrix.clone()
        matrix[0] -= change * (epoch == 6)
        noise = 0.01 * torch.randn(batches, rows, columns, generator=generator, dtype=torch.float64)
        pairs = one.same_named_pairs()
        values = (
            torch.stack([(matrix + noise)[:, row, column] for row, column in pairs.values()]) if pairs else noise[:0]
        )
        record = LeftOutBatches(
            tuple(map(str, range(batches))),
            torch.ones(batches, dtype=torch.float64),
            tuple(pairs),
            values.reshape(-1, batches),
            matrix + noise if all_pairs else None,
        )
        found.append(type(one)(**(vars(one) | {"matrix": matrix, "left_out_batches": record})))
    return found[1].difference(found[0])


def test_the_heatmap_is_white_at_zero_and_marks_what_is_not_significant():
    difference = pair()
    figure, ax = difference.plot()
    image = ax.images[0]
    assert image.get_clim() == (-0.2, 0.2)
    assert image.cmap.name == "RdBu_r"
    np.testing.assert_allclose(image.get_array(), difference.matrix.numpy())
    lines = ax.collections[0]  # The other one has the minus signs.
    cells = {(round(path.vertices[:, 1].mean()), round(path.vertices[:, 0].mean())) for path in lines.get_paths()}
    assert cells == set(map(tuple, (~difference.significant()).nonzero().tolist()))
    assert difference.significant().sum() == 3
    assert ax.get_title() == "epoch 6 minus epoch 5"
    assert note(ax) == "line through a cell: not significant (level 0.95, Holm) minus: below 0"
    assert ax.get_xlabel() == "layer of initial"
    assert figure.axes[0] is ax


def test_an_interval_for_each_layer_if_only_those_are_known():
    difference = pair(all_pairs=False)
    _, ax = plot_difference(difference)
    low, high = difference.confidence_interval()
    _, coloured = ax.collections
    drawn = {path.vertices[0, 1]: tuple(path.vertices[:, 0]) for each in ax.collections for path in each.get_paths()}
    assert drawn == {place: (low[place, place].item(), high[place, place].item()) for place in range(3)}
    assert len(coloured.get_paths()) == difference.significant().diagonal().sum() == 1
    assert [label.get_text() for label in ax.get_yticklabels()] == ["layer0", "layer1", "layer2"]
    assert ax.get_xlabel() == "difference of CKA with initial"
    assert "95 % intervals" in note(ax)


def test_both_figures_can_be_asked_for():
    difference = pair(all_pairs=False)
    _, ax = plot_difference(difference, all_pairs=True, cmap="PiYG", limit=0.5)
    assert ax.images[0].get_clim() == (-0.5, 0.5)
    assert len(ax.lines[0].get_xdata()) == 6  # The dots.
    assert note(ax).endswith("dot: no standard error minus: below 0")
    _, ax = plot_difference(pair(), all_pairs=False)
    assert not ax.images
    with pytest.raises(ValueError, match="no layers of both sides are paired"):
        plot_difference(_other_names(), all_pairs=False)
    assert plot_difference(_other_names())[1].images


def _other_names():
    difference = pair()
    names = ("x", "y", "z")
    return type(difference)(**(vars(difference) | {"reference_layers": names}))


def test_a_difference_is_saved_as_a_picture(tmp_path):
    pair().save(tmp_path / "new" / "change.pdf")
    assert (tmp_path / "new" / "change.pdf").read_bytes().startswith(b"%PDF")
    assert pair()._repr_png_().startswith(b"\x89PNG")
    with pytest.raises(ValueError, match=r"save\(\) writes .png, .pdf, .svg, but got 'change.json': for a table, use"):
        pair().save(tmp_path / "change.json")
    with pytest.raises(ValueError, match=r"'change\.jpg': for other pictures, call plot"):
        pair().save(tmp_path / "change.jpg")
    assert [path.name for path in tmp_path.rglob("change.*")] == ["change.pdf"]


def test_few_batches_give_a_sentence():
    for all_pairs in (True, False):
        _, ax = pair(batches=3).plot(all_pairs=all_pairs)
        assert note(ax).startswith("no confidence interval: the probe set has 3.0 effective batches")


def test_in_own_axes_and_with_values_that_are_nan():
    difference = pair()
    difference.matrix[1] = torch.nan
    difference.standard_error[1] = torch.nan
    for all_pairs in (True, False):
        ax = Figure().add_subplot()
        assert difference.plot(ax, all_pairs=all_pairs)[1] is ax
    difference.matrix[:] = torch.nan
    assert difference.plot(all_pairs=True)[1].images[0].get_clim() == (-1, 1)


def test_two_references_and_two_kernels_have_their_own_titles():
    difference = pair()
    later = type(difference.later)(**(vars(difference.later) | {"reference_name": "other", "kernel": "rbf"}))
    changed = type(difference)(**(vars(difference) | {"later": later}))
    assert changed.plot(all_pairs=False)[1].get_xlabel() == "difference of CKA"
    assert changed.plot()[1].get_xlabel() == "layer of the reference"


def test_small_cells_are_hatched_instead_of_marked():
    size = 8
    difference = pair(size, size)
    figure = Figure((8, 4))
    wide, narrow = figure.subplots(1, 2, width_ratios=(20, 1))
    for ax, notes in ((wide, "line through a cell"), (narrow, "hatched")):
        plot_difference(difference, ax, all_pairs=True)
        assert any(text.get_text() == f"{notes}: not significant" for text in ax.texts)
    assert wide.collections
    assert not wide.patches
    (patch,) = narrow.patches
    hatched = [[patch.get_path().contains_point((x, y)) for x in range(size)] for y in range(size)]
    assert hatched == (~difference.significant()).tolist()
    assert not any(len(each.get_paths()) for each in narrow.collections)


def test_cells_below_zero_have_a_minus_sign_that_prints_in_grey():
    for change in (0.2, -0.2):
        one = pair(change=change)
        _, ax = plot_difference(one, all_pairs=True)
        flat = [line for part in ax.collections for line in part.get_segments() if line[0][1] == line[1][1]]
        below = (one.matrix < 0) & one.tested_cells(0.95)
        assert len(flat) == int(below.sum()) == (3 if change > 0 else 0)
        assert ("minus: below 0" in " ".join(text.get_text() for text in ax.texts)) == (change > 0)
