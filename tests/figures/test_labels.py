"""Labels are short, distinct, and no mathematics."""

import pytest
from lightning_cka.figures.labels import (
    axis_title,
    elided,
    plain,
    reference_title,
    short_labels,
    similarity_title,
    value_label,
)
from synthetic_results import LONG, result


def test_labels_lose_their_common_prefix_and_long_ones_their_middle():
    assert short_labels(["net.block1.conv", "net.block2.conv"]) == (["block1.conv", "block2.conv"], "net")
    assert short_labels(["conv", "convert"]) == (["conv", "convert"], "")
    assert short_labels(["net.a"]) == (["a"], "net")
    assert short_labels(["net", "net.a"]) == (["net", "net.a"], "")
    labels, prefix = short_labels([LONG.format(i) for i in range(2)])
    assert prefix == "backbone.encoder.stages"
    assert labels == ["0.blocks.attent…n.out_projection", "1.blocks.attent…n.out_projection"]


def test_labels_stay_distinct():
    # With 32 characters, the labels of all blocks would be equal.
    blocks = [f"bert.encoder.layer.{i}.attention.output.dense" for i in range(12)] + ["bert.pooler.dense"]
    labels, _ = short_labels(blocks)
    assert len(set(labels)) == 13
    assert max(map(len, labels)) < max(map(len, blocks)) - len("bert.")


def test_dollar_signs_are_escaped_once():
    assert plain("a$b$") == r"a\$b\$"
    assert plain(plain("a$b$")) == r"a\$b\$"
    assert short_labels(["a$b"])[0] == [r"a\$b"]


def test_long_texts_and_axis_titles_are_shortened():
    assert elided("a" * 32) == "a" * 32
    assert elided("abcdefghij", 6) == "ab…hij"


def test_titles_of_axes_are_as_complete_as_their_length_allows():
    assert axis_title("Net", "") == "layer of Net"
    assert axis_title("", "net") == "layer: net.*"
    assert axis_title("Net", "encoder") == "layer of Net: encoder.*"
    assert axis_title("Net", "encoder." * 6) == "layer of Net"
    assert axis_title("Tuned", "model.bert.encoder.layer", ", epoch 3") == "layer of Tuned, epoch 3: ….layer.*"
    assert axis_title("Net", "encoder", ", epoch 3") == "layer of Net, epoch 3: encoder.*"
    assert axis_title("Net", "encoder", ", epoch 3", 30) == "layer of Net, epoch 3"
    assert axis_title("Net", "", ", epoch 3", 15) == "layer of Net"
    assert axis_title("N" * 50, "encoder", "", 30) == f"layer of {'N' * 9}…{'N' * 10}"
    for length in range(18, 60):
        assert len(axis_title("N" * 50, "encoder", ", epoch 3", length)) <= length


def test_titles_of_figures_name_both_sides():
    one = result(reference_name="pretrained (frozen)")
    assert reference_title(one) == "CKA of Live with pretrained (frozen)"
    assert similarity_title("RSA", one, moment=", epoch 2") == "RSA of Live, epoch 2 with pretrained"
    assert len(reference_title(result(reference_name="r" * 90), 30)) <= 30


@pytest.mark.parametrize(
    ("attributes", "label"),
    [
        ({}, "CKA"),
        ({"kernel": "rbf"}, "CKA (rbf)"),
        ({"kernel": "rbf(0.2)", "unbiased": False}, "CKA (rbf(0.2), biased)"),
    ],
)
def test_values_are_named_by_kernel_and_estimator(attributes, label):
    assert value_label(result(**attributes)) == label
    assert reference_title(result(**attributes)) == "CKA of Live with initial"
