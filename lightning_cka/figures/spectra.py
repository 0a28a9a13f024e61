"""`plot_spectrum`: over how many directions the variance of each layer is spread."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.ticker import LogLocator, NullFormatter

from lightning_cka.compare.layer_spectra import LayerSpectrum, layer_spectra
from lightning_cka.figures.backgrounds import is_dark
from lightning_cka.figures.labels import MAX_LABEL, elided, plain, short_labels
from lightning_cka.figures.layout import figure_of, new_axes
from lightning_cka.figures.legends import draw_legend, legend_label_length
from lightning_cka.figures.line_colours import Colour, chosen_lines, line_colours
from lightning_cka.figures.own_cell import fit_into_cell, text_lengths
from lightning_cka.figures.title_room import title_lengths
from lightning_cka.figures.user_style import font_size
from lightning_cka.probe.bank import open_bank
from lightning_cka.probe.bank_selection import bank_of_layers
from lightning_cka.probe.sample_selection import SampleSelection

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from lightning_cka.probe.bank import GramBank
    from lightning_cka.probe.layers import Layers
    from lightning_cka.probe.sample_selection import Exclude

_SMALLEST = 1e-4
"""Smallest share that is drawn. Rounding errors of float32 are below 1e-6."""

_TITLE = ("layer (effective", "dimension ◇)")

_LABELS = [" " * 6] * 12
"""Stand-ins for tick labels, which give the axes their size."""


def plot_spectrum(
    bank: GramBank | str | Path, layers: Layers = None, ax: Axes | None = None, *, exclude: Exclude = None
) -> tuple[Figure, Axes]:
    """Draw which part of a layer's variance each direction has: a line for each layer, both axes logarithmic.

    Directions are the eigenvectors of the layer's doubly centered Gram matrices. Shares are means over the probe
    batches, and depend on their size. The legend has the effective dimension, (sum lambda)^2 / sum lambda^2, which does
    not; a diamond marks it on the line. Shares below 0.01 % are not drawn. Samples that are ``nan``,
    infinite or missing are left out.

    Args:
        bank: The bank, or its file.
        layers: Patterns of layer names. None: all layers, or 8 evenly spaced ones if there are more.
        ax: Axes to draw into. None makes a new figure.
        exclude: Numbers of samples to leave out.

    Returns:
        The figure and its axes.

    Raises:
        ValueError: A pattern matches no layer, or no layer varies.
        FileNotFoundError: The file does not exist.
    """
    bank = open_bank(bank)
    names = bank_of_layers(bank.empty(), layers).layers
    if layers is None:
        names = tuple(names[place] for place in chosen_lines(len(names)))
    spectra = layer_spectra(bank, names, SampleSelection(exclude, None, bank.sample_kind))
    if not any(len(each.shares) for each in spectra.values()):
        raise ValueError(f"no spectrum to draw: the samples of {', '.join(names)} are all equal or not usable")
    own = ax is not None
    texts = _texts(spectra, MAX_LABEL if ax is None else legend_label_length(ax) - 6)
    if ax is None:
        ax = new_axes(_LABELS, _LABELS, legend=[*_TITLE, *texts])
    for name, colour, text in zip(spectra, line_colours(len(names), on_dark=is_dark(ax)), texts, strict=True):
        _draw_line(ax, spectra[name], colour, text)
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    ax.xaxis.set_major_formatter(lambda place, _: f"{place:g}")
    ax.yaxis.set_major_formatter(lambda share, _: f"{100 * share:g} %")
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.yaxis.set_minor_formatter(NullFormatter())
    ax.tick_params(labelsize=font_size("tick"))
    ax.set_xlabel("direction, by variance")
    ax.set_ylabel("share of variance")
    wide = text_lengths(ax)[1] if own else title_lengths([ax])[0]
    ax.set_title(plain(elided(bank.title, wide)), fontsize=font_size("title"))
    ax.spines[["top", "right"]].set_visible(False)
    draw_legend(ax, *ax.get_legend_handles_labels(), _TITLE)
    if own:
        fit_into_cell(ax)
    return figure_of(ax), ax


def _texts(spectra: dict[str, LayerSpectrum], max_length: int) -> list[str]:
    labels, _ = short_labels(list(spectra), max_length)
    return [
        f"{label} ({each.effective_dimension:.1f})" if len(each.shares) else f"{label} (no variance)"
        for label, each in zip(labels, spectra.values(), strict=True)
    ]


def _draw_line(ax: Axes, spectrum: LayerSpectrum, colour: Colour, text: str) -> None:
    """Draw the shares of one layer, and a mark at its effective dimension if it is on the line."""
    shares = spectrum.shares.numpy()
    shares = shares[shares >= _SMALLEST]
    places = np.arange(1, len(shares) + 1)
    ax.plot(places, shares, color=colour, label=text, linewidth=1.4, marker=".", markersize=3)
    dimension = spectrum.effective_dimension
    if len(shares) and 1 <= dimension <= len(shares):
        height = np.exp(np.interp(np.log(dimension), np.log(places), np.log(shares)))
        ax.plot(
            [dimension],
            [height],
            "D",
            color=colour,
            markerfacecolor=ax.get_facecolor(),
            markersize=5.5,
            label="_effective dimension",
            zorder=5,
        )
