"""`LeftOutBatches`: CKA without each probe batch in turn, from which the errors of differences follow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lightning_cka.runtime.json_text import checksum


@dataclass(frozen=True, eq=False, repr=False)
class LeftOutBatches:
    """CKA without each of the k probe batches in turn.

    Two results of one probe set share their batches, so that much of their errors is the same. The difference of these
    values, batch by batch, gives the error of the difference.

    Attributes:
        batches: Hash of each batch's samples and inputs, k texts.
        weights: Weights of the batches in the sums of HSIC, ``(k,)`` float64.
        names: Names of the model's P layers that are paired with a layer of the reference.
        values: CKA of these layers with their partners, without each batch, ``(P, k)`` float64.
        all_pairs: CKA of all pairs of layers without each batch, ``(k, L, R)`` float64. None: they are not kept. Files
            and checkpoints do not have them.
    """

    batches: tuple[str, ...]
    weights: Tensor
    names: tuple[str, ...]
    values: Tensor
    all_pairs: Tensor | None = None

    def __repr__(self) -> str:
        pairs = "all pairs" if self.all_pairs is not None else "paired layers"
        return f"LeftOutBatches({len(self.batches)} batches, {len(self.names)} layers, {pairs})"

    def matrices(self, shape: Sequence[int], cells: Mapping[str, tuple[int, int]]) -> Tensor:
        """Return CKA without each batch, ``(k, L, R)``; ``nan`` for pairs of layers that are not kept.

        Args:
            shape: Shape of the result's matrix, L and R.
            cells: Row and column of each paired layer of the result, by name.
        """
        if self.all_pairs is not None:
            return self.all_pairs
        found = torch.full((len(self.batches), *shape), torch.nan, dtype=torch.float64, device="cpu")
        for name, values in zip(self.names, self.values, strict=True):
            if name in cells:
                row, column = cells[name]
                found[:, row, column] = values
        return found

    def batch_differences(self, other: LeftOutBatches) -> str:
        """Return in words how the batches of two probe sets differ; "" if they are the same."""
        if len(self.batches) != len(other.batches):
            return f"they have {len(self.batches)} and {len(other.batches)} batches"
        count = sum(one != another for one, another in zip(self.batches, other.batches, strict=True))
        return f"{count} of {len(self.batches)} batches have other samples or other inputs" if count else ""

    def state(self) -> dict[str, Any]:
        """Return plain values for a checkpoint, without ``all_pairs``, and with a checksum over the others."""
        content = {
            "batches": list(self.batches),
            "weights": self.weights.tolist(),
            "names": list(self.names),
            "values": self.values,
        }
        return content | {"checksum": left_out_checksum(content)}

    @classmethod
    def from_checked(cls, content: Mapping[str, Any]) -> LeftOutBatches:
        """Return the object from values that passed `lightning_cka.compare.result_fields.checked_result_fields`."""
        rows = [[float("nan") if entry is None else entry for entry in each] for each in content["values"]]
        shape = (len(content["names"]), len(content["batches"]))
        return cls(
            tuple(content["batches"]),
            torch.tensor(content["weights"], dtype=torch.float64, device="cpu"),
            tuple(content["names"]),
            torch.tensor(rows, dtype=torch.float64, device="cpu").reshape(shape),
        )


def left_out_checksum(content: Mapping[str, Any]) -> str:
    """Return the checksum of all values but the checksum itself. It is the same before and after a file."""
    values = content["values"]
    rows = values.tolist() if isinstance(values, Tensor) else values
    rows = [[None if entry != entry else entry for entry in each] for each in rows]
    return checksum({name: content[name] for name in ("batches", "weights", "names")} | {"values": rows})
