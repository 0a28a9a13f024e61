"""Find the samples whose inputs have ``nan`` or infinite values, before the model gets them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from lightning_cka.runtime.nested import tensors_in


class BadInputs:
    """The samples of one batch whose inputs are not finite.

    An infinite value counts only if some sample has none in the same tensor: masks that are added to attention scores
    have one in each sample. Tensors without one entry per sample, such as those of graphs, are not searched.

    Args:
        data: What the model gets of the batch.
        num_samples: Number of samples n.
    """

    def __init__(self, data: Any, num_samples: int) -> None:
        # Values are read in `among`: the accelerator computes them while the CPU goes on.
        self._sums = list(_sums_per_sample(data, num_samples))

    def among(self, samples: Sequence[int]) -> tuple[int, ...]:
        """Return which of the samples' numbers are bad."""
        bad: set[int] = set()
        for sums in self._sums:
            values = sums.cpu()
            if values.isfinite().all():
                continue
            is_bad = ~values.isfinite() if values.isfinite().any() else values.isnan()
            bad.update(is_bad.nonzero().flatten().tolist())
        return tuple(samples[place] for place in sorted(bad))


def _sums_per_sample(data: Any, n: int) -> Iterator[Tensor]:
    """Yield one sum ``(n,)`` per tensor. Any sum with ``nan`` or an infinite term is not finite."""
    for tensor in tensors_in(data):
        if tensor.layout != torch.strided or tensor.is_nested or tensor.ndim == 0 or len(tensor) != n:
            continue
        if tensor.is_floating_point() or tensor.is_complex():
            try:
                # In half precision, a sum of finite values may overflow.
                dtype = torch.promote_types(tensor.dtype, torch.float32)
                yield tensor.detach().reshape(n, -1).sum(1, dtype=dtype)
            except (RuntimeError, TypeError, NotImplementedError):
                continue  # A tensor subclass without these functions: only the layers tell where its samples are bad.
