"""Eigenvalues of layers, as means over batches, against NumPy and against the diagnostics of a comparison."""

import numpy as np
import pytest
import torch
from gram_banks import bank_of_features, ignore_few_samples
from lightning_cka import compare_banks
from lightning_cka.compare.layer_spectra import layer_spectra
from lightning_cka.probe.sample_selection import SampleSelection

ALL = SampleSelection(None, None)


def features(seed, n=20):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, 6, generator=generator) * torch.tensor([5, 3, 1, 1, 1, 0.5]) + 2


def naive_shares(x):
    variances = np.zeros(len(x) - 1)
    variances[:6] = np.linalg.eigvalsh(np.cov(x.double().numpy().T))[::-1]
    return variances / variances.sum()


@ignore_few_samples
def test_shares_are_means_over_batches_and_the_dimension_is_that_of_diagnostics():
    batches = [features(0), features(1), features(2)]
    bank = bank_of_features([[each, 50 * each.tanh()] for each in batches], ("a", "b"))
    spectra = layer_spectra(bank, ["b", "a"], ALL)
    assert list(spectra) == ["b", "a"]
    assert np.allclose(spectra["a"].shares, np.mean(list(map(naive_shares, batches)), 0), atol=1e-5)
    assert (spectra["a"].num_samples, spectra["a"].num_batches) == (20, 3)
    diagnostics = compare_banks(bank, bank).diagnostics.layers
    for name, each in spectra.items():
        assert each.effective_dimension == pytest.approx(diagnostics[name].effective_dimension)


def test_small_batches_do_not_count_for_the_shares():
    batches = [features(0), features(1, 16), features(2, 9)]
    found = layer_spectra(bank_of_features([[each] for each in batches]), ["a"], ALL)["a"]
    expected = (naive_shares(batches[0])[:15] + naive_shares(batches[1])) / 2
    assert np.allclose(found.shares, expected, atol=1e-5)
    assert (found.num_samples, found.num_batches) == (16, 2)


def test_samples_that_are_bad_or_excluded_are_left_out():
    x = features(0)
    bad = x.clone()
    bad[3] = torch.nan
    kept = [place for place in range(20) if place not in (3, 5)]
    found = layer_spectra(bank_of_features([[bad]]), ["a"], SampleSelection([5], None))["a"]
    assert np.allclose(found.shares, naive_shares(x[kept]), atol=1e-5)


def test_layers_without_variance_have_no_shares():
    bank = bank_of_features([[torch.full((20, 2), 0.1), torch.full((20, 2), torch.nan)]], ("constant", "nan"))
    for each in layer_spectra(bank, bank.layers, ALL).values():
        assert each.shares.numel() == each.num_batches == 0
        assert np.isnan(each.effective_dimension)
