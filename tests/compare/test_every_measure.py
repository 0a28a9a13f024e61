"""Errors, differences and leave-one-out of every measure, against naive references."""

import naive
import numpy as np
import pytest
import torch
from gram_banks import bank_of_features
from lightning_cka import MutualKNN, compare_banks, trajectories
from lightning_cka.compare.flags import Thresholds
from measure_cases import MEASURES, NAIVE, TITLES, WEIGHTS, over_measures, over_others

OFF = Thresholds.off()
LAYERS = ("a", "b")
SIZES = (24, 17, 20, 24, 11)


def models(count=3, sizes=SIZES, seed=0):
    """Features of ``count`` models with two layers on the same batches. Each model has more noise than the last."""
    generator = torch.Generator().manual_seed(seed)
    found = [[] for _ in range(count)]
    for size in sizes:
        layers = [torch.randn(size, d, generator=generator, dtype=torch.float64) for d in (6, 4)]
        for place, model in enumerate(found):
            noise = [torch.randn(z.shape, generator=generator, dtype=torch.float64) for z in layers]
            model.append([z + 0.4 * place * e for z, e in zip(layers, noise, strict=True)])
    return found


def compared(model, reference, measure):
    banks = (bank_of_features(each, LAYERS) for each in (model, reference))
    return compare_banks(*banks, measures=measure, thresholds=OFF)


@over_measures
def test_values_and_errors_are_those_of_the_jackknife(measure):
    start, _, end = models()
    result = compared(end, start, measure)
    value, error, left_out = naive.jackknife(end, start, NAIVE[measure], WEIGHTS[measure])
    np.testing.assert_allclose(result.matrix, value, rtol=1e-8)
    np.testing.assert_allclose(result.standard_error, error, rtol=1e-7)
    np.testing.assert_allclose(result.left_out_batches.all_pairs, left_out, rtol=1e-8)
    mean = naive.jackknife(end, start, lambda xs, ys: NAIVE[measure](xs, ys).diagonal().mean(), WEIGHTS[measure])
    assert result.mean() == pytest.approx(float(mean[0]), rel=1e-8)
    assert result.mean_standard_error == pytest.approx(float(mean[1]), rel=1e-7)
    weights = [WEIGHTS[measure](n) for n in SIZES]
    assert result.effective_batches == pytest.approx(sum(weights) ** 2 / sum(w * w for w in weights))
    assert (result.measure, result.num_samples, result.num_batches) == (measure, sum(SIZES), len(SIZES))


@over_measures
def test_a_difference_of_two_epochs_has_the_error_of_the_paired_jackknife(measure):
    start, middle, end = models()
    stacked = [[*x, *y] for x, y in zip(end, middle, strict=True)]

    def change(xs, ys):
        both = NAIVE[measure](xs, ys)
        return both[:2] - both[2:]

    difference = compared(end, start, measure).difference(compared(middle, start, measure))
    value, error, _ = naive.jackknife(stacked, start, change, WEIGHTS[measure])
    np.testing.assert_allclose(difference.matrix, value, rtol=1e-7, atol=1e-10)
    np.testing.assert_allclose(difference.standard_error, error, rtol=1e-7)
    mean = naive.jackknife(stacked, start, lambda xs, ys: change(xs, ys).diagonal().mean(), WEIGHTS[measure])
    assert difference.mean_standard_error == pytest.approx(float(mean[1]), rel=1e-7)
    assert difference.value_title == TITLES[measure]


@over_others
def test_a_difference_of_two_measures_has_paired_errors(measure):
    start, _, end = models(sizes=(20,) * 5)
    difference = compared(end, start, measure).difference(compared(end, start, "cka"))
    found = naive.jackknife(end, start, lambda xs, ys: NAIVE[measure](xs, ys) - NAIVE["cka"](xs, ys))
    np.testing.assert_allclose(difference.matrix, found[0], rtol=1e-7, atol=1e-10)
    np.testing.assert_allclose(difference.standard_error, found[1], rtol=1e-7)
    assert difference.title == f"{TITLES[measure]} minus linear CKA"
    assert difference.value_title == "similarity"


OUTLIER = SIZES[0] + 5  # Sample 5 of the second batch.


def with_outlier(distance=40.0):
    """Two banks of related layers; one sample of the first model is far out in layer "a"."""
    start, _, end = models()
    end[1][0][5] += distance
    return bank_of_features(end, LAYERS), bank_of_features(start, LAYERS)


@pytest.mark.filterwarnings("ignore:.*layers (that|whose)")
@over_others
def test_leaving_out_a_flagged_sample_is_comparing_without_it(measure):
    result = compare_banks(*with_outlier(), measures=measure)
    assert {flag.layer for flag in result.flags if flag.reason != "standard_error"} <= {"a"}
    found = result.diagnostics.leave_one_out
    assert list(found) == ["a"]
    sample, without, change = found["a"]
    again = compare_banks(*with_outlier(), measures=measure, thresholds=OFF, exclude=[sample])
    assert sample == OUTLIER
    assert without == pytest.approx(again.same_named()["a"], rel=1e-9)
    assert change == pytest.approx(abs(without - result.same_named()["a"]), rel=1e-9)
    # The CKA that found the sample is the same, whether it is among the measures or not.
    both = compare_banks(*with_outlier(), measures=["cka", measure])
    assert list(both) == ["cka", measure]
    assert both[measure].diagnostics.leave_one_out == found
    assert any(flag.reason == "trace_ratio" and flag.samples == (OUTLIER,) for flag in both["cka"].flags)


@over_measures
def test_without_an_outlier_nothing_is_left_out_and_no_layer_flagged(measure):
    start, _, end = models(sizes=(32,) * 8)
    banks = (bank_of_features(each, LAYERS) for each in (end, start))
    result = compare_banks(*banks, measures=measure, thresholds=Thresholds(standard_error=None))
    assert result.flags == ()
    assert set(result.diagnostics.leave_one_out) == (set(LAYERS) if measure == "cka" else set())


@pytest.mark.filterwarnings("ignore:.*layers (that|whose)")
def test_an_outlier_moves_cka_and_hardly_the_neighbours():
    results = compare_banks(*with_outlier(400.0), measures=list(MEASURES))
    changes = {name: result.diagnostics.leave_one_out["a"].change for name, result in results.items()}
    assert changes["cka"] > 0.3
    assert changes["mutual_knn"] < 0.05
    assert changes["rsa"] < 0.05
    assert not any(flag.layer == "a" and flag.reason == "leave_one_out" for flag in results["mutual_knn"].flags)


@over_measures
def test_trajectories_of_every_measure(measure):
    banks = [bank_of_features(each, LAYERS) for each in models(sizes=(20,) * 4)]
    for epoch, bank in enumerate(banks):
        bank.epoch, bank.step = epoch, 10 * epoch
    found = trajectories(banks, measures=[measure, MutualKNN(0.3)], thresholds=OFF)
    assert list(found) == [measure, "mutual_knn-2" if measure == "mutual_knn" else "mutual_knn"]
    one = trajectories(banks, measures=measure, thresholds=OFF)["a"]
    assert torch.equal(one.matrix, found[measure]["a"].matrix)
    assert one.measure == measure
    pair = compare_banks(banks[2], banks[0], measures=measure, thresholds=OFF)
    assert float(one.matrix[2, 0]) == pytest.approx(pair.same_named()["a"], rel=1e-12)
    assert float(one.standard_error[2, 0]) == pytest.approx(float(pair.standard_error[0, 0]), rel=1e-9)
