"""The probe set: the same samples in the same batches, always."""

import random
import threading
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from lightning_cka.probe.fingerprint import fingerprint
from lightning_cka.probe.seeded_sampling import draw_probe_set
from lightning_cka.probe.stream_probe import StreamProbe
from lightning_cka.runtime.rng import isolated_rng
from lightning_cka.runtime.text import describe
from torch.utils.data import BatchSampler, DataLoader, Dataset, IterableDataset, SubsetRandomSampler, TensorDataset


def numbers(n):
    return TensorDataset(torch.arange(n, dtype=torch.float32)[:, None])


def sizes(probe):
    return [batch.num_samples for batch in probe.batches()]


def values(probe, *args):
    with isolated_rng(probe.seed):
        return [(batch.index, batch.data[0].flatten().tolist()) for batch in probe.batches(*args)]


class Augmented(Dataset):
    """Random transforms from all three generators."""

    def __len__(self):
        return 64

    def __getitem__(self, index):
        return torch.tensor([index, torch.rand(()).item(), random.random(), np.random.rand()])


class Stream(IterableDataset):
    def __init__(self, n):
        self.n = n

    def __iter__(self):
        return iter(torch.arange(self.n, dtype=torch.float32)[:, None])


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


@pytest.mark.parametrize("world_size", [1, 2, 3, 5])
def test_ranks_share_the_batches_of_one_process(world_size):
    probe = draw_probe_set(DataLoader(Augmented(), batch_size=16))
    shares = [pair for rank in range(world_size) for pair in values(probe, rank, world_size)]
    assert sorted(shares) == values(probe)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_random_transforms_are_the_same_at_each_pass_and_in_any_worker(num_workers):
    loader = DataLoader(Augmented(), batch_size=16, num_workers=num_workers)
    with isolated_rng(0):
        alone = [torch.stack([b.data for b in draw_probe_set(DataLoader(Augmented(), batch_size=16)).batches()])]
    probe = draw_probe_set(loader)
    for _ in range(2):
        torch.rand(3), random.random(), np.random.rand()
        with isolated_rng(0):
            assert torch.equal(torch.stack([batch.data for batch in probe.batches()]), alone[0])


def test_the_loaders_collate_fn_is_used():
    loader = DataLoader(
        numbers(64), batch_size=8, collate_fn=lambda samples: {"x": torch.stack([s[0] for s in samples])}
    )
    assert next(draw_probe_set(loader).batches()).data["x"].shape == (8, 1)


def test_a_samplers_subset_is_kept_to_also_when_lightning_deals_it_out():
    from lightning.fabric.utilities.distributed import DistributedSamplerWrapper

    sampler = SubsetRandomSampler(range(100, 164))
    probes = [
        draw_probe_set(DataLoader(numbers(1000), batch_size=8, sampler=s))
        for s in (sampler, DistributedSamplerWrapper(sampler, num_replicas=2, rank=1))
    ]
    assert values(probes[0]) == values(probes[1])
    assert sorted(x for _, batch in values(probes[0]) for x in batch) == list(range(100, 164))


def test_first_batch_with_one_sample_fewer():
    for probe in (
        draw_probe_set(DataLoader(numbers(64), batch_size=8)),
        StreamProbe(DataLoader(numbers(64), batch_size=8), 0),
    ):
        whole, fewer = probe.first_batch(), probe.first_batch(drop_last_sample=True)
        assert (whole.num_samples, fewer.num_samples) == (8, 7)
        assert torch.equal(whole.data[0][:-1], fewer.data[0])


def test_iterable_datasets_give_their_first_samples_with_a_warning():
    with pytest.warns(UserWarning, match="first samples of the iterable dataset Stream.*CKA is biased"):
        probe = draw_probe_set(DataLoader(Stream(100), batch_size=16), num_samples=40)
    assert values(probe) == values(probe)
    assert sizes(probe) == [5] * 8
    assert torch.equal(next(probe.batches()).data, torch.arange(5.0)[:, None])


def test_an_iterable_dataset_with_a_state_of_its_own_is_not_advanced():
    class Stateful(IterableDataset):
        def __init__(self):
            self.generator = torch.Generator().manual_seed(0)

        def __iter__(self):
            while True:
                yield torch.randn(3, generator=self.generator)

    dataset = Stateful()
    state = dataset.generator.get_state()
    with pytest.warns(UserWarning, match="first samples"):
        probe = draw_probe_set(DataLoader(dataset, batch_size=8), num_samples=64)
    assert torch.equal(dataset.generator.get_state(), state)
    assert sizes(probe) == [8] * 8
    with pytest.warns(UserWarning, match="first samples"), pytest.raises(ValueError, match="say how many samples"):
        draw_probe_set(DataLoader(dataset, batch_size=8), num_samples=None)


def test_an_iterable_dataset_that_cannot_be_copied_is_read_and_said():
    stream = Stream(40)
    stream.lock = threading.Lock()
    with pytest.warns(UserWarning) as caught:
        probe = draw_probe_set(DataLoader(stream, batch_size=8))
    assert "Stream cannot be copied (cannot pickle '_thread.lock' object)" in str(caught[1].message)
    assert sizes(probe) == [5] * 8


def test_loaders_of_another_kind_give_their_first_batches_with_a_warning():
    with pytest.warns(UserWarning, match="first samples of the list"):
        probe = draw_probe_set([torch.randn(8, 2) for _ in range(10)], num_samples=20)
    assert sizes(probe) == [8, 8, 8]


