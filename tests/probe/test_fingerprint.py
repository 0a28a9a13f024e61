"""Hashes of inputs."""

import torch
from lightning_cka.probe.fingerprint import BlockFingerprint, fingerprint


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


def of_parts(data, sizes):
    """Return the fingerprint of a batch that is added in parts."""
    parts = BlockFingerprint(sum(sizes))
    start = 0
    for size in sizes:
        parts.add({name: x[start : start + size] for name, x in data.items()}, size, start)
        start += size
    return parts.hexdigest()


def test_the_fingerprint_of_a_block_does_not_depend_on_its_batches():
    for shape in ((12,), (12, 7), (12, 3, 50, 40), (12, 0)):
        data = {"x": torch.randn(shape), "y": torch.randint(9, (12,))}
        expected = fingerprint(data)
        assert {of_parts(data, sizes) for sizes in ([12], [4, 4, 4], [5, 5, 2], [1] * 12)} == {expected}
        data["y"][11] += 1
        assert of_parts(data, [5, 5, 2]) != expected


def test_batches_that_cannot_be_joined_have_a_fingerprint_too():
    """They are padded to other lengths, or have tensors without one entry per sample."""
    x = torch.randn(8, 6)
    for second in (x[4:, :5], {"x": x[4:], "rows": torch.ones(3)}):
        digests = set()
        for change in (0, 1):
            parts = BlockFingerprint(8)
            parts.add(x[:4], 4, 0)
            parts.add(second, 4, 4)
            digests.add(parts.hexdigest())
            x[0, 0] += change + 1
        assert len(digests) == 2
