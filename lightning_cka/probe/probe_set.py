"""`ProbeSet`: the fixed samples, in fixed batches, that every model is shown."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils.data import DataLoader

from lightning_cka.hsic.grams import MIN_SAMPLES


@dataclass(frozen=True)
class ProbeBatch:
    """One batch of the probe set."""

    index: int
    """Its place in the probe set, the same on any number of processes."""
    data: Any
    num_samples: int
    samples: tuple[int, ...]
    """The numbers of its samples: indices in the dataset, or places in the order that a loader gave them in."""


class ProbeSet(ABC):
    """The samples that every model is shown: the same, in the same batches, each time.

    Attributes:
        seed: of the choice of samples and of all randomness while they are loaded and shown.
        sample_kind: what the samples' numbers are, in words.
        is_shuffled: the batches are alike but for chance by construction.
    """

    sample_kind = "dataset index"
    is_shuffled = True

    def __init__(self, seed: int) -> None:
        self.seed = seed

    @property
    def description(self) -> str:
        """The same for the same choice of samples."""
        return f"{self.sample_kind}, seed {self.seed}"

    @abstractmethod
    def batches(self, rank: int = 0, world_size: int = 1) -> Generator[ProbeBatch]:
        """The batches ``rank``, ``rank + world_size``, ... of the probe set.

        Iterate under `isolated_rng`: loading a sample may draw random numbers.
        """

    @abstractmethod
    def first_batch(self, *, drop_last_sample: bool = False) -> ProbeBatch:
        """The first batch, whole or with one sample fewer."""

    def batch_seed(self, index: int) -> int:
        """Seed of one batch, in [0, 2^32)."""
        return int(np.random.SeedSequence([self.seed, index]).generate_state(1)[0])


def check_enough(count: int) -> None:
    if count < MIN_SAMPLES:
        raise ValueError(f"the probe set has {count} samples, but CKA needs at least {MIN_SAMPLES}")


def own_sampler(loader: DataLoader[Any]) -> Any:
    """The sampler that the user gave. Lightning wraps it as if it were a dataset, to deal it out to processes."""
    return getattr(getattr(loader.sampler, "dataset", None), "_sampler", loader.sampler)


def plain_index(index: Any) -> Any:
    """A dataset index as an int, if it is one of an array or a tensor."""
    return index.item() if isinstance(index, Tensor | np.generic) else index
