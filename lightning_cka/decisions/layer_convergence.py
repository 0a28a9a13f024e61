"""`Convergence`: since when each layer has converged, with intervals, as rows and as a table."""

from __future__ import annotations

from dataclasses import dataclass
from math import isnan
from typing import TYPE_CHECKING, Any, NamedTuple

from lightning_cka.compare.result import CKAResult
from lightning_cka.compare.run_files import short_moment_text
from lightning_cka.compare.tables import table
from lightning_cka.decisions.last_state import SimilarityToLast
from lightning_cka.runtime.dataframes import dataframe

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LAST_STATE = "last state"
"""What a layer is compared with, if it is compared with itself at the last moment."""


class LayerConvergence(NamedTuple):
    """Since when one layer has converged, by one criterion."""

    layer: str
    """Name of the layer."""
    compared_with: str
    """Name of the reference, or "last state"."""
    converged: bool | None
    """Whether the layer has converged before the last moment. None: unknown, because there is no interval."""
    place: int | None
    """Index of the first moment since which it has; None if it has not."""
    epoch: int | None
    """Epoch of that moment."""
    step: int | None
    """Step of that moment."""
    value: float
    """CKA with the last state at that moment; for a reference, the change of CKA since then. For layers that have not
    converged, that of the last moment but one."""
    low: float
    """Lower end of the confidence interval of the value."""
    high: float
    """Upper end of the confidence interval of the value."""

    @property
    def since(self) -> str:
        """The moment in words, such as "epoch 3"; "no" for a layer that has not converged, "" if that is unknown."""
        if self.place is None:
            return "" if self.converged is None else "no"
        if self.epoch is None and self.step == 0:
            return "the start"
        return short_moment_text(self.epoch, self.step) or f"moment {self.place}"


class FoundByLayer:
    """What was found for layers, as rows and as maps."""

    found: tuple[Any, ...]

    def plot(self: Any, **kwargs: Any) -> tuple[Figure, list[Axes]]:
        """Draw maps of CKA, with a mark where each layer has converged, or would have been frozen.

        Args:
            **kwargs: Arguments of `lightning_cka.plotting.plot_convergence`.

        Returns:
            The figure, and the axes of the maps.
        """
        from lightning_cka.figures.convergence_maps import plot_convergence

        return plot_convergence(self, **kwargs)

    def to_rows(self) -> list[dict[str, Any]]:
        """Return one row for each element of ``found``, as for `pandas.DataFrame`."""
        return [each._asdict() for each in self.found]

    def to_dataframe(self) -> Any:
        """Return `to_rows` as a `pandas.DataFrame`.

        Raises:
            ImportError: pandas is not installed.
        """
        return dataframe(self.to_rows())


@dataclass(frozen=True, eq=False, repr=False)
class Convergence(FoundByLayer):
    """Since when each layer has converged; `convergence` makes these objects.

    A layer whose distance to a reference stays the same may still move at this distance. That CKA with the last state
    is high excludes it. Both say how similar the samples' representations are, not that the layer's function is the
    same (Davari et al. 2022, https://arxiv.org/abs/2210.16156).

    Attributes:
        layers: Names of the layers.
        tolerance: Change of CKA that does not matter.
        level: Level of the confidence intervals. There is no correction for the number of layers.
        results: Results by reference, in order.
        last: CKA of each layer with itself at the last moment; None: banks are missing.
        found: What was found for each layer and each criterion.
        notes: What is missing, and how to get it; empty if nothing is.
    """

    layers: tuple[str, ...]
    tolerance: float
    level: float
    results: dict[str, list[CKAResult]]
    last: SimilarityToLast | None
    found: tuple[LayerConvergence, ...]
    notes: tuple[str, ...]

    def __repr__(self) -> str:
        return convergence_table(self)

    @property
    def criteria(self) -> tuple[str, ...]:
        """What layers are compared with: the names of the references, and "last state" if there are banks."""
        return (*self.results, *([] if self.last is None else [LAST_STATE]))

    def of(self, layer: str, compared_with: str = LAST_STATE) -> LayerConvergence:
        """Return what was found for one layer.

        Args:
            layer: Name of the layer.
            compared_with: Name of the reference, or "last state".

        Raises:
            KeyError: Nothing was.
        """
        for each in self.found:
            if (each.layer, each.compared_with) == (layer, compared_with):
                return each
        raise KeyError(f"nothing was found for layer {layer!r} and {compared_with!r}; notes say what is missing")


def convergence_table(found: Convergence) -> str:
    """Return a table with one row per layer: since when it has converged by each criterion, with intervals."""
    by_layer = {(each.layer, each.compared_with): each for each in found.found}
    header = ["layer"]
    for name in found.criteria:
        header += [name, "CKA" if name == LAST_STATE else "change", f"{100 * found.level:g} % interval"]
    rows = [
        [layer, *(cell for name in found.criteria for cell in _cells(by_layer.get((layer, name))))]
        for layer in found.layers
    ]
    by_last = f"CKA with the last state above {1 - found.tolerance:g}"
    by_reference = f"change of CKA with the reference within ±{found.tolerance:g}"
    names = filter(None, ["" if found.last is None else by_last, by_reference if found.results else ""])
    heading = f"Converged since (at a level of {100 * found.level:g} %): {'; '.join(names)}"
    return "\n\n".join([heading, table(header, rows), *(f"Note: {note}" for note in found.notes)])


def _cells(each: LayerConvergence | None) -> tuple[str, str, str]:
    if each is None or isnan(each.value):
        return "" if each is None else each.since, "", ""
    is_change = each.compared_with != LAST_STATE
    texts = [f"{number:+.4f}" if is_change else f"{number:.4f}" for number in (each.value, each.low, each.high)]
    return each.since, texts[0], "" if isnan(each.low) else f"{texts[1]} to {texts[2]}"
