"""`LayerStatistics`: sums over batches from which the diagnostics of one model's layers follow."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_cka.compare.bad_samples import BadSamples, SampleStates
from lightning_cka.compare.diagnostics import LayerDiagnostics, SampleRatio
from lightning_cka.hsic.layer_sums import TOP_SAMPLES, FirstSums, layer_sums
from lightning_cka.hsic.packed import PackedGrams
from lightning_cka.runtime.collectives import all_gather, all_reduce_sum
from lightning_cka.runtime.devices import to_device


class LayerStatistics:
    """Accumulates the diagnostics of one model's L layers, batch by batch.

    Args:
        layers: Names of the layers.
        device: Device of the sums.
        execution_order: Names of layers in the order in which they ran; see `SampleStates`.

    Attributes:
        sums: Four sums for each layer, ``(4, L)``: numerator and denominator of the effective dimension, weighted by
            n(n-3); <U, U> and the trace of the kernel's Gram matrices.
        num_samples: Number of samples in the sums.
    """

    def __init__(self, layers: Sequence[str], device: torch.device, execution_order: Sequence[str] = ()) -> None:
        self._layers = tuple(layers)
        self._states = SampleStates(self._layers, execution_order, device)
        self.sums = torch.zeros(4, len(layers), dtype=torch.float64, device=device)
        self.num_samples = 0
        # (2, L, k): the k largest contributions to the trace and to HSIC so far, and their samples.
        self._largest = torch.full((2, len(layers), TOP_SAMPLES), -1.0, dtype=torch.float64, device=device)
        self._samples = torch.full((2, len(layers), TOP_SAMPLES), -1, dtype=torch.int64, device=device)

    def add(
        self,
        linear: PackedGrams,
        grams: PackedGrams,
        samples: Sequence[int],
        bad_inputs: tuple[int, ...] = (),
        kept: FirstSums | None = None,
    ) -> None:
        """Add one batch.

        Args:
            linear: Linear Gram matrices of all layers, for the effective dimension.
            grams: Gram matrices of the kernel, for the ratios.
            samples: Numbers of the n samples.
            bad_inputs: Those whose inputs are not finite.
            kept: Keeps the sums of the linear Gram matrices for other comparisons. None: they are not kept.
        """
        like = self.sums
        batch = layer_sums(linear, grams, like) if kept is None or grams is not linear else kept.of(grams, like)
        self._states.add(batch.states, tuple(samples), bad_inputs)
        self.sums = self.sums + batch.sums
        self.num_samples += grams.num_samples
        numbers = to_device(torch.tensor(samples, device="cpu"), like.device)[batch.places]
        self._largest, self._samples = _largest_of(
            torch.cat([self._largest, batch.largest], -1), torch.cat([self._samples, numbers], -1)
        )

    def result(self, *, distributed: bool) -> dict[str, LayerDiagnostics]:
        """Return the diagnostics by layer name; ``nan`` if no batch was added.

        Args:
            distributed: Whether several processes share the batches. Then all of them must call this.
        """
        count = all_reduce_sum(self.sums.new_tensor([float(self.num_samples)]), distributed=distributed)
        sums = all_reduce_sum(self.sums, distributed=distributed)
        largest = torch.cat(all_gather(self._largest, distributed=distributed), -1)
        samples = torch.cat(all_gather(self._samples, distributed=distributed), -1)
        largest, samples = _largest_of(largest, samples)
        numerator, denominator, hsic, trace = sums
        ratios = _finite(count * largest / torch.stack([trace, hsic])[:, :, None])
        dimensions = _finite(numerator / denominator).tolist()
        trace_ratios, hsic_ratios = (_sample_ratios(samples[i], ratios[i]) for i in (0, 1))
        return {
            name: LayerDiagnostics(dimensions[i], trace_ratios[i], hsic_ratios[i])
            for i, name in enumerate(self._layers)
        }

    def bad_samples(self, *, distributed: bool) -> BadSamples:
        """Return the samples that make layers undefined; see `SampleStates.result`."""
        return self._states.result(distributed=distributed)


def _sample_ratios(samples: Tensor, ratios: Tensor) -> list[tuple[SampleRatio, ...]]:
    """Return the samples with their ratios for each layer, from two ``(L, k)``.

    Numbers below 0 fill empty places. Where ratios are ``nan``, no sample is larger than the others.
    """
    return [
        tuple(SampleRatio(sample, ratio) for sample, ratio in zip(*row, strict=True) if sample >= 0 and ratio == ratio)
        for row in zip(samples.tolist(), ratios.tolist(), strict=True)
    ]


def _finite(values: Tensor) -> Tensor:
    """Replace infinite values by ``nan``: they are quotients of a sum that is zero."""
    return values.where(values.isfinite(), torch.full_like(values, torch.nan))


def _largest_of(values: Tensor, samples: Tensor) -> tuple[Tensor, Tensor]:
    """Return the k largest values of ``(2, L, m)`` and their samples."""
    largest, indices = values.topk(TOP_SAMPLES, dim=-1)
    return largest, samples.gather(-1, indices)
