"""Which diagnostics are logged: those of layers that have had a flag, or of all layers."""

import pytest
import torch
from conftest import trainer
from lightning.pytorch import Callback, LightningModule, seed_everything
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning_cka import CKAMonitor, CKAResult
from lightning_cka.compare.diagnostics import Diagnostics, LayerDiagnostics, LeaveOneOut
from lightning_cka.compare.flags import Flag, Thresholds
from lightning_cka.monitor import logged_diagnostics
from lightning_cka.monitor.logged_diagnostics import FlaggedLayers, diagnostic_scalars
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

KINDS = {"effective_dimension", "trace_ratio", "hsic_ratio", "leave_one_out"}

pytestmark = [
    pytest.mark.usefixtures("_without_figures"),
    pytest.mark.filterwarnings("ignore:CKA( with '.*')?. layers (that|whose)"),
    pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`"),
]


class Attends(LightningModule):
    """From the third epoch on, the first layer depends on a feature in which sample 123 is far out."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(16, 32)
        self.second = nn.Linear(16, 32)
        nn.init.zeros_(self.first.weight[:, 0])
        nn.init.zeros_(self.second.weight[:, 0])

    def forward(self, x):
        return self.first(x).relu() + self.second(x)

    def training_step(self, batch, batch_idx):
        return self(batch[0]).square().mean()

    def validation_step(self, batch, batch_idx):
        pass

    def on_train_epoch_end(self):
        if self.current_epoch == 1:
            with torch.no_grad():
                self.first.weight[:, 0] += 1

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.0)


class Keys(Callback):
    """Keeps the keys of diagnostics that have a value, after each epoch."""

    def __init__(self):
        self.epochs = []

    def on_train_epoch_end(self, trainer, pl_module):
        self.epochs.append({key for key in trainer.callback_metrics if "diagnostics" in key})


def fit(monitor, *callbacks, epochs=4, **kwargs):
    seed_everything(0, verbose=False)
    samples = torch.randn(512, 16, generator=torch.Generator().manual_seed(0))
    samples[123, 0] = 100
    loader = DataLoader(TensorDataset(samples), batch_size=64)
    fit_kwargs = {"ckpt_path": kwargs.pop("ckpt_path", None)}
    used = trainer(monitor, *callbacks, max_epochs=epochs, **kwargs)
    used.fit(Attends(), loader, loader, **fit_kwargs)
    return used


def monitor(**kwargs):
    options = {"dirpath": "cka", "thresholds": Thresholds(standard_error=None, dominant_direction=None)}
    return CKAMonitor(["initial", "previous"], ["first", "second"], **(options | kwargs))


def keys(*layers, prefix="cka_diagnostics/"):
    return {f"{prefix}{layer}/{kind}" for layer in layers for kind in KINDS}


def test_a_layer_is_logged_from_its_first_flag_on():
    seen = Keys()
    watched = monitor()
    used = fit(watched, seen)
    assert [bool(each.flags) for each in watched.results["initial"]] == [False, False, True, True]
    assert seen.epochs == [set(), set(), keys("first"), keys("first")]
    values = watched.results["previous"][-1].diagnostics.layers["first"]
    assert watched.results["previous"][-1].flags == ()  # This epoch and the one before are alike.
    assert used.callback_metrics["cka_diagnostics/first/trace_ratio"] == pytest.approx(values.trace_ratio)


def test_all_layers_are_logged_on_request():
    seen = Keys()
    fit(monitor(log_diagnostics="all"), seen)
    assert seen.epochs == [keys("first", "second")] * 4


def test_layers_that_had_a_flag_before_a_resume_are_logged_after_it():
    checkpoint = ModelCheckpoint("checkpoints", save_top_k=-1, every_n_epochs=1, filename="{epoch}")
    fit(monitor(), checkpoint, epochs=3, enable_checkpointing=True)

    seen = Keys()
    resumed = monitor(thresholds=Thresholds.off())  # No layer gets a flag any more.
    fit(resumed, seen, epochs=4, ckpt_path="checkpoints/epoch=2.ckpt")
    assert [bool(each.flags) for each in resumed.results["initial"]] == [False, False, True, False]
    assert seen.epochs[-1] == keys("first")


@pytest.mark.parametrize(
    ("prefix", "expected"),
    [
        ("cka/", "cka_diagnostics/"),
        ("cka", "cka_diagnostics/"),
        ("runs/a/", "runs/a_diagnostics/"),
        ("a-", "a-diagnostics/"),
        ("", "diagnostics/"),
        ("/", "diagnostics/"),
    ],
)
def test_the_prefix_follows_log_key_prefix(prefix, expected):
    assert CKAMonitor(log_key_prefix=prefix)._settings.logged_diagnostics("cka") == expected
    several = CKAMonitor(log_key_prefix=prefix, kernel=["linear", "rbf"])
    assert several._settings.logged_diagnostics("rbf") == f"{expected}rbf/"


def test_diagnostics_come_after_cka_in_a_sorted_list():
    used = fit(monitor(log_diagnostics="all"), epochs=1)
    groups = [key.split("/")[0] for key in sorted(used.callback_metrics)]
    assert list(dict.fromkeys(groups)) == ["cka", "cka_diagnostics"]


def test_each_measure_has_its_own_flagged_layers():
    seen = Keys()
    fit(monitor(measures=["cka", "mutual_knn"]), seen, epochs=3)
    assert seen.epochs[-1] >= keys("first", prefix="cka_diagnostics/cka/")
    assert not any("second" in key for key in seen.epochs[-1])
    all_of = {f"cka_diagnostics/mutual_knn/first/{kind}" for kind in KINDS - {"leave_one_out"}}
    seen = Keys()
    fit(monitor(measures=["cka", "mutual_knn"], log_diagnostics="all"), seen, epochs=1)
    assert seen.epochs[0] > all_of


def flagged_result(*flags):
    layers = {name: LayerDiagnostics(3.0) for name in "ab"}
    return CKAResult(torch.eye(2), ("a", "b"), ("a", "b"), diagnostics=Diagnostics(layers, flags=flags), epoch=0)


def test_flags_of_the_reference_and_of_the_input_name_no_layer_of_the_model():
    settings = CKAMonitor()._settings
    found = FlaggedLayers().update(
        {
            "initial": [flagged_result(Flag("a", "trace_ratio", 30.0, 20.0, of_reference=True))],
            "previous": [flagged_result(Flag("the input", "bad_sample", 1.0, 0.0))],
        },
        settings,
    )
    assert not found["linear"] & {"a", "b"}


def test_all_processes_log_what_one_of_them_flags(monkeypatch):
    """On different machines, rounding may put a value on two sides of a threshold."""
    monkeypatch.setattr(logged_diagnostics, "all_gather_objects", lambda own: [own, {"linear": {"b"}}])
    found = FlaggedLayers().update(
        {"initial": [flagged_result(Flag("a", "trace_ratio", 30.0, 20.0))]}, CKAMonitor()._settings
    )
    assert found == {"linear": {"a", "b"}}


def test_only_the_first_look_is_at_all_results():
    flagged, settings = FlaggedLayers(), CKAMonitor()._settings
    history = [flagged_result(Flag("a", "trace_ratio", 30.0, 20.0)), flagged_result()]
    assert flagged.update({"initial": history}, settings) == {"linear": {"a"}}
    history += [flagged_result(Flag("b", "copies", 3.0, 0.0))]
    assert flagged.update({"initial": history}, settings) == {"linear": {"a", "b"}}


def test_a_comparison_that_failed_has_undefined_diagnostics():
    failed = CKAResult(torch.full((1, 1), torch.nan), ("a",), ("a",))
    scalars = diagnostic_scalars([failed])
    assert set(scalars["a"]) == {f"a/{kind}" for kind in KINDS - {"leave_one_out"}}
    assert all(value != value for value in scalars["a"].values())
    changes = {"a": LeaveOneOut(1, 0.5, 0.25)}
    compared = CKAResult(torch.eye(1), ("a",), ("a",), diagnostics=Diagnostics(leave_one_out=changes))
    assert diagnostic_scalars([compared]) == {"a": {"a/leave_one_out": 0.25}}


def test_callbacks_that_monitor_a_diagnostic_need_all_of_them():
    key = "cka_diagnostics/first/trace_ratio"
    with pytest.raises(ValueError, match=rf"looks for '{key}', which .* only after .* a flag; log_diagnostics='all'"):
        fit(monitor(), EarlyStopping(key))
    with pytest.raises(ValueError, match=rf"'cka/diagnostics/first/trace_ratio', which is called '{key}' now, which"):
        fit(monitor(), EarlyStopping("cka/diagnostics/first/trace_ratio"))
    with pytest.raises(ValueError, match=rf"which is called '{key}' now$"):
        fit(monitor(log_diagnostics="all"), EarlyStopping("cka/diagnostics/first/trace_ratio"))
    with pytest.raises(ValueError, match="which CKAMonitor does not log"):
        fit(monitor(log_diagnostics="all"), EarlyStopping("cka_diagnostics/frist/trace_ratio"))
    fit(monitor(), EarlyStopping(key, strict=False))
    stopping = EarlyStopping(key, patience=9)
    fit(monitor(log_diagnostics="all"), stopping)
    assert stopping.best_score.isfinite()


def test_without_a_prefix_others_may_log_a_key_like_a_diagnostic():
    class LogsItself(Attends):
        def validation_step(self, batch, batch_idx):
            self.log("diagnostics/own", 1.0)

    seed_everything(0, verbose=False)
    loader = DataLoader(TensorDataset(torch.randn(512, 16)), batch_size=64)
    used = trainer(CKAMonitor("self", log_key_prefix=""), EarlyStopping("diagnostics/own"), max_epochs=1)
    used.fit(LogsItself(), loader, loader)
    with pytest.raises(ValueError, match="looks for 'diagnostics/first/trace_ratio', which CKAMonitor logs only after"):
        fit(CKAMonitor("self", log_key_prefix=""), EarlyStopping("diagnostics/first/trace_ratio"))


def test_an_unknown_choice_raises():
    with pytest.raises(ValueError, match="log_diagnostics must be 'flagged' or 'all', but is 'none'"):
        CKAMonitor(log_diagnostics="none")
