"""Figures of CKA results."""

from lightning_cka.figures.convergence_maps import plot_convergence
from lightning_cka.figures.differences import plot_difference
from lightning_cka.figures.drift import plot_drift
from lightning_cka.figures.heatmap import plot_cka
from lightning_cka.figures.measures import plot_measures
from lightning_cka.figures.models import plot_models
from lightning_cka.figures.panels import plot_comparison
from lightning_cka.figures.ranks import plot_ranks
from lightning_cka.figures.redundant_layers import plot_redundancy
from lightning_cka.figures.sample_animation import animate_samples
from lightning_cka.figures.samples import plot_samples
from lightning_cka.figures.spectra import plot_spectrum
from lightning_cka.figures.trajectories import plot_trajectories, plot_trajectory
from lightning_cka.figures.trends import plot_layer_trend, plot_trend

__all__ = [
    "animate_samples",
    "plot_cka",
    "plot_comparison",
    "plot_convergence",
    "plot_difference",
    "plot_drift",
    "plot_layer_trend",
    "plot_measures",
    "plot_models",
    "plot_ranks",
    "plot_redundancy",
    "plot_samples",
    "plot_spectrum",
    "plot_trajectories",
    "plot_trajectory",
    "plot_trend",
]
