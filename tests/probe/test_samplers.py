"""The probe set consists of what the user's sampler yields."""

import itertools
import random
import threading

import numpy as np
import pytest
import torch
from example_loaders import numbers, values
from lightning.fabric.utilities.distributed import DistributedSamplerWrapper
from lightning_cka.probe.samplers import available_samples, samples_in_order
from lightning_cka.probe.seeded_sampling import draw_probe_set
from torch.utils.data import BatchSampler, DataLoader, Dataset, RandomSampler, Sampler, WeightedRandomSampler
from torch.utils.data.distributed import DistributedSampler


class Fold(Sampler):
    def __init__(self, indices):
        self.indices = indices

    def __iter__(self):
        return iter(self.indices)

    def __len__(self):
        return len(self.indices)


class Endless(Sampler):
    def __iter__(self):
        while True:
            yield random.randrange(100, 164)


class Stateful(Sampler):
    """Counts its epochs, shuffles its indices in place, with generators of its own."""

    def __init__(self):
        self.epochs = 0
        self.indices = list(range(100, 164))
        self.random = random.Random(0)
        self.generator = torch.Generator().manual_seed(0)
        self.lock = threading.Lock()

    def __iter__(self):
        self.epochs += 1
        self.random.shuffle(self.indices)
        order = torch.randperm(len(self.indices), generator=self.generator)
        return iter([self.indices[i] for i in order])

    def state(self):
        return self.epochs, list(self.indices), self.random.getstate(), self.generator.get_state().tolist()


class Batches(Sampler):
    """Yields batches of unequal sizes, each sample twice."""

    def __init__(self, sampler):
        self.sampler = sampler

    def __iter__(self):
        for index in self.sampler:
            yield [index, index]


class Share(Sampler):
    """Deals samples out to processes, and is no DistributedSampler."""

    def __init__(self, indices, num_replicas, rank):
        self.indices, self.num_replicas, self.rank = indices, num_replicas, rank

    def __iter__(self):
        return iter(self.indices[self.rank :: self.num_replicas])

    def __len__(self):
        return len(self.indices) // self.num_replicas


HALF = list(range(100, 164))
SAMPLERS = {
    "own class": lambda: {"sampler": Fold(HALF)},
    "list": lambda: {"sampler": HALF},
    "range": lambda: {"sampler": range(100, 164)},
    "array": lambda: {"sampler": np.array(HALF)},
    "tensor": lambda: {"sampler": torch.tensor(HALF)},
    "repeated": lambda: {"sampler": Fold(HALF * 3)},
    "endless": lambda: {"sampler": Endless()},
    "stateful": lambda: {"sampler": Stateful()},
    "weighted": lambda: {"sampler": WeightedRandomSampler([float(i in HALF) for i in range(1000)], 2000)},
    "batches": lambda: {"batch_sampler": Batches(Fold(HALF))},
    "list of batches": lambda: {"batch_sampler": [HALF[:8], HALF[8:]]},
    "endless batches": lambda: {"batch_sampler": Batches(Endless())},
    "lightning": lambda: {"sampler": DistributedSamplerWrapper(Fold(HALF), num_replicas=3, rank=1)},
    "lightning, batches": lambda: {"batch_sampler": Batches(DistributedSamplerWrapper(Fold(HALF), 2, 1))},
    "own share": lambda: {"sampler": Share(HALF, 2, 1)},
    "own share of batches": lambda: {"batch_sampler": Share([HALF[i : i + 8] for i in range(0, 64, 8)], 2, 1)},
    "torch's over a part": lambda: {"sampler": RandomSampler(range(64))},
}


@pytest.mark.parametrize("kind", SAMPLERS)
def test_the_samples_of_any_sampler_are_found(kind):
    kwargs = SAMPLERS[kind]()
    loader = DataLoader(numbers(1000), **kwargs)
    states = random.getstate(), torch.get_rng_state(), np.random.get_state()[1].tolist()
    samples = [x for _, batch in values(draw_probe_set(loader, num_samples=None)) for x in batch]
    assert sorted(samples) == (list(range(64)) if kind == "torch's over a part" else HALF)
    assert random.getstate() == states[0]
    assert torch.equal(torch.get_rng_state(), states[1])
    assert np.random.get_state()[1].tolist() == states[2]


