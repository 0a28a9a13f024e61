"""What is logged of results, as numbers by key."""

from __future__ import annotations

from collections.abc import Iterable
from math import isnan

from lightning_cka.compare.result import CKAResult

_RESERVED = ("mean", "mean_se")


def cka_scalars(result: CKAResult) -> dict[str, float]:
    """The mean with its standard error, and the CKA of each layer with its namesake.

    A layer that has one of the names of the first two gets "-2" after it. Within one model, where a layer's CKA
    with itself is 1, there are only the first two.
    """
    values = {"mean": result.mean()}
    if result.mean_standard_error is not None:
        values["mean_se"] = result.mean_standard_error
    if not result.self_comparison:
        values.update((logged_name(name), value) for name, value in result.same_named().items())
    return values


def scalar_names(layers: Iterable[str]) -> list[str]:
    """The keys of `cka_scalars`, for these same-named layers."""
    return [*_RESERVED, *map(logged_name, layers)]


def logged_name(layer: str) -> str:
    """A layer's name in the keys of `cka_scalars`."""
    return f"{layer}-2" if layer in _RESERVED else layer


def diagnostic_scalars(results: Iterable[CKAResult]) -> dict[str, float]:
    """The diagnostics of a model's layers, from its results with several references through one kernel.

    Returns:
        By ``layer/diagnostic``; ``leave_one_out`` is the largest change over the references.
    """
    values: dict[str, float] = {}
    for result in results:
        if result.diagnostics is None:
            continue
        for name, layer in result.diagnostics.layers.items():
            values[f"{name}/effective_dimension"] = layer.effective_dimension
            values[f"{name}/trace_ratio"] = layer.trace_ratio
            values[f"{name}/hsic_ratio"] = layer.hsic_ratio
        for name, (_, _, change) in result.diagnostics.leave_one_out.items():
            key = f"{name}/leave_one_out"
            # A change that cannot be told is no small one.
            values[key] = max(values.get(key, change), change, key=lambda each: (isnan(each), each))
    return values
