"""Parts of banks."""

from dataclasses import replace

import pytest
import torch
from gram_banks import ignore_few_samples, make_bank
from lightning_cka import compare_banks
from lightning_cka.hsic.stack import pack_features
from lightning_cka.probe.bank_batch import BankBatch

pytestmark = ignore_few_samples


def test_layers_of_a_bank_are_selected_by_pattern():
    a, b = make_bank(), make_bank(2)
    whole = compare_banks(a, b)
    part = compare_banks(a, b, layers="b.*", reference_layers=["a", "b.c"])
    assert (part.layers, part.reference_layers) == (("b.c",), ("a", "b.c"))
    torch.testing.assert_close(part.matrix, whole.matrix[1:], rtol=0, atol=1e-12)
    assert compare_banks(a, a, layers="a").layers == ("a",)
    with pytest.raises(ValueError, match=r"reference_layers: 'c' matches none of the bank's layers: a, b\.c"):
        compare_banks(a, b, reference_layers="c")


def test_the_bandwidth_without_the_first_batch():
    """If the first batches cannot be compared, the first pair that can be compared fixes the bandwidth."""
    a, b = make_bank(1), make_bank(2)
    b.add(BankBatch(0, pack_features([torch.randn(7, 3), torch.randn(7, 4)]), "other", tuple(range(7))))
    with pytest.warns(UserWarning, match="25 samples are compared as if"):
        loose = compare_banks(a, b, kernel="rbf", strict=False)
    for bank in (a, b):
        bank.batches = {place - 1: replace(batch, index=place - 1) for place, batch in bank.batches.items() if place}
        bank.probe = {place - 1: inputs for place, inputs in bank.probe.items() if place}
    torch.testing.assert_close(loose.matrix, compare_banks(a, b, kernel="rbf").matrix, rtol=0, atol=1e-14)
