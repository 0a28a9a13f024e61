"""Products ignore autocast and reduced-precision switches, and leave them unchanged."""

import pytest
import torch
from lightning_cka.hsic import functional as F
from lightning_cka.hsic.precision import accumulator_dtype


def test_autocast_and_matmul_precision_do_not_apply_and_are_left_alone():
    x = torch.randn(64, 700) + 50
    expected = F.centered_gram(x)
    torch.set_float32_matmul_precision("medium")
    try:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.equal(F.centered_gram(x), expected)
            assert torch.is_autocast_enabled("cpu")
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")


def test_reduced_precision_switches_still_inherit():
    """After a call, a more general switch still changes the more specific ones."""
    if not hasattr(torch.backends, "fp32_precision"):
        pytest.skip("torch before 2.9 has one switch only")
    torch.backends.cuda.matmul.fp32_precision = "none"
    torch.backends.fp32_precision = "tf32"
    try:
        F.centered_gram(torch.randn(8, 3))
        assert torch.backends.cuda.matmul.fp32_precision == "tf32"
        torch.backends.fp32_precision = "ieee"
        assert torch.backends.cuda.matmul.fp32_precision == "ieee"
        torch.backends.cuda.matmul.fp32_precision = "tf32"
        F.centered_gram(torch.randn(8, 3))
        assert torch.backends.cuda.matmul.fp32_precision == "tf32"
    finally:
        torch.backends.cuda.matmul.fp32_precision = "none"
        torch.backends.fp32_precision = "none"


def test_sums_are_float64_except_on_mps():
    assert accumulator_dtype(torch.device("cpu")) == torch.float64
    assert accumulator_dtype(torch.device("mps")) == torch.float32
