"""NumPy arrays are read as tensors; what is neither gives one clear line."""

import numpy as np
import pytest
import torch
from lightning_cka import MinibatchCKA
from lightning_cka.hsic import functional
from lightning_cka.hsic.arrays import to_tensor

X, Y = np.random.default_rng(0).normal(size=(2, 32, 5))


def test_functions_and_the_metric_take_arrays():
    expected = functional.cka(torch.from_numpy(X), torch.from_numpy(Y))
    assert torch.equal(functional.cka(X, Y), expected)
    k, ell = functional.centered_gram(X), functional.centered_gram(Y)
    assert torch.equal(functional.unbiased_hsic(k.numpy(), ell.numpy()), functional.unbiased_hsic(k, ell))
    assert torch.equal(functional.biased_hsic(k.numpy(), ell), functional.biased_hsic(k, ell))
    for features in ([X, Y], {"1": Y, "0": torch.from_numpy(X)}):
        metric = MinibatchCKA(2)
        metric.update(features)
        assert metric.compute()[0, 1].item() == pytest.approx(expected.item())
    metric = MinibatchCKA(1)
    metric.update([X], [Y])
    assert metric.compute().item() == pytest.approx(expected.item())


@pytest.mark.parametrize(
    "array",
    [
        X[::-1],
        X.astype(">f8"),
        np.broadcast_to(X, X.shape),
        np.asfortranarray(X),
        X[:, ::2],
        np.frombuffer(X.tobytes()),
    ],
    ids=["negative strides", "big endian", "read-only", "columns first", "strided", "read-only buffer"],
)
def test_arrays_of_any_layout(array):
    assert np.array_equal(to_tensor(array).numpy(), array)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (X.tolist(), "must be a tensor or a NumPy array, but are a list"),
        (None, "but are a NoneType"),
        (X.astype(object), "NumPy array of dtype object, which torch does not have"),
        (X.astype(np.longdouble), "NumPy array of dtype float128"),
        (np.ma.masked_array(X, X > 0), "masked NumPy array: fill"),
        (X.astype(int), "real floating-point tensor, but have dtype torch.int64"),
        (X + 1j * Y, r"but have dtype torch.complex128. torch.view_as_real makes them real"),
    ],
    ids=lambda value: "" if isinstance(value, str) else type(value).__name__,
)
def test_other_values_give_one_line(value, message):
    metric = MinibatchCKA(1)
    calls = (lambda: functional.centered_gram(value), lambda: functional.cka(value, X), lambda: metric.update([value]))
    for call in calls:
        with pytest.raises(TypeError, match=message) as caught:
            call()
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 200
