"""Errors over seeds and batches, against slow references and simulated data."""

import numpy as np
import pytest
import torch
from lightning_cka.decisions.crossed_errors import half_widths, seed_errors
from naive import jackknife_over_seeds
from scipy.stats import t


@pytest.mark.parametrize("seeds", [3, 4, 7])
def test_errors_over_seeds_are_those_of_leaving_out_each_seed(seeds):
    half = np.random.default_rng(seeds).uniform(size=(5, seeds, seeds))
    matrices = half + half.transpose(0, 2, 1)
    expected = [jackknife_over_seeds(matrix) for matrix in matrices]
    assert seed_errors(torch.from_numpy(matrices)).tolist() == pytest.approx(expected, rel=1e-12)
    changed = matrices + 9 * np.eye(seeds)  # A seed with itself is no pair.
    assert seed_errors(torch.from_numpy(changed)).tolist() == pytest.approx(expected, rel=1e-12)


def test_two_seeds_have_no_error():
    assert seed_errors(torch.rand(4, 2, 2)).isnan().all()


def test_intervals_are_from_student_with_the_degrees_of_welch_and_satterthwaite():
    a, b = 0.02, 0.05
    freedom = (a**2 + b**2) ** 2 / (a**4 / 15 + b**4 / 3)
    found = half_widths((torch.tensor([a, 0.0, 0.0]).double(), torch.tensor([b, b, 0.0]).double()), (16, 4), 0.9)
    assert found.tolist() == pytest.approx([np.hypot(a, b) * t.ppf(0.95, freedom), b * t.ppf(0.95, 3), 0.0])
    with pytest.raises(ValueError, match=r"level must be in \(0, 1\)"):
        half_widths((found, found), (16, 4), 1.0)


@pytest.mark.parametrize(("seeds", "of_seeds", "of_batches"), [(3, 1, 1), (5, 1, 0.3), (5, 0.2, 1), (8, 1, 1)])
def test_intervals_contain_the_true_mean_as_often_as_they_say(seeds, of_seeds, of_batches):
    """Values of pairs are sums of what seeds, pairs, batches and all of them add; the truth is 0."""
    random, batches, runs = np.random.default_rng(0), 12, 400
    hits = 0
    pairs = np.triu_indices(seeds, 1)
    for _ in range(runs):
        seed, batch = of_seeds * random.normal(size=seeds), of_batches * random.normal(size=batches)
        own, crossed = 0.3 * random.normal(size=(seeds, seeds)), random.normal(size=(batches, seeds))
        values = seed[:, None] + seed + (own + own.T) / 2 + batch[:, None, None]
        values = values + 0.5 * of_batches * (crossed[:, :, None] + crossed[:, None])
        of_pairs = values[:, pairs[0], pairs[1]].mean(1)  # For each batch.
        error = of_pairs.std(ddof=1) / np.sqrt(batches)
        errors = (torch.tensor([error]).double(), seed_errors(torch.from_numpy(values.mean(0))[None]))
        hits += abs(of_pairs.mean()) <= float(half_widths(errors, (batches, seeds), 0.9))
    assert hits / runs > 0.87
