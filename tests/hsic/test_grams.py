"""Linear Gram matrices: dtype, memory order, scale."""

import naive
import pytest
import torch
from lightning_cka.hsic import functional as F
from lightning_cka.hsic import grams
from lightning_cka.hsic.centering import u_centered


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_multiplied_in_float32(dtype):
    x = (torch.randn(32, 300) + 10).to(dtype)
    gram = F.centered_gram(x)
    assert gram.dtype == torch.float32
    assert torch.allclose(gram, F.centered_gram(x.double()).float(), atol=1e-3, rtol=1e-5)


def test_features_in_chunks_and_in_any_memory_order():
    x = torch.randn(8, 16, 40, 130, dtype=torch.float64)  # 83,200 features: several chunks
    expected = torch.tensor(naive.fast_gram(x - x.mean(0)))
    assert torch.allclose(F.centered_gram(x), expected, rtol=1e-10, atol=1e-9)
    for other in (x.to(memory_format=torch.channels_last), x.transpose(1, 3), x[:, :, :, ::1]):
        assert torch.allclose(F.centered_gram(other), expected, rtol=1e-10, atol=1e-9)


def test_a_scale_is_a_power_of_two_and_changes_no_digit():
    x = torch.randn(32, 6)
    gram, scale = grams.full_gram(x * 2.0**-90)
    same, one = grams.full_gram(x)
    assert torch.equal(gram, same)
    assert (scale / one).log2() == -90
    assert grams.full_gram(torch.zeros(5, 2))[1] == 0


def test_rows_of_u_centered_matrices_sum_to_zero():
    x = torch.randn(2, 9, 4, dtype=torch.float64) + 3
    centered = u_centered(x @ x.mT)
    assert centered.sum(-1).abs().max() < 1e-12
    assert centered.diagonal(dim1=1, dim2=2).abs().max() == 0
    assert centered.abs().max() > 1


def test_a_workspace_reuses_its_memory():
    workspace = grams.Workspace()
    large = workspace.matrix("a", 4, 6, torch.float32, torch.device("cpu"))
    small = workspace.matrix("a", 3, 5, torch.float32, torch.device("cpu"))
    assert (large.shape, small.shape) == ((4, 6), (3, 5))
    assert large.data_ptr() == small.data_ptr()
    assert workspace.matrix("b", 3, 5, torch.float32, torch.device("cpu")).data_ptr() != large.data_ptr()
