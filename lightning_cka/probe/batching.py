"""Split the chosen samples into batches of a size that suits CKA."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from torch.utils.data import DataLoader

from lightning_cka.hsic.grams import MIN_SAMPLES

T = TypeVar("T")

MIN_BATCHES = 8
"""Batches are made smaller to have this many, since the standard error is estimated between batches."""


DEFAULT_BATCH_SIZE = 32
"""Used where the loader's batches are too small for CKA, or their size is unknown."""


def choose_batch_size(num_samples: int, loader: DataLoader[Any], batch_size: int | None) -> int:
    """Return the user's batch size, or else one that works, reduced if there would be fewer than 8 batches.

    That is the loader's batch size, or 32 if the loader's is unknown or below 4.

    Raises:
        ValueError: There are fewer than 4 samples.
    """
    check_num_samples(num_samples)
    if batch_size is not None:
        return batch_size
    loader_size = loader.batch_size or getattr(loader.batch_sampler, "batch_size", None)
    if not isinstance(loader_size, int) or loader_size < MIN_SAMPLES:
        loader_size = DEFAULT_BATCH_SIZE
    return max(MIN_SAMPLES, min(loader_size, num_samples // MIN_BATCHES))


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
        raise ValueError(
            f"the probe set has {num_samples} samples, but CKA needs at least {MIN_SAMPLES}{graph_hint(num_samples)}"
        )


def check_first_batch(num_samples: int) -> None:
    """Check that the first batch of a probe set has enough samples.

    Raises:
        ValueError: It has fewer than 4.
    """
    if num_samples < MIN_SAMPLES:
        raise ValueError(
            f"probe batches need at least {MIN_SAMPLES} samples, but the first has {num_samples}: use larger "
            f"batches{graph_hint(num_samples)}"
        )


def graph_hint(num_samples: int) -> str:
    """Say what to pass if the only sample is a graph; nothing for several samples."""
    if num_samples != 1:
        return ""
    return (
        ". If the sample is a whole graph, whose nodes are what CKA compares, pass dataloader=[data], a list with "
        "that graph, and forward_fn=, a function that calls the model on it"
    )
