"""`CKAMonitor` in a real Trainer."""

import copy
import csv
import threading
import warnings

import naive
import numpy as np
import pytest
import torch
from conftest import Net, dataset, loaders, trainer
from lightning.pytorch import LightningModule, seed_everything
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger
from lightning_cka import CKAMonitor, CKAResult, GramBank, compare_banks, compare_models
from lightning_cka.compare.trajectory import trajectories
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, SubsetRandomSampler

# Networks with two outputs and small probe sets are rightly flagged; tests/test_diagnostics.py has the flags.
pytestmark = pytest.mark.filterwarnings("ignore:CKA( with '.*')?. layers (that|whose)")


def fit(*callbacks, model=None, **kwargs):
    seed_everything(3, workers=True, verbose=False)
    model = Net() if model is None else model
    used = trainer(*callbacks, **kwargs)
    used.fit(model, *loaders())
    return model, used


@pytest.mark.parametrize("batch_size", [16, 48])
def test_training_is_bit_for_bit_what_it_is_without_the_callback(tmp_path, batch_size):
    """Dropout, batch norm, shuffling; references of every kind."""
    torch.save({"state_dict": Net().state_dict()}, tmp_path / "frozen.ckpt")

    class Draws(Callback):
        """A bystander that sees the global random numbers."""

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


def test_results_are_those_of_the_naive_reference():
    """The probe set's own samples, and the activations of the weights at the time."""
    seen = {}

    class Record(Callback):
        """Plain copies of activations at the same moments, by hand."""

        def activations(self, model):
            probe = monitor._session.probe.probe
            model.eval()
            with torch.no_grad():
                batches = [x for x, _ in (b.data for b in probe.batches())]
                result = [[model.net[:i](x) for i in (1, 2, 5)] + [model(x)] for x in batches]
            model.train()
            return result

        def on_train_start(self, trainer, model):
            seen["initial"] = self.activations(model)

        def on_validation_epoch_end(self, trainer, model):
            if not trainer.sanity_checking:
                seen[trainer.current_epoch] = self.activations(model)

    monitor = CKAMonitor(["initial", "previous", "self"])
    fit(monitor, Record())
    assert [r.layers for r in monitor.results["self"]] == [("net.0", "net.1", "net.4", "head")] * 2
    before = "initial"
    for epoch in (0, 1):
        for name, reference in (("initial", seen["initial"]), ("previous", seen[before]), ("self", seen[epoch])):
            result = monitor.results[name][epoch]
            assert abs(result.matrix.numpy() - naive.minibatch_cka(seen[epoch], reference)).max() < 1e-5
            assert (result.num_samples, result.num_batches, result.epoch) == (128, 8, epoch)
            assert (result.standard_error < 0.2).all()
        before = epoch
    assert torch.equal(monitor.results["self"][1].matrix.diagonal(), torch.ones(4, dtype=torch.float64))
    assert (monitor.results["initial"][1].matrix.diagonal() < 0.999).all()


def test_frozen_references(tmp_path):
    """A Lightning checkpoint, a plain state_dict and a module of the same weights are the same reference."""
    other = Net()
    plain = trainer(max_epochs=1)
    plain.fit(other, *loaders())
    plain.save_checkpoint(tmp_path / "other.ckpt")
    torch.save(other.state_dict(), tmp_path / "plain.pt")
    before = {name: value.clone() for name, value in other.state_dict().items()}
    monitor = CKAMonitor([str(tmp_path / "other.ckpt"), tmp_path / "plain.pt", other, other])
    model, _ = fit(monitor)
    assert list(monitor.results) == ["other", "plain", "Net", "Net-2"]
    matrices = [results[-1].matrix for results in monitor.results.values()]
    assert all(torch.equal(matrix, matrices[0]) for matrix in matrices)
    assert other.training
    assert all(torch.equal(value, before[name]) for name, value in other.state_dict().items())
    batches = [b.data for b in monitor._session.probe.probe.batches()]
    offline = compare_models(model, other, batches, progress_bar=False)
    assert torch.allclose(offline.matrix, matrices[0], atol=1e-12)


