"""Inputs of all kinds have a hash."""

import numpy as np
import pytest
import torch
from lightning_cka.probe.fingerprint import fingerprint

X = torch.randn(20, 30, generator=torch.Generator().manual_seed(0)).relu()


class Guarded(torch.Tensor):
    """Its slices and shapes raise."""

    def __getitem__(self, index):
        raise RuntimeError("no slices")

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        raise RuntimeError("no functions")


@pytest.mark.filterwarnings("ignore:Sparse", "ignore:The PyTorch API of nested", "ignore:.*uantiz")
@pytest.mark.parametrize(
    "convert",
    [
        lambda x: x.to_sparse(),
        lambda x: x.to_sparse_csr(),
        lambda x: x.to_sparse_csc(),
        lambda x: x.to_sparse_bsr((10, 10)),
        lambda x: torch.quantize_per_tensor(x, 0.1, 0, torch.qint8),
        lambda x: torch.nested.nested_tensor([x, x[:5]], layout=torch.jagged),
        lambda x: torch.complex(x, x).conj(),
        lambda x: x > 1,
        lambda x: x.to(torch.float8_e4m3fn),
        lambda x: x.as_subclass(Guarded),
        lambda x: x.numpy()[::-1],
        lambda x: x.numpy().astype(">f8"),
        lambda x: x.numpy().astype(np.longdouble),
    ],
)
def test_inputs_of_any_kind(convert):
    other = X.clone()
    other[3, 4] = 9
    assert fingerprint(convert(X)) == fingerprint(convert(X.clone())) != fingerprint(convert(other))


def test_hashes_of_plain_values_stay():
    array = X.numpy().copy()
    array.flags.writeable = False
    assert fingerprint(X.as_subclass(Guarded)) == fingerprint(array) == fingerprint(X)
    assert fingerprint(torch.arange(12.0).view(3, 4)) == EXPECTED
    assert fingerprint(X.to("meta")) == fingerprint(X.to("meta"))


EXPECTED = "aa290cef574dee694a047b2e06e51334"
