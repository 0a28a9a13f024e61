"""Answers to the questions that people decide by: what has converged, what is redundant, what collapsed, what is high.

In: results and Gram banks. Out: numbers with intervals, for figures, scalars, tables and callbacks.
This room does not know how a figure is drawn or where an answer is logged. It imports from `compare`, `probe`, `hsic`
and `runtime`.
"""

from lightning_cka.decisions.ceiling import SeedCeiling
from lightning_cka.decisions.layer_convergence import Convergence, LayerConvergence
from lightning_cka.decisions.model_comparison import ModelComparison
from lightning_cka.decisions.rank_history import RankFall, RankHistory
from lightning_cka.decisions.redundancy import LayerStep, Redundancy
from lightning_cka.decisions.would_freeze import FrozenLayer, WouldFreeze

__all__ = [
    "Convergence",
    "FrozenLayer",
    "LayerConvergence",
    "LayerStep",
    "ModelComparison",
    "RankFall",
    "RankHistory",
    "Redundancy",
    "SeedCeiling",
    "WouldFreeze",
]
