"""Copies of tensors are put back, whatever fails meanwhile."""

import pytest
import torch
from lightning_cka.runtime.tensor_copies import keep_tensor, restore_all


def test_all_are_called_in_reverse_order_when_each_of_many_fails():
    called = []

    def fail(number):
        called.append(number)
        raise ValueError(number)

    numbers = range(5000)  # More than Python's stack holds.
    with pytest.raises(ValueError, match=r"^0$"):
        restore_all([lambda number=number: fail(number) for number in numbers])
    assert called == [*reversed(numbers)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.float64, torch.complex64, torch.bool])
@pytest.mark.parametrize("start", [0, 1], ids=["aligned", "not aligned"])
@pytest.mark.parametrize("step", [1, 2], ids=["contiguous", "not contiguous"])
def test_a_value_that_was_written_is_put_back(dtype, start, step):
    whole = torch.ones(18, dtype=dtype)
    tensor = whole[start : start + 16 : step]
    restore = keep_tensor(tensor, compare=True)
    tensor.data[3] = 0
    version = tensor._version
    restore()
    assert tensor.all()
    assert tensor._version <= version


def test_bits_are_compared():
    tensor = torch.tensor([-0.0, torch.nan, 1.0, 1.0])[0:3]
    before = tensor.view(torch.int32).tolist()
    restore = keep_tensor(tensor, compare=True)
    tensor.data[0] = 0.0
    restore()
    assert tensor.view(torch.int32).tolist() == before


def test_equal_values_are_not_written(monkeypatch):
    tensor = torch.tensor([-0.0, torch.nan, 1.0, 1.0])
    restore = keep_tensor(tensor[1:], compare=True)
    monkeypatch.setattr("lightning_cka.runtime.tensor_copies._copy", lambda *_: pytest.fail("written"))
    restore()
