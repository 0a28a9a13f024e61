"""Choose the sizes of forward passes and of Gram blocks, and split samples into them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, TypeVar

from torch.utils.data import DataLoader

from lightning_cka.hsic.grams import MIN_SAMPLES
from lightning_cka.runtime.integers import at_least

T = TypeVar("T")

MIN_BLOCKS = 8
"""Gram blocks are made smaller to have this many, since the standard error is estimated between blocks."""

BLOCK_SIZE = 128
"""Largest Gram block by default: larger ones have hardly a smaller error, and cost more."""

DEFAULT_BATCH_SIZE = 32
"""Size of forward passes where the size of the loader's batches is unknown."""


DEFAULT_BYTES = 2**30
"""By default, blocks are smaller where the features that are kept for one block would take more."""


class Sizes(NamedTuple):
    """Numbers of samples."""

    forward: int
    """In a forward pass."""
    block: int
    """In a Gram block."""


def choose_sizes(
    num_samples: int, loader: DataLoader[Any], batch_size: int | None = None, gram_batch_size: int | None = None
) -> Sizes:
    """Choose the sizes of forward passes and of Gram blocks.

    By default, a forward pass has the loader's batch size. A block has as many whole forward passes as fit into 128
    samples, or fewer so that there are 8 blocks. A forward pass is never larger than a block.

    Args:
        num_samples: Number of samples in the probe set.
        loader: The loader.
        batch_size: The user's size of forward passes. None: the loader's batch size, or 32 if it is unknown.
        gram_batch_size: The user's size of blocks. None: the default.

    Raises:
        ValueError: There are fewer than 4 samples.
    """
    check_num_samples(num_samples)
    forward = batch_size or loader_batch_size(loader) or DEFAULT_BATCH_SIZE
    if gram_batch_size is not None:
        return Sizes(min(forward, gram_batch_size), gram_batch_size)
    largest = max(MIN_SAMPLES, min(BLOCK_SIZE, num_samples // MIN_BLOCKS))
    block = max(MIN_SAMPLES, largest - largest % forward) if forward <= largest else largest
    return Sizes(min(forward, block), block)


def earlier_sizes(num_samples: int, loader: DataLoader[Any], batch_size: int | None = None) -> Sizes:
    """Return the sizes of runs before ``gram_batch_size=``, when each Gram block was one forward pass."""
    size = batch_size or _without_joining(num_samples, loader_batch_size(loader) or DEFAULT_BATCH_SIZE)
    return Sizes(size, size)


def _without_joining(num_samples: int, forward: int) -> int:
    """Return the size of blocks of one forward pass. Batches of fewer than 4 samples are replaced by 32."""
    size = forward if forward >= MIN_SAMPLES else DEFAULT_BATCH_SIZE
    return max(MIN_SAMPLES, min(size, num_samples // MIN_BLOCKS))


def loader_batch_size(loader: Any) -> int | None:
    """Return a loader's batch size; None if it is unknown."""
    size = getattr(loader, "batch_size", None) or getattr(getattr(loader, "batch_sampler", None), "batch_size", None)
    return size if isinstance(size, int) and size > 0 else None


def sizes_for_memory(sizes: Sizes, num_samples: int, sample_bytes: int | None) -> Sizes:
    """Return smaller default blocks, whose features take at most `DEFAULT_BYTES`.

    Blocks of one forward pass need no memory. Forward passes of fewer than 4 samples are joined in any case, unless
    their features cannot be.

    Args:
        sizes: The default sizes.
        num_samples: Number of samples in the probe set.
        sample_bytes: Size of the features of one sample. None: features of several forward passes cannot be joined.
    """
    forward = sizes.forward
    if sample_bytes is None:
        size = _without_joining(num_samples, forward)
        return Sizes(size, size)
    fitting = DEFAULT_BYTES // max(1, sample_bytes * forward)
    least = -(-MIN_SAMPLES // forward)  # Forward passes that have 4 samples.
    return Sizes(forward, min(sizes.block, forward * max(least, fitting)))


def split_into_batches(items: Sequence[T], batch_size: int) -> list[list[T]]:
    """Split a sequence into Gram blocks. A last block of fewer than 4 samples is dropped."""
    batches = [list(items[start : start + batch_size]) for start in range(0, len(items), batch_size)]
    return [batch for batch in batches if len(batch) >= MIN_SAMPLES]


def split_size(size: int, part: int) -> list[int]:
    """Return the sizes of the parts of a block, of which all but the last have ``part`` samples."""
    return [min(part, size - start) for start in range(0, size, part)]


def join_sizes(sizes: Iterable[int], block_size: int | None) -> list[list[int]]:
    """Join the sizes of consecutive batches to Gram blocks of at most ``block_size`` samples; None: one batch each.

    A batch that is larger is cut.
    """
    blocks: list[list[int]] = []
    for size in sizes:
        if block_size is None or size > block_size:
            blocks.extend([part] for part in split_size(size, block_size or size))
        elif blocks and sum(blocks[-1]) + size <= block_size:
            blocks[-1].append(size)
        else:
            blocks.append([size])
    return blocks


def check_gram_batch_size(gram_batch_size: Any) -> int | None:
    """Return the user's number of samples in a Gram block as an integer, and None as it is.

    Raises:
        TypeError: It is not an integer.
        ValueError: It is below 4.
    """
    return None if gram_batch_size is None else at_least(MIN_SAMPLES, "gram_batch_size", gram_batch_size)


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
    """Check that the first Gram block of a probe set has enough samples.

    Raises:
        ValueError: It has fewer than 4.
    """
    if num_samples < MIN_SAMPLES:
        hint = graph_hint(num_samples) or ", or pass gram_batch_size=64, which joins batches"
        raise ValueError(
            f"probe batches need at least {MIN_SAMPLES} samples, but the first has {num_samples}: use larger "
            f"batches{hint}"
        )


def graph_hint(num_samples: int) -> str:
    """Say what to pass if the only sample is a graph; nothing for several samples."""
    if num_samples != 1:
        return ""
    return (
        ". If the sample is a whole graph, whose nodes are what CKA compares, pass dataloader=[data], a list with "
        "that graph, and forward_fn=, a function that calls the model on it"
    )