def test_a_reference_of_another_architecture():
    reference = nn.Sequential(nn.Linear(8, 5), nn.Tanh(), nn.Linear(5, 4))
    monitor = CKAMonitor(reference, layers=["net.*", "head"], reference_layers=nn.Linear)
    _, used = fit(monitor)
    result = monitor.results["Sequential"][-1]
    assert result.reference_layers == ("0", "2")
    assert result.matrix.shape == (7, 2)
    assert result.same_named() == {}
    assert used.callback_metrics["cka/Sequential/mean"].item() == pytest.approx(result.matrix.mean().item(), abs=1e-6)


def test_the_live_model_is_shown_the_probe_set_once_per_epoch(tmp_path):
    torch.save(Net().state_dict(), tmp_path / "a.pt")
    frozen, calls = Net(), {"live": 0, "frozen": 0}

    def forward_fn(module, batch):
        calls["frozen" if getattr(module, "is_frozen", False) else "live"] += 1
        return module(batch[0])

    frozen.is_frozen = True
    fit(CKAMonitor(["initial", "self", frozen], forward_fn=forward_fn), max_epochs=3)
    assert calls == {"live": 2 + 8 + 3 * 8, "frozen": 2 + 8}  # Two of a dry run; 8 batches.


def test_scalars_and_those_who_monitor_them(tmp_path):
    checkpoint = ModelCheckpoint(tmp_path / "best", monitor="cka/initial/mean", mode="min", save_top_k=1)
    stopping = EarlyStopping("cka/initial/head", patience=0, mode="max")  # CKA falls, so it stops at once.
    monitor = CKAMonitor(["initial", "self"])
    _, used = fit(monitor, checkpoint, stopping, max_epochs=9, enable_checkpointing=True)
    result = monitor.results["initial"][-1]
    metrics = used.callback_metrics
    assert used.current_epoch < 9
    assert checkpoint.best_model_score.item() == pytest.approx(
        min(r.mean() for r in monitor.results["initial"]), abs=1e-6
    )
    assert metrics["cka/initial/mean"].item() == pytest.approx(result.matrix.diagonal().mean().item(), abs=1e-6)
    for name, value in result.same_named().items():
        assert metrics[f"cka/initial/{name}"].item() == pytest.approx(value, abs=1e-6)
    own = monitor.results["self"][-1].matrix
    off_diagonal = (own.sum() - 4) / 12
    assert metrics["cka/self/mean"].item() == pytest.approx(off_diagonal.item(), abs=1e-6)
    assert set(metrics) >= {"cka/self/mean", "val_loss"}
    assert "cka/self/head" not in metrics


def test_when_it_is_due():
    monitor = CKAMonitor(every_n_epochs=2)
    fit(monitor, max_epochs=5)
    assert [r.epoch for r in monitor.results["initial"]] == [1, 3]
    monitor = CKAMonitor()
    _, _used = fit(monitor, val_check_interval=0.5)
    assert [(r.epoch, r.step) for r in monitor.results["initial"]] == [(0, 3), (0, 7), (1, 11), (1, 15)]
    monitor = CKAMonitor("previous")
    fit(monitor, check_val_every_n_epoch=2, max_epochs=4, num_sanity_val_steps=0)
    assert [r.epoch for r in monitor.results["previous"]] == [1, 3]


def test_without_a_validation_loop_an_own_dataloader_is_compared_after_each_training_epoch():
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


def test_test_does_nothing():
    class Tested(Net):
        def test_step(self, batch, batch_idx):
            self.log("x", self(batch[0]).mean())

    monitor = CKAMonitor()
    trainer(monitor).test(Tested(), loaders()[1], verbose=False)
    assert monitor.results == {}


