"""Titles and labels of lines over depth, one for each result."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lightning_cka.compare.run_files import short_moment_text
from lightning_cka.figures.labels import elided, fitting, plain, similarity_title, value_label
from lightning_cka.hsic.measure import shared_title

if TYPE_CHECKING:
    from lightning_cka.compare.result import CKAResult


def depth_title(results: Sequence[CKAResult], max_length: int) -> str:
    """Return the title of `plot_layer_trend`, with the reference if all results have the same one."""
    title = shared_title(result.measure for result in results)
    names = {(result.model_name, result.reference_name) for result in results}
    if len(names) == 1:
        return similarity_title(title, results[-1], max_length)
    if any(result.pairing for result in results):
        return fitting([f"{title} of paired layers", title], max_length)
    return fitting([f"{title} of layers of the same name", f"{title} of same names", title], max_length)


def moments_of_one_reference(results: Sequence[CKAResult]) -> list[str] | None:
    """Return the moments of results as labels, if they differ and the title has the only reference; else None."""
    moments = [short_moment_text(result.epoch, result.step) for result in results]
    names = {(result.model_name, result.reference_name, value_label(result)) for result in results}
    return moments if all(moments) and len(set(moments)) == len(moments) and len(names) == 1 else None


def line_labels(results: Sequence[CKAResult], labels: Sequence[str] | None, max_length: int) -> list[str]:
    """Return one label per result.

    Raises:
        ValueError: The number of labels is wrong.
    """
    if labels is None:
        is_mixed = len({value_label(result) for result in results}) > 1
        labels = [
            ", ".join(filter(None, (plain(result.reference_name), short_moment_text(result.epoch, result.step))))
            + (f": {value_label(result)}" if is_mixed else "")
            for result in results
        ]
    if len(labels) != len(results):
        raise ValueError(f"expected one label per result, but got {len(results)} results and {len(labels)} labels")
    return [elided(label, max_length) for label in labels]
