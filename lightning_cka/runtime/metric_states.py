"""The states of torchmetrics' metrics."""

from __future__ import annotations

from torch import nn
from torchmetrics import Metric


def metric_state_names(module: nn.Module) -> tuple[str, ...]:
    """Return the names of the attributes in which a metric accumulates; an empty tuple for another module."""
    if not isinstance(module, Metric):
        return ()
    return (*module.metric_state, "_update_count", "_computed", "_forward_cache")
