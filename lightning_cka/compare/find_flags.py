"""Compare diagnostics with thresholds: find the layers whose CKA can mislead."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

from lightning_cka.compare.diagnostics import LayerDiagnostics, LeaveOneOut
from lightning_cka.compare.flags import Flag, Thresholds
from lightning_cka.compare.influential_samples import Influence
from lightning_cka.compare.layer_ranks import LayerRanks
from lightning_cka.probe.exchangeability import Variation


class _Measurement(NamedTuple):
    layer: str
    reason: str
    value: float
    of_samples: tuple[tuple[int, float], ...] = ()
    """Samples that can cause the flag, each with its own value."""


def _is_not_at_most(value: float, threshold: float) -> bool:
    """Whether the value is above the threshold or ``nan``."""
    return not value <= threshold


_MIN_INFLUENCE = 1.0
"""Smallest change of CKA without a sample, in standard errors, for which its trace ratio is flagged."""

_MIN_ERRORS = 2.0
"""Smallest loss of effective rank, in standard errors, that is flagged."""

_IS_FLAGGED: Mapping[str, Callable[[float, float], bool]] = {
    "trace_ratio": operator.gt,
    # A change is nan if one sample outweighs all others, which makes it the worst case.
    "leave_one_out": _is_not_at_most,
    "standard_error": operator.gt,
}
"""For some fields of `Thresholds`: whether a value is on the wrong side of the threshold."""


def find_flags(
    layers: Mapping[str, LayerDiagnostics],
    thresholds: Thresholds,
    *,
    leave_one_out: Mapping[str, LeaveOneOut] | None = None,
    standard_errors: Mapping[str, float] | None = None,
    influences: Mapping[str, Mapping[int, Influence]] | None = None,
    of_reference: bool = False,
) -> list[Flag]:
    """Return a flag for each value on the wrong side of its threshold.

    Of the values that are ``nan``, only leave-one-out changes are flagged.

    Args:
        layers: Diagnostics of each layer of one model.
        thresholds: Thresholds; None in a field switches that check off.
        leave_one_out: Leave-one-out change of each layer's CKA with the layer of the same name.
        standard_errors: Standard error of each layer's CKA with its partner; see `partners`.
        influences: For each layer, how much CKA changes without some samples. Trace ratios of samples
            that change CKA by less than its standard error are not flagged. None: all of them are.
        of_reference: Whether the layers are the reference's.
    """
    flags = []
    for layer, reason, value, of_samples in _measurements(
        layers, leave_one_out or {}, standard_errors or {}, influences
    ):
        threshold: float | None = getattr(thresholds, reason)
        is_flagged = _IS_FLAGGED[reason]
        if threshold is not None and is_flagged(value, threshold):
            samples = tuple(sample for sample, own in of_samples if is_flagged(own, threshold))
            flags.append(Flag(layer, reason, value, threshold, samples, of_reference))
    return flags


def _measurements(
    layers: Mapping[str, LayerDiagnostics],
    leave_one_out: Mapping[str, LeaveOneOut],
    standard_errors: Mapping[str, float],
    influences: Mapping[str, Mapping[int, Influence]] | None,
) -> Iterator[_Measurement]:
    for name, layer in layers.items():
        ratios = layer.trace_ratios
        if influences is not None:
            own = influences.get(name, {})
            moving = {sample for sample, each in own.items() if each.to_other_batches > _MIN_INFLUENCE}
            ratios = tuple(ratio for ratio in ratios if ratio.sample in moving)
        if ratios:
            yield _Measurement(name, "trace_ratio", ratios[0].ratio, ratios)
    for name, (sample, _, change) in leave_one_out.items():
        yield _Measurement(name, "leave_one_out", change, ((sample, change),))
    for name, error in standard_errors.items():
        yield _Measurement(name, "standard_error", error)


def rank_flags(ranks: LayerRanks, thresholds: Thresholds) -> list[Flag]:
    """Return a flag for each layer that has lost too much of its largest effective rank so far."""
    threshold = thresholds.rank_loss
    if threshold is None:
        return []
    losses = {name: ranks.loss(name) for name in ranks.layers}
    return [
        Flag(name, "rank_loss", loss.value, threshold)
        for name, loss in losses.items()
        if loss.value > threshold and not loss.value <= _MIN_ERRORS * loss.standard_error
    ]


def variation_flags(variations: Sequence[Variation]) -> list[Flag]:
    """Return a flag for each layer whose probe batches are not exchangeable."""
    return [Flag(variation.layer, "exchangeability", variation.ratio, 1.0) for variation in variations]
