"""When not to trust a CKA value: what Gram matrices tell of the samples behind it.

Sources: Davari et al. 2022 (https://arxiv.org/abs/2210.16156) for outliers and translated subsets; Cloos et al. 2024
(https://arxiv.org/abs/2407.07059) for a dominant principal component.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from lightning_cka.collectives import all_gather, all_reduce_sum
from lightning_cka.flags import Flag, Thresholds
from lightning_cka.packed import PackedGrams, diagonals, hidden_distances, sent

__all__ = [
    "Diagnostics",
    "Flag",
    "LayerDiagnostics",
    "LeaveOneOut",
    "ModelDiagnostics",
    "SampleShare",
    "Thresholds",
    "effective_dimension_numerator",
    "find_flags",
]

TOP_SAMPLES = 3


class SampleShare(NamedTuple):
    """A sample's share of a sum over samples, as a multiple of the mean share."""

    sample: int
    """Its index in the dataset that the probe set is drawn from; of a ``dataloader=``, its place in the order given."""
    share: float
    """In [0, N] for N samples; 1 if all samples have the same share."""


@dataclass(frozen=True)
class LayerDiagnostics:
    """What one layer's Gram matrices tell of its activations on the probe set.

    Attributes:
        effective_dimension: participation ratio (sum lambda)^2 / sum lambda^2 of the covariance's eigenvalues, an
            unbiased estimate of numerator and of denominator.
        trace_shares: the samples with the largest squared distances from the mean, largest first; the share is that
            of the Gram matrix' trace.
        hsic_shares: the samples with the largest shares of HSIC(K, K), likewise.
    """

    effective_dimension: float
    trace_shares: tuple[SampleShare, ...] = ()
    hsic_shares: tuple[SampleShare, ...] = ()

    @property
    def trace_share(self) -> float:
        """The largest share of the trace; ``nan`` if unknown."""
        return self.trace_shares[0].share if self.trace_shares else float("nan")

    @property
    def hsic_share(self) -> float:
        """The largest share of HSIC; ``nan`` if unknown."""
        return self.hsic_shares[0].share if self.hsic_shares else float("nan")

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
    """See `SampleShare`."""
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


class ModelDiagnostics:
    """Accumulates the diagnostics of one model's layers, batch by batch.

    Args:
        layers: names.
        device: of the sums.

    Attributes:
        sums: ``(4, L)``: effective dimension's numerator and denominator, weighted by n(n-3); <U, U> and the trace of
            the kernel's Gram matrices.
        num_samples: samples in the sums.
    """

    def __init__(self, layers: Sequence[str], device: torch.device) -> None:
        self._layers = tuple(layers)
        self.sums = torch.zeros(4, len(layers), dtype=torch.float64, device=device)
        self.num_samples = 0
        # (2, L, k): the largest shares of trace and HSIC so far, and whose they are.
        self._largest = torch.full((2, len(layers), TOP_SAMPLES), -1.0, dtype=torch.float64, device=device)
        self._samples = torch.full((2, len(layers), TOP_SAMPLES), -1, dtype=torch.int64, device=device)

    def add(self, linear: PackedGrams, grams: PackedGrams, samples: Sequence[int]) -> None:
        """Add one batch.

        Args:
            linear: linear Gram matrices of all layers, for the effective dimension.
            grams: those of the kernel, for the shares.
            samples: the numbers of its n samples.
        """
        offsets, norms = linear.offsets.to(self.sums), linear.row_squares.to(self.sums).sum(1)
        scales = linear.scales.to(self.sums) ** 4
        numerator = effective_dimension_numerator(offsets, norms) * scales
        numerator = numerator.where(~hidden_distances(linear), torch.full_like(numerator, torch.nan))
        scale = grams.scales.to(self.sums)[:, None]
        d = diagonals(grams._replace(offsets=grams.offsets.to(self.sums))) * scale**2
        rows = grams.row_squares.to(self.sums) * scale**4
        self.sums = self.sums + torch.stack([numerator, norms * scales, rows.sum(1), d.sum(1)])
        self.num_samples += grams.num_samples
        numbers = sent(torch.tensor(samples), d.device).expand(2, len(d), -1)
        self._keep_largest(torch.stack([d, rows]), numbers)

    def result(self, *, distributed: bool) -> dict[str, LayerDiagnostics]:
        """By layer; ``nan`` where nothing was seen.

        Args:
            distributed: each process of several has a share of the batches, and all of them ask.
        """
        count = all_reduce_sum(self.sums.new_tensor([float(self.num_samples)]), distributed=distributed)
        sums = all_reduce_sum(self.sums, distributed=distributed)
        largest = torch.cat(all_gather(self._largest, distributed=distributed), -1)
        samples = torch.cat(all_gather(self._samples, distributed=distributed), -1)
        largest, samples = _largest_of(largest, samples)
        numerator, denominator, hsic, trace = sums
        shares = _finite(count * largest / torch.stack([trace, hsic])[:, :, None])
        dimensions = _finite(numerator / denominator).tolist()
        found = {}
        for layer, name in enumerate(self._layers):
            trace_shares, hsic_shares = (
                tuple(
                    SampleShare(sample, share)
                    for sample, share in zip(samples[i, layer].tolist(), shares[i, layer].tolist(), strict=True)
                    if sample >= 0
                )
                for i in (0, 1)
            )
            found[name] = LayerDiagnostics(dimensions[layer], trace_shares, hsic_shares)
        return found

    def _keep_largest(self, values: Tensor, samples: Tensor) -> None:
        joined = torch.cat([self._largest, values], -1), torch.cat([self._samples, samples], -1)
        self._largest, self._samples = _largest_of(*joined)


