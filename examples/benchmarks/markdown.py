"""Format measurements as cells and tables in Markdown."""

from __future__ import annotations

import statistics


def seconds(values):
    """Format the median in seconds, milliseconds or microseconds."""
    value = statistics.median(values) if isinstance(values, list) else values
    if abs(value) < 0.001:
        return f"{1e6 * value:.1f} µs"
    if abs(value) < 0.1:
        return f"{1000 * value:.1f} ms"
    return f"{value:.2f} s" if abs(value) < 10 else f"{value:.1f} s"


def with_range(values, form="{:.2f}"):
    """Format the median, with the smallest and the largest value in parentheses."""
    middle, low, high = (form.format(each) for each in (statistics.median(values), min(values), max(values)))
    return middle if len(values) == 1 else f"{middle} ({low}–{high})"


def mib(count):
    """Format a number of bytes in MiB."""
    return f"{count / 2**20:.1f}"


def table(rows):
    """Return rows (dictionaries with the same keys) as a table with one column for each key."""
    lines = ["| " + " | ".join(rows[0]) + " |", "|" + "---|" * len(rows[0])]
    lines += ["| " + " | ".join(str(value) for value in row.values()) + " |" for row in rows]
    return "\n".join(lines)
