"""A user's own loader yields the same batches at each pass."""

from dataclasses import dataclass

import pytest
import torch
from example_loaders import numbers, sizes, values
from lightning_cka.probe.fingerprint import fingerprint
from lightning_cka.probe.seeded_sampling import draw_probe_set
from lightning_cka.probe.stream_probe import StreamProbe
from lightning_cka.runtime.text import describe
from torch.utils.data import BatchSampler, DataLoader


def test_the_first_batch_without_its_last_sample():
    for probe in (
        draw_probe_set(DataLoader(numbers(64), batch_size=8)),
        StreamProbe(DataLoader(numbers(64), batch_size=8), 0),
    ):
        whole, fewer = probe.first_batch(), probe.first_batch(drop_last_sample=True)
        assert (whole.num_samples, fewer.num_samples) == (8, 7)
        assert torch.equal(whole.data[0][:-1], fewer.data[0])


def test_a_shuffling_loader_is_the_same_at_each_pass_and_is_restored():
    generator = torch.Generator().manual_seed(5)
    for kwargs in ({}, {"generator": generator}):
        probe = StreamProbe(DataLoader(numbers(64), batch_size=16, shuffle=True, **kwargs), 0)
        state = generator.get_state()
        assert values(probe) == values(probe)
        assert values(probe) == sorted(values(probe, 0, 2) + values(probe, 1, 2))
        assert torch.equal(generator.get_state(), state)


def test_a_distributed_loader_is_taken_whole():
    sampler = torch.utils.data.distributed.DistributedSampler(numbers(64), num_replicas=2, rank=1, shuffle=False)
    for kwargs in ({"batch_size": 8, "sampler": sampler}, {"batch_sampler": BatchSampler(sampler, 8, drop_last=False)}):
        shown = values(StreamProbe(DataLoader(numbers(64), **kwargs), 0), 1, 2)
        assert [index for index, _ in shown] == [1, 3, 5, 7]
        assert [x for _, batch in shown for x in batch] == list(range(1, 64, 2))


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


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: StreamProbe(iter([1]), 0), TypeError, "must be iterable more than once, but a list_iterator is not"),
        (lambda: StreamProbe([], 0).first_batch(), ValueError, "yields no batch"),
        (lambda: StreamProbe(["text"], 0).first_batch(), ValueError, "batch size of a str without tensors"),
    ],
)
def test_bad_input(make, error, message):
    with pytest.raises(error, match=message):
        make()
