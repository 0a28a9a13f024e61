"""Warnings about a comparison: undefined values, flagged layers, batches that were not compared.

Warnings about flagged layers are also logged as text; see `Settings.diagnostics_prefix`.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Sequence

from lightning.pytorch.utilities import rank_zero_warn

from lightning_cka.compare.flag_messages import flag_messages
from lightning_cka.compare.flags import Flag
from lightning_cka.compare.pair import Outcome
from lightning_cka.compare.undefined_layers import undefined_message
from lightning_cka.hsic.measure import measure_title
from lightning_cka.monitor.warn_once import WarnOnce
from lightning_cka.probe.exchangeability import Variation, variation_message


def warn_about(
    warn: WarnOnce,
    reference_name: str,
    outcome: Outcome,
    variation: Sequence[Variation],
    explained: Collection[str],
    *,
    is_trial: bool,
) -> list[str]:
    """Warn about one comparison, once for each problem and layer.

    Args:
        warn: Remembers the earlier warnings of this run.
        reference_name: Name of the reference.
        outcome: Result of the comparison with this reference, by one measure.
        variation: Layers in which the probe batches are not exchangeable; `LiveProbe` has already warned about them.
        explained: Layers without features, which the forward pass has already warned about.
        is_trial: True: warn about undefined values, bad samples and skipped batches only. A trial run has too few
            samples for more.

    Returns:
        Messages to log as text.
    """
    for message in _undefined_messages(warn, outcome, explained):
        rank_zero_warn(message)
    texts = _flag_messages(warn, outcome, only_bad_samples=is_trial)
    for message in texts:
        rank_zero_warn(message)
    if variation and warn.is_new("variation"):
        texts.append(variation_message(variation, "dataloader="))
    if outcome.result.num_batches == 1 and not is_trial:
        warn("one probe batch gives no standard errors: use smaller batches (batch_size=)")
    if outcome.num_mismatched:
        # Each process has its own batches, so each process warns.
        warnings.warn(
            f"{outcome.num_mismatched} probe batches were skipped in the comparison with '{reference_name}': their "
            "inputs differ from those shown to the reference. The dataset or dataloader= must return the same samples "
            "each time",
            stacklevel=2,
        )
    return texts


def _undefined_messages(warn: WarnOnce, outcome: Outcome, explained: Collection[str]) -> list[str]:
    """Return messages about layers whose values are ``nan``, for each layer and reason that is new."""
    messages = []
    for reason, names in outcome.undefined_layers.items():
        unexplained = [name for name in names if name not in explained]
        if new := [name for name in unexplained if warn.is_new("undefined", reason, name)]:
            messages.append(undefined_message(reason, new, measure_title(outcome.result.measure)))
    return messages


def _flag_messages(warn: WarnOnce, outcome: Outcome, *, only_bad_samples: bool) -> list[str]:
    """Return messages about flagged layers, for each layer, reason and measure that is new."""
    result = outcome.result
    flags = [flag for flag in result.flags if flag.reason == "bad_sample" or not only_bad_samples]
    new = [flag for flag in flags if warn.is_new("flag", *_identity(flag, result.reference_name, result.measure_label))]
    sample_kind = result.diagnostics.sample_kind if result.diagnostics else "sample"
    return flag_messages(new, sample_kind, result, f" with '{result.reference_name}'")


def _identity(flag: Flag, reference_name: str, measure: str) -> tuple[str, str, str, str]:
    # Reference "previous" was the live model before, so the user already knows these flags. So was "previous:3".
    is_other_model = flag.of_reference and reference_name.partition(":")[0] != "previous"
    # A bad sample is bad for all measures, and a copy is one for all references, too.
    measure = measure if flag.is_of_measure else ""
    return flag.reason, flag.layer, reference_name if is_other_model else "", measure
