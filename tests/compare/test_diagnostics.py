"""Diagnostics and flags: against the naive reference, on cases that are known to mislead CKA, and their messages."""

import math
from contextlib import nullcontext

import naive
import numpy as np
import pytest
import torch
from lightning_cka import CKAMonitor, GramBank, compare_banks
from lightning_cka.compare.diagnostics import LayerDiagnostics
from lightning_cka.compare.flag_messages import flag_messages, flag_summary
from lightning_cka.compare.flags import Flag, Thresholds
from lightning_cka.compare.layer_statistics import ModelDiagnostics
from lightning_cka.hsic.kernels import RBF
from lightning_cka.hsic.stack import pack_features
from lightning_cka.probe.bank_batch import BankBatch

OFF = Thresholds(None, None, None, None)
CPU = torch.device("cpu")


def bank(features, batch_size=None, layer="a", start=0):
    made = GramBank((layer,), "model", "dataset index")
    for index, batch in enumerate(features.split(batch_size or len(features))):
        samples = tuple(range(start, start + len(batch)))
        start += len(batch)
        made.add(BankBatch(index, pack_features([batch]), str(index), samples))
    return made


def compared(x, y, batch_size=None, **kwargs):
    return compare_banks(bank(x, batch_size), bank(y, batch_size), **{"thresholds": OFF} | kwargs)


@pytest.mark.parametrize("scale", [1.0, 1e-12, 1e12])
def test_effective_dimension_is_the_mean_over_four_tuples(scale):
    x = torch.randn(9, 4, dtype=torch.float64) * torch.tensor([3.0, 1, 1, 0.2])
    x[2] *= 5
    diagnostics = ModelDiagnostics(["a"], CPU)
    packed = pack_features([scale * x + scale])
    diagnostics.add(packed, packed, range(9))
    found = diagnostics.result(distributed=False)["a"].effective_dimension
    assert found == pytest.approx(naive.effective_dimension(x.numpy()), rel=1e-10)


def test_effective_dimension_sums_numerator_and_denominator_over_batches():
    x = torch.randn(4096, 16) * torch.linspace(1, 3, 16)
    variances = torch.linspace(1, 3, 16) ** 2
    expected = float(variances.sum() ** 2 / variances.square().sum())
    for batch_size in (16, 4096):  # Unbiased: small batches do not lower it.
        found = compared(x, x, batch_size).diagnostics.layers["a"].effective_dimension
        assert found == pytest.approx(expected, rel=0.03)


def test_shares_are_those_of_the_gram_matrices():
    x = torch.randn(30, 5, dtype=torch.float64)
    x[[4, 17]] *= torch.tensor([[6.0], [9.0]]).double()
    found = compared(x, x).diagnostics.layers["a"]
    centered = x - x.mean(0)
    squares = centered.square().sum(1)
    assert [sample for sample, _ in found.trace_ratios[:2]] == [17, 4]
    assert [share for _, share in found.trace_ratios] == pytest.approx(
        (30 * squares / squares.sum()).sort(descending=True).values[:3].tolist()
    )
    k = naive.fast_gram(centered)
    shift = np.diag(k) / 28 - np.trace(k) / (2 * 29 * 28)
    u = k + shift[:, None] + shift
    np.fill_diagonal(u, 0)
    rows = (u**2).sum(1)
    assert [share for _, share in found.hsic_ratios] == pytest.approx(sorted(30 * rows / rows.sum())[:-4:-1])
    assert found.hsic_ratio == found.hsic_ratios[0].ratio


def test_bounds_on_the_share_of_the_top_eigenvalue():
    for scales in (torch.ones(8), torch.tensor([5.0, 1, 1, 1, 1, 1, 1, 1]), torch.tensor([3.0, 2, 1, 0.1, 0, 0, 0, 0])):
        x = torch.randn(4096, 8) * scales
        low, high = compared(x, x, 512).diagnostics.layers["a"].top_eigenvalue_bounds
        share = scales.square().max() / scales.square().sum()
        assert 0.97 * low < share < 1.03 * high
        assert high < 1.1


def test_shares_are_of_the_whole_probe_set():
    x = torch.randn(64, 5)
    x[50] *= 20
    whole, split = (compared(x - x.mean(0), x, size).diagnostics.layers["a"] for size in (64, 16))
    assert split.trace_ratios[0].sample == whole.trace_ratios[0].sample == 50
    assert split.trace_ratio == pytest.approx(whole.trace_ratio, rel=0.1)
    assert len({sample for sample, _ in split.trace_ratios}) == 3


