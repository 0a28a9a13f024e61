"""`CKAMonitor` in a Trainer: when it compares, and that it leaves training alone."""

import copy
import warnings

import pytest
import torch
from conftest import Net, dataset, loaders, trainer
from fitting import NoValidation, fit
from lightning.pytorch import LightningModule, seed_everything
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning_cka import CKAMonitor
from torch import nn
from torch.utils.data import DataLoader

# Small models and probe sets are flagged, which these tests do not check; see tests/compare/test_flags.py.
pytestmark = [
    pytest.mark.filterwarnings("ignore:CKA( with '.*')?. layers (that|whose)"),
    pytest.mark.usefixtures("_blank_figures"),
]


class Wide(Net):
    def __init__(self):
        super().__init__(width=32)


class NeedsForwardFn(Net):
    def forward(self, x, y):
        return super().forward(x)

    def validation_step(self, batch, batch_idx):
        self(*batch)

    def training_step(self, batch, batch_idx):
        return self(*batch).mean()


def save(content):
    torch.save(content, "reference.pt")
    return "reference.pt"


@pytest.mark.parametrize("batch_size", [16, 48])
def test_training_is_the_same_with_and_without_the_callback(tmp_path, batch_size):
    """With dropout, batch norm, shuffling, and references of every kind."""
    torch.save({"state_dict": Net().state_dict()}, tmp_path / "frozen.ckpt")

    class Draws(Callback):
        """Records the global random numbers."""

        def __init__(self):
            self.draws = []

        def on_train_batch_start(self, *args):
            self.draws.append(torch.rand(()).item())

    def run(*monitors):
        seed_everything(3, workers=True, verbose=False)
        model, draws = Net(), Draws()
        trainer(*monitors, draws).fit(model, *loaders(batch_size))
        return model.state_dict(), draws.draws

    plain, plain_draws = run()
    monitor = CKAMonitor(["initial", "previous", "self", tmp_path / "frozen.ckpt", Net()])
    watched, draws = run(monitor)
    assert len(monitor.results["frozen"]) == 2
    assert draws == plain_draws
    assert all(torch.equal(value, watched[name]) for name, value in plain.items())


@pytest.mark.usefixtures("_without_figures")
def test_every_n_epochs_and_validation_intervals():
    monitor = CKAMonitor(every_n_epochs=2)
    fit(monitor, max_epochs=5)
    assert [r.epoch for r in monitor.results["initial"]] == [1, 3]
    monitor = CKAMonitor()
    _, _used = fit(monitor, val_check_interval=0.5)
    assert [(r.epoch, r.step) for r in monitor.results["initial"]] == [(0, 3), (0, 7), (1, 11), (1, 15)]
    monitor = CKAMonitor("previous")
    fit(monitor, check_val_every_n_epoch=2, max_epochs=4, num_sanity_val_steps=0)
    assert [r.epoch for r in monitor.results["previous"]] == [1, 3]


@pytest.mark.usefixtures("_without_figures")
def test_without_a_validation_loop_a_dataloader_is_compared_after_each_training_epoch():
    probe = DataLoader(dataset(64, seed=5), batch_size=16, shuffle=True)
    monitor = CKAMonitor(dataloader=probe)
    used = trainer(monitor)
    used.fit(NoValidation(), loaders()[0])
    assert [r.num_samples for r in monitor.results["initial"]] == [64, 64]
    assert "cka/initial/mean" in used.callback_metrics


def test_fast_dev_run_writes_nothing_and_checks_everything(tmp_path):
    monitor = CKAMonitor(["initial", "self"], dirpath=tmp_path / "figures")
    fit(monitor, fast_dev_run=True)
    assert monitor.results["initial"][0].num_samples == 32
    assert not (tmp_path / "figures").exists()


