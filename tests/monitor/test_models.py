"""What comes out of, and goes into, the networks that people have."""

import random

import numpy as np
import pytest
import torch
from conftest import trainer
from lightning.pytorch import seed_everything
from lightning_cka import CKAMonitor, compare_models
from observed import Wrapped, assert_same, cka_within, collected, logged
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence, pad_sequence
from torch.utils.data import DataLoader

pytestmark = [
    pytest.mark.usefixtures("_without_figures"),
    pytest.mark.filterwarnings("ignore:CKA( with '.*')?. layers (that|whose)"),
]


def sequences(n=64, tokens=8):
    """As many tokens as samples in a batch, unless said otherwise."""
    generator = torch.Generator().manual_seed(1)
    return [(torch.randn(tokens, 6, generator=generator), 0) for _ in range(n)]


def vectors(n=64):
    generator = torch.Generator().manual_seed(1)
    return [(torch.randn(6, generator=generator), 0) for _ in range(n)]


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
        results.append(logged(module, sequences(), feature_fn=feature_fn))
    assert results[0].layers == results[1].layers == ("net.rnn", "net.head")
    reduce = {"flatten": lambda x: x, "mean": lambda x: x.mean(1), "cls": lambda x: x[:, 0]}[feature_fn]
    reads = {
        "net.rnn": lambda output, _: reduce(output[0].transpose(0, 1)),
        "net.head": lambda output, _: reduce(output.transpose(0, 1)),
    }
    assert_same(results[1], collected(module, sequences(), reads))
    torch.testing.assert_close(results[0].matrix, results[1].matrix, rtol=0, atol=1e-5)


