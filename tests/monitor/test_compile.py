"""Compiled models: hooks fire, nothing is recompiled, and layer names have no prefix of the compiler."""

import copy

import pytest
import torch
from conftest import Net, dataset, trainer
from lightning.pytorch import seed_everything
from lightning_cka import CKAMonitor, FreezeConverged, Thresholds
from lightning_cka.runtime.module_names import is_compiled
from torch import nn
from torch.utils.data import DataLoader

pytestmark = [
    pytest.mark.filterwarnings("ignore:CKA( with '.*')?. layers (that|whose)"),
    pytest.mark.filterwarnings("ignore:.*torch.jit.script_method"),
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


@pytest.mark.parametrize("how", [whole, child, child_in_place])
def test_training_keeps_its_graphs_and_its_weights(how, tmp_path):
    torch.save(Quiet().state_dict(), tmp_path / "frozen.pt")
    references = ["initial", "previous", "self", tmp_path / "frozen.pt", Quiet()]
    plain, graphs = run(how, tmp_path)
    monitor = CKAMonitor(references, dirpath=tmp_path / "cka")
    watched, watched_graphs = run(how, tmp_path, monitor)
    assert graphs > 0
    assert watched_graphs == graphs
    assert all(torch.equal(value, watched[name]) for name, value in plain.items())
    eager = CKAMonitor(references, dirpath=tmp_path / "eager")
    run(lambda model, _backend: model, tmp_path, eager)
    assert eager.results.keys() == monitor.results.keys()
    for name, results in monitor.results.items():
        for one, other in zip(results, eager.results[name], strict=True):
            assert one.layers == other.layers == ("net.layers.0", "net.layers.1", "net.layers.4", "head")
            torch.testing.assert_close(one.matrix, other.matrix, rtol=0, atol=1e-5)


@pytest.mark.filterwarnings("ignore:FreezeConverged. layer 'head' has converged")
@pytest.mark.parametrize("how", [whole, child, child_in_place])
def test_layers_of_compiled_models_are_frozen(how, tmp_path):
    """torch compiles again, and the weights are those of the eager model."""
    weights, graphs, frozen = {}, {}, {}
    for name, compiles in {"eager": lambda model, _backend: model, "compiled": how}.items():
        freeze = FreezeConverged(0.3, 2)
        monitor = CKAMonitor(dirpath=tmp_path / name, thresholds=Thresholds.off())
        weights[name], graphs[name] = run(compiles, tmp_path, monitor, freeze, max_epochs=4)
        assert is_compiled(freeze._freezing.module) == (name == "compiled")
        frozen[name] = freeze.frozen
    assert frozen["compiled"] == frozen["eager"]
    assert list(frozen["eager"]) == ["net.layers.0", "net.layers.1", "net.layers.4"]
    _, before = run(how, tmp_path, max_epochs=4)
    assert graphs["eager"] == 0 < before < graphs["compiled"]
    pairs = zip(weights["eager"].values(), weights["compiled"].values(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)
