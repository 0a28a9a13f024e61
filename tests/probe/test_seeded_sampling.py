"""A seeded random subset of the validation data."""

import pytest
import torch
from example_loaders import numbers, sizes, values
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


@pytest.mark.parametrize(
    ("n", "loader_size", "kwargs", "expected"),
    [
        (1000, 32, {"num_samples": None}, [32] * 31 + [8]),
        (5000, 128, {}, [128] * 16),
        (360, 128, {}, [45] * 8),
        (20, 128, {}, [4] * 5),
        (99, 8, {"num_samples": 66}, [8] * 8),  # The last two samples are too few.
        (100, 32, {"batch_size": 40}, [40, 40, 20]),
    ],
)
def test_batch_sizes(n, loader_size, kwargs, expected):
    assert sizes(draw_probe_set(DataLoader(numbers(n), batch_size=loader_size), **kwargs)) == expected


@pytest.mark.parametrize("loader_size", [1, 2, 3, None])
@pytest.mark.parametrize(("n", "expected"), [(16, [4] * 4), (64, [8] * 8), (1000, [32] * 31 + [8])])
def test_a_batch_size_that_works_is_chosen_where_the_loader_has_none(loader_size, n, expected):
    kwargs = {"batch_sampler": [[i] for i in range(n)]} if loader_size is None else {"batch_size": loader_size}
    assert sizes(draw_probe_set(DataLoader(numbers(n), **kwargs))) == expected


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
