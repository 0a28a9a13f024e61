"""A seeded random subset of the validation data."""

import pytest
import torch
from example_loaders import numbers, values
from lightning_cka.probe.seeded_sampling import draw_probe_set
from torch.utils.data import DataLoader, SubsetRandomSampler


def test_a_seeded_shuffled_subset():
    loader = DataLoader(numbers(1000), batch_size=32)
    first, second = (draw_probe_set(loader, num_samples=256) for _ in range(2))
    assert values(first) == values(first) == values(second)
    samples = [x for _, batch in values(first) for x in batch]
    assert len(set(samples)) == 256
    assert samples != sorted(samples)
    assert max(samples) > 900
    assert values(draw_probe_set(loader, num_samples=256, seed=1)) != values(first)


def block_sizes(probe):
    """Return the sizes of the forward passes of each Gram block."""
    blocks = {}
    for batch in probe.batches():
        assert batch.start == sum(blocks.setdefault(batch.index, []))
        blocks[batch.index].append(batch.num_samples)
        assert batch.ends_block == (sum(blocks[batch.index]) == batch.block_size)
    return list(blocks.values())


@pytest.mark.parametrize(
    ("n", "loader_size", "kwargs", "expected"),
    [
        (1000, 32, {"num_samples": None}, [[32] * 3] * 10 + [[32, 8]]),
        (5000, 32, {}, [[32] * 4] * 16),
        (5000, 48, {}, [[48] * 2] * 21 + [[32]]),
        (5000, 128, {}, [[128]] * 16),
        (5000, 256, {}, [[128]] * 16),
        (5000, 4, {}, [[4] * 32] * 16),
        (360, 128, {}, [[45]] * 8),
        (20, 128, {}, [[4]] * 5),
        (99, 8, {"num_samples": 66}, [[8]] * 8),  # The last two samples are too few.
        (1000, 32, {"batch_size": 40}, [[40] * 3] * 8 + [[40]]),
        (100, 32, {"gram_batch_size": 40}, [[32, 8]] * 2 + [[20]]),
        (100, 32, {"gram_batch_size": 10, "batch_size": 5}, [[5, 5]] * 10),
        (100, 1, {"gram_batch_size": 50, "batch_size": 50}, [[50]] * 2),
    ],
)
def test_sizes_of_forward_passes_and_blocks(n, loader_size, kwargs, expected):
    assert block_sizes(draw_probe_set(DataLoader(numbers(n), batch_size=loader_size), **kwargs)) == expected


@pytest.mark.parametrize("loader_size", [1, 2, 3])
@pytest.mark.parametrize(("n", "block"), [(16, 4), (64, 8), (1000, 125), (5000, 128)])
def test_small_loader_batches_are_joined(loader_size, n, block):
    found = block_sizes(draw_probe_set(DataLoader(numbers(n), batch_size=loader_size)))
    block = max(4, block - block % loader_size)
    assert [sum(sizes) for sizes in found[:-1]] == [block] * (len(found) - 1)
    assert 4 <= sum(found[-1]) <= block
    assert max(map(max, found)) == loader_size


@pytest.mark.parametrize(("n", "expected"), [(16, [[4]] * 4), (64, [[8]] * 8), (1000, [[32] * 3] * 10 + [[32, 8]])])
def test_a_loader_of_unknown_batch_size_has_forward_passes_of_32_samples(n, expected):
    assert block_sizes(draw_probe_set(DataLoader(numbers(n), batch_sampler=[[i] for i in range(n)]))) == expected


def test_ranks_are_dealt_whole_blocks():
    probe = draw_probe_set(DataLoader(numbers(300), batch_size=5), gram_batch_size=20)
    shares = [values(probe, rank, 2) for rank in range(2)]
    assert [[index for index, _ in share] for share in shares] == [
        [block for block in range(rank, 15, 2) for _ in range(4)] for rank in range(2)
    ]
    assert sorted(shares[0] + shares[1]) == sorted(values(probe))


def test_a_smaller_probe_set_has_the_same_samples():
    loader = DataLoader(numbers(2048), batch_size=16)
    probe = draw_probe_set(loader)
    samples = [x for _, batch in values(probe) for x in batch]
    for sample_bytes, size, forward in ((2**30 // 70, 64, 16), (2**30, 16, 16), (None, 16, 16)):
        smaller = probe.smaller(sample_bytes)
        assert block_sizes(smaller) == [[forward] * (size // forward)] * (2048 // size)
        assert [x for _, batch in values(smaller) for x in batch] == samples
        assert smaller.smaller is None
    tiny = draw_probe_set(DataLoader(numbers(2048), batch_size=2))
    assert block_sizes(tiny.smaller(2**30))[0] == [2, 2]  # Four samples at least.
    assert block_sizes(tiny.smaller(None))[0] == [32]
    assert draw_probe_set(loader, gram_batch_size=128).smaller is None
    assert draw_probe_set(DataLoader(numbers(2048), batch_size=128)).smaller is None


def test_the_collate_fn_of_the_loader_is_used():
    loader = DataLoader(
        numbers(64), batch_size=8, collate_fn=lambda samples: {"x": torch.stack([s[0] for s in samples])}
    )
    assert next(draw_probe_set(loader).batches()).data["x"].shape == (8, 1)


def test_the_subset_of_a_sampler_is_used_also_if_lightning_distributes_it():
    from lightning.fabric.utilities.distributed import DistributedSamplerWrapper

    sampler = SubsetRandomSampler(range(100, 164))
    probes = [
        draw_probe_set(DataLoader(numbers(1000), batch_size=8, sampler=s))
        for s in (sampler, DistributedSamplerWrapper(sampler, num_replicas=2, rank=1))
    ]
    assert values(probes[0]) == values(probes[1])
    assert sorted(x for _, batch in values(probes[0]) for x in batch) == list(range(100, 164))


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: draw_probe_set(DataLoader(numbers(3))), ValueError, "has 3 samples, but CKA needs at least 4"),
        (
            lambda: draw_probe_set(DataLoader(numbers(1))),
            ValueError,
            r"has 1 samples.*whole graph.*pass dataloader=\[data\].*and forward_fn=",
        ),
    ],
)
def test_bad_input(make, error, message):
    with pytest.raises(error, match=message):
        make()
