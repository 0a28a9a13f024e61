"""`ProbeSet`: the fixed samples, in fixed batches, that every model is shown."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Generator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class ProbeBatch:
    """The samples of one forward pass: a Gram block of the probe set, or a part of one."""

    index: int
    """Index of the Gram block in the probe set. It does not depend on the number of processes."""
    data: Any
    """The batch as the loader yields it."""
    num_samples: int
    """Number of samples in the batch."""
    samples: tuple[int, ...]
    """Numbers that identify the samples: dataset indices, or positions in the loader's order."""
    start: int = 0
    """Number of samples of the same Gram block in earlier forward passes."""
    block: int | None = None
    """Number of samples in the Gram block. None: this batch is the whole block."""

    @property
    def block_size(self) -> int:
        """Return the number of samples in the Gram block."""
        return self.num_samples if self.block is None else self.block

    @property
    def ends_block(self) -> bool:
        """Whether the Gram block has no more samples after this batch."""
        return self.start + self.num_samples == self.block_size


class ProbeSet(ABC):
    """The samples that every model is shown: each pass yields the same samples in the same batches.

    One or several batches, each for one forward pass, are a Gram block: the samples of one Gram matrix.

    Attributes:
        seed: Seed of the choice of samples, and of all random numbers while samples are loaded and shown.
        sample_kind: What the sample numbers are, in words, such as "dataset index".
        is_shuffled: Whether the batches are random subsets by construction.
        smaller: Returns a probe set of the same samples that keeps fewer features at a time, given the size in bytes of
            one sample's features, or None if features of several forward passes cannot be joined. None: there is none.
        earlier: Returns the probe set of a run before ``gram_batch_size=`` of the same arguments, or is None.
    """

    sample_kind = "dataset index"
    is_shuffled = True

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.smaller: Callable[[int | None], ProbeSet] | None = None
        self.earlier: Callable[[], ProbeSet] | None = None

    @property
    def description(self) -> str:
        """Return a text that is equal for equal choices of samples."""
        return f"{self.sample_kind}, seed {self.seed}"

    def as_in(self, descriptions: Collection[str]) -> ProbeSet:
        """Return this probe set or an earlier version's one, whichever has one of the descriptions; else this one."""
        if not descriptions or self.description in descriptions or self.earlier is None:
            return self
        earlier = self.earlier()
        return earlier if earlier.description in descriptions else self

    @property
    def num_blocks(self) -> int | None:
        """Return the number of Gram blocks; None if it is unknown."""
        return None

    @abstractmethod
    def batches(self, rank: int = 0, world_size: int = 1) -> Generator[ProbeBatch]:
        """Yield the batches of the Gram blocks ``rank``, ``rank + world_size``, ... of the probe set.

        Iterate inside `isolated_rng`, since loading a sample may draw random numbers.
        """

    @abstractmethod
    def first_batch(self, *, drop_last_sample: bool = False) -> ProbeBatch:
        """Return the first batch, optionally without its last sample."""

    def first_block(self) -> list[ProbeBatch]:
        """Return the batches of the first Gram block. It is the same on all processes that share one probe set."""
        block = []
        with closing(self.batches()) as batches:
            for batch in batches:
                block.append(batch)
                if batch.ends_block:
                    break
        return block

    def release_first_batch(self) -> None:  # noqa: B027  # Most probe sets keep none.
        """Free the first batch, which is kept for several dry runs where loading it again is slow."""

    def batch_seed(self, index: int, start: int = 0) -> int:
        """Return the seed of the batch of one Gram block that begins with the sample ``start``, in [0, 2^32)."""
        place = [index, start] if start else [index]
        return int(np.random.SeedSequence([self.seed, *place]).generate_state(1)[0])
