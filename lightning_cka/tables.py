"""Results as tables."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from pathlib import Path

from lightning_cka.files import write_atomically
from lightning_cka.result import CKAResult

_COLUMNS = ("epoch", "step", "layer", "reference_layer", "cka", "standard_error")


def write_csv(results: Iterable[CKAResult], path: str | Path) -> None:
    """Write results in long format: a row for each pair of layers, floats in full.

    Args:
        results: in order.
        path: of the file.

    Raises:
        OSError: the file cannot be written.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, _COLUMNS, lineterminator="\n")
    writer.writeheader()
    for result in results:
        writer.writerows(result.to_rows())
    write_atomically(Path(path), text.getvalue().encode())


def table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Aligned columns of text, the first to the left and the others to the right."""
    lines = [list(header), *(list(row) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if place == 0 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )
