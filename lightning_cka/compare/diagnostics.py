"""Diagnostics: values of the Gram matrices that show when CKA can mislead.

Papers: Davari et al. 2022 (https://arxiv.org/abs/2210.16156) on outliers and translated subsets; Cloos et al. 2024
(https://arxiv.org/abs/2407.07059) on dominant principal components.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from lightning_cka.compare.flags import Flag
from lightning_cka.runtime.deprecation import read_renamed, renamed_attribute


class SampleRatio(NamedTuple):
    """The contribution of one sample to a sum over samples, divided by the mean contribution."""

    sample: int
    """Number of the sample: its index in the dataset, or its position in a loader; see `Diagnostics.sample_kind`."""
    ratio: float
    """In [0, N] for N samples; 1 if all samples contribute equally."""

    @property
    def share(self) -> float:
        """Deprecated: use `ratio`."""
        return float(read_renamed(self, "share", "ratio"))


@dataclass(frozen=True)
class LayerDiagnostics:
    """Diagnostics of one layer's activations on the probe set.

    Attributes:
        effective_dimension: Participation ratio (sum lambda)^2 / sum lambda^2 of the eigenvalues lambda of the
            covariance matrix. At least 1 and at most the number of features, up to sampling error: numerator and
            denominator are unbiased estimates. ``nan`` if the layer has no variance or is not finite.
        trace_ratios: The samples with the largest squared distances from the mean, largest first, at most 3. The sum
            over samples is the trace of the kernel's Gram matrix.
        hsic_ratios: The samples with the largest contributions to HSIC(K, K), largest first, at most 3.
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
        """The largest of `trace_ratios`; ``nan`` if there are none."""
        return self.trace_ratios[0].ratio if self.trace_ratios else float("nan")

    @property
    def hsic_ratio(self) -> float:
        """The largest of `hsic_ratios`; ``nan`` if there are none."""
        return self.hsic_ratios[0].ratio if self.hsic_ratios else float("nan")

    @property
    def top_eigenvalue_bounds(self) -> tuple[float, float]:
        """Bounds on the fraction of variance along the first principal component: 1/PR and 1/sqrt(PR).

        PR is the effective dimension. The bounds exceed 1 if the estimate of PR is below 1, by sampling error. They
        are ``nan`` if the estimate is not positive.
        """
        if not self.effective_dimension > 0:
            return float("nan"), float("nan")
        return 1 / self.effective_dimension, self.effective_dimension**-0.5


class LeaveOneOut(NamedTuple):
    """The sample without which the CKA of two layers changes most."""

    sample: int
    """Number of the sample; see `SampleRatio`."""
    without: float
    """CKA without the sample; ``nan`` if the sample outweighs all others so much that only rounding errors remain."""
    change: float
    """Absolute difference from CKA with the sample; ``nan`` if `without` is."""


@dataclass(frozen=True)
class Diagnostics:
    """All diagnostics of one comparison, as found in `CKAResult.diagnostics`.

    Each kernel has its own: the ratios and changes are those of the kernel's Gram matrices. The effective dimension is
    always that of the linear kernel.

    Attributes:
        layers: Diagnostics of the model's layers, by name.
        reference_layers: Diagnostics of the reference's layers, by name; empty if a model is compared with itself.
        leave_one_out: Leave-one-out change of CKA between layers of the same name, by name. Layers whose CKA is
            ``nan`` are missing.
        flags: Flags of all values beyond their thresholds.
        sample_kind: What the sample numbers count, such as "dataset index".

    Example:
        >>> import torch
        >>> from lightning_cka import compare_models
        >>> _ = torch.manual_seed(0)
        >>> net = torch.nn.Sequential(torch.nn.Linear(16, 32), torch.nn.ReLU())
        >>> batches = [torch.randn(64, 16) for _ in range(8)]
        >>> diagnostics = compare_models(net, net, batches, progress_bar=False).diagnostics
        >>> diagnostics.flags
        ()
        >>> diagnostics.layers["0"].effective_dimension > 2
        True
    """

    layers: Mapping[str, LayerDiagnostics] = field(default_factory=dict)
    reference_layers: Mapping[str, LayerDiagnostics] = field(default_factory=dict)
    leave_one_out: Mapping[str, LeaveOneOut] = field(default_factory=dict)
    flags: tuple[Flag, ...] = ()
    sample_kind: str = "sample"
