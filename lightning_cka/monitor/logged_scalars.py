"""The scalars that are logged for each result: their keys and their values."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from math import isnan, nan

import torch
from torch import Tensor

from lightning_cka.compare.intervals import interval
from lightning_cka.compare.result import CKAResult
from lightning_cka.compare.run_files import is_of_training, last_of_training
from lightning_cka.decisions.ceiling import SeedCeiling, fitting_ceiling
from lightning_cka.decisions.redundancy import redundancy
from lightning_cka.decisions.settled import settled_count
from lightning_cka.runtime.file_names import distinct_names

LOWER, UPPER = "_lower", "_upper"
"""Endings of the keys of confidence bounds."""

LEVEL = 0.95

CONVERGED = "converged_layers"
"""Last part of the key of the number of layers that have converged."""

BELOW_CEILING = "layers_below_ceiling"
"""Last part of the key of the number of layers whose CKA is below the seed ceiling."""

BLOCKS = "alike_blocks"
"""Last part of the key of the number of blocks of alike layers."""

_OF_MEAN = ("", "_se", LOWER, UPPER)

_RESERVED = (
    *(f"{name}{ending}" for name in ("mean", "mean_all_pairs") for ending in _OF_MEAN),
    "heatmap",
    "drift",
    "evolution",
    CONVERGED,
    BELOW_CEILING,
    BLOCKS,
)
"""Last parts of keys that are no layers. Loggers mix up a scalar and an image of the same key."""


def cka_scalars(result: CKAResult) -> dict[str, float]:
    """Return the mean CKA, its standard error, and the CKA of each layer with the layer that it is paired with.

    The mean of all pairs has another name, so that no key has two meanings. A layer that is called like another value
    or figure has a number after its name; see `logged_names`. A self-comparison has no values of layers, because the
    CKA of a layer with itself is 1, but the number of blocks of alike layers; see `CKAResult.redundancy`.

    Returns:
        Values by the last part of the logged key: ``mean``, or ``mean_all_pairs`` if no layers are paired; layer
        names; ``alike_blocks``, ``nan`` without intervals. With two batches or more, also the mean with ``_se`` (its
        standard error), ``_lower`` and ``_upper`` (a 95 % confidence interval, ``nan`` with fewer than about four
        batches) at the end.
    """
    values, name = {result.mean_name: result.summary()}, result.mean_name
    if (error := result.mean_standard_error) is not None:
        both = torch.tensor([values[name], error], dtype=torch.float64, device="cpu")
        lower, upper = _bounds(result, *both)
        values |= {f"{name}_se": error, f"{name}{LOWER}": float(lower), f"{name}{UPPER}": float(upper)}
    if not result.self_comparison:
        layers = result.same_named()
        names = logged_names(layers)
        values.update((names[layer], value) for layer, value in layers.items())
    else:
        found = redundancy(result, level=LEVEL)
        values[BLOCKS] = nan if found.note else float(len(found.blocks))
    return values


def converged_scalars(history: Sequence[CKAResult], tolerance: float, patience: int) -> dict[str, float]:
    """Return how many layers have stayed within the tolerance in the last comparisons; see `settled_count`.

    Returns:
        The count as ``converged_layers``; 0 until there are ``patience + 1`` results. None for ``trainer.validate()``,
        and if no layers are paired.
    """
    if not is_of_training(history[-1]) or not history[-1].same_named_pairs():
        return {}
    return {CONVERGED: float(settled_count(history, tolerance, patience, LEVEL))}


def ceiling_scalars(result: CKAResult, ceilings: Iterable[SeedCeiling]) -> dict[str, float]:
    """Return how many layers are below the seed ceiling, with a confidence of 95 %.

    Returns:
        The count as ``layers_below_ceiling``; ``nan`` without intervals. None if there is no ceiling for the result.
    """
    if (ceiling := fitting_ceiling(ceilings, result)) is None:
        return {}
    lows = [row["low"] for row in ceiling.below(result, LEVEL)]
    return {BELOW_CEILING: nan if all(map(isnan, lows)) else float(sum(low > 0 for low in lows))}


def change_scalars(history: Sequence[CKAResult]) -> dict[str, float]:
    """Return by how much the CKA of each layer differs from that of the previous result.

    Args:
        history: Results of one reference, by one measure, in order; the last one is new.

    Returns:
        Values by the last part of the logged key, such as ``head_change``; see `change_names`. None for the first
        result, for a self-comparison, and for ``trainer.validate()``.
    """
    recent, last = last_of_training(history, 2), history[-1]
    if not is_of_training(last) or last.self_comparison or len(recent) < 2:
        return {}
    layers, before = last.same_named(), recent[0].same_named()
    names = change_names(layers)
    return {names[layer]: value - before.get(layer, nan) for layer, value in layers.items()}


def interval_scalars(result: CKAResult) -> dict[str, float]:
    """Return 95 % confidence intervals of the CKA of each layer with its paired layer.

    Returns:
        Values by the last part of the logged key, such as ``head_lower`` and ``head_upper``; see `band_names`. ``nan``
        with fewer than about four batches. None for a self-comparison, or for a single batch.
    """
    if result.self_comparison or result.standard_error is None:
        return {}
    bounds = _bounds(result, result.matrix, result.standard_error)
    lower, upper = (replace(result, matrix=bound).same_named() for bound in bounds)
    names = band_names(lower)
    return {names[layer][1]: value for layer, value in lower.items()} | {
        names[layer][2]: value for layer, value in upper.items()
    }


def change_names(layers: Iterable[str]) -> dict[str, str]:
    """Return the name of each layer in the keys of `change_scalars`: "head_change", or with a number at the end."""
    names = logged_names(layers)
    distinct = distinct_names((f"{name}_change" for name in names.values()), {*_RESERVED, *names.values()})
    return {layer: distinct[f"{name}_change"] for layer, name in names.items()}


def band_names(layers: Iterable[str]) -> dict[str, tuple[str, str, str]]:
    """Return by layer its names in the keys of `cka_scalars` and `interval_scalars`: value, lower and upper bound."""
    names = logged_names(layers)
    taken = {*_RESERVED, *names.values(), *change_names(names).values()}
    distinct = distinct_names((name + ending for ending in (LOWER, UPPER) for name in names.values()), taken)
    return {layer: (name, distinct[name + LOWER], distinct[name + UPPER]) for layer, name in names.items()}


def mean_band(mean_name: str) -> tuple[str, str, str]:
    """Return the names of a mean and of its lower and upper bound."""
    return mean_name, f"{mean_name}{LOWER}", f"{mean_name}{UPPER}"


def scalar_names(layers: Iterable[str], mean_name: str = "mean") -> list[str]:
    """Return the keys of `cka_scalars`, given the paired layers and `LayerPairs.mean_name`."""
    return [*(f"{mean_name}{ending}" for ending in _OF_MEAN), *logged_names(layers).values()]


def logged_names(layers: Iterable[str]) -> dict[str, str]:
    """Return the name of each layer in the keys of `cka_scalars`: "mean-2" for "mean", or "mean-3" if this exists."""
    return distinct_names(layers, _RESERVED)


def _bounds(result: CKAResult, value: Tensor, error: Tensor) -> tuple[Tensor, Tensor]:
    return interval(value, error, nan if result.effective_batches is None else result.effective_batches, LEVEL)
