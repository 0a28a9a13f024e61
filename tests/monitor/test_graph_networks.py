"""Graph networks, whose layers give one row per node and not per sample."""

import numpy as np
import pytest
import torch
from conftest import Net, trainer
from lightning_cka import CKAMonitor, compare_models
from observed import Wrapped, assert_same, expected_matrix, matrix_on_batches, monitored_result
from torch import nn
from torch.utils.data import DataLoader

pytestmark = [
    pytest.mark.usefixtures("_without_figures"),
    pytest.mark.filterwarnings("ignore:CKA( with '.*')?. layers (that|whose)"),
]


class Graphs:
    """A batch like those of `torch_geometric`: an object with tensors, a `batch_size` and a method `to`."""

    def __init__(self, x, edges, graph, batch_size):
        self.x, self.edges, self.graph, self.batch_size = x, edges, graph, batch_size
        self.moved_to = None

    def to(self, device, **kwargs):
        moved = Graphs(self.x.to(device), self.edges.to(device), self.graph.to(device), self.batch_size)
        moved.moved_to = device
        return moved


def graphs(n=64):
    """Return the node features (nodes, 6) of n rings with 3 to 7 nodes."""
    generator = torch.Generator().manual_seed(2)
    return [torch.randn(size, 6, generator=generator) for size in torch.randint(3, 8, (n,), generator=generator)]


def collate_dict(samples):
    """Concatenate the nodes of all graphs; "graph" has the index of each node's graph."""
    sizes = [len(x) for x in samples]
    starts = np.cumsum([0, *sizes])
    edges = [
        (start + i, start + (i + 1) % size) for start, size in zip(starts, sizes, strict=False) for i in range(size)
    ]
    graph = torch.repeat_interleave(torch.arange(len(samples)), torch.tensor(sizes))
    return {"x": torch.cat(samples), "edges": torch.tensor(np.array(edges)).T, "graph": graph}


def collate_object(samples):
    return Graphs(**collate_dict(samples), batch_size=len(samples))


def pooled(x, graph):
    """Return the mean over the nodes of each graph."""
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


class TakesDict(Wrapped):
    def forward(self, x, edges, graph):
        return self.net(x, edges, graph)


class TakesObject(Wrapped):
    def forward(self, batch):
        assert batch.moved_to is not None
        return self.net(batch.x, batch.edges, batch.graph)


class Pool:
    """A forward_fn and a feature_fn that average over the nodes of each graph."""

    def show(self, module, batch):
        self.graph = batch["graph"]
        module(**batch)

    def features(self, output):
        return pooled(output, self.graph) if len(output) == len(self.graph) else output


@pytest.mark.parametrize(("wrapper", "collate_fn"), [(TakesDict, collate_dict), (TakesObject, collate_object)])
def test_layers_with_a_row_per_node_raise_and_layers_with_a_row_per_graph_are_compared(wrapper, collate_fn, caplog):
    module, data = wrapper(GraphNet()), graphs()
    why = (
        "no dimension with one entry per sample: its first has 38 for 8 samples and 33 for 7, as if nodes or tokens of"
    )
    result = monitored_result(module, data, collate_fn)
    assert result.num_samples == 64
    assert result.layers == ("net.readout", "net.head")
    assert f"the output of layer 'net.message' (Tensor(38, 8) float32) have {why}" in caplog.text
    reads = dict.fromkeys(result.layers, lambda output, _: output)
    show = (
        (lambda module, batch: module(**batch))
        if wrapper is TakesDict
        else lambda module, batch: module(batch.to("cpu"))
    )
    assert_same(result, expected_matrix(module, data, reads, collate_fn, show))
    with pytest.raises(ValueError, match=r"net.message.*has 38 for 8 samples and 33 for 7.*let forward_fn= keep"):
        monitored_result(module, data, collate_fn, layers=["net.message", "net.head"])


def test_a_feature_fn_can_average_over_nodes():
    pool, module = Pool(), TakesDict(GraphNet())
    result = monitored_result(module, graphs(), collate_dict, forward_fn=pool.show, feature_fn=pool.features)
    nodes, whole = ("net.embed", "net.message"), ("net.readout", "net.head")
    assert result.layers == nodes + whole
    reads = dict.fromkeys(nodes, lambda output, batch: pooled(output, batch["graph"]))
    reads |= dict.fromkeys(whole, lambda output, batch: output)
    assert_same(result, expected_matrix(module, graphs(), reads, collate_dict, lambda module, batch: module(**batch)))


