"""Flags: features that are known to mislead CKA are flagged for the right reason, healthy ones are not."""

import math
from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch
from gram_banks import bank_of_features
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
        ("half of the rows translated", {"separated_group"}, set(), ()),
        ("a shared component", {"dominant_direction"}, set(), ()),
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


@pytest.mark.parametrize("kernel", ["rbf", "distance"])
def test_a_group_that_lies_apart_is_flagged_for_any_kernel(kernel):
    x, y = feature_pairs()["half of the rows translated"]
    order = torch.randperm(256, generator=torch.Generator().manual_seed(1))
    with pytest.warns(UserWarning, match=f"CKA, kernel {kernel}: layers that have a group of samples apart"):
        result = compare_features(x[order], y[order], 64, kernel=kernel, thresholds=Thresholds())
    (flag,) = (flag for flag in result.flags if flag.reason == "separated_group")
    assert len({int(order[sample]) < 128 for sample in flag.samples}) == 1  # All of one group.


def test_thresholds_can_be_changed():
    x, y = feature_pairs()["healthy"]
    result = compare_features(x, y, 64, thresholds=OFF)
    assert result.flags == ()
    strict = Thresholds(leave_one_out=0.0, standard_error=1e-9)
    with pytest.warns(UserWarning) as caught:
        flags = compare_features(x, y, 64, thresholds=strict).flags
    assert [flag.reason for flag in flags if not flag.of_reference] == ["leave_one_out", "standard_error"]
    assert len(caught) == 2


def test_a_trace_ratio_is_flagged_only_if_the_sample_moves_cka():
    torch.manual_seed(0)
    far = (5 / torch.distributions.Chi2(5.0).sample((2048, 1))).sqrt()
    x = far * torch.randn(2048, 30)
    y = x + far * torch.randn(2048, 30)
    thresholds = Thresholds(influence=None, leave_one_out=None, standard_error=None)
    result = compare_features(x, y, 128, thresholds=thresholds)
    assert result.diagnostics.layers["a"].trace_ratio > 20  # Without the second condition, it would be flagged.
    assert result.flags == ()
    x[100] *= 30
    with pytest.warns(UserWarning, match=r"single samples dominate.*at dataset index 100"):
        result = compare_features(x, y, 128, thresholds=thresholds)
    assert {flag.samples for flag in result.flags} == {(100,)}


def test_the_weakest_outlier_that_moves_cka_is_named():
    generator = torch.Generator().manual_seed(0)
    x, noise = torch.randn(2, 1024, 32, generator=generator)
    y = x + noise
    assert compare_features(x, y, 64, thresholds=Thresholds()).flags == ()
    x[37] *= 6
    with pytest.warns(UserWarning, match=r"single samples dominate.* a \(43.1 at dataset index 37\)"):
        flags = compare_features(x, y, 64, thresholds=Thresholds()).flags
    assert [(flag.reason, flag.samples) for flag in flags] == [("trace_ratio", (37,))]
    with pytest.warns(
        UserWarning, match=r"more than 2.5 standard errors without one sample: a \(3.09 at dataset index 37"
    ):
        flags = compare_features(x, y, 64, thresholds=Thresholds(trace_ratio=None)).flags
    assert [(flag.reason, flag.samples) for flag in flags] == [("influence", (37,))]


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


def test_a_layer_is_uncertain_if_cka_with_its_own_partner_is():
    """A model that has not changed has no errors of its own, however uncertain CKA with other layers is."""
    torch.manual_seed(0)
    x, noise = torch.randn(2, 64, 6)
    a, b = x.split(16), (0.6 * x + noise).split(16)
    one, same, other = (bank_of_features(zip(*sides, strict=True), ("a", "b")) for sides in ((a, b), (a, b), (b, a)))
    thresholds = replace(OFF, standard_error=0.02)
    unchanged = compare_banks(one, same, thresholds=thresholds)
    assert unchanged.standard_error[0, 1] > 0.02  # Positive control: the other cells are uncertain.
    assert unchanged.flags == ()
    with pytest.warns(UserWarning, match="standard error above 0.02"):
        flags = compare_banks(one, other, thresholds=thresholds).flags
    assert {flag.layer: flag.value for flag in flags} == pytest.approx(
        dict(zip("ab", compare_banks(one, other, thresholds=OFF).standard_error.diagonal().tolist(), strict=True))
    )


def test_the_neighbours_of_an_outlier_are_not_named():
    """Without any sample of its batch, CKA changes, because the outlier is centered with the others."""
    generator = torch.Generator().manual_seed(0)
    x, noise = torch.randn(2, 1024, 16, generator=generator).relu()
    y = x + noise
    x[300] *= 300
    y[300] *= 300
    with pytest.warns(UserWarning, match="single samples dominate"):
        result = compare_features(x, y, 128, thresholds=Thresholds(standard_error=None, leave_one_out=None))
    assert {sample for flag in result.flags for sample in flag.samples} == {300}
    assert {flag.reason for flag in result.flags} >= {"trace_ratio"}
