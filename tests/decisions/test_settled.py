"""From which result on a layer stays within a tolerance: against naive paired intervals, and what it must not claim."""

from dataclasses import replace

import naive
import numpy as np
import pytest
import torch
from gram_banks import bank_of_features
from lightning_cka import Thresholds, compare_banks
from lightning_cka.decisions.settled import settled_since
from scipy.stats import t

OFF = Thresholds(None, None, None, None)
LAYERS = ("moves", "frozen")


def features(steps, num_batches=8, n=24, noise=0.0, seed=0):
    """Features of two layers at the given distances from the start: by epoch, batch and layer. "frozen" never moves."""
    random = np.random.RandomState(seed)
    start, drift, frozen = (random.randn(num_batches, n, 6) for _ in range(3))
    return [
        [[x + step * d + noise * random.randn(n, 6), f] for x, d, f in zip(start, drift, frozen, strict=True)]
        for step in steps
    ]


def results(epochs):
    banks = [bank_of_features([[*map(torch.tensor, batch)] for batch in epoch], LAYERS) for epoch in epochs]
    start = bank_of_features([[*map(torch.tensor, batch)] for batch in epochs[0]], LAYERS)
    return [compare_banks(bank, start, thresholds=OFF) for bank in banks]


def naive_settled(epochs, tolerance, level):
    """Compute CKA again without each batch in turn, and form the paired intervals by hand."""
    start = [[batch[0]] for batch in epochs[0]]
    count = len(start)

    def cka(epoch, left_out=None):
        keep = [place for place in range(count) if place != left_out]
        return naive.minibatch_cka([[epoch[place][0]] for place in keep], [start[place] for place in keep])[0, 0]

    place = len(epochs) - 1
    while place > 0:
        before, last = epochs[place - 1], epochs[-1]
        difference = cka(last) - cka(before)
        without = np.array([cka(last, i) - cka(before, i) for i in range(count)])
        error = np.sqrt((count - 1) / count * ((without - difference) ** 2).sum())
        half = error * t.ppf((1 + level) / 2, count - 1)
        if max(abs(difference - half), abs(difference + half)) > tolerance:
            break
        place -= 1
    return place if place < len(epochs) - 1 else None


@pytest.mark.parametrize("tolerance", [0.003, 0.02, 0.05, 0.2])
@pytest.mark.parametrize("level", [0.8, 0.95, 0.999])
def test_it_follows_from_paired_intervals(tolerance, level):
    epochs = features([0, 0.5, 0.8, 0.95, 1.0, 1.02, 1.0])
    found = settled_since(results(epochs), tolerance, level)
    assert found == {"moves": naive_settled(epochs, tolerance, level), "frozen": 0}


def test_the_cases_differ():
    """Otherwise the test above could not fail."""
    epochs = features([0, 0.5, 0.8, 0.95, 1.0, 1.02, 1.0])
    places = {naive_settled(epochs, tolerance, 0.95) for tolerance in (0.003, 0.02, 0.05, 0.2)}
    assert len(places) >= 3


def test_a_small_probe_set_is_not_called_settled():
    """The change is not significant, but the interval is wide."""
    few = results(features([0, 1, 1, 1], num_batches=4, n=6, noise=0.1))
    assert not any(few[-1].difference(each).significant()[0, 0] for each in few[1:3])
    assert settled_since(few, 0.01)["moves"] is None
    many = results(features([0, 1, 1, 1], num_batches=32, n=64, noise=0.1))
    assert settled_since(many, 0.01)["moves"] == 1


def test_a_layer_that_leaves_the_tolerance_again_is_settled_only_afterwards():
    epochs = features([0, 1.0, 0.3, 1.0, 1.0], num_batches=16, n=64)
    assert settled_since(results(epochs), 0.01)["moves"] == 3


def without_record(every, missing):
    return [replace(each, left_out_batches=None) if place == missing else each for place, each in enumerate(every)]


@pytest.mark.parametrize("missing", [0, 1, 2, 4])
def test_nothing_is_claimed_where_records_are_missing(missing):
    every = results(features([0, 1.0, 1.0, 1.0, 1.0], num_batches=16, n=64))
    assert settled_since(every, 0.01)["moves"] == 1
    # It is unknown whether the layer had settled before.
    assert settled_since(without_record(every, missing), 0.01)["moves"] is None
    left = results(features([0, 1.0, 0.3, 1.0, 1.0], num_batches=16, n=64))
    assert settled_since(without_record(left, missing), 0.01)["moves"] == (3 if missing < 2 else None)


def test_other_probe_sets_count_as_missing_records():
    every, other = (results(features([0, 1, 1, 1, 1], num_batches=k, n=64)) for k in (16, 15))
    assert settled_since([*other[:2], *every[2:]], 0.01)["moves"] is None


def test_one_result_and_too_few_batches_settle_nothing():
    assert settled_since(results(features([0])), 0.01) == {"moves": None, "frozen": None}
    assert settled_since(results(features([0, 0, 0], num_batches=2)), 0.01) == {"moves": None, "frozen": None}


def test_the_tolerance_must_be_positive():
    with pytest.raises(ValueError, match="tolerance must be greater than 0, but is 0"):
        settled_since(results(features([0, 1])), 0)
