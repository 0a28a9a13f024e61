"""Cut some consecutive samples out of a batch, whatever it is made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from lightning_cka.probe.probe_set import ProbeBatch
from lightning_cka.runtime.nested import map_tensors

_FEW = 8


def some_samples(num_samples: int) -> range:
    """Return which samples to show again: half of a batch, but at most 8, without the first.

    A layer that sorts n samples leaves such a part where it was in one of C(n, n / 2) cases. The part is not symmetric
    in the batch, so that a layer that reverses its samples is seen too.
    """
    return range(1, num_samples if num_samples < 6 else 1 + min(_FEW, num_samples // 2))


def part_of_batch(batch: ProbeBatch, samples: Sequence[int]) -> ProbeBatch | None:
    """Copy some samples of a batch: their entries of each tensor that has one entry per sample.

    Returns:
        The smaller batch; None if no tensor has one entry per sample.
    """
    has_cut = False

    def cut(tensor: Tensor) -> Tensor:
        nonlocal has_cut
        if not tensor.ndim or tensor.size(0) != batch.num_samples:
            return tensor
        has_cut = True
        if tensor.is_nested:
            parts = tensor.unbind()
            return torch.nested.as_nested_tensor([parts[i].clone() for i in samples], layout=tensor.layout)
        return tensor[samples[0] : samples[-1] + 1].clone()  # The model may write to its inputs.

    data = map_tensors(batch.data, cut)
    numbers = tuple(batch.samples[i] for i in samples)
    return replace(batch, data=data, num_samples=len(numbers), samples=numbers) if has_cut else None
