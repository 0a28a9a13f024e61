"""Split the chosen samples into batches of a size that suits CKA."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from torch.utils.data import DataLoader

from lightning_cka.hsic.grams import MIN_SAMPLES

T = TypeVar("T")

MIN_BATCHES = 8
"""Batches are made smaller to have this many, since the standard error is estimated between batches."""


def choose_batch_size(num_samples: int, loader: DataLoader[Any], batch_size: int | None) -> int:
    """Return the user's batch size, or else the loader's, reduced if there would be fewer than 8 batches.

    Raises:
        ValueError: There are fewer than 4 samples, or the loader's batch size is unknown or below 4.
    """
    check_num_samples(num_samples)
    if batch_size is not None:
        return batch_size
    loader_size = loader.batch_size or getattr(loader.batch_sampler, "batch_size", None)
    if loader_size is None:
        raise ValueError(
            f"cannot determine the batch size of the validation loader ({type(loader.batch_sampler).__name__}); "
            "pass batch_size= or your own dataloader="
        )
    if loader_size < MIN_SAMPLES:
        raise ValueError(
            f"the validation loader's batches of {loader_size} are too small: CKA needs at least {MIN_SAMPLES} samples "
            "per batch. Pass batch_size=, if possible 64 or more"
        )
    return max(MIN_SAMPLES, min(int(loader_size), num_samples // MIN_BATCHES))


def split_into_batches(items: Sequence[T], batch_size: int) -> list[list[T]]:
    """Split a sequence into batches. A last batch of fewer than 4 samples is dropped."""
    batches = [list(items[start : start + batch_size]) for start in range(0, len(items), batch_size)]
    return [batch for batch in batches if len(batch) >= MIN_SAMPLES]


def check_num_samples(num_samples: int) -> None:
    """Check that a probe set has enough samples.

    Raises:
        ValueError: It has fewer than 4.
    """
    if num_samples < MIN_SAMPLES:
        raise ValueError(f"the probe set has {num_samples} samples, but CKA needs at least {MIN_SAMPLES}")
