"""Read the labels of the samples of a probe set, for the colours of pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lightning_cka.probe.probe_set import ProbeBatch, ProbeSet
from lightning_cka.runtime.rng import isolated_rng
from lightning_cka.runtime.text import describe

LabelsFn = Callable[[Any], Any]
"""Returns one integer for each sample of a batch, as the loader yields it: a tensor, an array or a list."""


def read_labels(
    probe: ProbeSet, labels_fn: LabelsFn | None, *, rank: int = 0, world_size: int = 1
) -> dict[int, int] | None:
    """Return the labels of this rank's samples, by sample number. The batches are loaded once.

    Args:
        probe: The probe set.
        labels_fn: Returns the labels of a batch. None: they are the second of a pair, if they are integers.
        rank: Rank of this process.
        world_size: Number of processes that share the probe set.

    Returns:
        The labels; None if a batch has none.

    Raises:
        ValueError: ``labels_fn`` fails, or does not return one label for each sample.
        TypeError: It does not return integers.
    """
    found: dict[int, int] = {}
    with isolated_rng(probe.seed), closing(probe.batches(rank, world_size)) as batches:
        for batch in batches:
            labels = _given_labels(batch, labels_fn) if labels_fn is not None else _labels_of_pair(batch)
            if labels is None:
                return None
            found.update(zip(batch.samples, labels, strict=True))
    return found


def _labels_of_pair(batch: ProbeBatch) -> list[int] | None:
    """Return the second part of a pair, if it has one integer per sample; otherwise None."""
    if not isinstance(batch.data, tuple | list) or len(batch.data) != 2:
        return None
    labels = _integers(batch.data[1])
    return labels if labels is not None and len(labels) == batch.num_samples else None


def _given_labels(batch: ProbeBatch, labels_fn: LabelsFn) -> list[int]:
    try:
        value = labels_fn(batch.data)
    except Exception as error:
        raise ValueError(f"labels_fn failed on a probe batch: {type(error).__name__}: {error}") from error
    labels = _integers(value)
    expected = f"labels_fn must return one integer for each of the {batch.num_samples} samples of a batch"
    if labels is None:
        raise TypeError(f"{expected}, such as batch['label'], but returned {describe(value)}")
    if len(labels) != batch.num_samples:
        raise ValueError(f"{expected}, but returned {len(labels)}")
    return labels


def _integers(value: Any) -> list[int] | None:
    """Return a vector of integers as a list; None for anything else."""
    array = _as_array(value)
    if array is None or array.ndim != 1 or array.dtype.kind not in "iub":
        return None
    return [int(each) for each in array]


def _as_array(value: Any) -> NDArray[Any] | None:
    """Return a tensor, an array, or a sequence of integers or of tensors with one entry as an array; else None."""
    if isinstance(value, np.ndarray):
        return value
    if isinstance(value, Tensor):
        is_plain = value.layout is torch.strided and not value.is_quantized and value.dtype is not torch.bfloat16
        return value.detach().cpu().numpy() if is_plain else None
    is_list = isinstance(value, Sequence) and not isinstance(value, str | bytes)
    items = [_item(each) for each in value] if is_list else [None]
    return None if None in items else np.asarray(items)


def _item(value: Any) -> Any:
    """Return an integer, or the entry of a tensor with one entry; None for anything else."""
    if isinstance(value, Tensor) and value.numel() == 1:
        value = value.item()
    return value if isinstance(value, int | np.integer) else None
