"""Layers whose CKA is ``nan``, and the reason."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite

from torch import Tensor

from lightning_cka.runtime.text import shortened

_NO_VARIANCE = "whose activations have no variance"
_NO_BANDWIDTH = "where most pairs of samples are identical, which leaves the RBF kernel without a bandwidth"
_NOT_FINITE = "with NaN or infinite activations, or with outliers beyond floating-point precision"

NO_ROWS = (
    "that did not run on some batches, or did not give one row per sample, such as experts that get some of the samples"
)
ALL_SAMPLES_BAD = "whose activations are NaN or infinite for all samples, as after training has diverged"
SOME_SAMPLES_BAD = "whose activations are NaN or infinite for some samples"
TOO_FAR_OUT = "with outliers beyond floating-point precision"


def undefined_layers(
    names: Sequence[str], hsic: Tensor, medians: Tensor | None, known: Mapping[str, str] | None = None
) -> dict[str, list[str]]:
    """Return the layers of one model whose CKA is ``nan``.

    Args:
        names: Names of the L layers.
        hsic: HSIC of each layer with itself, ``(L,)``, summed over at least one batch.
        medians: Median squared distances that fixed the bandwidths, ``(L,)``; None for kernels without a bandwidth.
        known: Reasons by layer name, where they are known from the layers' samples.

    Returns:
        Names of layers by reason.
    """
    no_bandwidth = [False] * len(names) if medians is None else (medians == 0).tolist()
    undefined: dict[str, list[str]] = {}
    for name, value, lacks_bandwidth in zip(names, hsic.tolist(), no_bandwidth, strict=True):
        reason = _reason(value, (known or {}).get(name), lacks_bandwidth=lacks_bandwidth)
        if reason is not None:
            undefined.setdefault(reason, []).append(name)
    return undefined


def merge_sides(layers: dict[str, list[str]], reference_layers: dict[str, list[str]]) -> dict[str, list[str]]:
    """Return the undefined layers of both models by reason. A layer that both have is listed once."""
    merged = {reason: list(names) for reason, names in layers.items()}
    for reason, names in reference_layers.items():
        known = merged.get(reason, [])
        if new := [f"{name} (reference)" for name in names if name not in known]:
            merged[reason] = known + new
    return merged


def undefined_message(reason: str, names: Sequence[str], title: str = "CKA") -> str:
    """Return the warning for the layers of one reason; ``title`` is that of the measure."""
    if reason == _NOT_FINITE and not title.startswith("CKA"):
        # The order of distances between copies and between far samples cannot be told apart.
        reason += ", or where most samples are identical"
    return f"{title} is nan for layers {reason}: {shortened(names)}"


def _reason(hsic: float, known: str | None, *, lacks_bandwidth: bool) -> str | None:
    if hsic == 0:
        return _NO_VARIANCE
    if isfinite(hsic):
        return None
    return known or (_NO_BANDWIDTH if lacks_bandwidth else _NOT_FINITE)
