"""Batches in step: each forward pass of a sharded model is a collective, in which every process must take part."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

import torch

from lightning_cka.collectives import on_each_process

T = TypeVar("T")


def in_step(batches: Iterator[T], device: torch.device) -> Iterator[T | None]:
    """This process's batches, and then None for as long as another process still has some.

    Args:
        batches: of this process. An error that they raise is raised here once all processes are through. (One of the
            forward pass itself cannot wait for that: its process ends, and the others with it.)
        device: that the processes talk through.
    """
    failure: Exception | None = None
    while True:
        batch = None
        try:
            batch = next(batches, None) if failure is None else None
        except Exception as error:  # noqa: BLE001  # Raised below: the others would wait for this process.
            failure = error
        if not any(on_each_process(batch is not None, device)):
            break
        yield batch
    if failure is not None:
        raise failure
