"""A small `CKAResult`."""

import torch
from lightning_cka import CKAResult
from lightning_cka.compare.left_out_batches import LeftOutBatches


def make_result(**kwargs):
    matrix = torch.tensor([[1.0, 0.25, -0.01], [0.5, 1 / 3, float("nan")]], dtype=torch.float64)
    defaults = {"standard_error": matrix.abs() / 10, "epoch": 3, "step": 40, "num_samples": 96}
    return CKAResult(matrix, ("a", "b"), ("b", "c", "a"), **(defaults | kwargs))


def make_left_out_batches():
    """CKA of the layers "a" and "b" of `make_result` without each of three batches."""
    values = torch.tensor([[-0.02, 0.01, float("nan")], [0.4, 1 / 3, 0.6]], dtype=torch.float64)
    weights = torch.tensor([208.0, 208.0, 54.0], dtype=torch.float64)
    return LeftOutBatches(("0123456789abcdef", "f" * 16, "0" * 16), weights, ("a", "b"), values)
