"""Find and restore parameters that a forward pass writes to, such as those of `nn.Embedding` with ``max_norm``."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from lightning_cka.runtime.tensor_copies import Restore, bits, keep_tensor, restore_all

MAX_COPIED_BYTES = 2 * 2**30
"""Where it is not known which parameters are written to, no more than this total is copied."""


@dataclass
class _Kept:
    name: str
    parameter: Tensor
    memory: Tensor
    """An alias of the parameter's memory, which stays if the parameter gets other memory."""
    version: int | None
    """None for a tensor that was made in inference mode, which counts no writes."""
    restore: Restore | None
    """None: it was not copied."""


class Written(NamedTuple):
    """Names of the parameters that a forward pass wrote to."""

    names: list[str]
    """All of them, also those whose values stayed the same."""
    lost: list[str]
    """Those whose values changed, and which cannot be restored."""


class ParameterSnapshot:
    """Parameters before a forward pass.

    A write is seen by the tensor's version, by its memory, and by a sum over its bits: code that writes to
    ``weight.data`` increases no version. Values are copied for few parameters only.

    Args:
        parameters: Pairs of a name and a parameter.
        copied: Names of the parameters to copy. None: as many as fit into `MAX_COPIED_BYTES`.
    """

    def __init__(self, parameters: Iterable[tuple[str, Tensor]], copied: Collection[str] | None) -> None:
        plain = {id(p): (name, p) for name, p in reversed(list(parameters)) if _is_readable(p)}
        self._kept: list[_Kept] = []
        free = MAX_COPIED_BYTES
        for name, p in reversed(plain.values()):
            is_copied = p.nbytes <= free if copied is None else name in copied
            free -= p.nbytes * is_copied
            version = None if p.is_inference() else p._version
            self._kept.append(_Kept(name, p, p.detach(), version, _copy(p) if is_copied else None))
        self._sums = _bit_sums(each.memory for each in self._kept)

    def written(self) -> Written:
        """Return which parameters were written to. It reads the bits of all of them."""
        sums = _bit_sums(each.memory for each in self._kept)
        changed = [before != now for before, now in zip(self._sums, sums, strict=True)]
        pairs = list(zip(self._kept, changed, strict=True))
        return Written(
            [each.name for each, is_changed in pairs if is_changed or _has_moved(each)],
            [each.name for each, is_changed in pairs if is_changed and each.restore is None],
        )

    def restore(self) -> None:
        """Put memory and values back, as far as they were copied."""
        restore_all(each.restore or partial(_put_memory_back, each) for each in self._kept)


def _is_readable(parameter: Tensor) -> bool:
    """Whether a parameter has memory of its own, whose bits can be read."""
    try:
        return bool(bits(parameter.detach()).numel()) and parameter.data_ptr() != 0
    except Exception:  # noqa: BLE001  # Any class of tensor may be a parameter, also one without values yet.
        return False


def _copy(parameter: Tensor) -> Restore | None:
    try:
        return keep_tensor(parameter, compare=True)
    except Exception:  # noqa: BLE001  # Any class of tensor may be a parameter, and memory may be short.
        return None


def _has_moved(kept: _Kept) -> bool:
    p = kept.parameter
    return p.data_ptr() != kept.memory.data_ptr() or (kept.version is not None and p._version != kept.version)


def _put_memory_back(kept: _Kept) -> None:
    if kept.parameter.data_ptr() != kept.memory.data_ptr():
        kept.parameter.data = kept.memory


def _bit_sums(tensors: Iterable[Tensor]) -> list[int]:
    """Return a sum over the bits of each tensor. Values are read from each device once."""
    by_device: dict[torch.device, list[tuple[int, Tensor]]] = {}
    total = 0
    for place, tensor in enumerate(tensors):
        by_device.setdefault(tensor.device, []).append((place, bits(tensor).sum(dtype=torch.int64)))
        total += 1
    found = [0] * total
    for sums in by_device.values():
        values = torch.stack([each for _, each in sums]).tolist()
        for (place, _), value in zip(sums, values, strict=True):
            found[place] = value
    return found
