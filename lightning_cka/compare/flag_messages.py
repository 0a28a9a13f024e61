"""The words for flags, in warnings and in figures."""

from __future__ import annotations

from collections.abc import Sequence
from math import isnan

from lightning_cka.compare.flags import Flag
from lightning_cka.runtime.text import shortened

_MEANING = {
    "effective_dimension": (
        "layers that vary along hardly more than one direction, with an effective dimension below {threshold:g}: "
        "{layers}. CKA compares that direction and little else, such as a gap between two groups of samples. See what "
        "lies along it, and compare without it, or within the groups."
    ),
    "trace_ratio": (
        "layers that single samples dominate, with more than {threshold:g} times the mean squared distance from the "
        "center: {layers}. CKA tells how these few samples lie, and little of the others; nor does its standard error. "
        "Look at them, leave them out{or_rbf}."
    ),
    "leave_one_out": (
        "layers whose CKA with their namesake changes by more than {threshold:g} without one single sample: {layers}. "
        "It tells little of the other samples. Look at that one, leave it out{or_rbf}."
    ),
    "standard_error": (
        "layers whose CKA has a standard error above {threshold:g}: {layers}. Do not read differences of that size: "
        "take more probe samples."
    ),
}


def flag_messages(flags: Sequence[Flag], sample_kind: str, kernel: str, subject: str = "CKA") -> list[str]:
    """One warning for each reason among the flags: which layers, what it means, what to do.

    Args:
        flags: of one comparison.
        sample_kind: what the samples' numbers are.
        kernel: its name.
        subject: what the message is about.
    """
    messages = []
    subject = subject if kernel == "linear" else f"{subject}, kernel {kernel}"
    or_rbf = ", or compare with kernel='rbf'" if kernel == "linear" else ""
    for reason, meaning in _MEANING.items():
        same = [flag for flag in flags if flag.reason == reason]
        if same:
            layers = shortened([flag_label(flag, sample_kind) for flag in same])
            text = meaning.format(threshold=same[0].threshold, layers=layers, or_rbf=or_rbf)
            messages.append(f"{subject}: {text}")
    return messages


_SHORT = {
    "exchangeability": "batches differ by more than chance, as if not shuffled; CKA is biased",
    "effective_dimension": "effective dimension < {threshold:g}",
    "trace_ratio": "single samples with > {threshold:g} times the mean squared distance",
    "leave_one_out": "CKA changes by > {threshold:g} without one sample",
    "standard_error": "standard error > {threshold:g}",
}


def flag_summary(flags: Sequence[Flag], sample_kind: str) -> list[str]:
    """One line for each reason among the flags, for figures."""
    lines = []
    for reason, short in _SHORT.items():
        same = [flag for flag in flags if flag.reason == reason]
        if same:
            layers = shortened([flag_label(flag, sample_kind) for flag in same], 3)
            lines.append(f"{short.format(threshold=same[0].threshold)}: {layers}")
    return lines


def flag_label(flag: Flag, sample_kind: str = "sample") -> str:
    """One layer's part of a message: "conv1 of the reference (83 at dataset index 17)"."""
    # What is left without a sample that holds nearly everything cannot be told from rounding.
    value = "cannot be told, as it outweighs all others," if isnan(flag.value) else f"{flag.value:.3g}"
    where = f" at {sample_kind} {', '.join(map(str, flag.samples))}" if flag.samples else ""
    return f"{flag.layer_label} ({value}{where})"
