"""Arguments of `MinibatchCKA` and of its updates."""

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
    ("call", "message"),
    [
        (lambda: MinibatchCKA(0), "layers must be a positive number or a sequence of names, but is 0"),
        (lambda: MinibatchCKA("conv1"), "sequence of names, but is 'conv1'"),
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