def test_results_are_on_disk_as_they_come(tmp_path):
    class Fails(Net):
        def on_train_epoch_start(self):
            if self.current_epoch == 2:
                raise RuntimeError("out of luck")

    monitor = CKAMonitor(["initial", "self"], dirpath=tmp_path)
    with pytest.raises(RuntimeError, match="out of luck"):
        fit(monitor, model=Fails(), max_epochs=3)
    for name, results in monitor.results.items():
        loaded = [CKAResult.load(path) for path in sorted((tmp_path / name).glob("*.json"))]
        assert [r.epoch for r in loaded] == [0, 1]
        for one, other in zip(results, loaded, strict=True):
            assert torch.equal(one.matrix, other.matrix)
            assert one.diagnostics == other.diagnostics


@pytest.mark.filterwarnings("ignore:CKA with '.*', kernel rbf. layers (that|whose)")
def test_at_the_end_there_are_tables_animations_and_trajectories(tmp_path):
    monitor = CKAMonitor(["initial", "self"], "net.*", kernel=["linear", "rbf"], dirpath=tmp_path, trajectory=True)
    logger = TensorBoardLogger(tmp_path, name="tb")
    fit(monitor, logger=logger)
    for key, results in monitor.results.items():
        rows = list(csv.DictReader((tmp_path / f"{key}.csv").read_text().splitlines()))
        assert [float(row["cka"]) for row in rows] == [v for r in results for v in r.matrix.flatten().tolist()]
        with Image.open(tmp_path / f"{key}-evolution.gif") as image:
            assert image.n_frames == 2
    names = {*(f"net.{i}" for i in range(6)), "overview", "convergence"}
    for kernel in ("linear", "rbf"):
        assert {p.stem for p in (tmp_path / "trajectory" / kernel).glob("*.png")} == names
    events = EventAccumulator(logger.log_dir, size_guidance={"images": 0}).Reload()
    tags = {tag for tag in events.Tags()["images"] if "trajectory" in tag}
    assert tags == {f"cka/trajectory/{kernel}/{name}" for kernel in ("linear", "rbf") for name in names}
    assert {event.step for tag in tags for event in events.Images(tag)} == {15}
    found = trajectories(tmp_path, kernel="rbf")
    initial = [result.matrix[1, 1] for result in monitor.results["initial/rbf"]]
    torch.testing.assert_close(found["net.1"].matrix[0, 1:], torch.stack(initial), rtol=0, atol=1e-12)


@pytest.mark.filterwarnings("ignore:CKA. layers (that|whose)")
def test_banks_of_two_runs_give_what_their_live_models_give(tmp_path):
    """Of two architectures, that were trained apart, compared offline."""

    class Other(Net):
        def __init__(self):
            super().__init__(width=24)
            self.net = nn.Sequential(nn.Linear(8, 40), nn.Tanh(), nn.Linear(40, 24))

    loader = DataLoader(dataset(128, seed=5), batch_size=16, shuffle=True)
    models = {}
    for name, model in (("one", Net()), ("other", Other())):
        monitor = CKAMonitor("self", dataloader=loader, save_banks=True, dirpath=tmp_path / name)
        models[name], _ = fit(monitor, model=model)
    banks = [GramBank.load(tmp_path / name / "banks" / "epoch=001-step=000015.safetensors") for name in models]
    offline = compare_banks(*banks)
    for model in models.values():
        model.eval()
    live = compare_models(*models.values(), loader, progress_bar=False)
    assert offline.layers == live.layers != offline.reference_layers == live.reference_layers
    torch.testing.assert_close(offline.matrix, live.matrix, rtol=0, atol=1e-12)
    torch.testing.assert_close(offline.standard_error, live.standard_error, rtol=0, atol=1e-12)
    assert (offline.epoch, offline.step, offline.reference_name) == (1, 15, "Other, epoch 1")


def test_a_trajectory_of_many_layers_is_drawn_of_some(tmp_path):
    class Deep(Net):
        def __init__(self):
            super().__init__()
            self.net = nn.Sequential(*(nn.Linear(8, 8) for _ in range(17)))
            self.overview = nn.Linear(8, 3)

        def forward(self, x):
            return self.overview(self.net(x))

    fit(CKAMonitor("self", ["overview", "net.*"], dirpath=tmp_path, trajectory=True), model=Deep(), max_epochs=1)
    found = {p.stem for p in (tmp_path / "trajectory").glob("*.png")}
    assert found == {"overview-2", "overview", "convergence", *(f"net.{i}" for i in range(15))}


