"""Descriptions of values, functions and names in messages."""

import functools

import pytest
import torch
from lightning_cka.runtime.text import describe, describe_function, shortened


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (torch.ones(2, 3), "Tensor(2, 3) float32"),
        (torch.nested.nested_tensor([torch.ones(2), torch.ones(3)], layout=torch.jagged), "nested Tensor of 2 float32"),
        ({"x": torch.ones(2), "y": "a"}, "dict of {'x': Tensor(2,) float32, 'y': str}"),
        ({}, "dict of {}"),
        ([1, 2, 3, 4, 5], "list of (int, int, int, int, ...)"),
        ((torch.ones(1),), "tuple of (Tensor(1,) float32)"),
        (None, "NoneType"),
    ],
)
def test_descriptions_of_values(value, expected):
    assert describe(value) == expected


def test_descriptions_of_functions_are_the_same_in_every_process():
    assert describe_function(torch.nn.functional.relu) == "torch.nn.functional.relu"
    assert describe_function(functools.partial(print)) == "functools.partial"
    assert describe_function("mean") == "mean"
    assert describe_function(None) == "None"


def test_long_lists_of_names_are_shortened():
    assert shortened(["a", "b"]) == "a, b"
    assert shortened(["a", "b", "c"], 2) == "a, b, and 1 more"
