"""The scalars that are logged for each result: their keys and their values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import isnan, nan

from lightning.pytorch import LightningModule

from lightning_cka.compare.result import CKAResult
from lightning_cka.compare.run_files import is_of_training
from lightning_cka.monitor.step_log import StepLog
from lightning_cka.runtime.file_names import distinct_names

_SUMMARIES = ("mean", "mean_se")

_RESERVED = (*_SUMMARIES, "heatmap", "drift", "evolution")
"""Last parts of keys that are no layers. Loggers mix up a scalar and an image of the same key."""


def log_scalars(module: LightningModule | StepLog, key_prefix: str, values: Mapping[str, float]) -> None:
    """Log values through a LightningModule, averaged over processes, or at a step. Every process must call this."""
    for name, value in values.items():
        module.log(key_prefix + name, value, on_step=False, on_epoch=True, sync_dist=True, batch_size=1)


def cka_scalars(result: CKAResult) -> dict[str, float]:
    """Return the mean CKA, its standard error, and the CKA of each layer with the layer of the same name.

    A layer that is called like another value or figure has a number after its name; see `logged_names`. A
    self-comparison has the first two values only, because the CKA of a layer with itself is 1.

    Returns:
        Values by the last part of the logged key: ``mean``, ``mean_se`` (with two batches or more), layer names.
    """
    values = {"mean": result.mean()}
    if result.mean_standard_error is not None:
        values["mean_se"] = result.mean_standard_error
    if not result.self_comparison:
        layers = result.same_named()
        names = logged_names(layers)
        values.update((names[layer], value) for layer, value in layers.items())
    return values


def change_scalars(history: Sequence[CKAResult]) -> dict[str, float]:
    """Return by how much the CKA of each layer differs from that of the previous result.

    Args:
        history: Results of one reference, by one measure, in order; the last one is new.

    Returns:
        Values by the last part of the logged key, such as ``head_change``; see `change_names`. None for the first
        result, for a self-comparison, and for ``trainer.validate()``.
    """
    *earlier, last = history
    previous = [result for result in earlier if is_of_training(result)]
    if not is_of_training(last) or last.self_comparison or not previous:
        return {}
    layers, before = last.same_named(), previous[-1].same_named()
    names = change_names(layers)
    return {names[layer]: value - before.get(layer, nan) for layer, value in layers.items()}


def change_names(layers: Iterable[str]) -> dict[str, str]:
    """Return the name of each layer in the keys of `change_scalars`: "head_change", or with a number at the end."""
    names = logged_names(layers)
    distinct = distinct_names((f"{name}_change" for name in names.values()), {*_RESERVED, *names.values()})
    return {layer: distinct[f"{name}_change"] for layer, name in names.items()}


def scalar_names(layers: Iterable[str]) -> list[str]:
    """Return the keys of `cka_scalars`, given the layers that both models have."""
    return [*_SUMMARIES, *logged_names(layers).values()]


def logged_names(layers: Iterable[str]) -> dict[str, str]:
    """Return the name of each layer in the keys of `cka_scalars`: "mean-2" for "mean", or "mean-3" if this exists."""
    return distinct_names(layers, _RESERVED)


def diagnostic_scalars(results: Iterable[CKAResult]) -> dict[str, float]:
    """Return the diagnostics of a model's layers.

    Args:
        results: Results of one model with several references, by one measure.

    Returns:
        Values by ``layer/diagnostic``; ``leave_one_out`` is the largest change over all references. An undefined
        change, which is ``nan``, counts as the largest.
    """
    values: dict[str, float] = {}
    diagnostics = [result.diagnostics for result in results if result.diagnostics is not None]
    names = distinct_names((name for each in diagnostics for name in (*each.layers, *each.leave_one_out)), ())
    for each in diagnostics:
        for name, layer in each.layers.items():
            values[f"{names[name]}/effective_dimension"] = layer.effective_dimension
            values[f"{names[name]}/trace_ratio"] = layer.trace_ratio
            values[f"{names[name]}/hsic_ratio"] = layer.hsic_ratio
        for name, (_, _, change) in each.leave_one_out.items():
            key = f"{names[name]}/leave_one_out"
            values[key] = max(values.get(key, change), change, key=lambda each: (isnan(each), each))
    return values
