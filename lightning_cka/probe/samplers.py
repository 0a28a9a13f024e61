"""Read the sampler of a user's loader, also when Lightning has wrapped it."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data.distributed import DistributedSampler


def unwrapped_sampler(loader: DataLoader[Any]) -> Any:
    """Return the user's sampler. Lightning wraps it as a dataset, to split its samples over processes."""
    return getattr(getattr(loader.sampler, "dataset", None), "_sampler", loader.sampler)


def has_distributed_sampler(loader: Any) -> bool:
    """Whether the loader already splits its samples over processes."""
    samplers = (getattr(loader, "sampler", None), getattr(getattr(loader, "batch_sampler", None), "sampler", None))
    return any(isinstance(sampler, DistributedSampler) for sampler in samplers)


def plain_index(index: Any) -> Any:
    """Return a dataset index as a Python number if it is a tensor or a NumPy scalar."""
    return index.item() if isinstance(index, Tensor | np.generic) else index
