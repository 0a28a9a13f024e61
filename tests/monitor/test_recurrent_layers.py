"""Recurrent layers, packed sequences and nested tensors."""

import pytest
import torch
from lightning_cka import compare_models
from observed import Wrapped, assert_same, expected_matrix, monitored_result
from sequence_data import TakesLengths, collate_ragged, sequences, token_means
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from torch.utils.data import DataLoader

pytestmark = [
    pytest.mark.usefixtures("_without_figures"),
    pytest.mark.filterwarnings("ignore:CKA( with '.*')?. layers (that|whose)"),
]


class Recurrent(nn.Module):
    def __init__(self, kind, batch_first):
        super().__init__()
        self.rnn, self.batch_first = kind(6, 5, batch_first=batch_first), batch_first
        self.head = nn.Linear(5, 3)

    def forward(self, x):
        output, _ = self.rnn(x if self.batch_first else x.transpose(0, 1))
        return self.head(output)


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
@pytest.mark.parametrize("feature_fn", ["flatten", "mean", "cls"])
def test_recurrent_layers_with_the_batch_first_or_second(kind, feature_fn):
    results = []
    for batch_first in (True, False):
        torch.manual_seed(0)
        module = Wrapped(Recurrent(kind, batch_first))
        results.append(monitored_result(module, sequences(), feature_fn=feature_fn))
    assert results[0].layers == results[1].layers == ("net.rnn", "net.head")
    reduce = {"flatten": lambda x: x, "mean": lambda x: x.mean(1), "cls": lambda x: x[:, 0]}[feature_fn]
    reads = {
        "net.rnn": lambda output, _: reduce(output[0].transpose(0, 1)),
        "net.head": lambda output, _: reduce(output.transpose(0, 1)),
    }
    assert_same(results[1], expected_matrix(module, sequences(), reads))
    torch.testing.assert_close(results[0].matrix, results[1].matrix, rtol=0, atol=1e-5)


class Packed(nn.Module):
    """An LSTM on packed sequences."""

    def __init__(self):
        super().__init__()
        self.lstm, self.head = nn.LSTM(6, 5, batch_first=True), nn.Linear(5, 3)

    def forward(self, x, lengths):
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        _, (hidden, _) = self.lstm(packed)
        return self.head(hidden[-1])


@pytest.mark.parametrize("feature_fn", ["flatten", "mean"])
def test_packed_sequences_are_padded_or_averaged_without_padding(feature_fn):
    def read(output, batch):
        padded, lengths = pad_packed_sequence(output[0], batch_first=True)
        assert torch.equal(lengths, batch["lengths"])
        if feature_fn == "flatten":
            return padded
        return torch.stack([x[:length].mean(0) for x, length in zip(padded, lengths, strict=True)])

    module = TakesLengths(Packed())
    result = monitored_result(module, sequences(), collate_ragged, feature_fn=feature_fn)
    assert result.layers == ("net.lstm", "net.head")
    reads = {"net.lstm": read, "net.head": lambda output, _: output}
    expected = expected_matrix(module, sequences(), reads, collate_ragged, lambda module, batch: module(**batch))
    assert_same(result, expected)


class Ragged(nn.Module):
    """A network that turns samples of unequal length into nested tensors."""

    def __init__(self, layout):
        super().__init__()
        self.layout, self.layer, self.head = layout, nn.Linear(6, 5), nn.Linear(5, 3)

    def forward(self, x, lengths):
        samples = [x[:length] for x, length in zip(x, lengths.tolist(), strict=True)]
        return self.head(self.layer(torch.nested.as_nested_tensor(samples, layout=self.layout)))


class Nested(TakesLengths):
    def training_step(self, batch, batch_idx):
        return self(**batch).to_padded_tensor(0.0).square().mean()


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize("layout", [torch.jagged, torch.strided], ids=str)
@pytest.mark.parametrize("feature_fn", ["flatten", "mean", "cls"])
def test_nested_tensors_are_padded_or_averaged_without_padding(layout, feature_fn):
    def read(output, batch):
        padded = output.to_padded_tensor(0.0)
        return {"flatten": lambda: padded, "mean": lambda: token_means(padded, batch), "cls": lambda: padded[:, 0]}[
            feature_fn
        ]()

    module = Nested(Ragged(layout))
    result = monitored_result(module, sequences(), collate_ragged, feature_fn=feature_fn)
    reads = dict.fromkeys(("net.layer", "net.head"), read)
    assert result.layers == tuple(reads)
    assert_same(
        result, expected_matrix(module, sequences(), reads, collate_ragged, lambda module, batch: module(**batch))
    )


class Stream:
    """A loader that is not a DataLoader."""

    def __init__(self, loader):
        self.loader = loader

    def __iter__(self):
        return iter(self.loader)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize("layout", [torch.jagged, torch.strided], ids=str)
def test_nested_inputs(layout):
    def collate(samples):
        batch = collate_ragged(samples)
        parts = [x[:length] for x, length in zip(batch["x"], batch["lengths"], strict=True)]
        return torch.nested.as_nested_tensor(parts, layout=layout)

    class TakesNested(Wrapped):
        def training_step(self, batch, batch_idx):
            return self(batch).to_padded_tensor(0.0).square().mean()

    module = TakesNested(nn.Sequential(nn.Linear(6, 5), nn.Linear(5, 3)))
    reads = dict.fromkeys(("net.0", "net.1"), lambda output, _: output.to_padded_tensor(0.0))
    result = monitored_result(module, sequences(), collate)
    assert_same(result, expected_matrix(module, sequences(), reads, collate, lambda module, batch: module(batch)))
    loader = DataLoader(sequences(), batch_size=8, collate_fn=collate)
    wrong = nn.Sequential(nn.Linear(4, 5))
    with pytest.raises(ValueError, match="the batch is a nested Tensor of 8 float32; it raised"):
        compare_models(wrong, wrong, loader, progress_bar=False)
    # The batch dimension is found for another kind of loader, too, by showing one sample less.
    assert compare_models(module, module, Stream(loader), progress_bar=False).layers == ("net.0", "net.1")
