"""Tensors in nested batches: mapped and found in every kind of container."""

from collections import namedtuple
from dataclasses import dataclass

import numpy as np
import torch
from lightning_cka.runtime.nested import dataclass_values, map_tensors, tensors_in

Pair = namedtuple("Pair", "x y")


@dataclass(frozen=True)
class Frozen:
    x: torch.Tensor
    name: str = "a"


def test_tensors_of_any_container_are_mapped_and_other_values_are_kept():
    batch = {"a": [torch.ones(2), "text"], "b": Pair(torch.ones(1), None), "c": (Frozen(torch.ones(3)), 4)}
    mapped = map_tensors(batch, lambda tensor: 2 * tensor)
    assert mapped["a"][0].tolist() == [2, 2]
    assert isinstance(mapped["b"], Pair)
    assert mapped["b"].x.tolist() == [2]
    assert mapped["c"][0].x.tolist() == [2, 2, 2]
    assert (mapped["a"][1], mapped["b"].y, mapped["c"][0].name, mapped["c"][1]) == ("text", None, "a", 4)
    assert batch["c"][0].x.tolist() == [1, 1, 1]  # The original is unchanged.


class Custom:
    def __init__(self):
        self.x, self.itself = torch.ones(2), self


def test_tensors_and_numeric_arrays_are_found_once_each():
    batch = {"a": [torch.zeros(1), np.arange(3)], "b": Custom(), "c": Frozen(torch.ones(4)), "d": np.array(["text"])}
    assert [len(tensor) for tensor in tensors_in(batch)] == [1, 3, 2, 4]
    assert not list(tensors_in(["text", 3, None, Frozen]))


def test_values_of_dataclasses_only():
    found = dataclass_values(Frozen(torch.ones(1)))
    assert list(found) == ["x", "name"]
    assert dataclass_values(Frozen) == dataclass_values({"x": 1}) == {}
