"""Where in a batch the samples lie."""

from collections import namedtuple

import numpy as np
import pytest
import torch
from lightning_cka.probe.batch_part import without_last_sample
from lightning_cka.probe.sample_places import SamplePlaces, candidate_places
from torch.nn.utils.rnn import pack_sequence

Pair = namedtuple("Pair", "x y")


class Graphs:
    batch_size = 3
    x = torch.randn(17, 2)


def images(n, channels=3):
    return tuple(torch.randn(channels, 5, 5) for _ in range(n))


@pytest.mark.parametrize(
    ("data", "sizes"),
    [
        (torch.randn(8, 3), [8]),
        ((torch.randn(8, 3), torch.randn(8)), [8]),
        ((images(16), 0), [16]),
        ((images(16, channels=4), torch.zeros(16)), [16, 4]),
        ({"camera": torch.eye(3), "x": torch.randn(16, 10)}, [16]),
        ({"camera": torch.eye(4), "x": torch.randn(16, 10), "y": torch.randn(16)}, [16, 4]),
        ([torch.randn(p, 3) for p in (9, 5, 7, 6, 8)], [5, 9, 7, 6, 8]),
        (([torch.randn(p, 3) for p in (9, 5, 7, 6, 8)], torch.zeros(5)), [5, 9, 7, 6, 8]),
        ({"text": ["a"] * 6, "y": np.arange(6)}, [6]),
        (["a", "b", "c", "d", "e"], [5]),
        (Pair(np.zeros((7, 2)), torch.zeros(7)), [7]),
        (Graphs(), [3]),
        ((torch.randn(2, 3), torch.zeros(2)), [2]),
        (pack_sequence([torch.randn(9, 2), torch.randn(7, 2), torch.randn(5, 2), torch.randn(4, 2)]), [4]),
        (torch.randn(8, 3).relu().to_sparse(), [8]),
    ],
)
def test_candidates(data, sizes):
    assert [place.size for place in candidate_places(data)] == sizes


def test_later_batches_are_measured_at_the_same_place():
    (place, *_) = candidate_places((images(16), 0))
    assert place == SamplePlaces((0,), 16, is_list=True)
    assert place.num_samples((images(5, channels=9), 0)) == 5
    (place, *_) = candidate_places({"camera": torch.eye(4), "x": torch.randn(16, 10), "y": torch.randn(16)})
    assert place.num_samples({"camera": torch.eye(4), "x": torch.randn(2, 10), "y": torch.randn(2)}) == 2
    assert place.num_samples([torch.zeros(6)]) == 6  # Another structure is measured anew.
    assert candidate_places(Graphs())[0].num_samples(Graphs()) == 3


@pytest.mark.parametrize(
    "make",
    [
        lambda n: (images(n), torch.zeros(n), "name"),
        lambda n: {"x": np.zeros((n, 2)), "names": ["a"] * n, "k": 1},
        lambda n: Pair(torch.zeros(n), [1] * n),
        lambda n: pack_sequence([torch.ones(9 - i) for i in range(n)]),
        lambda n: torch.nested.nested_tensor([torch.ones(2 + i) for i in range(n)], layout=torch.jagged),
        lambda n: torch.eye(9)[:n].to_sparse(),
    ],
)
def test_the_last_sample_is_left_out_of_all_that_has_one_entry_per_sample(make):
    cut, fewer = without_last_sample(make(8), 8), make(7)
    assert type(cut) is type(fewer)
    assert [place.size for place in candidate_places(cut)] == [place.size for place in candidate_places(fewer)]
    with pytest.raises(ValueError, match="has one entry for each of the 6 samples"):
        without_last_sample(make(8), 6)


def test_sparse_matrices_keep_their_layout():
    with pytest.warns(UserWarning, match="beta state"):
        cut = without_last_sample(torch.eye(8).to_sparse_csr(), 8)
    assert cut.layout is torch.sparse_csr
    assert torch.equal(cut.to_dense(), torch.eye(8)[:7])
