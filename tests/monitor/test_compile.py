"""Compiled models: hooks fire, nothing is recompiled, and layer names have no prefix of the compiler."""

import copy

import pytest
import torch
from conftest import Net, dataset, quietly, trainer
from lightning.pytorch import seed_everything
from lightning_cka import CKAMonitor, FreezeConverged, Thresholds
from lightning_cka.runtime.module_names import is_compiled
from torch import nn
from torch.utils.data import DataLoader

pytestmark = [
    pytest.mark.filterwarnings("ignore:CKA( with '.*')?. layers (that|whose)"),
    pytest.mark.filterwarnings("ignore:.*torch.jit.script_method"),
    pytest.mark.usefixtures("_without_figures"),
]


class Block(nn.Module):
    """A container of our own: ``compile()`` in place does not affect the call of torch's own containers."""

    def __init__(self, layers):
        super().__init__()
        self.layers = layers

    def forward(self, x):
        return self.layers(x)


class Quiet(Net):
    """Logs nothing: in some versions Lightning's ``log`` fails in a compiled step, even without a callback."""

    def __init__(self):
        super().__init__()
        self.net = Block(self.net)

    def training_step(self, batch, batch_idx):
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch, batch_idx):
        self(batch[0])


def whole(model, backend):
    return torch.compile(model, backend=backend)


def child(model, backend):
    model.net = torch.compile(model.net, backend=backend)
    return model


def child_in_place(model, backend):
    model.net.compile(backend=backend)
    return model


def run(how, tmp_path, *monitors, **options):
    """Return the weights after training, and the number of compiled graphs."""
    torch._dynamo.reset()
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    seed_everything(3, workers=True, verbose=False)
    model = Quiet()
    used = trainer(*monitors, default_root_dir=tmp_path, **options)
    train, validation = (DataLoader(dataset(seed=seed), batch_size=16) for seed in (1, 2))
    used.fit(how(model, backend), train, validation)
    return copy.deepcopy(model.state_dict()), len(graphs)


def not_compiled(model, _backend):
    return model


def references(folder):
    """Return references of all kinds, with the same weights in each call."""
    torch.manual_seed(0)
    torch.save(Quiet().state_dict(), folder / "frozen.pt")
    return ["initial", "previous", "self", folder / "frozen.pt", Quiet()]


@pytest.fixture(scope="module")
def eager_results(tmp_path_factory):
    """The results without compilation, by reference."""
    folder = tmp_path_factory.mktemp("eager")
    with quietly():
        run(not_compiled, folder, monitor := CKAMonitor(references(folder), num_samples=64, dirpath=folder / "cka"))
    return monitor.results


@pytest.mark.parametrize("how", [whole, child, child_in_place])
def test_training_keeps_its_graphs_and_its_weights(how, tmp_path, eager_results):
    plain, graphs = run(how, tmp_path)
    monitor = CKAMonitor(references(tmp_path), num_samples=64, dirpath=tmp_path / "cka")
    watched, watched_graphs = run(how, tmp_path, monitor)
    assert graphs > 0
    assert watched_graphs == graphs
    assert all(torch.equal(value, watched[name]) for name, value in plain.items())
    assert eager_results.keys() == monitor.results.keys()
    for name, results in monitor.results.items():
        for one, other in zip(results, eager_results[name], strict=True):
            assert one.layers == other.layers == ("net.layers.0", "net.layers.1", "net.layers.4", "head")
            torch.testing.assert_close(one.matrix, other.matrix, rtol=0, atol=1e-5)


def frozen_layers(how, folder):
    """Train with `FreezeConverged`; return the weights, the number of compiled graphs and what is frozen."""
    freeze = FreezeConverged(0.3, 2)
    monitor = CKAMonitor(dirpath=folder / "cka", thresholds=Thresholds.off())
    weights, graphs = run(how, folder, monitor, freeze, max_epochs=4)
    assert is_compiled(freeze._freezing.module) == (how is not not_compiled)
    return weights, graphs, freeze.frozen


@pytest.fixture(scope="module")
def frozen_eagerly(tmp_path_factory):
    with quietly():
        return frozen_layers(not_compiled, tmp_path_factory.mktemp("eager"))


@pytest.mark.filterwarnings("ignore:FreezeConverged. layer 'head' has converged")
@pytest.mark.parametrize("how", [whole, child, child_in_place])
def test_layers_of_compiled_models_are_frozen(how, tmp_path, frozen_eagerly):
    """torch compiles again, and the weights are those of the eager model."""
    eager, no_graphs, expected = frozen_eagerly
    weights, graphs, frozen = frozen_layers(how, tmp_path)
    assert frozen == expected
    assert list(frozen) == ["net.layers.0", "net.layers.1", "net.layers.4"]
    _, before = run(how, tmp_path, max_epochs=4)
    assert no_graphs == 0 < before < graphs
    assert all(torch.equal(one, other) for one, other in zip(eager.values(), weights.values(), strict=True))
