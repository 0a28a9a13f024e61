"""Safetensors files that are written one tensor at a time have the bytes that the library writes."""

import pytest
import torch
from lightning_cka.runtime.tensor_layout import TensorKind, TensorLayout, tensor_bytes
from safetensors.torch import load, save

TENSORS = {
    "10.b": torch.randn(3, 5),
    "2.a": torch.randn(3, dtype=torch.float64),
    "2.b": torch.randn(1, 3).half(),
    "empty": torch.empty(0, 7),
    "half": torch.randn(5).half(),
    'odd "name" \\ ä': torch.randn(2, 2, 2).mT,
    "one": torch.tensor(1.0),
}


def written(tensors, metadata):
    """Return the content of a file whose tensors are written in the order of ``tensors``."""
    layout = TensorLayout({name: TensorKind(tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()})
    header = layout.header(metadata)
    size = sum(tensor.nbytes for tensor in tensors.values())
    content = bytearray(header + bytes(size))
    for name, tensor in tensors.items():
        start = len(header) + layout.starts[name]
        content[start : start + tensor.nbytes] = tensor_bytes(tensor).cast("B") if tensor.numel() else b""
    return bytes(content)


@pytest.mark.parametrize("metadata", [{"key": ""}, {"key": "value"}, {"key": 'ä "quoted"\n\x01\x7f\u2028 / \\'}])
@pytest.mark.parametrize("names", [list(TENSORS), list(reversed(TENSORS)), ["one"], []])
def test_files_are_those_of_the_library(names, metadata):
    tensors = {name: TENSORS[name] for name in names}
    content = written(tensors, metadata)
    assert content == save({name: tensor.contiguous() for name, tensor in tensors.items()}, metadata)
    for name, tensor in load(content).items():
        assert torch.equal(tensor, tensors[name])


def test_each_tensor_is_aligned():
    layout = TensorLayout({name: TensorKind(tensor.dtype, tuple(tensor.shape)) for name, tensor in TENSORS.items()})
    for name, start in layout.starts.items():
        assert (start + len(layout.header({}))) % TENSORS[name].itemsize == 0
