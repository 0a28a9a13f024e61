"""Changes of CKA from the products of batches, of which some are undefined."""

import numpy as np
import pytest
import torch
from lightning_cka.compare.direction_statistics import ENDS, NUM_ROWS, WHOLE, WITHOUT, statistics_of


def changes(whole, part):
    """Return the changes of P pairs from the products ``(k, 3, P)`` of all samples and of a part of them."""
    numbers = torch.full((len(whole), NUM_ROWS, whole.shape[2]), torch.nan, dtype=torch.float64)
    numbers[:, WHOLE : WHOLE + 3], numbers[:, WITHOUT : WITHOUT + 3] = whole, part
    ends = torch.zeros(len(whole), 2, 2 * ENDS, whole.shape[2], dtype=torch.long)
    return [each.without_directions for each in statistics_of(numbers, ends)]


def some_products(k, seed=0):
    """Return products ``(k, 3, 2)`` of k batches for two pairs."""
    generator = torch.Generator().manual_seed(seed)
    return torch.tensor([4.0, 9.0, 7.0])[:, None] + torch.rand(k, 3, 2, generator=generator, dtype=torch.float64)


def cka(batches):
    pairs, layers, references = (sum(batch[i] for batch in batches) for i in range(3))
    return pairs / np.sqrt(layers * references)


def naive_change(whole, part):
    """Return CKA, CKA of the part and the standard error of their difference, one batch left out after the other."""
    kept = [b for b in range(len(whole)) if np.isfinite(whole[b]).all() and np.isfinite(part[b]).all()]
    value = cka([whole[b] for b in kept]) - cka([part[b] for b in kept])
    squares = 0.0
    for b in kept:
        others = [c for c in kept if c != b]
        left_out = cka([whole[c] for c in others]) - cka([part[c] for c in others])
        squares += (left_out - value) ** 2
    error = np.sqrt((len(kept) - 1) / len(kept) * squares)
    return cka([whole[b] for b in kept]), cka([part[b] for b in kept]), error


@pytest.mark.parametrize("undefined", [(), (0,), (2, 5)])
def test_a_change_and_its_error_come_from_the_batches_in_which_both_are_defined(undefined):
    whole, part = some_products(8), some_products(8, seed=1) / 2
    for b in undefined:
        part[b, :, 0] = torch.nan  # The second pair has all of its batches.
    for p, found in enumerate(changes(whole, part)):
        expected = naive_change(whole[:, :, p].numpy(), part[:, :, p].numpy())
        assert tuple(found) == pytest.approx(expected, rel=1e-12)


def test_one_batch_has_no_error_and_no_batch_has_no_value():
    whole, part = some_products(1), some_products(1, seed=1)
    part[:, :, 1] = torch.nan
    one, none = changes(whole, part)
    assert np.isfinite([one.cka, one.remaining]).all()
    assert np.isnan([one.standard_error, *none]).all()


def test_a_part_that_is_undefined_in_over_a_quarter_of_the_batches_is_nan():
    whole, part = some_products(8), some_products(8, seed=1)
    part[:3, :, 0] = torch.nan
    one, other = changes(whole, part)
    assert np.isnan(one).all()
    assert np.isfinite(other).all()
