"""Layers whose CKA is ``nan`` are named with the reason."""

import math
import warnings

import pytest
import torch
from lightning_cka import MinibatchCKA, functional
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


def decreasing(squared):
    return torch.exp(-squared.clamp(min=0))


def constant(squared):
    return 0.7 * torch.ones_like(squared)


DEAD = {
    "equal numbers": torch.full((64, 6), 3.7),
    "zeros": torch.zeros(64, 6),
    "one feature": torch.full((64, 1), 1e8),
    "half precision": torch.full((64, 6), 0.1, dtype=torch.float16),
    "bfloat16": torch.full((64, 6), 5.3, dtype=torch.bfloat16),
    "float64": torch.full((64, 6), 1 / 3, dtype=torch.float64),
}


@pytest.mark.filterwarnings("ignore:CKA")
@pytest.mark.parametrize("unbiased", [True, False])
@pytest.mark.parametrize("kernel", ["linear", "rbf", "distance", decreasing, lambda d: 1 / (1 + d), constant])
@pytest.mark.parametrize("dead", DEAD.values(), ids=list(DEAD))
def test_a_layer_without_variance_is_nan_in_every_route(dead, kernel, unbiased):
    x = torch.randn(64, 6)
    metric = MinibatchCKA(2, kernel=kernel, unbiased=unbiased)
    for part, other in zip(x.split(32), dead.split(32), strict=True):
        metric.update([part, other])
    result = compare_features(x, dead.to(x.dtype), kernel=kernel, unbiased=unbiased)
    for value in (metric.compute()[0, 1], metric.compute()[1, 1], result.matrix):
        assert value.isnan().all()
    for pair in ((x, dead), (dead, x), (dead, dead)):
        assert functional.cka(*pair, kernel=kernel, unbiased=unbiased).isnan()
    if kernel is not constant:
        assert metric.compute()[0, 0] == 1


@pytest.mark.filterwarnings("ignore:CKA")
@pytest.mark.parametrize("n", [4, 5, 33])
def test_a_precomputed_gram_matrix_without_variance_is_nan(n):
    x, flat = torch.randn(n, 3), torch.rand(n)
    metric = MinibatchCKA(3, kernel="precomputed", unbiased=False)
    metric.update([x @ x.T, torch.full((n, n), 0.3), flat[:, None] + flat])
    matrix = metric.compute()
    assert matrix.isnan().tolist() == [[False, True, True], [True] * 3, [True] * 3]


@pytest.mark.filterwarnings("ignore:CKA")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("d", [1, 16])
@pytest.mark.parametrize("kernel", ["linear", "rbf", decreasing])
def test_half_precision_features_have_variance_only_beyond_their_own_rounding(kernel, d, dtype):
    """Their errors have up to eps / sqrt(12) of their size. At 4 eps, that is 1/192 of the variance."""
    eps = torch.finfo(dtype).eps
    for spread, defined in ((0.01, False), (1.0, False), (3.0, False), (6.0, True), (50.0, True)):
        x = 5 + 5 * eps * spread * torch.randn(512, d)
        y = x + 5 * eps * spread * torch.randn(512, d)
        metric = MinibatchCKA(1, kernel=kernel)
        metric.update([x.to(dtype)], [y])
        values = [metric.compute().item(), functional.cka(x.to(dtype), y, kernel=kernel).item()]
        if defined:
            assert values == pytest.approx([functional.cka(x.double(), y.double(), kernel=kernel).item()] * 2, abs=0.01)
        else:
            assert all(map(math.isnan, values))
