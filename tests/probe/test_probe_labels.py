"""Labels of the samples of a probe set."""

import numpy as np
import pytest
import torch
from conftest import dataset
from lightning_cka.probe.given_batches import probe_set_of_loader
from lightning_cka.probe.probe_labels import read_labels
from torch.utils.data import DataLoader

X = torch.randn(10, 3)


def labels_of(second, labels_fn=None, first=X, **kwargs):
    return read_labels(probe_set_of_loader([(first, second)]), labels_fn, **kwargs)


@pytest.mark.parametrize(
    "labels", [torch.arange(10), np.arange(10, dtype=np.uint8), list(range(10)), list(torch.arange(10))]
)
def test_the_second_of_a_pair_has_the_labels(labels):
    assert labels_of(labels) == {sample: sample for sample in range(10)}


@pytest.mark.parametrize(
    "second",
    [torch.rand(10), torch.ones(10, 2).long(), torch.arange(9), ["a"] * 10, None, {"label": torch.arange(10)}],
)
def test_other_pairs_have_none(second):
    assert labels_of(second) is None


def test_batches_that_are_no_pairs_have_none():
    for batch in (X, (X,), (X, torch.arange(10), torch.arange(10)), {"x": X, "y": torch.arange(10)}):
        assert read_labels(probe_set_of_loader([batch]), None) is None
    assert read_labels(probe_set_of_loader([(X, torch.arange(10)), (X, torch.rand(10))]), None) is None


def test_labels_belong_to_dataset_indices_and_each_rank_has_its_own():
    data = dataset(40)
    probe = probe_set_of_loader(DataLoader(data, batch_size=8, shuffle=True))
    expected = dict(enumerate(data.tensors[1].tolist()))
    state = torch.get_rng_state()
    assert read_labels(probe, None) == expected
    assert torch.equal(torch.get_rng_state(), state)
    parts = [read_labels(probe, None, rank=rank, world_size=2) for rank in range(2)]
    assert [len(part) for part in parts] == [24, 16]
    assert parts[0] | parts[1] == expected


def test_a_function_returns_the_labels_of_a_batch():
    batches = [{"x": X, "y": torch.arange(10) + 5}]
    assert read_labels(probe_set_of_loader(batches), lambda batch: batch["y"] % 2)[3] == 0
    assert labels_of(torch.arange(10), lambda batch: [7] * len(batch[0])) == dict.fromkeys(range(10), 7)


def test_functions_that_return_something_else_raise():
    expected = "labels_fn must return one integer for each of the 10 samples of a batch"
    with pytest.raises(ValueError, match=f"{expected}, but returned 9"):
        labels_of(None, lambda batch: range(9))
    for value, described in ((torch.rand(10), r"Tensor\(10,\) float32"), (None, "NoneType"), (3, "int"), ("a", "str")):
        with pytest.raises(TypeError, match=f"{expected}, .* but returned {described}"):
            labels_of(None, lambda batch, value=value: value)
    with pytest.raises(ValueError, match="labels_fn failed on a probe batch: KeyError: 'label'"):
        labels_of(None, lambda batch: {}["label"])
