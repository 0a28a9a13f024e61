"""Find the layers whose CKA must not be trusted: diagnostics against thresholds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lightning_cka.compare.diagnostics import LayerDiagnostics, LeaveOneOut
from lightning_cka.compare.flags import Flag, Thresholds
from lightning_cka.probe.exchangeability import Variation


def find_flags(
    layers: Mapping[str, LayerDiagnostics],
    thresholds: Thresholds,
    *,
    leave_one_out: Mapping[str, LeaveOneOut] | None = None,
    standard_errors: Mapping[str, float] | None = None,
    of_reference: bool = False,
) -> list[Flag]:
    """What is beyond its threshold; a ``nan`` is not."""
    flags = []
    for name, layer in layers.items():
        limit = thresholds.effective_dimension
        if limit is not None and layer.effective_dimension < limit:
            flags.append(Flag(name, "effective_dimension", layer.effective_dimension, limit, (), of_reference))
        limit = thresholds.trace_ratio
        if limit is not None and layer.trace_ratio > limit:
            samples = tuple(sample for sample, ratio in layer.trace_ratios if ratio > limit)
            flags.append(Flag(name, "trace_ratio", layer.trace_ratio, limit, samples, of_reference))
    limit = thresholds.leave_one_out
    for name, (sample, _, change) in (leave_one_out or {}).items():
        # A change that rounding hides is no small one.
        if limit is not None and not change <= limit:
            flags.append(Flag(name, "leave_one_out", change, limit, (sample,), of_reference))
    limit = thresholds.standard_error
    for name, error in (standard_errors or {}).items():
        if limit is not None and error > limit:
            flags.append(Flag(name, "standard_error", error, limit, (), of_reference))
    return flags


def variation_flags(found: Sequence[Variation]) -> list[Flag]:
    """Flags of the layers whose batches are not exchangeable."""
    return [Flag(each.layer, "exchangeability", each.ratio, 1.0) for each in found]