class Packed(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm, self.head = nn.LSTM(6, 5, batch_first=True), nn.Linear(5, 3)

    def forward(self, x, lengths):
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        _, (hidden, _) = self.lstm(packed)
        return self.head(hidden[-1])


class Lengths(Wrapped):
    def forward(self, x, lengths):
        return self.net(x, lengths)


def of_unequal_length(samples):
    lengths = [2 + int(10 * abs(x[0, 0])) % 6 for x, _ in samples]
    x = pad_sequence([x[:length] for (x, _), length in zip(samples, lengths, strict=True)], batch_first=True)
    return {"x": x, "lengths": torch.tensor(lengths)}


@pytest.mark.parametrize("feature_fn", ["flatten", "mean"])
def test_packed_sequences_are_padded_or_each_reduced_over_its_own_tokens(feature_fn):
    def read(output, batch):
        padded, lengths = pad_packed_sequence(output[0], batch_first=True)
        assert torch.equal(lengths, batch["lengths"])
        if feature_fn == "flatten":
            return padded
        return torch.stack([x[:length].mean(0) for x, length in zip(padded, lengths, strict=True)])

    module = Lengths(Packed())
    result = logged(module, sequences(), of_unequal_length, feature_fn=feature_fn)
    assert result.layers == ("net.lstm", "net.head")
    reads = {"net.lstm": read, "net.head": lambda output, _: output}
    expected = collected(module, sequences(), reads, of_unequal_length, lambda module, batch: module(**batch))
    assert_same(result, expected)


class Attending(nn.Module):
    def __init__(self, batch_first):
        super().__init__()
        self.embed, self.batch_first = nn.Linear(6, 8), batch_first
        self.attention = nn.MultiheadAttention(8, 2, batch_first=batch_first)
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        x = self.embed(x if self.batch_first else x.transpose(0, 1))
        return self.head(self.attention(x, x, x)[0])


@pytest.mark.parametrize("batch_first", [True, False])
def test_attention(batch_first, caplog):
    module = Wrapped(Attending(batch_first))
    reads = {
        "net.embed": lambda output, _: output if batch_first else output.transpose(0, 1),
        "net.attention": lambda output, _: output[0] if batch_first else output[0].transpose(0, 1),
        "net.head": lambda output, _: output if batch_first else output.transpose(0, 1),
    }
    assert_same(logged(module, sequences(), layers=list(reads)), collected(module, sequences(), reads))
    assert "out_proj" not in caplog.text
    # Its projection is computed without its being called: attention is one layer.
    assert logged(module, sequences()).layers == ("net.embed", "net.attention", "net.head")
    assert "out_proj" not in caplog.text
    assert logged(module, sequences(), layers=nn.Linear).layers == ("net.embed", "net.head")
    assert "CKA leaves out of layers=: layer 'net.attention.out_proj'" in caplog.text
    with pytest.raises(ValueError, match=r"'net.attention.out_proj' \(NonDyn.*\) did not run in forward"):
        logged(module, sequences(), layers=["net.head", "net.attention.out_proj"])


class Encoder(nn.Module):
    """Of torch: in evaluation mode without gradients, it calls none of its children, and has nested tensors inside."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Linear(6, 8)
        self.encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, 0.0, batch_first=True), 2)

    def forward(self, x, lengths):
        padding = torch.arange(x.shape[1]) >= lengths[:, None]
        return self.encoder(self.embed(x), src_key_padding_mask=padding)


def means(output, batch):
    return torch.stack([x[:length].mean(0) for x, length in zip(output, batch["lengths"], strict=True)])


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize(("feature_fn", "read"), [("mean", means), ("flatten", lambda output, _: output)])
def test_the_fast_path_of_transformer_layers_hides_nothing_and_changes_nothing(feature_fn, read):
    class Masked(Lengths):
        def forward(self, x, lengths, attention_mask=None):
            return self.net(x, lengths)

    def masked(samples):
        batch = of_unequal_length(samples)
        return batch | {"attention_mask": torch.arange(batch["x"].shape[1]) < batch["lengths"][:, None]}

    def show(module, batch):
        # As in training, but for dropout, of which there is none.
        module.train()
        module(**batch)

    module = Masked(Encoder())
    names = ["net.embed", "net.encoder.layers.0.linear1", "net.encoder.layers.0", "net.encoder.layers.1.norm2"]
    names += ["net.encoder"]
    result = logged(module, sequences(), masked, names, feature_fn=feature_fn)
    assert result.layers == tuple(names)
    assert_same(result, collected(module, sequences(), dict.fromkeys(names, read), masked, show))
    assert torch.backends.mha.get_fastpath_enabled()


@pytest.mark.parametrize("enabled", [True, False])
def test_the_fast_path_is_left_as_found_also_after_an_error(enabled):
    class Fails(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(6, 6)

        def forward(self, x):
            assert not torch.backends.mha.get_fastpath_enabled()
            raise RuntimeError("in forward")

    torch.backends.mha.set_fastpath_enabled(enabled)
    try:
        with pytest.raises(ValueError, match="RuntimeError: in forward"):
            compare_models(Fails(), Fails(), [torch.randn(8, 6)], progress_bar=False)
        assert torch.backends.mha.get_fastpath_enabled() == enabled
    finally:
        torch.backends.mha.set_fastpath_enabled(True)


class Windows(nn.Module):
    """Layers within 4 windows of 4 of 16 tokens, as Swin has them."""

    def __init__(self):
        super().__init__()
        self.embed, self.window, self.mlp = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 8)
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        n = len(x)
        x = self.mlp(self.window(self.embed(x).reshape(n * 4, 4, 8)).relu())
        return self.head(x.reshape(n, 16, 8).mean(1))


def test_windows_in_the_batch_are_refused_with_a_feature_fn_that_works(caplog):
    module, data = Wrapped(Windows()), sequences(tokens=16)
    why = (
        "the output of layer 'net.window' (Tensor(32, 4, 8) float32) has no dimension with one entry per sample: its "
        "first has 4 for each, those of a sample in a row, as windows are. Compare such layers alone, "
        "with feature_fn=lambda output: output.unflatten(0, (-1, 4)).flatten(1)"
    )
    assert logged(module, data).layers == ("net.embed", "net.head")
    assert "CKA leaves out of the default layers: the output of layer 'net.window' (Tensor(32, 4, 8)" in caplog.text
    with pytest.raises(ValueError, match="cannot compare these layers on a batch of 8 samples") as caught:
        logged(module, data, layers=["net.window", "net.head"])
    assert why in str(caught.value)
    reads = dict.fromkeys(("net.window", "net.mlp"), lambda output, _: output.unflatten(0, (-1, 4)).flatten(1))
    alone = logged(module, data, layers=list(reads), feature_fn=lambda output: output.unflatten(0, (-1, 4)).flatten(1))
    assert_same(alone, collected(module, data, reads))
    reads["net.embed"] = lambda output, _: output
    mixed = logged(module, data, layers=list(reads), feature_fn=lambda output: output.reshape(-1, 16, 8))
    assert_same(mixed, collected(module, data, reads))


class Graphs:
    """What a batch of `torch_geometric` is: an object with tensors, that knows its size and moves itself."""

    def __init__(self, x, edges, graph, batch_size):
        self.x, self.edges, self.graph, self.batch_size = x, edges, graph, batch_size
        self.moved_to = None

    def to(self, device, **kwargs):
        moved = Graphs(self.x.to(device), self.edges.to(device), self.graph.to(device), self.batch_size)
        moved.moved_to = device
        return moved


def graphs(n=64):
    """Rings of 3 to 7 nodes."""
    generator = torch.Generator().manual_seed(2)
    return [torch.randn(size, 6, generator=generator) for size in torch.randint(3, 8, (n,), generator=generator)]


def in_a_row(samples):
    sizes = [len(x) for x in samples]
    starts = np.cumsum([0, *sizes])
    edges = [
        (start + i, start + (i + 1) % size) for start, size in zip(starts, sizes, strict=False) for i in range(size)
    ]
    graph = torch.repeat_interleave(torch.arange(len(samples)), torch.tensor(sizes))
    return {"x": torch.cat(samples), "edges": torch.tensor(np.array(edges)).T, "graph": graph}


def as_object(samples):
    return Graphs(**in_a_row(samples), batch_size=len(samples))


def pooled(x, graph):
    return torch.stack([x[graph == i].mean(0) for i in range(int(graph.max()) + 1)])


class GraphNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.message = nn.Linear(6, 8), nn.Linear(8, 8)
        self.readout, self.head = nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x, edges, graph):
        x = self.embed(x)
        x = self.message(x.index_add(0, edges[1], x[edges[0]])).relu()
        return self.head(self.readout(pooled(x, graph)).relu())


class OfDicts(Wrapped):
    def forward(self, x, edges, graph):
        return self.net(x, edges, graph)


class OfObjects(Wrapped):
    def forward(self, batch):
        assert batch.moved_to is not None
        return self.net(batch.x, batch.edges, batch.graph)


class Pool:
    """Means over the nodes of each graph, for layers that have nodes."""

    def show(self, module, batch):
        self.graph = batch["graph"]
        module(**batch)

    def features(self, output):
        return pooled(output, self.graph) if len(output) == len(self.graph) else output


@pytest.mark.parametrize(("wrapper", "collate_fn"), [(OfDicts, in_a_row), (OfObjects, as_object)])
def test_layers_of_nodes_are_refused_and_layers_of_graphs_compared(wrapper, collate_fn, caplog):
    module, data = wrapper(GraphNet()), graphs()
    why = (
        "no dimension with one entry per sample: its first has 38 for 8 samples and 33 for 7, as if nodes or tokens of"
    )
    result = logged(module, data, collate_fn)
    assert result.num_samples == 64
    assert result.layers == ("net.readout", "net.head")
    assert f"the output of layer 'net.message' (Tensor(38, 8) float32) have {why}" in caplog.text
    reads = dict.fromkeys(result.layers, lambda output, _: output)
    show = (
        (lambda module, batch: module(**batch)) if wrapper is OfDicts else lambda module, batch: module(batch.to("cpu"))
    )
    assert_same(result, collected(module, data, reads, collate_fn, show))
    with pytest.raises(ValueError, match=r"net.message.*has 38 for 8 samples and 33 for 7.*let forward_fn= keep"):
        logged(module, data, collate_fn, layers=["net.message", "net.head"])


def test_nodes_can_be_pooled():
    pool, module = Pool(), OfDicts(GraphNet())
    result = logged(module, graphs(), in_a_row, forward_fn=pool.show, feature_fn=pool.features)
    nodes, whole = ("net.embed", "net.message"), ("net.readout", "net.head")
    assert result.layers == nodes + whole
    reads = dict.fromkeys(nodes, lambda output, batch: pooled(output, batch["graph"]))
    reads |= dict.fromkeys(whole, lambda output, batch: output)
    assert_same(result, collected(module, graphs(), reads, in_a_row, lambda module, batch: module(**batch)))


def test_graphs_of_a_users_own_batches():
    """Nobody can leave out a sample of these: the batch has to be the first dimension, of the size that it says."""
    module = OfObjects(GraphNet())
    data = [as_object(graphs()[i : i + 8]) for i in range(0, 64, 8)]
    with pytest.warns(UserWarning, match="the 8 samples of a batch are taken to lie along the first dimension.*Graphs"):
        result = compare_models(module, module, data, progress_bar=False)
    assert result.layers == ("net.readout", "net.head")
    reads = dict.fromkeys(result.layers, lambda output, _: output)
    assert_same(result, cka_within(module, data, reads, lambda module, batch: module(batch.to("cpu"))))


def test_dicts_of_nodes_in_a_users_own_batches_are_said_to_be_taken_as_samples():
    module = OfDicts(GraphNet())
    data = [in_a_row(graphs()[i : i + 8]) for i in range(0, 64, 8)]
    with pytest.warns(UserWarning, match="the .. samples of a batch are taken to lie along the first dimension"):
        result = compare_models(module, module, data, progress_bar=False)
    assert result.layers == ("net.embed", "net.message")


class Shared(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Linear(6, 6)
        self.same = self.encoder
        self.tied, self.head = nn.Linear(6, 6), nn.Linear(6, 3)
        self.tied.weight = self.encoder.weight

    def forward(self, x):
        return self.head(self.tied(self.same(self.encoder(x).relu()).relu()))


def test_shared_and_repeated_modules():
    module = Wrapped(Shared())
    with pytest.warns(UserWarning, match="several times in one forward are compared at their first call: net.encoder"):
        result = logged(module, vectors())
    reads = dict.fromkeys(("net.encoder", "net.tied", "net.head"), lambda output, _: output)
    assert result.layers == tuple(reads)
    assert_same(result, collected(module, vectors(), reads))
    with pytest.raises(
        ValueError, match=r"layer 'net.same' is the same module as 'net.encoder': choose it by that name"
    ):
        logged(module, vectors(), layers=["net.same", "net.head"])


class Functional(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second, self.head = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x):
        return self.head(nn.functional.linear(self.first(x).relu(), self.second.weight, self.second.bias))


def test_modules_used_functionally_are_said_to_never_run_before_training(caplog):
    steps = []

    class Counts(Wrapped):
        def on_train_batch_start(self, batch, batch_idx):
            steps.append(batch_idx)

    with pytest.raises(ValueError, match=r"layer 'net.second' \(Linear\) did not run in forward.*Choose other layers"):
        logged(Counts(Functional()), vectors(), layers=["net.first", "net.second"])
    assert not steps
    assert logged(Counts(Functional()), vectors(), layers="net.*").layers == ("net.first", "net.head")
    assert "CKA leaves out of layers=: layer 'net.second' (Linear) did not run in forward" in caplog.text


class Ragged(nn.Module):
    """Samples of unequal length in nested tensors."""

    def __init__(self, layout):
        super().__init__()
        self.layout, self.layer, self.head = layout, nn.Linear(6, 5), nn.Linear(5, 3)

    def forward(self, x, lengths):
        samples = [x[:length] for x, length in zip(x, lengths.tolist(), strict=True)]
        return self.head(self.layer(torch.nested.as_nested_tensor(samples, layout=self.layout)))


class Nested(Lengths):
    def training_step(self, batch, batch_idx):
        return self(**batch).to_padded_tensor(0.0).square().mean()


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize("layout", [torch.jagged, torch.strided], ids=str)
@pytest.mark.parametrize("feature_fn", ["flatten", "mean", "cls"])
def test_nested_tensors_are_padded_or_each_reduced_over_its_own_tokens(layout, feature_fn):
    def read(output, batch):
        padded = output.to_padded_tensor(0.0)
        return {"flatten": lambda: padded, "mean": lambda: means(padded, batch), "cls": lambda: padded[:, 0]}[
            feature_fn
        ]()

    module = Nested(Ragged(layout))
    result = logged(module, sequences(), of_unequal_length, feature_fn=feature_fn)
    reads = dict.fromkeys(("net.layer", "net.head"), read)
    assert result.layers == tuple(reads)
    assert_same(result, collected(module, sequences(), reads, of_unequal_length, lambda module, batch: module(**batch)))


class Stream:
    """A loader of a kind of its own."""

    def __init__(self, loader):
        self.loader = loader

    def __iter__(self):
        return iter(self.loader)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize("layout", [torch.jagged, torch.strided], ids=str)
def test_nested_inputs(layout):
    def collate(samples):
        batch = of_unequal_length(samples)
        parts = [x[:length] for x, length in zip(batch["x"], batch["lengths"], strict=True)]
        return torch.nested.as_nested_tensor(parts, layout=layout)

    class OfNested(Wrapped):
        def training_step(self, batch, batch_idx):
            return self(batch).to_padded_tensor(0.0).square().mean()

    module = OfNested(nn.Sequential(nn.Linear(6, 5), nn.Linear(5, 3)))
    reads = dict.fromkeys(("net.0", "net.1"), lambda output, _: output.to_padded_tensor(0.0))
    result = logged(module, sequences(), collate)
    assert_same(result, collected(module, sequences(), reads, collate, lambda module, batch: module(batch)))
    loader = DataLoader(sequences(), batch_size=8, collate_fn=collate)
    wrong = nn.Sequential(nn.Linear(4, 5))
    with pytest.raises(ValueError, match="the batch is a nested Tensor of 8 float32; it raised"):
        compare_models(wrong, wrong, loader, progress_bar=False)
    # Of a stream, too, a sample can be left out.
    assert compare_models(module, module, Stream(loader), progress_bar=False).layers == ("net.0", "net.1")


class Residual(nn.Module):
    """All that is done in place after a hooked layer."""

    def __init__(self, inplace):
        super().__init__()
        self.inplace = inplace
        self.first, self.norm, self.act = nn.Linear(6, 6), nn.BatchNorm1d(6), nn.ReLU(inplace=inplace)
        self.second, self.head = nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x):
        y = self.act(self.norm(self.first(x)))
        if not self.inplace:
            return self.head((self.second(y) + x).relu())
        z = self.second(y)
        z += x
        return self.head(z.relu_())


def test_what_is_done_in_place_after_a_layer_is_not_seen():
    results = []
    for inplace in (True, False):
        torch.manual_seed(0)
        results.append(logged(Wrapped(Residual(inplace)), vectors()))
    assert results[0].layers == ("net.first", "net.norm", "net.second", "net.head")
    assert torch.equal(results[0].matrix, results[1].matrix)


class Noisy(nn.Module):
    """Draws from all generators, in evaluation mode too."""

    def __init__(self):
        super().__init__()
        self.layer, self.head = nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x):
        x = self.layer(x + 0.1 * torch.randn_like(x)) * random.random()
        return self.head(x + float(np.random.rand()))


def test_a_forward_that_draws_noise_trains_as_without_the_callback():
    weights, draws = [], []
    for callbacks in ([], [CKAMonitor(["initial", "self", Wrapped(Noisy())])]):
        seed_everything(3, verbose=False)
        module = Wrapped(Noisy())
        loader = DataLoader(vectors(), batch_size=8, shuffle=True)
        trainer(*callbacks, max_epochs=2).fit(module, loader, DataLoader(vectors(), batch_size=8))
        weights.append(module.state_dict())
        draws.append((torch.rand(()).item(), random.random(), np.random.rand()))
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())
    assert draws[0] == draws[1]
