"""Accumulate the diagnostics of one model's layers over batches."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_cka.compare.diagnostics import LayerDiagnostics, SampleRatio
from lightning_cka.hsic.packed import PackedGrams, diagonals, has_imprecise_distances
from lightning_cka.hsic.spectrum import effective_dimension_numerator
from lightning_cka.runtime.collectives import all_gather, all_reduce_sum
from lightning_cka.runtime.devices import to_device

TOP_SAMPLES = 3


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
        # (2, L, k): the largest ratios of trace and HSIC so far, and whose they are.
        self._largest = torch.full((2, len(layers), TOP_SAMPLES), -1.0, dtype=torch.float64, device=device)
        self._samples = torch.full((2, len(layers), TOP_SAMPLES), -1, dtype=torch.int64, device=device)

    def add(self, linear: PackedGrams, grams: PackedGrams, samples: Sequence[int]) -> None:
        """Add one batch.

        Args:
            linear: linear Gram matrices of all layers, for the effective dimension.
            grams: those of the kernel, for the ratios.
            samples: the numbers of its n samples.
        """
        offsets, norms = linear.offsets.to(self.sums), linear.row_squares.to(self.sums).sum(1)
        scales = linear.scales.to(self.sums) ** 4
        numerator = effective_dimension_numerator(offsets, norms) * scales
        numerator = numerator.where(~has_imprecise_distances(linear), torch.full_like(numerator, torch.nan))
        scale = grams.scales.to(self.sums)[:, None]
        d = diagonals(grams._replace(offsets=grams.offsets.to(self.sums))) * scale**2
        rows = grams.row_squares.to(self.sums) * scale**4
        self.sums = self.sums + torch.stack([numerator, norms * scales, rows.sum(1), d.sum(1)])
        self.num_samples += grams.num_samples
        numbers = to_device(torch.tensor(samples, device="cpu"), d.device).expand(2, len(d), -1)
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
        ratios = _finite(count * largest / torch.stack([trace, hsic])[:, :, None])
        dimensions = _finite(numerator / denominator).tolist()
        found = {}
        for layer, name in enumerate(self._layers):
            trace_ratios, hsic_ratios = (
                tuple(
                    SampleRatio(sample, ratio)
                    for sample, ratio in zip(samples[i, layer].tolist(), ratios[i, layer].tolist(), strict=True)
                    if sample >= 0
                )
                for i in (0, 1)
            )
            found[name] = LayerDiagnostics(dimensions[layer], trace_ratios, hsic_ratios)
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
