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
def test_influences_are_changes_in_units_of_trimmed_standard_errors(factor):
    n, k, far = 10, 6, 25
    xs, ys = features(n, k, far, factor)
    changes = naive.leave_one_out([x.numpy() for x in xs], [y.numpy() for y in ys])
    changes = abs(changes - naive.minibatch_cka([[x.numpy()] for x in xs], [[y.numpy()] for y in ys])[0, 0])
    order = np.argsort(-changes)
    count, kept = len(changes), order[3:]  # Without 5 percent of 60.
    error = (np.square(changes[kept]).sum() * count / len(kept)) ** 0.5
    influences = found(xs, ys)
    assert list(influences)[:10] == list(order[:10])
    for sample in order[:10]:
        assert influences[sample].ratio == pytest.approx(changes[sample] / error, rel=1e-6)
        others = kept[kept // n != sample // n]
        error_of_others = (np.square(changes[others]).sum() * count / len(others)) ** 0.5
        assert influences[sample].to_other_batches == pytest.approx(changes[sample] / error_of_others, rel=1e-6)


@pytest.mark.parametrize("n", [4, 5, 32])
def test_a_far_sample_in_both_models_does_not_hide_in_the_error_that_it_makes(n):
    far = 17
    influences = found(*features(n, -(-36 // n) + 1, far, 100.0))
    assert influences[far].to_other_batches > 10


def test_without_one_of_four_samples_the_others_of_the_batch_do_not_count():
    influences = found(*features(4, 10, 17, 100.0))
    assert {sample for sample, each in influences.items() if each.ratio > 3} == {16, 17, 18, 19}


def test_of_a_single_batch_both_ratios_are_the_same():
    influences = found(*features(40, 1, 17, 3.0))
    assert influences
    assert all(each.ratio == each.to_other_batches for each in influences.values())
