"""The figure of eigenvalues."""

import numpy as np
import pytest
import torch
from figure_contents import all_texts_are_inside, texts
from gram_banks import bank_of_features, make_bank
from lightning_cka.compare.layer_spectra import layer_spectra
from lightning_cka.plotting import plot_spectrum
from lightning_cka.probe.sample_selection import SampleSelection
from matplotlib.figure import Figure


def lines(ax):
    return [line for line in ax.get_lines() if not line.get_label().startswith("_")]


def test_each_layer_has_a_line_and_its_effective_dimension(tmp_path):
    x = torch.randn(40, 60, generator=torch.Generator().manual_seed(0))
    bank = bank_of_features([[x * torch.tensor([9.0] * 4 + [1.0] * 56), x]], ("a", "b.c"))
    bank.epoch, bank.step = 3, 4
    bank.save(tmp_path / "bank.safetensors")
    figure, ax = plot_spectrum(tmp_path / "bank.safetensors")
    spectra = layer_spectra(bank, bank.layers, SampleSelection(None, None))
    for line, each in zip(lines(ax), spectra.values(), strict=True):
        drawn = each.shares[each.shares >= 1e-4].numpy()
        assert np.allclose(line.get_ydata(), drawn)
        assert np.allclose(line.get_xdata(), range(1, 1 + len(drawn)))
    # Layer b.c has more directions than there are samples.
    assert spectra["b.c"].effective_dimension > 39
    (mark,) = (line for line in ax.get_lines() if line.get_marker() == "D")
    (x,), (y,) = mark.get_data()
    assert x == spectra["a"].effective_dimension
    assert spectra["a"].shares[int(x)] <= y <= spectra["a"].shares[int(x) - 1]
    dimensions = [f"{each.effective_dimension:.1f}" for each in spectra.values()]
    assert texts(ax.get_legend().get_texts()) == [f"a ({dimensions[0]})", f"b.c ({dimensions[1]})"]
    assert ax.get_title() == "model, epoch 3"
    assert all_texts_are_inside(figure)


def test_which_layers_are_drawn():
    x = torch.randn(20, 5)
    bank = bank_of_features([[x] * 20], tuple(f"layer{place}" for place in range(20)))
    assert len(lines(plot_spectrum(bank)[1])) == 8
    assert len(lines(plot_spectrum(bank, "layer1?")[1])) == 10
    with pytest.raises(ValueError, match="layers: 'conv' matches none"):
        plot_spectrum(bank, "conv")


def test_layers_without_variance_are_said():
    bank = bank_of_features([[torch.randn(20, 5), torch.ones(20, 2)]], ("a", "b"))
    _, ax = plot_spectrum(bank)
    assert texts(ax.get_legend().get_texts())[1] == "b (no variance)"
    with pytest.raises(ValueError, match="no spectrum to draw: the samples of b are all equal or not usable"):
        plot_spectrum(bank, "b")


def test_an_excluded_outlier_does_not_count():
    x = torch.randn(20, 5)
    x[3] *= 1000
    bank = bank_of_features([[x]])
    assert lines(plot_spectrum(bank)[1])[0].get_ydata()[0] > 0.99
    assert lines(plot_spectrum(bank, exclude=[3])[1])[0].get_ydata()[0] < 0.6


def test_the_user_s_axes_and_a_dark_background():
    ax = Figure().add_subplot(facecolor="black")
    assert plot_spectrum(make_bank(), ax=ax)[1] is ax
    assert min(sum(line.get_color()[:3]) for line in lines(ax)) > 1
