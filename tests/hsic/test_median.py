"""The median of squared distances against NumPy's."""

import naive
import numpy as np
import pytest
import torch
from lightning_cka.hsic.median import median_distance


@pytest.mark.parametrize("n", [3, 4, 5, 6, 7, 8, 63, 64])
@pytest.mark.parametrize("num_equal", [0, 2, 5])
def test_it_is_numpys_median_of_all_entries(n, num_equal):
    random = np.random.RandomState(n)
    x = random.randn(4, n, 3)
    x[:, :num_equal] = x[:, :1]  # Further zeros beside those of the diagonal.
    squared = np.stack([naive.squared_distances(each) for each in x])
    medians = median_distance(torch.tensor(squared).reshape(2, 2, n, n))
    np.testing.assert_allclose(medians.flatten(), [np.median(each) for each in squared], rtol=1e-15)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_an_entry_that_is_not_finite_makes_it_nan(value):
    squared = 1 - torch.eye(6).repeat(2, 1, 1)
    squared[0, 1, 4] = squared[0, 4, 1] = value
    assert median_distance(squared).isnan().tolist() == [True, False]