def _finite(values: Tensor) -> Tensor:
    """``nan`` for what is infinite, since nothing is there to divide by."""
    return values.where(values.isfinite(), torch.full_like(values, torch.nan))


def _largest_of(values: Tensor, samples: Tensor) -> tuple[Tensor, Tensor]:
    largest, places = values.topk(TOP_SAMPLES, dim=-1)
    return largest, samples.gather(-1, places)


def effective_dimension_numerator(offsets: Tensor, squared_norms: Tensor) -> Tensor:
    """n(n-3) times the unbiased estimate of the squared trace of the covariance.

    It is the mean of D_ij D_kl / 4 over all distinct i, j, k, l, D being squared distances:
    [(sum D)^2 - 4 sum_i (sum_j D_ij)^2 + 2 sum D^2] / (4 n (n-1) (n-2) (n-3)). With D_ij = -2 (U_ij + s_i + s_j), and
    the rows of U summing to zero, the bracket is 16 (n-2) (n-3) sum_{i != j} s_i s_j + 8 <U, U>.

    Args:
        offsets: ``(L, n)``, s; see `lightning_cka.packed.PackedGrams`.
        squared_norms: ``(L,)``, <U, U>.

    Returns:
        ``(L,)``. Divided by ``squared_norms`` it is the effective dimension.
    """
    n = offsets.shape[1]
    # Not the square of the sum less the sum of squares: of a far outlier, these differ in no digit.
    mixed = 2 * (offsets[:, 1:] * offsets.cumsum(1)[:, :-1]).sum(1)
    return (4 * (n - 3) * mixed + 2 * squared_norms / (n - 2)) / (n - 1)


def find_flags(
    layers: Mapping[str, LayerDiagnostics],
    thresholds: Thresholds,
    *,
    leave_one_out: Mapping[str, LeaveOneOut] | None = None,
    standard_errors: Mapping[str, float] | None = None,
    of_reference: bool = False,
) -> list[Flag]:
    """What is beyond its threshold; a ``nan`` is not."""
    flags = []
    for name, layer in layers.items():
        limit = thresholds.effective_dimension
        if limit is not None and layer.effective_dimension < limit:
            flags.append(Flag(name, "effective_dimension", layer.effective_dimension, limit, (), of_reference))
        limit = thresholds.trace_share
        if limit is not None and layer.trace_share > limit:
            samples = tuple(sample for sample, share in layer.trace_shares if share > limit)
            flags.append(Flag(name, "trace_share", layer.trace_share, limit, samples, of_reference))
    limit = thresholds.leave_one_out
    for name, (sample, _, change) in (leave_one_out or {}).items():
        # A change that rounding hides is no small one.
        if limit is not None and not change <= limit:
            flags.append(Flag(name, "leave_one_out", change, limit, (sample,), of_reference))
    limit = thresholds.standard_error
    for name, error in (standard_errors or {}).items():
        if limit is not None and error > limit:
            flags.append(Flag(name, "standard_error", error, limit, (), of_reference))
    return flags
