"""The text of flags: warnings for the console and loggers, and short lines for figures."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from math import isnan
from typing import TYPE_CHECKING

from lightning_cka.compare.flags import Flag
from lightning_cka.hsic.measure import CKA, measure_title
from lightning_cka.runtime.text import shortened

if TYPE_CHECKING:
    from lightning_cka.compare.result import CKAResult

_WARNINGS = {
    "dominant_direction": (
        "layers whose CKA depends on one direction: {layers}. Without the leading eigenvector of both Gram matrices, "
        "CKA falls by more than {threshold:g}. Compare the samples at the two ends of the direction to find out what "
        "it is; then compare within groups (groups=)."
    ),
    "separated_group": (
        "layers that have a group of samples apart: {layers}. CKA within the groups differs by more than "
        "{threshold:g}. Inspect the group, then compare without it (exclude=) or within groups (groups=)."
    ),
    "disagreement": (
        "layers about which second opinions tell another story than CKA: {layers}. Compare them by "
        "measures=['cka', 'mutual_knn', 'ridge'], and look at the samples (plot_samples)."
    ),
    "trace_ratio": (
        "layers that single samples dominate (more than {threshold:g} times the mean squared distance from the "
        "center): {layers}. CKA and its standard error mostly describe these samples. Inspect them, then compare "
        "without them (exclude=){or_rbf}."
    ),
    "leave_one_out": (
        "layers whose CKA with their paired layer changes by more than {threshold:g} without one sample: "
        "{layers}. The value mostly describes that sample. Inspect it, then compare without it (exclude=){or_rbf}."
    ),
    "influence": (
        "layers whose CKA changes by more than {threshold:g} standard errors without one sample: {layers}. Inspect it, "
        "then compare without it (exclude=){or_rbf}."
    ),
    "standard_error": (
        "layers whose CKA has a standard error above {threshold:g}: {layers}. Differences of that size mean nothing. "
        "Use more probe samples."
    ),
    "copies": (
        "probe samples have identical inputs: {layers}. They count as if they were independent, which moves CKA. "
        "Remove the copies from the data, or leave them out (exclude=)."
    ),
    "rank_loss": (
        "layers that lost more than {percent:.0f} % of their largest effective rank so far: {layers}. Their features "
        "collapse onto fewer directions. Compare them with earlier epochs, and look at the loss: does it reward that "
        "all samples become alike?"
    ),
    "bad_sample": (
        "some samples are NaN or infinite, first in {layers}. They make CKA nan there and in the layers after it. "
        "Repair or leave out (exclude=) samples whose input is bad; in a layer, look for a division by zero or an "
        "overflow."
    ),
}
"""What was found, what it means and what to do, by reason. `exchangeability` has a warning of its own."""

_LINES = {
    "exchangeability": "batches differ by more than chance, as if not shuffled; CKA is biased",
    "dominant_direction": "CKA falls by > {threshold:g} without the leading direction",
    "separated_group": "CKA differs by > {threshold:g} within two groups of samples",
    "disagreement": "second opinions differ from CKA",
    "effective_dimension": "effective dimension < {threshold:g}",  # In files of older versions.
    "trace_ratio": "single samples with > {threshold:g} times the mean squared distance",
    "leave_one_out": "CKA changes by > {threshold:g} without one sample",
    "influence": "CKA changes by > {threshold:g} standard errors without one sample",
    "standard_error": "standard error > {threshold:g}",
    "copies": "probe samples with identical inputs",
    "rank_loss": "lost > {percent:.0f} % of the largest effective rank so far",
    "bad_sample": "NaN or infinite samples, first in",
}


def flag_messages(flags: Sequence[Flag], sample_kind: str, result: CKAResult, suffix: str = "") -> list[str]:
    """Return one warning for each reason: which layers are flagged, what it means, what to do.

    Args:
        flags: Flags of one comparison.
        sample_kind: Kind of the sample numbers, such as "dataset index".
        result: Result that has the flags, for the names of its measure and kernel.
        suffix: What follows the measure's name in the first words of each warning.
    """
    title = measure_title(result.measure)
    is_linear = result.measure == CKA.key and result.kernel == "linear"
    subject = f"{title}{suffix}{'' if result.kernel == 'linear' else f', kernel {result.kernel}'}"
    or_rbf = " or with kernel='rbf'" if is_linear else ""
    return [
        f"{subject}: "
        + template.replace("CKA", title).format(
            threshold=threshold, percent=100 * threshold, layers=shortened(labels), or_rbf=or_rbf
        )
        for template, threshold, labels in _by_reason(flags, _WARNINGS, sample_kind, result)
    ]


def flag_summary(flags: Sequence[Flag], sample_kind: str, title: str = "CKA") -> list[str]:
    """Return one short line for each reason, for figures.

    Args:
        flags: Flags of one comparison.
        sample_kind: Kind of the sample numbers, such as "dataset index".
        title: Name of the measure in words.
    """
    return [
        f"{template.replace('CKA', title).format(threshold=threshold, percent=100 * threshold)}: {shortened(labels, 3)}"
        for template, threshold, labels in _by_reason(flags, _LINES, sample_kind)
    ]


def _by_reason(
    flags: Iterable[Flag], templates: Mapping[str, str], sample_kind: str, result: CKAResult | None = None
) -> Iterator[tuple[str, float, list[str]]]:
    """Yield the template, the threshold and the labels of the flagged layers, for each reason that has flags."""
    for reason, template in templates.items():
        if same := [flag for flag in flags if flag.reason == reason]:
            yield template, same[0].threshold, [_label(flag, sample_kind, result) for flag in same]


def _label(flag: Flag, sample_kind: str, result: CKAResult | None) -> str:
    """Return the label of one flagged layer, with what the result has besides the flag."""
    ranks = None if result is None or flag.reason != "rank_loss" else result.ranks
    if result is None or ranks is None or flag.layer not in ranks.peaks:
        return flag_label(flag, sample_kind)
    return f"{flag.layer_label} ({ranks.words(flag.layer, result.epoch, result.step)})"


def _ends(flag: Flag, value: str, sample_kind: str) -> str:
    half = len(flag.samples) // 2
    one, other = (", ".join(map(str, part)) for part in (flag.samples[:half], flag.samples[half:]))
    return f"{value} without it; ends: {sample_kind} {one} and {other}"


def _group(flag: Flag, value: str, sample_kind: str) -> str:
    return f"{value} within the groups; group: {sample_kind} {', '.join(map(str, flag.samples))}"


def _copies(flag: Flag, _: str, sample_kind: str) -> str:
    return f"{flag.value:.0f} copies, such as {sample_kind} {', '.join(map(str, flag.samples))}"


def _lost(flag: Flag, *_: str) -> str:
    return f"{100 * flag.value:.0f} % lost"


def _story(flag: Flag, _: str, sample_kind: str) -> str:
    samples = f"{sample_kind} {', '.join(map(str, flag.samples))}"
    if flag.value < 0:
        return f"all but one direction changed: ridge CKA is {-flag.value:.2f} lower; ends of the direction: {samples}"
    cause = (
        f"cause: the outlier {samples}" if len(flag.samples) == 1 else f"cause: samples that moved, such as {samples}"
    )
    return f"less changed than CKA says: mutual kNN is {flag.value:.2f} higher; {cause}"


_SAMPLES_OF: Mapping[str, Callable[[Flag, str, str], str]] = {
    "dominant_direction": _ends,
    "separated_group": _group,
    "copies": _copies,
    "rank_loss": _lost,
    "disagreement": _story,
}
"""How to describe the value and the samples of flags whose samples are not single outliers."""


def flag_label(flag: Flag, sample_kind: str = "sample") -> str:
    """Return the label of one flagged layer, such as "conv1 of the reference (83 at dataset index 17)"."""
    if flag.reason == "bad_sample":
        count = f"{flag.value:.0f} samples, such as " if flag.value > len(flag.samples) else ""
        return f"{flag.layer_label} ({count}{sample_kind} {', '.join(map(str, flag.samples))})"
    value = "nan" if isnan(flag.value) else f"{flag.value:.3g}"
    if flag.reason in _SAMPLES_OF:
        return f"{flag.layer_label} ({_SAMPLES_OF[flag.reason](flag, value, sample_kind)})"
    if flag.samples:
        value += f" at {sample_kind} {', '.join(map(str, flag.samples))}"
    if isnan(flag.value):
        # Without this sample, too little is left to distinguish from rounding errors.
        value += ", which outweighs all others"
    return f"{flag.layer_label} ({value})"
