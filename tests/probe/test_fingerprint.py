"""Hashes of inputs."""

import torch
from lightning_cka.probe.fingerprint import fingerprint


class Custom:
    def __init__(self, x):
        self.inner = {"x": [x.numpy()], "me": self}


def test_different_inputs_have_different_fingerprints():
    a, b = torch.randn(2, 5)
    assert fingerprint(Custom(a)) == fingerprint(Custom(a)) != fingerprint(Custom(b))
    x = torch.randn(5, 7)
    assert fingerprint((x, {"a": x})) == fingerprint((x.clone(), {"a": x}))
    other = x.clone()
    other[2, 3] += 1
    assert len({fingerprint(d) for d in (x, other, x.double(), x.bfloat16(), x.flatten())}) == 5