def cases():
    torch.manual_seed(0)
    n, d = 256, 64
    x = torch.randn(n, d)
    y = x @ torch.randn(d, d) / 8 + 0.5 * torch.randn(n, d)
    one, three, half = x.clone(), x.clone(), x.clone()
    one[5] *= 100
    three[[5, 77, 200]] *= 100
    direction = torch.randn(d)
    half[: n // 2] += 100 * direction / direction.norm()
    shared = torch.randn(n, 1)
    return {
        "healthy": (x, y),
        "one row": (one, y),
        "three rows": (three, y),
        "half of the rows translated": (half, y),
        "a shared component": tuple(torch.randn(n, d) + 100 * shared * torch.randn(1, d) for _ in range(2)),
        "more features than samples": (torch.randn(n, 20000), torch.randn(n, 20000)),
    }


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
def test_what_misleads_cka_is_flagged_for_what_it_is(case, model, reference, samples, batch_size):
    x, y = cases()[case]
    # Fewer samples than the translated and the shared case need to have the same groups in all batches.
    order = torch.randperm(256, generator=torch.Generator().manual_seed(1))
    banks = []
    for z in (x, y):
        made = GramBank(("a",), "model", "dataset index")
        for index, places in enumerate(order.split(batch_size)):
            made.add(BankBatch(index, pack_features([z[places]]), "", tuple(places.tolist())))
        banks.append(made)
    with pytest.warns(UserWarning) if model else nullcontext():
        result = compare_banks(*banks)
    flags = result.flags
    assert {flag.reason for flag in flags if not flag.of_reference} == model
    assert {flag.reason for flag in flags if flag.of_reference} == reference
    shares = {flag.reason: flag.samples for flag in flags}
    assert sorted(shares.get("trace_ratio", ())) == list(samples)
    if samples:
        assert set(shares["leave_one_out"]) <= set(samples)


def test_the_biased_estimate_misleads_where_the_unbiased_does_not():
    x, y = cases()["more features than samples"]
    assert abs(compared(x, y).matrix.item()) < 0.02
    assert compared(x, y, unbiased=False).matrix.item() > 0.9


@pytest.mark.parametrize(("kernel", "times"), [("rbf", 50), ("distance", 2)])
def test_an_outlier_counts_for_less_to_other_kernels(kernel, times):
    x, y = cases()["one row"]
    linear, other = (compared(x, y, thresholds=OFF, kernel=k) for k in ("linear", kernel))
    layers = [result.diagnostics.layers["a"].trace_ratio for result in (linear, other)]
    changes = [result.diagnostics.leave_one_out["a"].change for result in (linear, other)]
    assert layers[0] > 200
    assert layers[1] < layers[0] / times
    assert changes[1] < changes[0] / times


@pytest.mark.parametrize("case", ["half of the rows translated", "a shared component"])
@pytest.mark.parametrize("kernel", ["rbf", "distance"])
def test_what_is_one_direction_is_flagged_through_any_kernel(case, kernel):
    x, y = cases()[case]
    order = torch.randperm(256, generator=torch.Generator().manual_seed(1))
    with pytest.warns(UserWarning, match=f"CKA, kernel {kernel}: layers that vary along hardly more than one"):
        result = compared(x[order], y[order], 64, kernel=kernel, thresholds=Thresholds())
    assert "effective_dimension" in {flag.reason for flag in result.flags}


def test_a_kernel_that_sees_all_samples_alike_can_be_saved(tmp_path):
    x = torch.randn(64, 64)
    with pytest.warns(UserWarning, match="CKA is nan"):
        result = compared(x, x.clone(), 16, kernel=RBF(0.01))
    result.save(tmp_path / "r.json")
    assert result.matrix.isnan().all()


def test_thresholds_are_checked_at_once():
    for call in (
        lambda: CKAMonitor(thresholds={"trace_ratio": 3}),
        lambda: compared(*cases()["healthy"], thresholds=3),
    ):
        with pytest.raises(TypeError, match=r"thresholds must be lightning_cka.diagnostics.Thresholds\(...\), but is"):
            call()


def test_thresholds_can_be_changed():
    x, y = cases()["healthy"]
    result = compared(x, y, 64, thresholds=OFF)
    assert result.flags == ()
    dimension = result.diagnostics.layers["a"].effective_dimension
    strict = Thresholds(effective_dimension=dimension + 1, trace_ratio=1.0, leave_one_out=0.0, standard_error=1e-9)
    with pytest.warns(UserWarning) as caught:
        flags = compared(x, y, 64, thresholds=strict).flags
    assert [flag.reason for flag in flags if not flag.of_reference] == [
        "effective_dimension",
        "trace_ratio",
        "leave_one_out",
        "standard_error",
    ]
    assert len(caught) == 4


def test_nothing_is_flagged_of_a_layer_that_is_nan():
    x = torch.randn(64, 4)
    broken = x.clone()
    broken[3, 0] = torch.nan
    for features in (broken, torch.zeros(64, 4)):
        with pytest.warns(UserWarning, match="CKA is nan"):
            result = compared(features, x, 16, thresholds=Thresholds())
        assert result.flags == ()
        assert math.isnan(result.diagnostics.layers["a"].effective_dimension)
        assert result.diagnostics.leave_one_out == {}
    assert math.isnan(LayerDiagnostics(1.0).trace_ratio)
    assert all(map(math.isnan, LayerDiagnostics(-1.0).top_eigenvalue_bounds))


def test_messages_name_layer_and_sample_and_say_what_to_do():
    flags = [
        Flag("conv1", "trace_ratio", 83.21, 20.0, (17, 5)),
        Flag("fc", "effective_dimension", 1.234, 2.0, of_reference=True),
        Flag("conv1", "leave_one_out", 0.231, 0.05, (17,)),
        *(Flag(f"layer{i}", "standard_error", 0.1, 0.05) for i in range(20)),
    ]
    messages = flag_messages(flags, "dataset index", "linear", "CKA with 'initial'")
    assert len(messages) == 4
    dimension, share, change, error = messages
    assert "CKA with 'initial': layers that vary along hardly more than one direction" in dimension
    assert "below 2: fc of the reference (1.23). CKA compares that direction" in dimension
    assert "within the groups" in dimension
    assert "more than 20 times" in share
    assert "conv1 (83.2 at dataset index 17, 5)" in share
    assert "Look at them, leave them out, or compare with kernel='rbf'" in share
    assert "by more than 0.05 without one single sample: conv1 (0.231 at dataset index 17)" in change
    assert "layer7 (0.1), and 12 more. " in error
    assert "take more probe samples" in error
    rbf = flag_messages(flags, "sample", "rbf(0.2)")
    assert rbf[1].startswith("CKA, kernel rbf(0.2): layers that single samples dominate")
    assert not any("kernel='rbf'" in message for message in rbf)
    assert flag_summary(flags, "sample")[1] == (
        "single samples with > 20 times the mean squared distance: conv1 (83.2 at sample 17, 5)"
    )
