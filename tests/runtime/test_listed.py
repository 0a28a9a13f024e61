"""Containers of all kinds are lists of values."""

from collections import deque
from pathlib import Path

import pytest
from lightning_cka.runtime.listed import listed
from torch import nn


class ListConfig:
    """A sequence that is neither a list nor registered as a Sequence, as that of OmegaConf."""

    def __init__(self, values):
        self._values = values

    def __getitem__(self, index):
        return self._values[index]

    def __len__(self):
        return len(self._values)


@pytest.mark.parametrize(
    "container",
    [
        ["b", "a"],
        ("b", "a"),
        deque(["b", "a"]),
        ListConfig(["b", "a"]),
        {"b": 1, "a": 2}.keys(),
        {1: "b", 2: "a"}.values(),
        (name for name in "ba"),
        iter(["b", "a"]),
    ],
)
def test_values_in_their_order(container):
    assert listed(container) == ("b", "a")


@pytest.mark.parametrize("container", [{"b", "a", nn.Linear}, frozenset(["b", "a", nn.Linear])])
def test_sets_have_the_same_order_in_each_process(container):
    assert listed(container) == (nn.Linear, "a", "b")


@pytest.mark.parametrize(
    "value", ["ab", b"ab", Path("a/b"), 3, nn.Linear, nn.Sequential(nn.ReLU(), nn.ReLU()), len, {"a": 1}, None]
)
def test_single_values(value):
    assert listed(value) == (value,)


def test_an_empty_container_has_no_value():
    assert listed([]) == listed(set()) == listed(iter(())) == ()


def test_lists_of_omegaconf():
    config = pytest.importorskip("omegaconf").OmegaConf.create({"layers": ["b", "a"]})
    assert listed(config.layers) == ("b", "a")
