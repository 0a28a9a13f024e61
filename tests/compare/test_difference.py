"""Differences of two results: paired errors, significance, equivalence, and results that do not fit together."""

from dataclasses import replace

import naive
import numpy as np
import pytest
import torch
from gram_banks import bank_of_features
from lightning_cka import CKAResult, MinibatchCKA, compare_banks
from lightning_cka.compare.flags import Thresholds

OFF = Thresholds.off()
LAYERS = ("a", "b", "c")


def networks(count=3, sizes=(24,) * 8, noise=(0.0, 0.2, 0.5), seed=0, layers=LAYERS):
    """Features of ``count`` models on the same batches. Each model has more noise than the one before."""
    generator = torch.Generator().manual_seed(seed)
    models = [[] for _ in range(count)]
    for size in sizes:
        batch = [torch.randn(size, 4, generator=generator, dtype=torch.float64) for _ in layers]
        for place, model in enumerate(models):
            scale = noise[place]
            model.append([z + scale * torch.randn(size, 4, generator=generator, dtype=torch.float64) for z in batch])
    return models


def compared(model, reference, layers=LAYERS, reference_layers=LAYERS, **kwargs):
    banks = bank_of_features(model, layers), bank_of_features(reference, reference_layers)
    return compare_banks(*banks, thresholds=OFF, **kwargs)


def two_epochs(**kwargs):
    start, middle, end = networks(**kwargs)
    return compared(end, start), compared(middle, start)


def saved(result, tmp_path, name="r.json"):
    result.save(tmp_path / name)
    return CKAResult.load(tmp_path / name)


@pytest.mark.parametrize("sizes", [(24,) * 5, (24, 6, 9, 14, 20, 24)])
def test_errors_are_those_of_computing_the_difference_without_each_batch(sizes):
    start, middle, end = networks(sizes=sizes)
    stacked = [[*x, *y] for x, y in zip(end, middle, strict=True)]

    def change(xs, ys):
        both = naive.minibatch_cka(xs, ys)
        return both[:3] - both[3:]

    value, error, _ = naive.jackknife(stacked, start, change)
    mean = naive.jackknife(stacked, start, lambda xs, ys: change(xs, ys).diagonal().mean())
    difference = compared(end, start).difference(compared(middle, start))
    np.testing.assert_allclose(difference.matrix, value, rtol=1e-8)
    np.testing.assert_allclose(difference.standard_error, error, rtol=1e-8)
    assert difference.mean() == pytest.approx(float(mean[0]), rel=1e-8)
    assert difference.mean_standard_error == pytest.approx(float(mean[1]), rel=1e-8)
    assert difference.same_named()["b"] == pytest.approx(value[1, 1])


def test_paired_errors_are_smaller_than_the_two_errors_suggest():
    start, middle, _ = networks(noise=(0.0, 0.5, 0.5))
    slightly = [[z + 0.02 * torch.randn_like(z) for z in batch] for batch in middle]
    later, earlier = compared(slightly, start), compared(middle, start)
    error = later.difference(earlier).standard_error.diagonal()
    naively = (later.standard_error**2 + earlier.standard_error**2).sqrt().diagonal()
    assert (error < naively / 3).all()


def test_an_interval_of_the_difference_covers_zero_if_nothing_changed():
    """Two models with equal noise have the same CKA with a third one. The paired interval covers as promised.

    Each of 60 groups of three layers has data of its own, and is a family of its own.
    """
    count, size = 60, len(LAYERS)
    layers = tuple(f"{place} {name}" for place in range(count) for name in LAYERS)
    start, one, other = networks(noise=(0.0, 0.5, 0.5), layers=layers, seed=1)
    difference = compared(one, start, layers, layers).difference(compared(other, start, layers, layers))
    low, high = difference.confidence_interval()
    assert 0.9 < ((low <= 0) & (high >= 0)).diagonal().double().mean() < 0.99
    significant = 0
    for group in (slice(first, first + size) for first in range(0, count * size, size)):
        family = replace(
            difference,
            matrix=difference.matrix[group, group],
            standard_error=difference.standard_error[group, group],
            layers=layers[group],
            reference_layers=layers[group],
        )
        significant += bool(family.significant().diagonal().any())
    assert significant / count < 0.12  # At least one of the three layers.


def test_a_real_change_is_significant():
    later, earlier = two_epochs()
    difference = later.difference(earlier)
    assert difference.significant().diagonal().all()
    assert (difference.matrix.diagonal() < 0).all()
    assert not difference.within(0.05).diagonal().any()
    assert difference.within(0.5).diagonal().all()


