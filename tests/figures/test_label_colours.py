"""Colours and markers of labels."""

import pytest
import torch
from lightning_cka.figures.label_colours import MAX_CLASSES, LabelColours


def styles(colours, labels):
    return [colours.style(label) for label in labels]


def test_forty_labels_have_different_looks():
    colours = LabelColours(list(range(MAX_CLASSES)), "sample")
    assert len(set(styles(colours, range(MAX_CLASSES)))) == MAX_CLASSES == 40
    assert len({marker for _, marker in styles(colours, range(4))}) == 4  # Four labels can be told apart in grey.
    assert len({colour for colour, _ in styles(colours, range(10))}) == 10


@pytest.mark.parametrize(
    "labels", [[3, 1, 3], torch.tensor([3, 1, 3]), {0: 3, 1: 1, 2: 3}, {0: torch.tensor(3), 1: torch.tensor(1), 2: 3}]
)
def test_labels_are_indexed_by_sample_number(labels):
    colours = LabelColours(labels, "dataset index")
    assert colours.of([2, 1]) == [3, 1]
    assert [text for _, text in colours.legend([0, 1, 2])] == ["1", "3"]
    assert [text for _, text in colours.legend([2])] == ["3"]
    with pytest.raises(ValueError, match="labels has 3 labels, but none for dataset index 7"):
        colours.of([7])


def test_a_label_looks_the_same_whichever_samples_are_shown():
    colours = LabelColours([2, 0, 1, 2], "sample")
    ((handle, _),) = colours.legend([0])
    assert (handle.get_color(), handle.get_marker()) == colours.style(2)


def test_texts_are_in_alphabetical_order_and_shortened():
    colours = LabelColours(["cat", "a dog with a very long name", "cat", "$x$"], "sample")
    assert [text for _, text in colours.legend(range(4))] == [r"\$x\$", "a dog wi…long name", "cat"]


def test_tokens_have_the_label_of_their_sequence():
    colours = LabelColours([5, 6], "dataset index x 1000000 + token")
    assert colours.of([1_000_003, 17]) == [6, 5]


def test_many_integers_have_a_continuous_colour_map():
    colours = LabelColours(range(100, 200), "sample")
    assert len(set(styles(colours, range(100, 200)))) > 90
    assert [text for _, text in colours.legend(range(100))] == ["100", "125", "150", "174", "199"]
    with pytest.raises(ValueError, match="labels: expected at most 40 different texts, but got 100"):
        LabelColours(list(map(str, range(100))), "sample")


def test_without_labels_all_samples_look_alike():
    colours = LabelColours(None, "sample")
    assert colours.of([1, 2]) == []
    assert colours.legend([1, 2]) == []
    assert colours.style(None) == LabelColours([0], "sample").style(0)


@pytest.mark.parametrize("label", [1.5, None, (1, 2), torch.tensor([1, 2])])
def test_other_labels_raise(label):
    with pytest.raises(TypeError, match="labels must be integers or texts, one per sample, but one is"):
        LabelColours({0: label}, "sample")
    with pytest.raises(TypeError, match=r"labels must be labels by sample number, .* but is a int"):
        LabelColours(3, "sample")
