"""Flags: which layers' CKA must not be trusted, and the thresholds for that."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from lightning_cka.runtime.deprecation import read_renamed, renamed_arguments


@renamed_arguments(trace_share="trace_ratio")
@dataclass(frozen=True)
class Thresholds:
    """From where on a layer is flagged; None: never.

    Attributes:
        effective_dimension: below it, the layer varies along hardly more than one direction.
        trace_ratio: above it, a single sample dominates.
        leave_one_out: above it, the layer's CKA with that of the same name hangs on a single sample.
        standard_error: above it, there are too few samples.
    """

    effective_dimension: float | None = 2.0
    trace_ratio: float | None = 20.0
    leave_one_out: float | None = 0.05
    standard_error: float | None = 0.05


class Flag(NamedTuple):
    """Why a layer's CKA is not to be trusted."""

    layer: str
    reason: str
    """The field of `Thresholds`; or "exchangeability": the probe batches are not alike."""
    value: float
    """Of the diagnostic. Of "exchangeability": variance between batch means over what chance explains."""
    threshold: float
    samples: tuple[int, ...] = ()
    """Those that cause it, the worst first; see `SampleRatio`."""
    of_reference: bool = False
    """The layer is the reference's."""

    @property
    def who(self) -> str:
        """Deprecated: use `layer_label`."""
        return str(read_renamed(self, "who", "layer_label"))

    @property
    def layer_label(self) -> str:
        """The layer, and whether it is the reference's."""
        return f"{self.layer} of the reference" if self.of_reference else self.layer


def check_thresholds(thresholds: Thresholds | None) -> Thresholds:
    """The thresholds, the defaults for None.

    Raises:
        TypeError: something else.
    """
    if thresholds is None:
        return Thresholds()
    if not isinstance(thresholds, Thresholds):
        raise TypeError(f"thresholds must be lightning_cka.diagnostics.Thresholds(...), but is {thresholds!r}")
    return thresholds
