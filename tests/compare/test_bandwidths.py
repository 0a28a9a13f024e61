"""Bandwidths of several processes."""

import pytest
import torch
from lightning_cka.compare.bandwidths import agreed_medians


def test_processes_with_different_bandwidths_are_warned_about():
    medians = torch.tensor([[2.0, 4.0], [2.0, 5.0], [-1.0, -1.0]])
    with pytest.warns(UserWarning, match="of 2 processes fixed RBF bandwidths whose squares differ by up to 22%"):
        assert agreed_medians(medians).tolist() == [2.0, 4.0]
    assert agreed_medians(medians[[2, 1]]).tolist() == [2.0, 5.0]  # Only one process has a batch.
    assert agreed_medians(medians[[2]]).tolist() == [-1.0, -1.0]