def test_a_sampler_goes_on_as_if_it_had_not_been_read():
    one, other = Stateful(), Stateful()
    draw_probe_set(DataLoader(numbers(1000), batch_size=8, sampler=one))
    assert one.state() == other.state()
    assert list(one) == list(other)


def test_a_sampler_that_can_be_read_once_raises():
    generator = (i for i in range(8))
    with pytest.raises(ValueError, match=r"\(generator\) can be read only once.*dataloader="):
        draw_probe_set(DataLoader(numbers(100), sampler=generator))
    assert len(list(generator)) == 8


def test_all_processes_draw_the_same_probe_set():
    for make in (lambda rank: DistributedSampler(numbers(100), 3, rank), lambda rank: Share(list(range(50)), 3, rank)):
        drawn = [values(draw_probe_set(DataLoader(numbers(100), sampler=make(rank)))) for rank in range(3)]
        assert drawn[0] == drawn[1] == drawn[2]


def test_whole_datasets_are_not_enumerated():
    class Large(Dataset):
        def __len__(self):
            return 10**12

    for kwargs in ({}, {"shuffle": True}, {"sampler": DistributedSampler(Large(), 2, 0)}):
        assert available_samples(DataLoader(Large(), **kwargs), 0, 8) == range(10**12)


def test_a_shuffled_whole_dataset_gives_the_probe_set_of_a_plain_loader():
    plain = draw_probe_set(DataLoader(numbers(100), batch_size=8))
    own = draw_probe_set(DataLoader(numbers(100), batch_size=8, sampler=Fold(random.sample(range(100), 100))))
    assert plain.description == own.description


class Texts(Dataset):
    """Is indexed with strings and has no length."""

    def __getitem__(self, key):
        return (torch.tensor(int("".join(filter(str.isdigit, str(key))))),)


@pytest.mark.parametrize(
    "keys",
    [
        [f"image-{i:02}" for i in range(40)],
        [("scan", f"{i:02}") for i in range(40)],
        [{"name": f"{i:02}"} for i in range(40)],
        [np.str_(f"{i:02}") for i in range(40)],
    ],
)
def test_samples_that_are_no_numbers(keys):
    loader = DataLoader(Texts(), batch_size=8, sampler=keys * 2)
    probe = draw_probe_set(loader, num_samples=24)
    assert probe.sample_kind == "sampler position"
    assert len({x for _, batch in values(probe) for x in batch}) == 24
    assert {x for batch in probe.batches() for x in batch.samples} <= set(range(40))
    assert draw_probe_set(loader, num_samples=24).description == probe.description
    endless = DataLoader(Texts(), batch_size=8, sampler=Cycled(keys))
    assert len(values(draw_probe_set(endless, num_samples=24))) == 6
    with pytest.raises(ValueError, match="neither Texts nor Cycled has one; pass the number of samples"):
        draw_probe_set(endless, num_samples=None)


class Cycled(Sampler):
    def __init__(self, keys):
        self.keys = keys

    def __iter__(self):
        return itertools.cycle(self.keys)


def test_a_cut_off_sampler_is_reported(caplog):
    draw_probe_set(DataLoader(numbers(200), batch_size=8, sampler=Endless()), num_samples=64)
    assert "CKA draws the probe set from the first 200 entries of Endless, which yields more" in caplog.text


def test_shares_of_whole_batches_are_put_in_order():
    batches = [[i, i + 1] for i in range(0, 16, 2)]
    for sampler in (BatchSampler(range(16), 2, drop_last=False), DistributedSamplerWrapper(batches, 2, 1)):
        assert samples_in_order(DataLoader(numbers(16), batch_size=None, sampler=sampler), 0, None) == batches
    assert samples_in_order(DataLoader(numbers(16), batch_size=None, sampler=Share(batches, 2, 1)), 0, None) == batches