@pytest.mark.usefixtures("_without_figures")
def test_validate_alone_compares_with_frozen_references_and_itself(tmp_path):
    torch.save(Net().state_dict(), tmp_path / "a.pt")
    monitor = CKAMonitor(["initial", "self", tmp_path / "a.pt"])
    used = trainer(monitor)
    with pytest.warns(UserWarning, match="no 'initial' to compare with"):
        used.validate(Net(), loaders()[1], verbose=False)
    assert list(monitor.results) == ["self", "a"]
    assert "cka/a/mean" in used.callback_metrics
    used.fit(Net(), *loaders())
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*to compare with")
        used.validate(Net(), loaders()[1], verbose=False)
    assert len(monitor.results["initial"]) == 3


def test_trainer_test_compares_nothing():
    class Tested(Net):
        def test_step(self, batch, batch_idx):
            self.log("x", self(batch[0]).mean())

    monitor = CKAMonitor()
    trainer(monitor).test(Tested(), loaders()[1], verbose=False)
    assert monitor.results == {}


def test_validate_after_training_does_not_change_the_history_of_training(tmp_path):
    checkpoint = ModelCheckpoint(tmp_path, filename="first", save_top_k=-1, every_n_epochs=2)
    monitor = CKAMonitor(["initial", "previous"], dirpath=tmp_path / "figures")
    model, used = fit(monitor, checkpoint, max_epochs=3, enable_checkpointing=True)
    previous, files = monitor.references[1].bank, set(tmp_path.rglob("*.png"))
    drift = (tmp_path / "figures" / "initial" / "drift.png").read_bytes()
    used.validate(model, loaders()[1], ckpt_path=tmp_path / "first.ckpt", verbose=False)
    results = monitor.results["initial"]
    assert [(r.epoch, r.step) for r in results] == [(0, 7), (1, 15), (2, 23), (None, None)]
    assert torch.allclose(results[3].matrix, results[1].matrix, atol=1e-12)
    assert monitor.references[1].bank is previous
    assert {path.name for path in set(tmp_path.rglob("*.png")) - files} == {"heatmap-validate.png"}
    assert (tmp_path / "figures" / "initial" / "drift.png").read_bytes() == drift


