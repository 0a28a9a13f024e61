"""The diagnostics that are logged as scalars: their keys, their values, and of which layers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import isnan, nan

from lightning_cka.compare.diagnostics import Diagnostics, LayerDiagnostics
from lightning_cka.compare.result import CKAResult
from lightning_cka.monitor.settings import Settings
from lightning_cka.runtime.collectives import all_gather_objects
from lightning_cka.runtime.file_names import distinct_names

_OF_LAYERS = ("effective_dimension", "trace_ratio", "hsic_ratio")

_LEAVE_ONE_OUT = "leave_one_out"


def diagnostic_scalars(results: Iterable[CKAResult]) -> dict[str, dict[str, float]]:
    """Return the diagnostics of a model's layers.

    Args:
        results: Results of one model with several references, by one measure.

    Returns:
        By layer: values by the last two parts of the logged key, ``layer/diagnostic``. ``leave_one_out`` is the largest
        change over all references. An undefined change, which is ``nan``, counts as the largest. Values of a comparison
        that failed are ``nan``.
    """
    diagnostics = [result.diagnostics or _undefined(result.layers) for result in results]
    names = _logged_names(name for each in diagnostics for name in (*each.layers, *each.leave_one_out))
    values: dict[str, dict[str, float]] = {name: {} for name in names}
    for each in diagnostics:
        for name, layer in each.layers.items():
            values[name] |= {f"{names[name]}/{key}": getattr(layer, key) for key in _OF_LAYERS}
        for name, (_, _, change) in each.leave_one_out.items():
            key = f"{names[name]}/{_LEAVE_ONE_OUT}"
            values[name][key] = max(values[name].get(key, change), change, key=lambda each: (isnan(each), each))
    return values


def diagnostic_keys(settings: Settings, layers: Iterable[str]) -> set[str]:
    """Return the keys of the diagnostics of these layers of the live model, for all measures."""
    names = _logged_names(layers).values()
    return {
        f"{settings.logged_diagnostics(measure)}{name}/{key}"
        for measure in settings.measures
        for name in names
        for key in (*_OF_LAYERS, _LEAVE_ONE_OUT)
    }


class FlaggedLayers:
    """Remembers which layers of the live model have ever had a flag, by measure."""

    def __init__(self) -> None:
        self._layers: dict[str, set[str]] = {}

    def update(self, results: Mapping[str, Sequence[CKAResult]], settings: Settings) -> Mapping[str, set[str]]:
        """Look at new results, and return all layers that have had a flag, by measure. Every process must call this.

        Args:
            results: Results in order, by the key of `Settings.key`. The first call looks at all of them, also at
                restored ones; later calls look at the last ones.
            settings: The monitor's settings.
        """
        is_first = not self._layers
        found: dict[str, set[str]] = {measure: set() for measure in settings.measures}
        for key, history in results.items():
            measure = key.rpartition("/")[2] if len(found) > 1 else next(iter(found))
            for result in history if is_first else history[-1:]:
                found[measure] |= {flag.layer for flag in result.flags if not flag.of_reference}
        # Rounding may differ between machines, but all processes must log the same keys.
        for each in all_gather_objects(found):
            for measure, layers in each.items():
                self._layers.setdefault(measure, set()).update(layers)
        return self._layers


def _logged_names(layers: Iterable[str]) -> dict[str, str]:
    return distinct_names(layers, ())


def _undefined(layers: Iterable[str]) -> Diagnostics:
    return Diagnostics(layers={name: LayerDiagnostics(nan) for name in layers})
