"""Agreement of several processes on the bandwidths of an RBF kernel."""

from __future__ import annotations

from torch import Tensor
from torchmetrics.utilities import rank_zero_warn


def agreed_medians(of_processes: Tensor) -> Tensor:
    """Reduce the medians ``(W, L)`` of W processes to ``(L,)``: those of the first process that has a batch.

    A process without a batch has -1. A warning says by how much the others differ.
    """
    known = of_processes[(of_processes >= 0).all(1)]
    if len(known) == 0:
        return of_processes[0]
    spread = float(((known.amax(0) - known.amin(0)) / known.mean(0)).nan_to_num(0.0).amax())
    if spread > 0:
        rank_zero_warn(
            f"the first batches of {len(known)} processes fixed RBF bandwidths whose squares differ by up to "
            f"{spread:.0%}, and CKA mixes them. Use CKAMonitor, compare_models or kernel='distance' to avoid this"
        )
    return known[0]
