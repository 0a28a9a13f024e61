"""Names of layers, references and kernels never become paths outside ``dirpath``, and never collide."""

from pathlib import Path

import pytest
import torch
from conftest import Net, loaders, trainer
from fitting import fit
from lightning_cka import CKAMonitor
from lightning_cka.monitor.logged_scalars import logged_names
from lightning_cka.monitor.logger_functions import _artifact_path
from lightning_cka.monitor.reference import OUTPUT_ENDINGS
from lightning_cka.monitor.reference_names import parse_references
from lightning_cka.runtime.file_names import file_key
from safetensors.torch import save_file
from torch import nn

# Small models and probe sets are flagged, which these tests do not check; see tests/compare/test_flags.py.
pytestmark = [
    pytest.mark.filterwarnings("ignore:CKA( with '.*')?. layers (that|whose)"),
    pytest.mark.usefixtures("_blank_figures"),
]

LAYERS = ("../../x", "/abs/x", "a/b", "A\\b", "Con", "conv", "CONV", "x" * 150, " .", "overview", "overview-2")


class Hostile(Net):
    """Its layers have names that `add_module` would refuse."""

    def __init__(self):
        super().__init__()
        for name in LAYERS:
            self._modules[name] = nn.Linear(3, 3)

    def forward(self, x):
        x = super().forward(x)
        for name in LAYERS:
            x = self._modules[name](x)
        return x


def product(squared_distances):
    return torch.exp(-squared_distances / 100)


product.__name__ = "../product"


@pytest.mark.filterwarnings("ignore:CKA with '.*', kernel .*layers (that|whose)")
def test_a_run_writes_nothing_outside_its_folder(tmp_path):
    folder = tmp_path / "a" / "b" / "run"
    reference = type("../Reference", (Hostile,), {})()
    layers = [*LAYERS, "head"]
    monitor = CKAMonitor(["initial", reference], layers, kernel=["linear", product], dirpath=folder, trajectory=True)
    fit(monitor, model=Hostile())
    assert sorted(path.name for path in tmp_path.rglob("*") if folder not in (path, *path.parents)) == ["a", "b"]
    initial, other = (reference.name for reference in monitor.references)
    kernels = list(monitor._settings.measures)
    assert (initial, kernels[0], Path(other).name) == ("initial", "linear", other)
    names = {path.name for path in folder.iterdir()}
    assert names == {initial, other, "banks", "trajectory", "history.jsonl", "report.html"}
    for kernel in kernels:
        files = {path.stem for path in (folder / "trajectory" / kernel).iterdir()}
        assert len({file_key(name) for name in files}) == len(layers) + 2
        assert files >= {"conv", "overview", "overview-2", "overview-3", "convergence", "head"}
        assert (folder / other / f"{kernel}-evolution.gif").is_file()


@pytest.mark.filterwarnings("ignore:the CKA of layer")
def test_every_layer_has_its_own_key():
    class Colliding(Net):
        def __init__(self):
            super().__init__()
            for name in ("mean", "mean-2", "mean_se", "heatmap", "drift"):
                self.add_module(name, nn.Linear(3, 3))

        def forward(self, x):
            x = super().forward(x)
            for name in ("mean", "mean-2", "mean_se", "heatmap", "drift"):
                x = self._modules[name](x)
            return x

    monitor = CKAMonitor()
    with pytest.warns(UserWarning, match="layer 'mean' is logged as 'cka/initial/mean-3'"):
        _, used = fit(monitor, model=Colliding())
    result, metrics = monitor.results["initial"][-1], used.callback_metrics
    keys = {"mean": "mean-3", "mean-2": "mean-2", "mean_se": "mean_se-2", "heatmap": "heatmap-2", "drift": "drift-2"}
    for layer, value in result.same_named().items():
        assert metrics[f"cka/initial/{keys.get(layer, layer)}"].item() == pytest.approx(value, abs=1e-6)
    assert metrics["cka/initial/mean"].item() == pytest.approx(result.mean(), abs=1e-6)


def test_ordinary_names_keep_their_keys():
    assert logged_names(["net.0", "head", "mean"]) == {"net.0": "net.0", "head": "head", "mean": "mean-2"}


def test_names_of_references_differ_in_all_files(tmp_path):
    names = ("a", "A", "a.csv", "banks", "Trajectory", "earlier-1", "initial-evolution.gif", "initial", "..", "con")
    for i, name in enumerate(names):
        folder = tmp_path / str(i)
        folder.mkdir()
        torch.save({}, folder / f"{name}.ckpt")
    references = parse_references(["initial", *(tmp_path / str(i) / f"{name}.ckpt" for i, name in enumerate(names))])
    files = {file_key(reference.name + ending) for reference in references for ending in OUTPUT_ENDINGS}
    assert len(files | {"banks", "trajectory", "diagnostics"}) == 3 * 11 + 3
    assert [reference.name for reference in references][:3] == ["initial", "a", "A-2"]
    assert not any(reference.name.startswith(("earlier-", ".")) for reference in references)


def test_names_of_mlflow_artifacts_stay_inside_and_differ():
    assert _artifact_path("cka/initial/net.0") == "cka/initial/net.0"
    keys = ["cka/a/x", "cka/a/../x", "cka/a/模", "cka/a/型", "cka/a/:", "cka/a/?", "cka/a/", "cka/a/."]
    paths = [_artifact_path(key) for key in keys]
    assert len(set(paths)) == len(keys)
    for path in paths:
        assert all(part not in ("", ".", "..") for part in path.split("/"))


def test_safetensors_are_a_reference(tmp_path):
    model = Net()
    save_file(model.state_dict(), tmp_path / "weights.safetensors")
    torch.save(model.state_dict(), tmp_path / "same.ckpt")
    monitor = CKAMonitor([str(tmp_path / "weights.safetensors"), tmp_path / "same.ckpt"])
    trainer(monitor, max_epochs=1).fit(Net(), *loaders())
    assert torch.equal(monitor.results["weights"][0].matrix, monitor.results["same"][0].matrix)
