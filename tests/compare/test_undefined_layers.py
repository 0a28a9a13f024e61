"""Layers whose CKA is ``nan`` are named with the reason."""

import warnings

import pytest
import torch
from lightning_cka import MinibatchCKA
from lightning_cka.hsic.kernels import RBF
from metric_batches import batches, filled
from misleading_features import compare_features


def test_undefined_layers_are_nan_and_named():
    metric = MinibatchCKA(["dead", "alive", "broken"])
    for _ in range(2):
        broken = torch.randn(16, 3)
        broken[3, 1] = torch.inf
        metric.update([torch.full((16, 4), 0.1), torch.randn(16, 5), broken])
    with pytest.warns(UserWarning) as caught:
        matrix = metric.compute()
    messages = [str(w.message) for w in caught]
    reason = "with NaN or infinite activations, or with outliers beyond floating-point precision"
    assert messages == [
        "CKA is nan for layers whose activations have no variance: dead",
        f"CKA is nan for layers {reason}: broken",
    ]
    assert matrix.isnan().tolist() == [[True] * 3, [True, False, True], [True] * 3]


def test_a_warning_says_that_all_batches_are_too_small():
    with pytest.warns(UserWarning, match="all 1 batches had fewer than 4 samples"):
        assert filled(batches(sizes=(3,))).compute().isnan().all()


def test_healthy_data_give_no_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not filled(batches()).compute().isnan().any()


def test_a_kernel_for_which_all_samples_are_alike(tmp_path):
    x = torch.randn(64, 64)
    with pytest.warns(UserWarning, match="CKA is nan"):
        result = compare_features(x, x.clone(), 16, kernel=RBF(0.01))
    result.save(tmp_path / "r.json")
    assert result.matrix.isnan().all()
