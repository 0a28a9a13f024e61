"""What the samples of a batch are is found by taking one away."""

import copy

import pytest
import torch
from lightning_cka import GramBank, compare_models
from lightning_cka.probe.dry_run import dry_run
from lightning_cka.probe.forward import ForwardSettings
from lightning_cka.probe.seeded_sampling import draw_probe_set
from notes import Notes
from torch import nn

pytestmark = [pytest.mark.filterwarnings(f"ignore:{text}") for text in ("CKA:", "layers that run several times")]


class Call(nn.Module):
    """Two layers, called by a function of the batch."""

    def __init__(self, fn, width):
        super().__init__()
        self.fn, self.inner, self.head = fn, nn.Linear(width, 8), nn.Linear(8, 4)

    def forward(self, batch):
        return self.fn(self, batch)


def flat(self, items):
    return self.head(self.inner(torch.stack([item.flatten() for item in items])))


def pooled(self, clouds):
    return self.head(torch.stack([self.inner(cloud).mean(0) for cloud in clouds]))


def per_step(self, steps):
    return self.head(self.inner(torch.stack(steps)))


def images(n):
    return tuple(torch.randn(n, 4, 2, 2))


def clouds(n):
    return [torch.randn(5 + i % 4, 3) for i in range(n)]


CASES = {
    "a tuple of images": (flat, 16, lambda n: (images(n), 0)),
    "images and metadata": (flat, 16, lambda n: (images(n), torch.eye(5), ["a"] * 7)),
    "metadata first": (
        lambda self, b: flat(self, b["x"]),
        10,
        lambda n: [{"k": torch.eye(4), "x": torch.randn(n, 10)}],
    ),
    "point clouds": (pooled, 3, lambda n: (clouds(n), 0)),
    "point clouds of one size": (pooled, 3, lambda n: ([torch.randn(9, 3) for _ in range(n)], 0)),
    "time steps": (per_step, 6, lambda n: ([torch.randn(n, 6) for _ in range(5)], 0)),
    "views": (lambda self, views: flat(self, views[0]), 6, lambda n: ([torch.randn(n, 6) for _ in range(10)], 0)),
    "texts": (
        lambda self, texts: flat(self, torch.tensor([[float(len(t)), 1.0] for t in texts])),
        2,
        lambda n: (["a" * i for i in range(n)], 0),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_batches_whose_first_tensor_does_not_tell(case):
    fn, width, make = CASES[case]
    model = Call(fn, width)
    batches = [make(n) for n in (16, 16, 11, 16)]  # One is ragged.
    kept = copy.deepcopy(batches)
    result = compare_models(model, Call(fn, width), batches, progress_bar=False)
    assert result.num_samples == 59
    assert result.layers[-1] == "head"
    bank = GramBank.from_model(model, batches, "head", progress_bar=False)
    assert [len(samples) for samples in bank.sample_batches] == [16, 16, 11, 16]
    assert torch.equal(torch.nan_to_num(result.matrix), result.matrix)
    assert str(batches) == str(kept)


def test_as_many_batches_are_read_as_the_samples_need():
    model = Call(flat, 16)
    batches = [((*images(16),), torch.eye(4), torch.eye(4)) for _ in range(20)]  # 4 seems to be the likeliest size.
    with pytest.warns(UserWarning, match="first samples of the list"):
        probe = draw_probe_set(batches, num_samples=64)
    dry_run(model, probe, None, ForwardSettings(torch.device("cpu")))
    assert [batch.num_samples for batch in probe.batches()] == [16] * 4


def test_one_call_is_enough_where_sizes_agree():
    calls = Notes()
    model = Call(lambda self, x: (calls.put(len(x)), flat(self, x)), 6)
    GramBank.from_model(model, [(torch.randn(16, 6), torch.randn(16))] * 4, "head", progress_bar=False)
    assert calls.all() == [12, 6, 16, 16, 16, 16]  # Two calls of the dry run, and 4 batches.


class Graph:
    """A graph whose nodes are the samples."""

    def __init__(self):
        self.store = {"x": torch.randn(30, 6), "edges": torch.zeros(2, 70, dtype=torch.long), "mask": torch.ones(30)}


def test_a_whole_graph():
    model = Call(lambda self, graph: flat(self, graph.store["x"]), 6)
    with pytest.warns(UserWarning, match="one sample fewer failed"):
        result = compare_models(
            model, model, [Graph()], forward_fn=lambda model, graph: model(graph), progress_bar=False
        )
    assert result.num_samples == 30
