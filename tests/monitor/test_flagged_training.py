"""What `CKAMonitor` reports about misleading values during training, and that it reports nothing about healthy ones."""

import naive
import pytest
import torch
from conftest import trainer
from lightning.pytorch import LightningModule, seed_everything
from lightning.pytorch.loggers import TensorBoardLogger
from lightning_cka import CKAMonitor, CKAResult, compare_models
from lightning_cka.compare.flags import Thresholds
from lightning_cka.hsic.kernels import RBF
from lightning_cka.monitor.logged_scalars import cka_scalars
from lightning_cka.plotting import plot_cka
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

pytestmark = pytest.mark.usefixtures("_blank_figures")


class Wide(LightningModule):
    """Two wide layers without flags."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(16, 32)
        self.mean = nn.Linear(32, 32)

    def forward(self, x):
        return self.mean(self.first(x).relu())

    def training_step(self, batch, batch_idx):
        return (self(batch[0]) - batch[0].repeat(1, 2).roll(3, 1)).square().mean()

    def validation_step(self, batch, batch_idx):
        pass

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=1e-2)


def data(outlier=None):
    x = torch.randn(512, 16, generator=torch.Generator().manual_seed(0))
    if outlier is not None:
        x[outlier] *= 100
    return TensorDataset(x)


def fit(*monitors, outlier=None, **kwargs):
    seed_everything(0, verbose=False)
    model, used = Wide(), trainer(*monitors, **kwargs)
    used.fit(model, DataLoader(data(), batch_size=64, shuffle=True), DataLoader(data(outlier), batch_size=64))
    return model, used


def test_healthy_data_give_no_warning():
    """Other warnings are errors in this test."""
    monitor = CKAMonitor(["initial", "previous", "self"], kernel=["linear", "rbf", "distance"])
    with pytest.warns(UserWarning, match="layer 'mean' is logged as"):  # A positive control.
        _, used = fit(monitor, max_epochs=3)
    assert all(result.flags == () for results in monitor.results.values() for result in results)
    assert not any("diagnostics" in key for key in used.callback_metrics)


def test_an_outlier_is_reported_in_the_console_in_tensorboard_and_in_figures(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    logger = TensorBoardLogger(tmp_path, name="tb")
    monitor = CKAMonitor(layers="first")
    with pytest.warns(UserWarning) as caught:
        fit(monitor, outlier=123, max_epochs=3, logger=logger, log_every_n_steps=1)
    (message,) = [str(w.message) for w in caught if "single samples dominate" in str(w.message)]  # Once per run.
    assert "CKA with 'initial'" in message
    assert "at dataset index 123)" in message
    assert "first (" in message

    result = monitor.results["initial"][-1]
    flags = [flag for flag in result.flags if flag.reason == "trace_ratio"]
    assert {(flag.layer, flag.samples, flag.of_reference) for flag in flags} == {
        ("first", (123,), False),
        ("first", (123,), True),
    }
    _, ax = plot_cka(result)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["⚠ first"]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["⚠ first"]
    note = " ".join(ax.texts[-1].get_text().split())
    assert "⚠ single samples with > 20 times the mean squared distance: first (" in note
    assert "at dataset index 123" in note

    events = EventAccumulator(logger.log_dir, size_guidance={"scalars": 0, "tensors": 0})
    events.Reload()
    key = "cka_diagnostics/first/trace_ratio"
    values = [event.value for event in events.Scalars(key)]
    assert values == pytest.approx([r.diagnostics.layers["first"].trace_ratio for r in monitor.results["initial"]])
    assert min(values) > 20
    for name in ("effective_dimension", "hsic_ratio", "leave_one_out"):
        assert len(events.Scalars(f"cka_diagnostics/first/{name}")) == 3
    text = events.Tensors("cka_diagnostics/warnings/text_summary")
    assert b"dataset index 123" in text[0].tensor_proto.string_val[0]
    assert text[0].step == 7


class Attends(Wide):
    """From the third epoch on, the first layer depends on a feature in which one sample is far out."""

    def __init__(self):
        super().__init__()
        nn.init.zeros_(self.first.weight[:, 0])

    def on_train_epoch_end(self):
        if self.current_epoch == 1:
            with torch.no_grad():
                self.first.weight[:, 0] += 1

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.0)


def test_a_flag_of_the_reference_does_not_hide_that_of_the_live_layer():
    reference, samples = Wide(), data().tensors[0]
    samples[123, 0] = 100
    monitor = CKAMonitor([reference, "previous"], "first", thresholds=Thresholds(standard_error=None))
    seed_everything(0, verbose=False)
    loader = DataLoader(TensorDataset(samples), batch_size=64)
    with pytest.warns(UserWarning) as caught:
        trainer(monitor, max_epochs=4).fit(Attends(), loader, loader)
    messages = [str(w.message) for w in caught if "single samples dominate" in str(w.message)]
    assert ["of the reference" in message for message in messages] == [True, False]
    assert len([f for f in monitor.results["Wide"][-1].flags if f.reason == "trace_ratio"]) == 2
    assert monitor.results["previous"][-1].flags == ()  # CKA is 1 with and without the sample.


def test_samples_of_a_shuffling_dataloader_are_named_by_dataset_index():
    loader = DataLoader(data(outlier=123), batch_size=64, shuffle=True)
    monitor = CKAMonitor(layers="first", dataloader=loader)
    with pytest.warns(UserWarning, match=r"single samples dominate.*at dataset index 123\)"):
        fit(monitor, max_epochs=1)
    with pytest.warns(UserWarning, match=r"single samples dominate.*at dataset index 123\)"):
        compare_models(Wide(), Wide(), loader, "first", progress_bar=False)


def test_a_fast_dev_run_gives_no_flags():
    """Warnings are errors in this test."""
    fit(CKAMonitor(layers="first"), outlier=3, fast_dev_run=True)


def test_kernels_are_tried_on_the_probe_batch_size_before_training():
    def of_five(squared):
        return squared + torch.eye(5)

    with pytest.raises(RuntimeError, match="must match the size"):
        fit(CKAMonitor(layers="first", kernel=of_five))


def test_thresholds_of_another_type_raise():
    with pytest.raises(TypeError, match=r"thresholds must be lightning_cka.Thresholds\(...\) or None, but is"):
        CKAMonitor(thresholds={"trace_ratio": 3})


def test_own_thresholds():
    monitor = CKAMonitor(thresholds=Thresholds.off(), layers="first", log_diagnostics="all")
    _, used = fit(monitor, outlier=123)
    assert monitor.results["initial"][-1].flags == ()
    assert used.callback_metrics["cka_diagnostics/first/trace_ratio"] > 20


def test_each_kernel_has_its_own_keys_from_one_pass(tmp_path):
    calls = []

    def forward_fn(module, batch):
        calls.append(module)
        return module(batch[0])

    def cauchy(squared):
        return 1 / (1 + squared)

    kernels = ["linear", "rbf", RBF(0.2), "distance", cauchy]
    monitor = CKAMonitor(["initial", "previous"], "first", kernel=kernels, forward_fn=forward_fn, dirpath=tmp_path)
    _, used = fit(monitor, max_epochs=2)
    names = ["linear", "rbf", "rbf-2", "distance", "cauchy"]
    assert list(monitor.results) == [f"{reference}/{name}" for reference in ("initial", "previous") for name in names]
    assert len(calls) == 2 + 8 + 2 * 8  # The dry run, the initial bank, and two epochs.
    values = set()
    for key, results in monitor.results.items():
        value = results[-1].matrix.item()
        values.add(value)
        assert used.callback_metrics[f"cka/{key}/first"].item() == pytest.approx(value, abs=1e-6)
        assert (tmp_path / key / "heatmap-epoch=001-step=000015.png").exists()
        assert (tmp_path / key / "drift.png").exists()
    assert len(values) == 10
    assert [results[-1].kernel for results in list(monitor.results.values())[:5]] == [
        "linear",
        "rbf",
        "rbf(0.2)",
        "distance",
        "cauchy",
    ]
    assert not any("diagnostics" in key for key in used.callback_metrics)  # No layer has a flag.


@pytest.mark.parametrize("kernel", ["linear", "rbf", "distance"])
def test_kernels_in_training_give_the_result_of_compare_models(kernel):
    reference = Wide()
    monitor = CKAMonitor(reference, "first", kernel=kernel)
    model, _ = fit(monitor, max_epochs=1)
    batches = [batch.data for batch in monitor._session.probe.probe.batches()]
    offline = compare_models(model, reference, batches, "first", kernel=kernel, progress_bar=False)
    result = monitor.results["reference"][-1]
    assert torch.allclose(result.matrix, offline.matrix, rtol=1e-10)
    assert torch.allclose(result.standard_error, offline.standard_error, rtol=1e-6)
    assert result.mean_standard_error == pytest.approx(offline.mean_standard_error, rel=1e-6)


def test_the_biased_estimator():
    monitor = CKAMonitor("self", ["first", "mean"], unbiased=False)
    model, _ = fit(monitor, max_epochs=1)
    with torch.no_grad():
        batches = [batch.data[0] for batch in monitor._session.probe.probe.batches()]
        shown = [[model.first(x), model.mean(model.first(x).relu())] for x in batches]
    expected = naive.minibatch_cka(shown, shown, naive.biased_hsic, lambda n: (n - 1) ** 2)
    result = monitor.results["self"][-1]
    assert abs(result.matrix.numpy() - expected).max() < 1e-5
    assert not result.unbiased
    assert plot_cka(result)[1].child_axes[0].get_ylabel() == "CKA (biased)"


def test_means_are_logged_with_their_standard_error():
    monitor = CKAMonitor(["initial", "self"], "first")
    with pytest.raises(ValueError, match="only one is chosen"):
        fit(monitor)
    monitor = CKAMonitor(["initial", "self"])
    with pytest.warns(UserWarning, match="the CKA of layer 'mean' is logged as 'cka/initial/mean-2'"):
        _, used = fit(monitor, max_epochs=1)
    for name in ("initial", "self"):
        result = monitor.results[name][-1]
        assert 0 < result.mean_standard_error < 0.05
        assert used.callback_metrics[f"cka/{name}/mean_se"].item() == pytest.approx(result.mean_standard_error)


def test_layers_named_like_other_keys():
    layers = ("mean", "mean_se", "x", "mean_lower")
    result = CKAResult(torch.eye(4), layers, layers, mean_standard_error=0.5, effective_batches=8)
    scalars = cka_scalars(result)
    assert scalars.pop("mean_lower") < 0.5 < 1.5 < scalars.pop("mean_upper")
    named = {"mean-2": 1.0, "mean_se-2": 1.0, "x": 1.0, "mean_lower-2": 1.0}
    assert scalars == {"mean": 1.0, "mean_se": 0.5} | named


def test_a_reference_named_diagnostics_has_another_key(tmp_path):
    torch.save(Wide().state_dict(), tmp_path / "diagnostics.pt")
    monitor = CKAMonitor([tmp_path / "diagnostics.pt", tmp_path / "diagnostics.pt"])
    assert [reference.name for reference in monitor.references] == ["diagnostics-2", "diagnostics-3"]
