"""The changes of CKA without single samples, in standard errors, against the definition."""

import naive
import numpy as np
import pytest
import torch
from lightning_cka.compare.influence import BatchRecord, leave_one_out_reductions
from lightning_cka.compare.influential_samples import influential_samples
from lightning_cka.hsic.products import hsic_products
from lightning_cka.hsic.stack import pack_features


def features(n, k, far, factor):
    generator = torch.Generator().manual_seed(1)
    xs = [torch.randn(n, 5, generator=generator, dtype=torch.float64) for _ in range(k)]
    ys = [x[:, :4] + torch.randn(n, 4, generator=generator) for x in xs]
    for parts in (xs, ys):
        parts[far // n][far % n] *= factor
    return xs, ys


def found(xs, ys):
    """Return the ratios by sample number, the largest first."""
    records, sums = [], [0.0, 0.0, 0.0]
    for place, (x, y) in enumerate(zip(xs, ys, strict=True)):
        left, right = pack_features([x]), pack_features([y])
        numbers = tuple(range(place * len(x), (place + 1) * len(x)))
        records.append(BatchRecord(numbers, leave_one_out_reductions(left, right, unbiased=True), 2**-52))
        products = hsic_products(left, right, unbiased=True)
        sums = [total + product.flatten() for total, product in zip(sums, products, strict=True)]
    (ratios,) = influential_samples(records, tuple(sums), distributed=False)
    return ratios


@pytest.mark.parametrize("factor", [1.0, 8.0])
def test_ratios_are_changes_in_units_of_the_trimmed_standard_error(factor):
    xs, ys = features(10, 6, far=25, factor=factor)
    changes = naive.leave_one_out([x.numpy() for x in xs], [y.numpy() for y in ys])
    changes = abs(changes - naive.minibatch_cka([[x.numpy()] for x in xs], [[y.numpy()] for y in ys])[0, 0])
    order = np.argsort(-changes)
    count, trimmed = len(changes), 3  # 5 percent of 60.
    error = (np.square(changes[order[trimmed:]]).sum() * count / (count - trimmed)) ** 0.5
    ratios = found(xs, ys)
    assert list(ratios)[:10] == list(order[:10])
    np.testing.assert_allclose(list(ratios.values())[:10], changes[order[:10]] / error, rtol=1e-6)


@pytest.mark.parametrize("n", [4, 5, 32])
def test_a_far_sample_is_found_in_batches_of_any_size(n):
    """Without one sample of a batch of 4, the other three do not count: the change is the same for all four."""
    k, far = -(-36 // n) + 1, 17
    ratios = found(*features(n, k, far, 100.0))
    assert ratios[far] > 3
    named = {sample for sample, ratio in ratios.items() if ratio > 3}
    assert named == (set(range(16, 20)) if n == 4 else {far})