class Rows(Dataset):
    """Gives rows for a list of indices, as arrays."""

    def __len__(self):
        return 64

    def __getitem__(self, indices):
        return {"x": np.arange(64.0)[indices]}


class RowsInOrder(IterableDataset):
    def __iter__(self):
        return (Rows()[range(start, start + 8)] for start in range(0, 64, 8))


def test_a_loader_whose_sampler_or_dataset_makes_the_batches_gives_its_first_ones():
    from lightning.fabric.utilities.distributed import DistributedSamplerWrapper

    sampler = BatchSampler(range(63, -1, -1), batch_size=8, drop_last=False)
    one, dealt = (
        DataLoader(Rows(), batch_size=None, sampler=s) for s in (sampler, DistributedSamplerWrapper(sampler, 2, 1))
    )
    for loader, first in ((one, 63), (dealt, 63), (DataLoader(RowsInOrder(), batch_size=None), 0)):
        with pytest.warns(
            UserWarning, match="first samples of (the DataLoader|the iterable dataset RowsInOrder), in their"
        ):
            probe = draw_probe_set(loader, num_samples=20)
        assert sizes(probe) == [8, 8, 8]
        batch = probe.first_batch()
        assert batch.data["x"].tolist() == next(iter(one if first else loader))["x"].tolist()
        assert batch.data["x"][0] == first


def test_a_users_own_shuffling_loader_is_the_same_at_each_pass_and_left_as_found():
    generator = torch.Generator().manual_seed(5)
    for kwargs in ({}, {"generator": generator}):
        probe = StreamProbe(DataLoader(numbers(64), batch_size=16, shuffle=True, **kwargs), 0)
        state = generator.get_state()
        assert values(probe) == values(probe)
        assert values(probe) == sorted(values(probe, 0, 2) + values(probe, 1, 2))
        assert torch.equal(generator.get_state(), state)


def test_a_users_distributed_loader_is_taken_whole():
    sampler = torch.utils.data.distributed.DistributedSampler(numbers(64), num_replicas=2, rank=1, shuffle=False)
    for kwargs in ({"batch_size": 8, "sampler": sampler}, {"batch_sampler": BatchSampler(sampler, 8, drop_last=False)}):
        shown = values(StreamProbe(DataLoader(numbers(64), **kwargs), 0), 1, 2)
        assert [index for index, _ in shown] == [1, 3, 5, 7]
        assert [x for _, batch in shown for x in batch] == list(range(1, 64, 2))


def test_random_numbers_are_restored_also_after_an_error():
    def draw():
        return torch.rand(2).tolist(), random.random(), np.random.rand()

    states = torch.get_rng_state(), random.getstate(), np.random.get_state()
    expected = draw()
    torch.set_rng_state(states[0]), random.setstate(states[1]), np.random.set_state(states[2])

    def fail():
        with isolated_rng(3):
            draw()
            raise RuntimeError("inside")

    with pytest.raises(RuntimeError, match="inside"):
        fail()
    assert draw() == expected


class Custom:
    def __init__(self, x):
        self.inner = {"x": [x.numpy()], "me": self}


@dataclass(frozen=True, slots=True)
class Slotted:
    x: torch.Tensor
    y: torch.Tensor | None = None


def test_batches_that_are_dataclasses():
    first, other = Slotted(torch.arange(8)), Slotted(torch.arange(1, 9))
    assert fingerprint(first) != fingerprint(other)
    probe = StreamProbe([first, other], 0)
    assert sizes(probe) == [8, 8]
    fewer = probe.first_batch(drop_last_sample=True).data
    assert isinstance(fewer, Slotted)
    assert (fewer.x.tolist(), fewer.y) == (list(range(7)), None)
    assert len(first.x) == 8
    assert describe(first) == "Slotted of {'x': Tensor(8,) int64, 'y': NoneType}"


def test_fingerprints_tell_inputs_apart():
    a, b = torch.randn(2, 5)
    assert fingerprint(Custom(a)) == fingerprint(Custom(a)) != fingerprint(Custom(b))
    x = torch.randn(5, 7)
    assert fingerprint((x, {"a": x})) == fingerprint((x.clone(), {"a": x}))
    other = x.clone()
    other[2, 3] += 1
    assert len({fingerprint(d) for d in (x, other, x.double(), x.bfloat16(), x.flatten())}) == 5


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: draw_probe_set(DataLoader(numbers(3))), ValueError, "has 3 samples, but CKA needs at least 4"),
        (
            lambda: draw_probe_set(DataLoader(numbers(30), batch_size=2)),
            ValueError,
            "batches of 2 are too small.*batch_size=",
        ),
        (
            lambda: draw_probe_set(DataLoader(numbers(9), batch_sampler=[[0, 1, 2, 3]])),
            ValueError,
            "cannot tell the batch size of the validation loader",
        ),
        (
            lambda: draw_probe_set([torch.randn(8, 2)], batch_size=4),
            ValueError,
            "batch_size= has no effect on the list that gives whole batches; pass a dataloader=",
        ),
        (lambda: StreamProbe(iter([1]), 0), TypeError, "again and again, which a list_iterator does not"),
        (lambda: StreamProbe([], 0).first_batch(), ValueError, "gave no batch"),
        (lambda: StreamProbe(["text"], 0).first_batch(), ValueError, "batch size of a str without tensors"),
    ],
)
def test_bad_input(make, error, message):
    with pytest.raises(error, match=message):
        make()