def test_significance_is_that_of_holm():
    later, earlier = two_epochs()
    difference = replace(
        later.difference(earlier),
        matrix=torch.tensor([[0.034, 0.0, 0.0], [0.0, 0.027, 0.0], [0.0, 0.0, 0.024]], dtype=torch.float64),
        standard_error=torch.full((3, 3), 0.01, dtype=torch.float64),
    )
    # With 7 degrees of freedom, p = 0.0114, 0.0306 and 0.0474: the second one is above 0.05 / 2.
    assert difference.significant().diagonal().tolist() == [True, False, False]
    assert difference.significant(0.93).diagonal().tolist() == [True, True, True]
    assert not difference.significant(0.97).any()
    low, high = difference.confidence_interval()
    assert (low[0, 0].item(), high[0, 0].item()) == pytest.approx((0.034 - 0.0236462, 0.034 + 0.0236462), abs=1e-6)
    # Other pairs are a family of their own: with an error there, layers of the same name do not change.
    worse = replace(difference, standard_error=difference.standard_error.fill_diagonal_(torch.nan))
    assert not worse.significant().any()


def test_equivalence_is_not_a_lack_of_significance():
    later, earlier = two_epochs(noise=(0.0, 0.5, 0.5), sizes=(8,) * 5)
    difference = later.difference(earlier)
    assert not difference.significant().any()
    assert not difference.within(0.01).any()
    low, high = difference.confidence_interval()
    tolerance = float(torch.maximum(-low, high).max())
    assert difference.within(tolerance).all()
    with pytest.raises(ValueError, match="tolerance must be greater than 0, but is 0"):
        difference.within(0)
    for method in (difference.significant, difference.confidence_interval, lambda level: difference.within(1, level)):
        with pytest.raises(ValueError, match=r"level must be in \(0, 1\), but is 95"):
            method(95)


def test_the_same_result_twice_has_no_difference():
    later, _ = two_epochs()
    difference = later.difference(later)
    assert (difference.matrix == 0).all()
    assert (difference.standard_error == 0).all()
    assert not difference.significant().any()
    assert difference.within(1e-9).all()


def test_rounding_errors_are_not_significant():
    start, middle, _ = networks()
    rounded = [[(z * 1.1) / 1.1 for z in batch] for batch in middle]
    difference = compared(rounded, start).difference(compared(middle, start))
    assert (difference.matrix != 0).any()
    assert not difference.significant().any()


def test_two_references_two_kernels_and_a_model_with_itself():
    start, middle, end = networks(noise=(0.0, 0.2, 0.8))
    references = compared(end, middle).difference(compared(end, start))
    assert references.significant().diagonal().sum() >= 2
    assert references.title == "later minus earlier"
    named = [replace(one, reference_name=name) for one, name in ((references.later, "p"), (references.earlier, "q"))]
    assert named[0].difference(named[1]).title == "with p minus with q"
    kernels = compared(end, start, kernel="rbf").difference(compared(end, start))
    assert kernels.title == "rbf CKA minus linear CKA"
    assert kernels.matrix.shape == (3, 3)
    own = []
    for features in (start, end):
        bank = bank_of_features(features, LAYERS)
        own.append(compare_banks(bank, bank, thresholds=OFF))
    difference = own[1].difference(own[0])
    assert difference.self_comparison
    assert torch.equal(difference.significant(), difference.significant().T)
    assert not difference.significant().diagonal().any()
    assert difference.mean() == pytest.approx(own[1].mean() - own[0].mean())


def test_only_common_layers_are_compared():
    start, middle, end = networks()
    later = compared([x[:2] for x in end], start, ("c", "x"))
    earlier = compared(middle, [[*reversed(y)] for y in start], LAYERS, ("c", "b", "y"))
    difference = later.difference(earlier)
    assert (difference.layers, difference.reference_layers) == (("c",), ("b", "c"))
    assert difference.matrix[0, 0] == later.matrix[0, 1] - earlier.matrix[2, 1]
    assert difference.same_named_pairs() == {"c": (0, 1)}
    with pytest.raises(
        ValueError, match="no layers in common: expected some of c, x, but the earlier result has p, q, r"
    ):
        later.difference(compared(middle, start, ("p", "q", "r")))
    with pytest.raises(ValueError, match="no reference_layers in common"):
        later.difference(compared(middle, start, LAYERS, ("p", "q", "r")))


def test_saved_results_have_layers_of_the_same_name(tmp_path):
    later, earlier = two_epochs()
    whole = later.difference(earlier)
    for one, other in (
        (saved(later, tmp_path), earlier),
        (later, saved(earlier, tmp_path)),
        (CKAResult.from_state(later.state()), saved(earlier, tmp_path)),
    ):
        difference = one.difference(other)
        assert torch.equal(difference.matrix, whole.matrix)
        assert torch.equal(difference.standard_error.diagonal(), whole.standard_error.diagonal())
        assert difference.mean_standard_error == whole.mean_standard_error
        assert difference.standard_error.isnan().sum() == 6
        assert torch.equal(difference.significant().diagonal(), whole.significant().diagonal())
        assert not difference.significant()[0, 1]
        assert not difference.within(1.0)[0, 1]


