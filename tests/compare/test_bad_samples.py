"""Samples that are nan or infinite are named, with the first place where they are."""

import pytest
import torch
from conftest import trainer
from gram_banks import bank_of_features
from lightning.pytorch import LightningModule, seed_everything
from lightning_cka import CKAMonitor, CKAResult, GramBank, compare_banks, compare_models
from lightning_cka.compare.flags import INPUT
from lightning_cka.compare.tables import result_table
from lightning_cka.hsic.packed import NOT_FINITE, TOO_FAR, row_states
from lightning_cka.hsic.stack import pack_features
from lightning_cka.plotting import plot_cka
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

pytestmark = [
    pytest.mark.filterwarnings("ignore:CKA.*layers whose CKA (has a standard error|with ):UserWarning"),
    pytest.mark.filterwarnings("ignore:CKA is nan for layers"),
]

LAYERS = ("first", "root", "last")


class Divides(LightningModule):
    """The second layer is nan for samples whose first feature is above 100."""

    class Root(nn.Linear):
        def forward(self, x):
            return super().forward(x) + (100 - x[:, :1]).sqrt()

    def __init__(self):
        super().__init__()
        self.first, self.root, self.last = nn.Linear(16, 16), self.Root(16, 24), nn.Linear(24, 8)
        nn.init.eye_(self.first.weight)

    def forward(self, x):
        return self.last(self.root(self.first(x).clamp(min=-50)))

    def training_step(self, batch, batch_idx):
        return self(torch.randn(8, 16)).square().mean()

    def validation_step(self, batch, batch_idx):
        pass

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=1e-3)


def data(bad=(), values=(torch.nan,)):
    x = torch.randn(256, 16, generator=torch.Generator().manual_seed(0))
    for sample in bad:
        x[sample, : len(values)] = torch.tensor(values)
    return TensorDataset(x)


def fit(monitor, probe_data, **kwargs):
    seed_everything(0, verbose=False)
    loader = DataLoader(probe_data, batch_size=32)
    with pytest.warns(UserWarning) as caught:
        trainer(monitor, max_epochs=2, **kwargs).fit(Divides(), DataLoader(data(), batch_size=32), loader)
    return [str(w.message) for w in caught]


def places(result, of_reference=False):
    return {f.layer: f.samples for f in result.flags if f.reason == "bad_sample" and f.of_reference == of_reference}


def named_samples(result):
    layers = (*result.diagnostics.layers.values(), *result.diagnostics.reference_layers.values())
    return {ratio.sample for layer in layers for ratio in (*layer.trace_ratios, *layer.hsic_ratios)}


@pytest.mark.usefixtures("_blank_figures")
@pytest.mark.parametrize("values", [(torch.nan,), (torch.inf,), (torch.inf, -torch.inf)])
def test_samples_with_bad_inputs_are_named_once_in_training(values, tmp_path):
    monitor = CKAMonitor(["initial", "self"], kernel=["linear", "rbf"], dirpath=tmp_path)
    messages = fit(monitor, data([41, 203], values))
    (named,) = [message for message in messages if "41" in message]
    assert "some samples are NaN or infinite, first in the input (dataset index 41, 203)" in named
    assert any("whose activations are NaN or infinite for some samples: first, root, last" in m for m in messages)
    assert not any("diverged" in message or "(reference)" in message for message in messages)
    result = monitor.results["initial/linear"][-1]
    assert places(result) == {INPUT: (41, 203)}
    assert places(result, of_reference=True) == {}
    assert named_samples(result) == set()
    loaded = CKAResult.load(next((tmp_path / "initial" / "linear").glob("*.json")))
    assert loaded.flags == monitor.results["initial/linear"][0].flags
    _, ax = plot_cka(loaded)
    assert "first in: the input (dataset index 41, 203)" in " ".join(ax.texts[-1].get_text().split())
    assert result_table(loaded).endswith("NaN or infinite samples, first in: the input (dataset index 41, 203)")


@pytest.mark.usefixtures("_blank_figures")
def test_samples_of_a_shuffled_loader_and_of_a_list_of_batches():
    probe_data = data([41])
    shuffled = DataLoader(probe_data, batch_size=32, shuffle=True)
    messages = fit(CKAMonitor(dataloader=shuffled), data())
    assert any("the input (dataset index 41)" in message for message in messages)
    for loader, name in (
        (shuffled, "dataset index 41"),
        ([x for (x,) in DataLoader(probe_data, 32)], "loader position 41"),
    ):
        with pytest.warns(UserWarning, match=rf"first in the input \({name}\)"):
            compare_models(Divides(), Divides(), loader, progress_bar=False)