def test_batches_of_graphs_in_a_list():
    """No sample can be taken out of such a batch. The batch dimension is the one of size `batch_size`, the first."""
    module = TakesObject(GraphNet())
    data = [collate_object(graphs()[i : i + 8]) for i in range(0, 64, 8)]
    with pytest.warns(
        UserWarning, match="the 8 samples of a batch are assumed to lie along the first dimension.*Graphs"
    ):
        result = compare_models(module, module, data, progress_bar=False)
    assert result.layers == ("net.readout", "net.head")
    reads = dict.fromkeys(result.layers, lambda output, _: output)
    assert_same(result, matrix_on_batches(module, data, reads, lambda module, batch: module(batch.to("cpu"))))


def test_dicts_of_nodes_in_a_list_warn_that_nodes_are_taken_as_samples():
    module = TakesDict(GraphNet())
    data = [collate_dict(graphs()[i : i + 8]) for i in range(0, 64, 8)]
    with pytest.warns(UserWarning, match="the .. samples of a batch are assumed to lie along the first dimension"):
        result = compare_models(module, module, data, progress_bar=False)
    assert result.layers == ("net.embed", "net.message")


class WholeGraph(Net):
    """Trains on one graph, all nodes at once."""

    def __init__(self):
        super().__init__()
        self.readout = nn.Linear(3, 4)

    def forward(self, x, edges):
        h = self.net(x)
        return self.head(h.index_add(0, edges[1], h[edges[0]]))

    def training_step(self, batch, batch_idx):
        return self(batch["x"], batch["edges"]).square().mean()

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", self.training_step(batch, batch_idx), batch_size=1)


class Graph(dict):
    """A graph whose entries are attributes too."""

    def __init__(self, entries):
        super().__init__(entries)
        self.x, self.edges = entries["x"], entries["edges"]

    def to(self, device, **kwargs):
        return Graph({name: value.to(device) for name, value in self.items()})


def one_graph(nodes=64):
    generator = torch.Generator().manual_seed(4)
    return {
        "x": torch.randn(nodes, 8, generator=generator),
        "edges": torch.randint(0, nodes, (2, 3 * nodes), generator=generator),
    }


SHOWS = {
    "dict": lambda module, graph: module(**graph),
    "tuple": lambda module, graph: module(*graph),
    "object": lambda module, graph: module(graph.x, graph.edges),
}


def first(samples):
    return samples[0]


def fit_whole_graph(**kwargs):
    model, monitor = WholeGraph(), CKAMonitor(["initial", "self"], **kwargs)
    graphs = DataLoader([one_graph()], batch_size=1, collate_fn=first)
    trainer(monitor, max_epochs=1, num_sanity_val_steps=0).fit(model, graphs, graphs)
    return model, monitor


@pytest.mark.filterwarnings("ignore:one probe batch gives no standard errors")
@pytest.mark.filterwarnings("ignore:Trying to infer the `batch_size`")
@pytest.mark.parametrize("kind", SHOWS)
def test_the_nodes_of_one_graph_are_compared_as_the_message_says(kind):
    with pytest.raises(ValueError, match=r"has 1 samples.*pass dataloader=\[data\].*and forward_fn="):
        fit_whole_graph()
    graph = one_graph()
    data = {"dict": graph, "tuple": tuple(graph.values()), "object": Graph(graph)}[kind]
    with pytest.warns(UserWarning, match="the 64 samples of a batch are assumed to lie along the first dimension"):
        model, monitor = fit_whole_graph(dataloader=[data], forward_fn=SHOWS[kind])
    result = monitor.results["self"][-1]
    assert (result.num_samples, result.num_batches) == (64, 1)
    assert "head" in result.layers
    reads = dict.fromkeys(result.layers, lambda output, _: output)
    show = lambda module, batch: module(**batch)  # noqa: E731
    assert_same(result, matrix_on_batches(model, [graph], reads, show))


def test_a_loader_of_one_graph_as_dataloader_raises_with_what_to_pass():
    loader = DataLoader([one_graph()], batch_size=1, collate_fn=first)
    with pytest.raises(ValueError, match=r"the first has 1: use larger batches. If the sample is a whole graph.*=\[da"):
        fit_whole_graph(dataloader=loader, forward_fn=SHOWS["dict"])