def test_two_monitors_in_one_trainer():
    first, second = CKAMonitor("initial"), CKAMonitor("self", layers="net.*", log_key_prefix="other/")
    _, used = fit(first, second)
    assert {"cka/initial/mean", "other/self/mean"} <= set(used.callback_metrics)
    assert first.state_key != second.state_key


def test_two_monitors_of_one_prefix_are_refused():
    with pytest.raises(ValueError, match="log to the same keys for the diagnostics of layers: set log_key_prefix="):
        fit(CKAMonitor("initial"), CKAMonitor("self"))


def test_files_without_a_logger_and_under_the_log_dir(tmp_path):
    fit(CKAMonitor(["initial", "self"]), default_root_dir=tmp_path)
    files = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.png")}
    names = {"heatmap-epoch=000-step=000007.png", "heatmap-epoch=001-step=000015.png"}
    assert files == {f"cka/{r}/{n}" for r in ("initial", "self") for n in names} | {"cka/initial/drift.png"}


def test_a_folder_that_cannot_be_written_does_not_stop_training(tmp_path):
    (tmp_path / "file").write_text("in the way")
    monitor = CKAMonitor(dirpath=tmp_path / "file" / "figures")
    with pytest.warns(UserWarning) as caught:
        fit(monitor)
    messages = [str(w.message) for w in caught]
    for what in (
        "a bank could not be written, resuming will lack it, training goes on",
        "figures or files could not be written, training goes on",
    ):
        assert any(what in message for message in messages)
    assert len(monitor.results["initial"]) == 2


def test_nan_activations_at_run_time_are_nan_cells_and_one_warning():
    class Breaks(Net):
        def on_train_epoch_end(self):
            with torch.no_grad():
                self.head.weight[0, 0] = torch.nan

    monitor = CKAMonitor(["initial", "self"])
    with pytest.warns(UserWarning) as caught:
        fit(monitor, model=Breaks(), max_epochs=3, check_val_every_n_epoch=1)
    matrix = monitor.results["initial"][-1].matrix
    assert matrix[3].isnan().all()
    said = [str(w.message) for w in caught if "CKA is nan" in str(w.message)]
    assert len(said) == len(set(said))
    named = [name for text in said for name in text.split(": ")[1].split(", ")]
    assert sorted(named) == ["head", "net.0", "net.1", "net.4"]
    assert len(monitor.results["self"]) == 3


def test_a_dead_layer_does_not_stop_early_stopping():
    class Dead(Net):
        def __init__(self):
            super().__init__()
            nn.init.zeros_(self.head.weight).requires_grad_(False)
            self.head.bias.requires_grad_(False)

    monitor = CKAMonitor()
    with pytest.warns(UserWarning, match="no variance: head, head \\(reference\\)|no variance: head"):
        _, used = fit(monitor, EarlyStopping("cka/initial/mean", patience=9), model=Dead(), max_epochs=3)
    assert used.current_epoch == 3
    assert monitor.results["initial"][-1].matrix[3].isnan().all()
    assert 0 < monitor.results["initial"][-1].mean() < 1


def test_inputs_that_differ_from_pass_to_pass_are_left_out_and_said():
    class Restless(torch.utils.data.Dataset):
        """Draws from a generator that no seed reaches."""

        def __init__(self):
            self.generator = torch.Generator().manual_seed(0)

        def __len__(self):
            return 64

        def __getitem__(self, index):
            return torch.randn(8, generator=self.generator), torch.tensor(index % 3)

    monitor = CKAMonitor()
    used = trainer(monitor, max_epochs=1)
    with pytest.warns(UserWarning, match="8 probe batches were left out of the comparison with 'initial'"):
        used.fit(Net(), loaders()[0], DataLoader(Restless(), batch_size=16))
    assert monitor.results["initial"][0].matrix.isnan().all()


