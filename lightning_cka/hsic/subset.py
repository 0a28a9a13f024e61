"""Gram matrices of some of the samples, from those of all samples."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from lightning_cka.hsic.distance_errors import loses_digits_without
from lightning_cka.hsic.folding import fold, half_size, unfold
from lightning_cka.hsic.packed import USABLE, PackedGrams, row_states, select_layers, u_centering_shift

_MAX_ENTRIES = 2**22
"""Largest number of matrix entries that are unpacked at a time."""


def usable_places(packed: PackedGrams, places: Sequence[int]) -> list[int]:
    """Return those of some places in a batch whose samples are usable in the only layer."""
    states = row_states(packed)[0].tolist()
    return [place for place in places if states[place] == USABLE]


def select_samples(packed: PackedGrams, places: Sequence[int]) -> PackedGrams:
    """Return the Gram matrices of some samples, as if the batch had no others; all of them as they are.

    Features are centered over the chosen samples: rows and columns of the Gram matrix are centered again. The scale is
    ``nan`` for a layer whose other samples are so far away that the rounding errors that they leave would change CKA.

    Args:
        packed: Gram matrices of L layers on n samples.
        places: Places of m samples in the batch, in ascending order, m >= 4.
    """
    if len(places) == packed.num_samples:
        return packed
    size = max(1, _MAX_ENTRIES // packed.num_samples**2)
    if len(packed.halves) > size:
        # Unpacking the matrices of all layers at once would take much memory.
        chunks = [slice(start, start + size) for start in range(0, len(packed.halves), size)]
        parts = [select_samples(select_layers(packed, chunk), places) for chunk in chunks]
        return PackedGrams(*(torch.cat(each) for each in zip(*parts, strict=True)))
    index = torch.tensor(places, device="cpu").to(packed.halves.device)
    states = row_states(packed)[:, index]
    full = unfold(packed.halves, packed.num_samples)[:, index][:, :, index]
    centered, offsets = _centered_again(full, packed.offsets[:, index])
    squares = centered.square().sum(2)
    squares = torch.where(offsets.isnan(), states.to(squares), squares)
    loses_digits = loses_digits_without(packed, index, squares.sum(1))
    scales = packed.scales.where(~loses_digits, torch.full_like(packed.scales, torch.nan))
    return PackedGrams(fold(centered), offsets, scales, squares)


def first_samples(packed: PackedGrams, limit: int) -> tuple[Tensor, Tensor]:
    """Return U-centered matrices and offsets of the first samples of a batch, not packed.

    Args:
        packed: Gram matrices of L layers on n samples.
        limit: Number of samples from which on a part is taken. A part has at least ``limit / 2`` samples.

    Returns:
        U-centered matrices ``(L, m, m)`` and offsets ``(L, m)``; see `PackedGrams`.
    """
    n = packed.num_samples
    if n <= limit:
        return unfold(packed.halves, n), packed.offsets
    # The folded layout has the entries below the diagonal of its first columns at their place.
    m = min(limit, half_size(n))
    entries = packed.halves.index_select(1, _first_entries(m, half_size(n), packed.halves.device))
    return _centered_again(entries.view(-1, m, m), packed.offsets[:, :m])


@lru_cache(maxsize=8)
def _first_entries(m: int, h: int, device: torch.device) -> Tensor:
    """Return where folded matrices with h columns have the entries of their first m samples, ``(m m,)``."""
    # A cached tensor that was made in inference mode could not be used outside it.
    with torch.inference_mode(False):
        places = torch.arange(m, device="cpu")
        rows, columns = torch.maximum(places[:, None], places), torch.minimum(places[:, None], places)
        return (rows * h + columns).flatten().to(device)


def _centered_again(full: Tensor, offsets: Tensor) -> tuple[Tensor, Tensor]:
    """U-center matrices ``(L, m, m)`` with zeros on the diagonal in place, and add the shift to offsets ``(L, m)``."""
    shift = u_centering_shift(full.sum(2))
    full -= shift[:, :, None]
    full -= shift[:, None, :]
    full.diagonal(dim1=1, dim2=2).zero_()
    return full, offsets + shift
