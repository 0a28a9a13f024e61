"""A small `CKAResult`."""

import torch
from lightning_cka import CKAResult


def make_result(**kwargs):
    matrix = torch.tensor([[1.0, 0.25, -0.01], [0.5, 1 / 3, float("nan")]], dtype=torch.float64)
    defaults = {"standard_error": matrix.abs() / 10, "epoch": 3, "step": 40, "num_samples": 96}
    return CKAResult(matrix, ("a", "b"), ("b", "c", "a"), **(defaults | kwargs))