def test_batch_hooks_run_as_in_validation():
    """A batch is brought to the model as the validation loop brings it, also before training."""
    stages = []

    class Hooked(Net):
        def validation_step(self, batch, batch_idx, dataloader_idx=0):
            return None

        def on_after_batch_transfer(self, batch, dataloader_idx):
            stages.append((self.trainer.validating or self.trainer.sanity_checking, dataloader_idx))
            return [batch[0] + 1, batch[1]]

    model = Hooked()
    loader = loaders()[1]
    monitor = CKAMonitor("self", dataloader_idx=1)
    used = trainer(monitor, max_epochs=1, limit_train_batches=0)
    used.validate(model, [loader, loader], verbose=False)
    assert set(stages) == {(True, 0), (True, 1)}


def test_what_forward_logs_of_probe_batches_is_not_logged():
    class Logs(Net):
        def forward(self, x):
            self.log("seen", float(len(x)), batch_size=1)
            return super().forward(x)

        def validation_step(self, batch, batch_idx):
            self(batch[0])

    model = Logs()
    _, used = fit(CKAMonitor(batch_size=10), model=model, max_epochs=1)
    assert used.callback_metrics["seen"].item() == 16  # Batches of the loader, not of the probe set.
    assert "log" not in model.__dict__


def test_the_stage_and_the_model_are_left_as_found_after_an_exception():
    calls = 0

    def forward_fn(module, batch):
        nonlocal calls
        calls += 1
        if calls > 12:  # In the pass of the first epoch: two of the dry run, 8 of the initial bank come first.
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
    # The exception comes within the validation epoch, where Lightning has the model in evaluation mode.
    assert after.state == ("in forward_fn", True, False, False, False)
    with pytest.raises(ValueError, match="could not be shown"):
        fit(CKAMonitor(forward_fn=lambda module, batch: module("text")), after, model=Net())
    assert after.state[1:] == (False, True, False, False)


def test_a_layer_named_mean_does_not_pass_for_the_mean():
    class Policy(Net):
        def __init__(self):
            super().__init__()
            self.mean = self.head
            del self.head

        def forward(self, x):
            return self.mean(self.net(x))

    monitor = CKAMonitor()
    with pytest.warns(UserWarning, match="layer 'mean' is logged as 'cka/initial/mean-2'"):
        _, used = fit(monitor, model=Policy())
    result, metrics = monitor.results["initial"][-1], used.callback_metrics
    assert metrics["cka/initial/mean"].item() == pytest.approx(result.mean(), abs=1e-6)
    assert metrics["cka/initial/mean-2"].item() == pytest.approx(result.same_named()["mean"], abs=1e-6)
    assert result.mean() != pytest.approx(result.same_named()["mean"], abs=1e-3)


def test_validating_after_training_leaves_the_history_of_training(tmp_path):
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


def test_a_validation_loader_that_draws_random_numbers_does_not_change_training():
    """Neither a loader of another kind, nor a hook that is asked for its loader earlier than without a callback."""

    class Custom:
        def __len__(self):
            return 4

        def __iter__(self):
            order = torch.randperm(64)
            return iter([[x[order[:16]] for x in dataset(64).tensors] for _ in range(4)])

    class Hook(Net):
        def val_dataloader(self):
            torch.rand(5)
            return loaders()[1]

    def run(model_class, validation, *monitors, **kwargs):
        seed_everything(3, workers=True, verbose=False)
        model = model_class()
        trainer(*monitors, max_epochs=3, **kwargs).fit(model, loaders()[0], validation)
        return model.state_dict()

    for model_class, validation, kwargs in (
        (Net, Custom(), {}),
        (Hook, None, {"num_sanity_val_steps": 0, "check_val_every_n_epoch": 2}),
    ):
        plain = run(model_class, validation, **kwargs)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="the probe set consists of the first samples")
            warnings.filterwarnings("ignore", message=".*probe batches were left out")
            watched = run(model_class, validation, CKAMonitor(), **kwargs)
        assert all(torch.equal(value, watched[name]) for name, value in plain.items())


class Stream(IterableDataset):
    def __iter__(self):
        return iter(dataset(40))


