"""When not to trust a CKA value: what Gram matrices tell of the samples behind it.

Sources: Davari et al. 2022 (https://arxiv.org/abs/2210.16156) for outliers and translated subsets; Cloos et al. 2024
(https://arxiv.org/abs/2407.07059) for a dominant principal component.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from lightning_cka.compare.flags import Flag
from lightning_cka.runtime.deprecation import read_renamed, renamed_attribute


class SampleRatio(NamedTuple):
    """A sample's part of a sum over samples, as a multiple of the mean part."""

    sample: int
    """Its index in the dataset that the probe set is drawn from; of a ``dataloader=``, its place in the order given."""
    ratio: float
    """In [0, N] for N samples; 1 if all samples have equal parts."""

    @property
    def share(self) -> float:
        """Deprecated: use `ratio`."""
        return float(read_renamed(self, "share", "ratio"))


@dataclass(frozen=True)
class LayerDiagnostics:
    """What one layer's Gram matrices tell of its activations on the probe set.

    Attributes:
        effective_dimension: participation ratio (sum lambda)^2 / sum lambda^2 of the covariance's eigenvalues, an
            unbiased estimate of numerator and of denominator.
        trace_ratios: the samples with the largest squared distances from the mean, largest first; the ratio is that
            of the Gram matrix' trace.
        hsic_ratios: the samples with the largest parts of HSIC(K, K), likewise.
    """

    effective_dimension: float
    trace_ratios: tuple[SampleRatio, ...] = ()
    hsic_ratios: tuple[SampleRatio, ...] = ()

    trace_shares = renamed_attribute("trace_shares", "trace_ratios")
    hsic_shares = renamed_attribute("hsic_shares", "hsic_ratios")
    trace_share = renamed_attribute("trace_share", "trace_ratio")
    hsic_share = renamed_attribute("hsic_share", "hsic_ratio")

    @property
    def trace_ratio(self) -> float:
        """The largest ratio of the trace; ``nan`` if unknown."""
        return self.trace_ratios[0].ratio if self.trace_ratios else float("nan")

    @property
    def hsic_ratio(self) -> float:
        """The largest ratio of HSIC; ``nan`` if unknown."""
        return self.hsic_ratios[0].ratio if self.hsic_ratios else float("nan")

    @property
    def top_eigenvalue_bounds(self) -> tuple[float, float]:
        """Bounds on the largest eigenvalue's share of the variance: 1/PR and 1/sqrt(PR).

        Above 1 where chance has put the estimate of PR below 1; ``nan`` if that is not positive.
        """
        if not self.effective_dimension > 0:
            return float("nan"), float("nan")
        return 1 / self.effective_dimension, self.effective_dimension**-0.5


class LeaveOneOut(NamedTuple):
    """The sample without which the CKA of a pair of layers changes most."""

    sample: int
    """See `SampleRatio`."""
    without: float
    """CKA without it."""
    change: float
    """How far that is from CKA with it; not negative. ``nan``, like `without`, if that cannot be told from rounding."""


@dataclass(frozen=True)
class Diagnostics:
    """All diagnostics of one comparison.

    Attributes:
        layers: of the model, by layer.
        reference_layers: of the reference, by layer; empty for a comparison within one model.
        leave_one_out: of same-named layers of two models.
        flags: those that are beyond their thresholds.
        sample_kind: what the samples' numbers are.
    """

    layers: Mapping[str, LayerDiagnostics] = field(default_factory=dict)
    reference_layers: Mapping[str, LayerDiagnostics] = field(default_factory=dict)
    leave_one_out: Mapping[str, LeaveOneOut] = field(default_factory=dict)
    flags: tuple[Flag, ...] = ()
    sample_kind: str = "sample"
