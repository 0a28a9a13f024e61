"""Streams and loaders of whole batches give their first samples."""

import threading

import numpy as np
import pytest
import torch
from example_loaders import Stream, sizes, values
from lightning_cka.probe.seeded_sampling import draw_probe_set
from torch.utils.data import BatchSampler, DataLoader, Dataset, IterableDataset


def test_an_iterable_dataset_gives_its_first_samples_with_a_warning():
    with pytest.warns(UserWarning, match="first samples of the iterable dataset Stream.*CKA is biased"):
        probe = draw_probe_set(DataLoader(Stream(100), batch_size=16), num_samples=40)
    assert values(probe) == values(probe)
    assert sizes(probe) == [5] * 8
    assert torch.equal(next(probe.batches()).data, torch.arange(5.0)[:, None])


def test_an_iterable_dataset_with_internal_state_is_not_advanced():
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
    with (
        pytest.warns(UserWarning, match="first samples"),
        pytest.raises(ValueError, match="pass the number of samples"),
    ):
        draw_probe_set(DataLoader(dataset, batch_size=8), num_samples=None)


def test_an_iterable_dataset_that_cannot_be_copied_gives_a_warning():
    stream = Stream(40)
    stream.lock = threading.Lock()
    with pytest.warns(UserWarning) as caught:
        probe = draw_probe_set(DataLoader(stream, batch_size=8))
    assert "Stream cannot be copied (cannot pickle '_thread.lock' object)" in str(caught[1].message)
    assert sizes(probe) == [5] * 8


def test_a_list_gives_its_first_batches_with_a_warning():
    with pytest.warns(UserWarning, match="first samples of the list"):
        probe = draw_probe_set([torch.randn(8, 2) for _ in range(10)], num_samples=20)
    assert sizes(probe) == [8, 8, 8]


class Rows(Dataset):
    """Returns rows for a list of indices, as arrays."""

    def __len__(self):
        return 64

    def __getitem__(self, indices):
        return {"x": np.arange(64.0)[indices]}


class RowsInOrder(IterableDataset):
    def __iter__(self):
        return (Rows()[range(start, start + 8)] for start in range(0, 64, 8))


def test_a_loader_of_whole_batches_gives_its_first_batches():
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


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (
            lambda: draw_probe_set([torch.randn(8, 2)], batch_size=4),
            ValueError,
            "batch_size= has no effect on the list, which yields whole batches; pass a dataloader=",
        ),
    ],
)
def test_bad_input(make, error, message):
    with pytest.raises(error, match=message):
        make()
