"""Which layers are paired: by name, without prefixes, by position, by a mapping."""

import logging

import pytest
from lightning_cka.compare.pairing import announced_pairing, check_pair, pair_layers

ENCODER = [f"encoder.layer.{i}" for i in range(12)]


def pairs(layers, reference_layers, pair="name"):
    return dict(pair_layers(layers, reference_layers, pair).layers)


def test_layers_of_the_same_names_are_paired_in_the_order_of_the_model():
    found = pair_layers(["b", "a", "x"], ["a", "b", "y"])
    assert list(found.layers.items()) == [("b", "b"), ("a", "a")]
    assert found.how == "same names"


@pytest.mark.parametrize(
    ("own", "other", "how"),
    [
        ("bert.", "", "names without 'bert.'"),
        ("", "model.bert.", "names without 'model.bert.' of the reference"),
        ("model.", "model.bert.", "names without 'model.' of the model and without 'model.bert.' of the reference"),
        ("student.", "teacher.", "names without 'student.' of the model and without 'teacher.' of the reference"),
        ("_orig_mod.", "module.", "names without '_orig_mod.' of the model and without 'module.' of the reference"),
        ("a.0.", "", "names without 'a.0.'"),
    ],
)
@pytest.mark.parametrize("names", [ENCODER, ["0", "1", "10"], ["encoder", "head.0"]])
def test_the_one_pair_of_prefixes_is_removed_that_pairs_most_layers(own, other, how, names):
    layers, others = [own + name for name in names], [other + name for name in names]
    found = pair_layers([*layers, "own.x"], [*others, "y"])
    assert dict(found.layers) == dict(zip(layers, others, strict=True))
    assert found.how == how


def test_layers_outside_the_prefix_stay_paired_with_the_same_name():
    layers, others = [f"bert.{name}" for name in ENCODER], list(ENCODER)
    assert pairs([*layers, "head"], [*others, "head"])["head"] == "head"
    # The reference is the part "bert", so that its head is the one in "bert".
    found = pairs([*layers, "bert.head", "head"], [*others, "head"])
    assert found["bert.head"] == "head"
    assert "head" not in found


def test_a_removal_must_pair_more_layers_than_the_same_names():
    assert pairs(["a", "b", "net.a"], ["a", "b", "x"]) == {"a": "a", "b": "b"}
    assert pairs(["0.a", "0.b", "1.a", "1.b"], ["0.a", "0.b", "2.a"]) == {"0.a": "0.a", "0.b": "0.b"}


def test_parts_of_both_models_are_not_taken_for_each_other():
    """Most names of the long stage agree with those of the other model's long stage, but they are other stages."""
    layers = [f"layer{stage}.{i}" for stage, count in ((1, 3), (2, 8)) for i in range(count)]
    others = [f"layer{stage}.{i}" for stage, count in ((1, 8), (2, 3)) for i in range(count)]
    assert all(name == other for name, other in pairs(layers, others).items())
    assert all(name == other for name, other in pairs(layers, others[:8]).items())


def test_a_few_names_that_agree_by_accident_pair_nothing():
    layers = [*(f"blocks.{i}" for i in range(12)), "norm"]
    others = [*(f"layers.{stage}.blocks.{i}" for stage, n in enumerate((2, 2, 6, 2)) for i in range(n)), "head"]
    assert pairs(layers, others) == {}
    assert pairs(["conv1", "conv2"], ["fc1", "fc2"]) == {}


@pytest.mark.parametrize("inner", [["net.0", "net.1"], ["0", "1"]])
def test_a_tie_is_refused_with_both_removals(inner):
    layers = [f"{side}.{name}" for side in ("left", "right") for name in inner]
    message = (
        rf"in 2 ways that pair 2 layers each: by names without 'left\.' \(left\.{inner[0]} with {inner[0]}\), "
        rf"or by names without 'right\.' .*pair=\{{'layer of the model'.*pair=\{{\}} pairs none"
    )
    with pytest.raises(ValueError, match=message):
        pair_layers(layers, inner)
    with pytest.raises(ValueError, match=r"without 'left\.' of the reference .*or by names without 'right\.' of"):
        pair_layers(inner, layers)
    assert pairs(layers, inner, {}) == {}
    assert pairs(layers, inner, {layers[3]: inner[1]}) == {layers[3]: inner[1]}


def test_a_tie_that_pairs_no_more_than_the_same_names_is_none():
    assert pairs(["a", "left.a", "right.a"], ["a", "x"]) == {"a": "a"}


def test_by_position():
    found = pair_layers(["a", "b"], ["x", "a"], "position")
    assert dict(found.layers) == {"a": "x", "b": "a"}
    assert found.how == "position"
    message = r"equally many layers on both sides, but the model has 1 \(a\) and the reference 2 \(x, y\)\. layers= and"
    with pytest.raises(ValueError, match=message):
        pair_layers(["a"], ["x", "y"], "position")


def test_by_a_mapping():
    """It may leave layers out, and several layers may have one layer of the reference."""
    found = pair_layers(["a", "b", "c"], ["x", "y"], {"c": "x", "a": "x"})
    assert list(found.layers.items()) == [("a", "x"), ("c", "x")]
    assert found.how == "mapping"
    with pytest.raises(ValueError, match=r"'aa' is no compared layer of the model; expected names such as a"):
        pair_layers(["a", "b"], ["x"], {"aa": "x"})
    with pytest.raises(ValueError, match=r"'encoder.1' is no compared layer of the reference; .* such as encoder.0"):
        pair_layers(["a", "b"], ["encoder.0", "z"], {"a": "encoder.1"})


@pytest.mark.parametrize("pair", ["names", "", None, 3, ["a"], {"a": 1}, {1: "a"}, {"a": ["x"]}])
def test_other_values_are_refused(pair):
    with pytest.raises((ValueError, TypeError), match=r"pair must (be 'name', 'position' or|map layer names)"):
        check_pair(pair)


def test_one_line_says_how_layers_are_paired(caplog):
    caplog.set_level(logging.INFO)
    for layers, others, pair in (
        (["a", "b"], ["a", "c"], "name"),
        ([f"bert.{name}" for name in ENCODER] + ["head"], ENCODER, "name"),
        (["a", "b"], ["x", "y"], "position"),
        (["a", "b"], ["x", "y"], "name"),
        (["a", "b"], ["x", "y"], {}),
    ):
        announced_pairing(layers, others, pair=pair, reference="reference 'r'")
    lines = [record.getMessage() for record in caplog.records]
    assert lines[0] == (
        "CKA pairs 12 of 13 layers with reference 'r' by names without 'bert.': bert.encoder.layer.0 with "
        "encoder.layer.0, ..., bert.encoder.layer.11 with encoder.layer.11"
    )
    assert lines[1] == "CKA pairs 2 of 2 layers with reference 'r' by position: a with x, b with y"
    for line, how in zip(lines[2:], ("same names", "mapping"), strict=True):
        assert line.startswith(
            f"CKA: no layers are paired with those of reference 'r' ({how}), so that there are values"
        )
        assert line.endswith("mean_all_pairs instead of mean. pair= pairs layers")
