"""`ProbeSet`: the fixed samples, in fixed batches, that every model is shown."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class ProbeBatch:
    """One batch of the probe set."""

    index: int
    """Index of the batch in the probe set. It does not depend on the number of processes."""
    data: Any
    """The batch as the loader yields it."""
    num_samples: int
    """Number of samples in the batch."""
    samples: tuple[int, ...]
    """Numbers that identify the samples: dataset indices, or positions in the loader's order."""


class ProbeSet(ABC):
    """The samples that every model is shown: each pass yields the same samples in the same batches.

    Attributes:
        seed: Seed of the choice of samples, and of all random numbers while samples are loaded and shown.
        sample_kind: What the sample numbers are, in words, such as "dataset index".
        is_shuffled: Whether the batches are random subsets by construction.
    """

    sample_kind = "dataset index"
    is_shuffled = True

    def __init__(self, seed: int) -> None:
        self.seed = seed

    @property
    def description(self) -> str:
        """Return a text that is equal for equal choices of samples."""
        return f"{self.sample_kind}, seed {self.seed}"

    @abstractmethod
    def batches(self, rank: int = 0, world_size: int = 1) -> Generator[ProbeBatch]:
        """Yield the batches ``rank``, ``rank + world_size``, ... of the probe set.

        Iterate inside `isolated_rng`, since loading a sample may draw random numbers.
        """

    @abstractmethod
    def first_batch(self, *, drop_last_sample: bool = False) -> ProbeBatch:
        """Return the first batch, optionally without its last sample."""

    def release_first_batch(self) -> None:  # noqa: B027  # Most probe sets keep none.
        """Free the first batch, which is kept for several dry runs where loading it again is slow."""

    def batch_seed(self, index: int) -> int:
        """Return the seed of one batch, in [0, 2^32)."""
        return int(np.random.SeedSequence([self.seed, index]).generate_state(1)[0])
