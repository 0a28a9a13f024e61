"""Flags: features that are known to mislead CKA are flagged for the right reason, healthy ones are not."""

import math
from contextlib import nullcontext

import pytest
import torch
from lightning_cka import GramBank, compare_banks
from lightning_cka.compare.flags import Thresholds
from lightning_cka.hsic.stack import pack_features
from lightning_cka.probe.bank_batch import BankBatch
from misleading_features import OFF, compare_features, feature_pairs


@pytest.mark.parametrize("batch_size", [256, 64])
@pytest.mark.parametrize(
    ("case", "model", "reference", "samples"),
    [
        ("healthy", set(), set(), ()),
        ("one row", {"trace_ratio", "leave_one_out"}, set(), (5,)),
        ("three rows", {"trace_ratio", "leave_one_out"}, set(), (5, 77, 200)),
        ("half of the rows translated", {"effective_dimension"}, set(), ()),
        ("a shared component", {"effective_dimension"}, {"effective_dimension"}, ()),
        ("more features than samples", set(), set(), ()),
    ],
)
def test_misleading_features_are_flagged_for_the_right_reason(case, model, reference, samples, batch_size):
    x, y = feature_pairs()[case]
    # Shuffled, so that every batch has samples of each group.
    order = torch.randperm(256, generator=torch.Generator().manual_seed(1))
    banks = []
    for z in (x, y):
        bank = GramBank(("a",), "model", "dataset index")
        for index, rows in enumerate(order.split(batch_size)):
            bank.add(BankBatch(index, pack_features([z[rows]]), "", tuple(rows.tolist())))
        banks.append(bank)
    with pytest.warns(UserWarning) if model else nullcontext():
        result = compare_banks(*banks)
    flags = result.flags
    # The jackknife leaves out the batch of an outlier, which changes CKA much. One batch has no error.
    large_error = {"standard_error"} if samples and batch_size == 64 else set()
    assert {flag.reason for flag in flags if not flag.of_reference} == model | large_error
    assert {flag.reason for flag in flags if flag.of_reference} == reference
    flagged_samples = {flag.reason: flag.samples for flag in flags}
    assert sorted(flagged_samples.get("trace_ratio", ())) == list(samples)
    if samples:
        assert set(flagged_samples["leave_one_out"]) <= set(samples)


def test_the_biased_estimate_misleads_and_the_unbiased_does_not():
    x, y = feature_pairs()["more features than samples"]
    assert abs(compare_features(x, y).matrix.item()) < 0.02
    assert compare_features(x, y, unbiased=False).matrix.item() > 0.9


@pytest.mark.parametrize(("kernel", "times"), [("rbf", 50), ("distance", 2)])
def test_other_kernels_reduce_the_weight_of_an_outlier(kernel, times):
    x, y = feature_pairs()["one row"]
    linear, other = (compare_features(x, y, thresholds=OFF, kernel=k) for k in ("linear", kernel))
    layers = [result.diagnostics.layers["a"].trace_ratio for result in (linear, other)]
    changes = [result.diagnostics.leave_one_out["a"].change for result in (linear, other)]
    assert layers[0] > 200
    assert layers[1] < layers[0] / times
    assert changes[1] < changes[0] / times


@pytest.mark.parametrize("case", ["half of the rows translated", "a shared component"])
@pytest.mark.parametrize("kernel", ["rbf", "distance"])
def test_a_single_direction_is_flagged_for_any_kernel(case, kernel):
    x, y = feature_pairs()[case]
    order = torch.randperm(256, generator=torch.Generator().manual_seed(1))
    with pytest.warns(UserWarning, match=f"CKA, kernel {kernel}: layers that vary along hardly more than one"):
        result = compare_features(x[order], y[order], 64, kernel=kernel, thresholds=Thresholds())
    assert "effective_dimension" in {flag.reason for flag in result.flags}


def test_thresholds_can_be_changed():
    x, y = feature_pairs()["healthy"]
    result = compare_features(x, y, 64, thresholds=OFF)
    assert result.flags == ()
    dimension = result.diagnostics.layers["a"].effective_dimension
    strict = Thresholds(effective_dimension=dimension + 1, trace_ratio=1.0, leave_one_out=0.0, standard_error=1e-9)
    with pytest.warns(UserWarning) as caught:
        flags = compare_features(x, y, 64, thresholds=strict).flags
    assert [flag.reason for flag in flags if not flag.of_reference] == [
        "effective_dimension",
        "trace_ratio",
        "leave_one_out",
        "standard_error",
    ]
    assert len(caught) == 4


def test_layers_that_are_nan_are_not_flagged():
    x = torch.randn(64, 4)
    broken = x.clone()
    broken[3, 0] = torch.nan
    for features, bad_samples in ((broken, [("bad_sample", (3,))]), (torch.zeros(64, 4), [])):
        with pytest.warns(UserWarning) as caught:
            result = compare_features(features, x, 16, thresholds=Thresholds())
        assert "CKA is nan" in str(caught[0].message)
        assert [(flag.reason, flag.samples) for flag in result.flags] == bad_samples
        assert math.isnan(result.diagnostics.layers["a"].effective_dimension)
        assert result.diagnostics.leave_one_out == {}
