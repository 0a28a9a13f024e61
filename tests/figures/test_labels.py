"""Labels are short, distinct, and no mathematics."""

import pytest
from lightning_cka.figures.labels import axis_title, elided, plain, reference_title, short_labels, value_label
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
    assert axis_title("Net", "") == "Net"
    assert axis_title("Net", "encoder") == "Net: encoder.*"
    assert axis_title("Net", "encoder." * 6) == "Net: …"


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
    assert reference_title(result(**attributes)) == "CKA with initial"
