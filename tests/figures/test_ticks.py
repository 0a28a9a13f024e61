"""Which cells of an axis have a label."""

import itertools

import pytest
from figure_contents import neighbours_overlap, texts
from lightning_cka.figures.layout import new_axes
from lightning_cka.figures.ticks import number_places, set_ticks, tick_places


def test_ticks_are_thinned_but_not_those_of_flagged_layers():
    assert tick_places(5) == [0, 1, 2, 3, 4]
    assert tick_places(100) == list(range(0, 100, 3))
    places = tick_places(100, {10, 50, 51})
    assert {10, 50, 51} <= set(places)
    assert not {9, 12, 48} & set(places)
    assert tick_places(100, range(100)) == tick_places(100)


def test_only_labels_along_x_are_rotated():
    names = ["a long name of a layer", "another long name"]
    ax = new_axes(names, names)
    for axis, rotation in ((ax.xaxis, 90), (ax.yaxis, 0)):
        set_ticks(axis, names)
        assert texts(axis.get_ticklabels()) == names
        assert {label.get_rotation() for label in axis.get_ticklabels()} == {rotation}


@pytest.mark.parametrize("count", [6, 12, 24])
@pytest.mark.parametrize("most", [25, 40])
def test_each_repeated_block_has_a_label(count, most):
    names = ["embed", *(f"encoder.layer.{i}.{part}" for i in range(count) for part in "abcdefgh"), "norm", "head"]
    places = tick_places(len(names), max_ticks=most, names=names)
    assert {names[place].rsplit(".", 1)[0] for place in places} >= {f"encoder.layer.{i}" for i in range(count)}
    assert len(places) <= most
    step = -(-len(names) // most)
    assert all(b - a >= step for a, b in itertools.pairwise(places))


@pytest.mark.parametrize(
    ("labels", "most", "shown"),
    [
        (range(12), 12, range(12)),
        (range(12), 7, range(0, 12, 2)),
        (range(500), 30, range(0, 500, 20)),
        (range(3, 60), 12, range(5, 60, 5)),
        (["init", *range(20)], 6, ["init", 5, 10, 15]),
        (["init", 0, 1], 3, ["init", 0, 1]),
        ([1, 2, 4, 8, 16, 32, 64], 4, [1, 4, 16, 64]),
    ],
)
def test_numbers_are_multiples_of_1_2_or_5(labels, most, shown):
    labels, shown = ([str(label) for label in each] for each in (labels, shown))
    assert [labels[place] for place in number_places(labels, most)] == shown


def test_numbers_are_left_out_where_names_are_rotated():
    labels = list(map(str, range(60)))
    ax = new_axes("abc", "abc")
    set_ticks(ax.xaxis, labels)
    ax.figure.draw_without_rendering()
    assert texts(ax.get_xticklabels()) == labels[::5]
    assert {label.get_rotation() for label in ax.get_xticklabels()} == {0}
    assert not neighbours_overlap(ax.get_xticklabels())


def test_blocks_of_more_than_one_number_and_none():
    assert tick_places(100, names=[f"net.{i}" for i in range(100)]) == tick_places(100)
    swin = [f"layers.{i}.blocks.{j}.{part}.0" for i in range(4) for j in range(3) for part in "abcdef"]
    places = tick_places(len(swin), names=swin)
    assert {swin[place].rsplit(".", 2)[0] for place in places} == {name.rsplit(".", 2)[0] for name in swin}
    flagged = {7, 20}
    assert flagged <= set(tick_places(len(swin), flagged, names=swin))