def test_iterable_validation_data():
    monitor = CKAMonitor()
    with pytest.warns(UserWarning, match="first samples of the iterable dataset Stream"):
        trainer(monitor, max_epochs=1).fit(Net(), loaders()[0], DataLoader(Stream(), batch_size=8))
    assert monitor.results["initial"][0].num_samples == 40


class NoValidation(Net):
    validation_step = LightningModule.validation_step


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


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (
            lambda: CKAMonitor("inital"),
            ValueError,
            r"unknown reference 'inital'; expected one of \('initial', 'previous', 'self'\)",
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
        (lambda: CKAMonitor(kernel="precomputed"), ValueError, "MinibatchCKA.update and functional.cka alone"),
        (lambda: CKAMonitor(feature_fn="max"), ValueError, "unknown feature_fn 'max'"),
        (lambda: CKAMonitor(every_n_epochs=0), ValueError, "every_n_epochs must be at least 1, but is 0"),
        (lambda: CKAMonitor(batch_size=3), ValueError, "batch_size must be at least 4, but is 3"),
        (lambda: CKAMonitor(num_samples=3), ValueError, "num_samples must be at least 4, but is 3"),
        (
            lambda: CKAMonitor(reference_layers="net"),
            ValueError,
            "layers of a reference that is a module, but there is none",
        ),
        (lambda: CKAMonitor(layers=3), TypeError, "name patterns or module classes, but"),
    ],
)
def test_arguments_are_checked_at_once(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_callbacks_that_would_miss_their_key_are_refused_before_training():
    for other in (EarlyStopping("cka/initial/mean"), ModelCheckpoint(monitor="cka/initial/mean")):
        with pytest.raises(ValueError, match=r"looks for 'cka/initial/mean' at each validation, .* every 2 epochs"):
            fit(CKAMonitor(every_n_epochs=2), other, enable_checkpointing=True)
    fine = EarlyStopping("cka/initial/mean", mode="max", patience=9)
    checkpoint = ModelCheckpoint(monitor="cka/initial/mean", every_n_epochs=2)
    fit(CKAMonitor(every_n_epochs=2), checkpoint, max_epochs=4, enable_checkpointing=True)
    fit(CKAMonitor(every_n_epochs=2), fine, max_epochs=4, check_val_every_n_epoch=2)
    assert checkpoint.best_model_score is not None


@pytest.mark.parametrize(
    ("kernel", "key", "close"),
    [
        (["linear", "rbf"], "cka/initial/mean", "cka/initial/linear/mean"),
        ("linear", "cka/initial/haed", "cka/initial/head"),
    ],
)
def test_callbacks_that_look_for_what_is_not_logged_are_refused_before_training(kernel, key, close):
    steps = []

    class Counts(Net):
        def training_step(self, batch, batch_idx):
            steps.append(batch_idx)
            return super().training_step(batch, batch_idx)

    with pytest.raises(ValueError, match=rf"EarlyStopping looks for '{key}', which CKAMonitor does not log; .*{close}"):
        fit(CKAMonitor(kernel=kernel), EarlyStopping(key), model=Counts())
    assert steps == []
    fit(CKAMonitor("self", log_key_prefix=""), EarlyStopping("val_loss"), max_epochs=1)


@pytest.mark.parametrize("indices", [np.arange(100), torch.arange(100), list(range(100))])
def test_indices_of_arrays_and_tensors(indices, tmp_path):
    sampler = SubsetRandomSampler(indices)
    monitor = CKAMonitor(save_banks=True, dirpath=tmp_path)
    used = trainer(monitor, max_epochs=1)
    used.fit(Net(), loaders()[0], DataLoader(dataset(), batch_size=16, sampler=sampler))
    bank = GramBank.load(tmp_path / "banks" / "initial.safetensors")
    assert sorted(i for inputs in bank.probe.values() for i in inputs.samples)[0] == 0
    assert monitor.results["initial"][0].num_samples == 100


def test_monitors_that_would_overwrite_each_other_are_refused():
    with pytest.raises(ValueError, match=r"log to the same keys for \['initial'\]: set log_key_prefix="):
        fit(CKAMonitor(layers="net.0"), CKAMonitor(["initial", "self"]))
    with pytest.raises(ValueError, match=r"two CKAMonitors would write to one folder, .*: set dirpath="):
        fit(CKAMonitor(dirpath="a"), CKAMonitor(dirpath="a", log_key_prefix="b/"))


def test_self_needs_two_layers():
    with pytest.raises(ValueError, match="'self' compares a model's layers with each other, but only one is chosen"):
        fit(CKAMonitor("self", layers="head"))


def test_a_reference_that_cannot_be_copied_is_named():
    reference = Net()
    reference.lock = threading.Lock()
    with pytest.raises(ValueError, match=r"reference 'Net': Net cannot be copied .TypeError: cannot pickle"):
        fit(CKAMonitor(reference))


def test_a_checkpoint_with_extra_state(tmp_path):
    class Extra(Net):
        def get_extra_state(self):
            return {"a": 1}

        def set_extra_state(self, state):
            pass

    torch.save({"state_dict": Extra().state_dict()}, tmp_path / "extra.ckpt")
    monitor = CKAMonitor(tmp_path / "extra.ckpt")
    fit(monitor, model=Extra())
    assert len(monitor.results["extra"]) == 2


def test_a_reference_that_asks_its_trainer():
    class Asks(Net):
        def forward(self, x):
            assert self.trainer.fit_loop is not None
            return super().forward(x)

    monitor = CKAMonitor(Asks())
    fit(monitor, model=Asks())
    assert len(monitor.results["Asks"]) == 2


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
            lambda: CKAMonitor(nn.Sequential(nn.Linear(8, 3))),
            Net,
            "reference 'Sequential': layer pattern 'net.0' .*reference_layers=",
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
            "weights_only=True.* refuses.*If you trust the file",
        ),
        (lambda: CKAMonitor(save([1, 2])), Net, "'reference.pt' is no checkpoint"),
    ],
)
def test_all_else_is_checked_before_the_first_training_step(monitor, model, message):
    module, steps = model(), []
    module.on_train_batch_start = lambda *args: steps.append(1)
    with pytest.raises(ValueError, match=message):
        trainer(monitor()).fit(module, *loaders())
    assert steps == []
    assert module.training
    assert not any(m._forward_hooks for m in module.modules())