@pytest.mark.usefixtures("_without_figures")
def test_stage_and_model_are_restored_after_an_exception():
    calls = 0

    def forward_fn(module, batch):
        nonlocal calls
        calls += 1
        if calls > 12:  # Two calls of the dry run and 8 of the initial bank come before those of the first epoch.
            raise RuntimeError("in forward_fn")
        module(batch[0])

    class After(Callback):
        def on_exception(self, trainer, module, exception):
            hooks = any(m._forward_hooks for m in module.modules())
            self.state = (
                str(exception),
                trainer.state.stage == "validate",
                module.training,
                hooks,
                "log" in vars(module),
            )

    after, model = After(), Net()
    with pytest.raises(RuntimeError, match="in forward_fn"):
        fit(CKAMonitor(forward_fn=forward_fn), after, model=model, max_epochs=3)
    # The exception is raised in the validation epoch, in which the model is in evaluation mode.
    assert after.state == ("in forward_fn", True, False, False, False)
    with pytest.raises(ValueError, match="could not be shown"):
        fit(CKAMonitor(forward_fn=lambda module, batch: module("text")), after, model=Net())
    assert after.state[1:] == (False, True, False, False)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (
            lambda: CKAMonitor("inital"),
            ValueError,
            r"unknown reference 'inital'; expected one of \('initial', 'previous', 'self'\), 'previous:N'",
        ),
        (lambda: CKAMonitor("missing.ckpt"), FileNotFoundError, "no reference checkpoint 'missing.ckpt'"),
        (lambda: CKAMonitor([]), ValueError, "reference is empty"),
        (lambda: CKAMonitor(Net), TypeError, "an instance, not a class.*conftest.Net"),
        (
            lambda: CKAMonitor(["initial", 3.5]),
            TypeError,
            "a name, the number of an epoch, a path or a module .*but is 3.5",
        ),
        (lambda: CKAMonitor(kernel="rbff"), ValueError, "unknown kernel 'rbff'"),
        (
            lambda: CKAMonitor(kernel="precomputed"),
            ValueError,
            "works only with MinibatchCKA.update and functional.cka",
        ),
        (lambda: CKAMonitor(feature_fn="max"), ValueError, "unknown feature_fn 'max'"),
        (lambda: CKAMonitor(every_n_epochs=0), ValueError, "every_n_epochs must be at least 1, but is 0"),
        (lambda: CKAMonitor(batch_size=0), ValueError, "batch_size must be at least 1, but is 0"),
        (lambda: CKAMonitor(gram_batch_size=3), ValueError, "gram_batch_size must be at least 4, but is 3"),
        (lambda: CKAMonitor(num_samples=3), ValueError, "num_samples must be at least 4, but is 3"),
        (
            lambda: CKAMonitor(reference_layers="net"),
            ValueError,
            "layers of a reference that is a module, but there is none",
        ),
        (lambda: CKAMonitor(layers=3), TypeError, "name patterns or module classes, but"),
    ],
)
def test_invalid_arguments_raise_in_the_constructor(make, error, message):
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize(
    ("monitor", "model", "message"),
    [
        (lambda: CKAMonitor(layers="nett.*"), Net, "'nett.\\*' matches no module; closest: 'net."),
        (lambda: CKAMonitor(dataloader_idx=1), Net, "dataloader_idx is 1, but there are 1 validation loaders"),
        (
            lambda: CKAMonitor(),
            NeedsForwardFn,
            "NeedsForwardFn could not be shown a probe batch: pass forward_fn=.*takes .x, y., the batch is a list",
        ),
        (
            lambda: CKAMonitor(nn.ModuleDict({"other": nn.Linear(8, 3)})["other"]),
            Net,
            "reference 'Linear': layer pattern 'net.0' .*reference_layers=",
        ),
        (
            lambda: CKAMonitor(nn.Sequential(nn.Linear(5, 3)), reference_layers="0"),
            Net,
            "reference 'Sequential': Sequential could not be shown",
        ),
        (
            lambda: CKAMonitor(save(Wide().state_dict())),
            Net,
            r"another architecture than Net: mismatched: head.weight \(3, 32\) instead of \(3, 16\)",
        ),
        (lambda: CKAMonitor(save({"a": torch.ones(1)})), Net, "missing: head.bias.*; unexpected: a"),
        (
            lambda: CKAMonitor(save({"state_dict": Net().state_dict(), "hparams": Net})),
            Net,
            "weights_only=True.* rejects.*If you trust the file",
        ),
        (lambda: CKAMonitor(save([1, 2])), Net, "'reference.pt' is no checkpoint"),
    ],
)
def test_invalid_models_and_data_raise_before_the_first_training_step(monitor, model, message):
    module, steps = model(), []
    module.on_train_batch_start = lambda *args: steps.append(1)
    with pytest.raises(ValueError, match=message):
        trainer(monitor()).fit(module, *loaders())
    assert steps == []
    assert module.training
    assert not any(m._forward_hooks for m in module.modules())


@pytest.mark.usefixtures("_without_figures")
def test_a_compiled_lightning_module_and_its_checkpoint(tmp_path):
    other = Net()
    torch.save(other.state_dict(), tmp_path / "other.pt")
    plain, compiled = CKAMonitor(["initial", tmp_path / "other.pt"]), CKAMonitor(["initial", tmp_path / "other.pt"])

    class Silent(Net):
        """Logs CKA only: in some versions Lightning's ``log`` fails in a compiled step, even without a callback."""

        def log(self, name, *args, **kwargs):
            if name.startswith("cka/"):
                super().log(name, *args, **kwargs)

    model = Silent()
    duplicate = copy.deepcopy(model)
    fit(plain, model=model)
    fit(compiled, model=torch.compile(duplicate, backend="eager"))
    for name in ("initial", "other"):
        for a, b in zip(plain.results[name], compiled.results[name], strict=True):
            assert a.layers == b.layers
            assert torch.allclose(a.matrix, b.matrix, atol=1e-6)


def test_monitor_is_a_lightning_callback():
    assert isinstance(CKAMonitor(), Callback)
    assert issubclass(Net, LightningModule)
