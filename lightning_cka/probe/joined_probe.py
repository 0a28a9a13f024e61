"""Give all processes the same probe set, where each one's sampler yields a share that was fixed when it was made."""

from __future__ import annotations

import zlib
from collections.abc import Sized
from itertools import chain, zip_longest

import torch

from lightning_cka.probe.dataset_probe import DatasetProbe
from lightning_cka.probe.probe_set import ProbeSet
from lightning_cka.probe.samplers import in_one_order
from lightning_cka.runtime.collectives import all_gather, all_gather_objects


def joined_probe(probe: ProbeSet, device: torch.device) -> ProbeSet:
    """Return a probe set that is the same on all processes, if their samplers yield different samples.

    A sampler may read its rank when it is made, so that no other process's share can be asked for. A probe set that is
    drawn is then drawn again, from the samples of all processes. The batches of a user's loader are put in turn, so
    that each process shows its own ones.

    Every process must call this.

    Args:
        probe: The probe set of this process.
        device: The process group's device.
    """
    states = all_gather(torch.tensor(_state(probe), dtype=torch.int64, device=device), distributed=True)
    (first, *others) = [state.tolist() for state in states]
    # All processes see the same states, so that all of them return here.
    if all(other == first for other in others) or any(other[0] != first[0] for other in others) or first[0] < 0:
        return probe
    assert isinstance(probe, DatasetProbe)
    return _joined(probe)


def _joined(probe: DatasetProbe) -> DatasetProbe:
    """Return the probe set of the samples of all processes."""
    shares = all_gather_objects((probe.available, list(zip(probe.keys, probe.parts, strict=True))))
    if probe.redraw is not None:
        return probe.redraw(in_one_order(chain.from_iterable(available for available, _ in shares)))
    blocks = [blocks for _, blocks in shares]
    sets = [set(chain.from_iterable(keys for keys, _ in each)) for each in blocks]
    if all(each == sets[0] for each in sets):  # All samples, in an order that is different on each process.
        return probe.with_blocks(blocks[0])
    return probe.with_blocks([block for turn in zip_longest(*blocks, fillvalue=()) for block in turn if block])


def _state(probe: ProbeSet) -> tuple[int, int]:
    """Return the length of the dataset, or -1 if samples cannot be exchanged, and a checksum of the samples."""
    if not isinstance(probe, DatasetProbe) or not isinstance(probe.dataset, Sized):
        return -1, 0
    return len(probe.dataset), zlib.crc32(repr((probe.available, probe.keys)).encode())
