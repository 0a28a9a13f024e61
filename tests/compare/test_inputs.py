"""Arguments of `MinibatchCKA` and of its updates."""

import numpy as np
import pytest
import torch
from lightning_cka import MinibatchCKA
from metric_batches import batches, filled


def test_mappings_in_any_order_equal_sequences():
    metric = MinibatchCKA(["a", "b", "c"], ["d", "e"])
    for x, y in (data := batches()):
        keyed = dict(zip("abc", x, strict=True))
        metric.update(dict(reversed(keyed.items())), dict(zip("de", y, strict=True)))
    assert torch.equal(metric.compute(), filled(data).compute())


def test_a_mapping_with_other_keys_later():
    metric = MinibatchCKA(["a"])
    metric.update({"a": torch.randn(5, 2)})
    with pytest.raises(ValueError, match="keys at each update"):
        metric.update({"a": torch.randn(5, 2), "c": torch.randn(5, 2)})


@pytest.mark.parametrize(
    "names",
    [
        ("b", "a"),
        {"b": 1, "a": 2},
        {"b": 1, "a": 2}.keys(),
        (name for name in "ba"),
        iter(["b", "a"]),
        np.array(["b", "a"]),
    ],
)
def test_containers_of_names_keep_their_order(names):
    assert MinibatchCKA(names).layers == ("b", "a")


@pytest.mark.parametrize("names", [{"b", "a"}, frozenset(["a", "b"])])
def test_the_names_of_a_set_are_sorted(names):
    """Each process may iterate over a set in another order."""
    metric = MinibatchCKA(names, names)
    assert metric.layers == metric.reference_layers == ("a", "b")


def test_numbers_of_layers():
    assert MinibatchCKA(np.int64(2)).layers == MinibatchCKA(2).layers == ("0", "1")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: MinibatchCKA(0), "layers must be a positive number or a sequence of names, but is 0"),
        (lambda: MinibatchCKA("conv1"), "sequence of names, but is 'conv1'"),
        (lambda: MinibatchCKA(2.0), "sequence of names, but is 2.0"),
        (lambda: MinibatchCKA([1, 2]), r"sequence of names, but is \[1, 2\]"),
        (lambda: MinibatchCKA(set()), r"sequence of names, but is set\(\)"),
        (lambda: MinibatchCKA(["a", "a"]), "distinct names"),
        (lambda: MinibatchCKA(2, kernel="linaer"), "unknown kernel 'linaer'; expected one of"),
        (lambda: MinibatchCKA(2).update([torch.ones(5, 2)]), "expected features of 2 layers, but got 1"),
        (lambda: MinibatchCKA(2).update([torch.ones(5, 2), torch.ones(6, 2)]), r"same batch size .* n = \[5, 6\]"),
        (lambda: MinibatchCKA(1).update([torch.ones(5, 2)], [torch.ones(6, 2)]), r"one batch, but have n = \[5, 6\]"),
        (lambda: MinibatchCKA(1, 2).update([torch.ones(5, 2)]), "reference_features are needed"),
        (lambda: MinibatchCKA(["a"]).update({"b": torch.ones(5, 2)}), r"missing: \['a'\], unexpected: \['b'\]"),
        (lambda: MinibatchCKA(1, kernel="precomputed").update([torch.ones(5, 2)]), r"takes \(n, n\) Gram matrices"),
        (
            lambda: MinibatchCKA(1, kernel="precomputed").update([torch.arange(25.0).view(5, 5)]),
            "symmetric Gram matrices, but got one that is not",
        ),
        (lambda: MinibatchCKA(1).update([torch.tensor(1.0)]), r"tensors of shape \(n, ...\), but one is tensor\(1.\)"),
        (lambda: MinibatchCKA(1, foo=1), "Unexpected keyword arguments: `foo`"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
