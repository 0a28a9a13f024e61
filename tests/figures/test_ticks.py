"""Which cells of an axis have a label."""

from figure_contents import texts
from lightning_cka.figures.layout import new_axes
from lightning_cka.figures.ticks import set_ticks, tick_places


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