def test_a_corrupt_checkpoint(tmp_path):
    good = tmp_path / "good.pt"
    torch.save(Net().state_dict(), good)
    for name, content in {
        "text.ckpt": b"not a checkpoint",
        "cut.ckpt": good.read_bytes()[:200],
        "empty.ckpt": b"",
    }.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=f"checkpoint '{name}' cannot be read"):
            trainer(CKAMonitor(tmp_path / name)).fit(Net(), *loaders())
    with pytest.raises(ValueError, match=r"is a folder.*`python -m lightning"):
        trainer(CKAMonitor(tmp_path)).fit(Net(), *loaders())


def test_no_validation_data():
    with pytest.raises(ValueError, match=r"no validation loop .*pass dataloader="):
        trainer(CKAMonitor()).fit(NoValidation(), loaders()[0])
    with pytest.raises(ValueError, match=r"limit_val_batches=0.*pass dataloader="):
        trainer(CKAMonitor(), limit_val_batches=0).fit(Net(), *loaders())


def test_too_few_validation_samples():
    with pytest.raises(ValueError, match="probe set has 3 samples"):
        trainer(CKAMonitor()).fit(Net(), loaders()[0], DataLoader(dataset(3), batch_size=3))
    with pytest.raises(ValueError, match="batches of 2 are too small"):
        trainer(CKAMonitor()).fit(Net(), loaders()[0], DataLoader(dataset(30), batch_size=2))


def test_a_compiled_lightning_module_and_its_checkpoint(tmp_path):
    other = Net()
    torch.save(other.state_dict(), tmp_path / "other.pt")
    plain, compiled = CKAMonitor(["initial", tmp_path / "other.pt"]), CKAMonitor(["initial", tmp_path / "other.pt"])

    class Silent(Net):
        """Lightning's own ``log`` in a compiled step fails in some versions, with or without a callback."""

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