@pytest.mark.usefixtures("_blank_figures")
def test_the_first_layer_in_execution_order_is_named():
    probe_data = data([7], (1000.0,))  # The input is finite.
    monitor = CKAMonitor(layers=["last", "root", "first"])
    messages = fit(monitor, probe_data)
    assert any("first in root (dataset index 7)" in message for message in messages)
    result = monitor.results["initial"][-1]
    assert result.layers == ("last", "root", "first")
    assert places(result) == places(result, of_reference=True) == {"root": (7,)}
    assert set(named_samples(result)) >= {7}  # The first layer is defined, and sample 7 dominates it.
    assert result.diagnostics.layers["root"].trace_ratios == ()


def test_a_trial_run_names_bad_samples_too():
    messages = fit(CKAMonitor(), data(range(256)), fast_dev_run=True)
    assert any("32 samples, such as dataset index" in message for message in messages)
    assert not any("effective dimension" in message for message in messages)


@pytest.mark.usefixtures("_blank_figures")
def test_a_layer_that_is_bad_for_all_samples_has_diverged():
    class Diverges(Divides):
        def on_validation_start(self):
            if self.current_epoch == 1:
                self.root.weight.data[3] = torch.nan

    seed_everything(0, verbose=False)
    monitor, loader = CKAMonitor(), DataLoader(data(), batch_size=32)
    with pytest.warns(UserWarning) as caught:
        trainer(monitor, max_epochs=2).fit(Diverges(), loader, loader)
    messages = [str(w.message) for w in caught]
    assert any("NaN or infinite for all samples, as after training has diverged: root, last" in m for m in messages)
    result = monitor.results["initial"][-1]
    assert places(result) == {}
    assert not torch.isnan(result.matrix[0, 0])


def test_samples_that_are_too_far_for_float32_have_their_own_reason():
    x = torch.randn(64, 16)
    far, mixed = x.clone(), x.clone()
    far[5] *= 1e25
    mixed[5] *= 1e25
    mixed[9, 0] = torch.nan
    bank = bank_of_features([[x, far, mixed]], ("x", "far", "mixed"))
    states = row_states(bank.batches[0].grams)
    assert states[0].any().item() is False
    assert (states[1].nonzero().flatten().tolist(), states[1, 5]) == ([5], TOO_FAR)
    assert (states[2].nonzero().flatten().tolist(), states[2, 5], states[2, 9]) == ([5, 9], TOO_FAR, NOT_FINITE)
    with pytest.warns(UserWarning) as caught:
        result = compare_banks(bank, bank)
    messages = " ".join(str(w.message) for w in caught)
    assert "layers with outliers beyond floating-point precision: far" in messages
    assert "whose activations are NaN or infinite for some samples: mixed" in messages
    assert places(result) == {"mixed": (9,)}


@pytest.mark.parametrize("float16", [False, True])
def test_banks_on_disk_keep_the_names(tmp_path, float16):
    probe_data = data([3])
    for name in "ab":
        bank = GramBank.from_model(Divides(), DataLoader(probe_data, 32), progress_bar=False)
        bank.save(tmp_path / name, float16=float16)
    with pytest.warns(UserWarning, match=r"first in the input \(dataset index 3\)"):
        compare_banks(tmp_path / "a", tmp_path / "b")


@pytest.mark.parametrize("n", [4, 5, 9, 64])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_the_bad_rows_of_a_layer_are_found_wherever_they_are(n, dtype):
    x = torch.randn(n, 40).to(dtype)
    for value in (torch.nan, torch.inf, -torch.inf):
        for rows in ([0], [n - 1], [1, 2], range(n // 2 + 1), range(n)):
            bad = x.clone()
            bad[list(rows), 3] = value
            packed = pack_features([bad, x])
            assert row_states(packed)[0].nonzero().flatten().tolist() == list(rows)
            assert not row_states(packed)[1].any()


def test_many_samples_are_counted_and_the_lowest_are_named():
    with pytest.warns(
        UserWarning, match=r"the input \(20 samples, such as dataset index 30, 31, 32, 33, 34, 35, 36, 37\)"
    ):
        compare_models(Divides(), Divides(), DataLoader(data(range(30, 50)), 32), progress_bar=False)