def test_saved_results_without_layers_of_the_same_name_are_refused(tmp_path):
    start, middle, end = networks()
    later, earlier = (compared(model, start, LAYERS, ("x", "y", "z")) for model in (end, middle))
    difference = later.difference(earlier)
    assert difference.significant().diagonal().any()
    assert difference.mean_standard_error > 0
    for one, other in ((saved(later, tmp_path), earlier), (later, saved(earlier, tmp_path))):
        with pytest.raises(
            ValueError, match=r"paired layers only, but the two results have no such pairs .*compare_banks"
        ):
            one.difference(other)
    banks = [bank_of_features(model, LAYERS) for model in (end, middle)]
    own = [compare_banks(bank, bank, thresholds=OFF) for bank in banks]
    with pytest.raises(ValueError, match="compared with itself, CKA of these is always 1"):
        saved(own[0], tmp_path).difference(own[1])


def test_results_of_other_probe_sets_are_refused():
    start, middle, _ = networks()
    result = compared(middle, start)
    fewer = compared(middle[:7], start[:7])
    with pytest.raises(ValueError, match="not of one probe set: they have 8 and 7 batches"):
        result.difference(fewer)
    moved = compared(middle[1:] + middle[:1], start[1:] + start[:1])
    bank = bank_of_features(middle, LAYERS)
    for index in (2, 5):
        bank.add(replace(bank.batches[index], fingerprint="other"))
    other = compare_banks(bank, bank, thresholds=OFF)
    with pytest.raises(ValueError, match="2 of 8 batches have other samples or other inputs"):
        result.difference(other)
    assert moved.left_out_batches.batches == result.left_out_batches.batches  # These inputs have the same names.


def test_other_values_are_refused():
    later, earlier = two_epochs()
    metric = MinibatchCKA(3)
    metric.update([torch.randn(8, 2) for _ in LAYERS])
    for one, other, name in ((later, metric.result(), "earlier"), (metric.result(), earlier, "later")):
        with pytest.raises(ValueError, match=f"the {name} result has no left_out_batches, .*compare_banks"):
            one.difference(other)
    start, middle, _ = networks()
    with pytest.raises(ValueError, match="the later result is unbiased and the earlier one is biased"):
        later.difference(compared(middle, start, unbiased=False))
    with pytest.raises(TypeError, match=r"difference\(\) takes a CKAResult, but got a Tensor"):
        later.difference(earlier.matrix)


def test_few_effective_batches():
    later, earlier = two_epochs(sizes=(64, 64))
    difference = later.difference(earlier)
    for method in (
        difference.significant,
        difference.confidence_interval,
        lambda: difference.within(0.5),
        difference.to_rows,
    ):
        with pytest.warns(UserWarning, match=r"the probe set has 2\.0 effective batches") as got:
            method()
        assert len(got) == 1
    with pytest.warns(UserWarning):
        assert not difference.significant().any()
    single = two_epochs(sizes=(64,))
    assert single[0].difference(single[1]).standard_error.isnan().all()


def test_rows_and_texts():
    later, earlier = (replace(one, epoch=epoch) for one, epoch in zip(two_epochs(), (6, 5), strict=True))
    difference = later.difference(earlier)
    row = difference.to_rows()[1]
    low, high = difference.confidence_interval()
    assert row == {
        "layer": "a",
        "reference_layer": "b",
        "difference": difference.matrix[0, 1].item(),
        "standard_error": difference.standard_error[0, 1].item(),
        "low": low[0, 1].item(),
        "high": high[0, 1].item(),
        "significant": difference.significant()[0, 1].item(),
    }
    assert len(difference.to_rows()) == 9
    assert repr(difference).startswith("CKADifference(epoch 6 minus epoch 5: 3 x 3 layers, mean -0.")
    assert repr(later.left_out_batches) == "LeftOutBatches(8 batches, 3 layers, all pairs)"


def test_a_layer_that_is_nan_stays_nan():
    start, middle, end = networks()
    for batch in middle:
        batch[1] = torch.zeros_like(batch[1])
    with pytest.warns(UserWarning, match="no variance: b"):
        earlier = compared(middle, start)
    difference = compared(end, start).difference(earlier)
    assert difference.matrix[1].isnan().all()
    assert difference.standard_error[1].isnan().all()
    assert difference.significant().diagonal().tolist() == [True, False, True]
    assert not difference.within(1.0)[1].any()
    assert np.isfinite(difference.mean())
    assert np.isfinite(difference.mean_standard_error)
