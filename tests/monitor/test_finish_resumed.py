"""A run that was killed after its last checkpoint has all results, tables and figures when it is resumed."""

import shutil

import pytest
import torch
from conftest import Net, loaders, trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning_cka import CKAMonitor
from lightning_cka.probe.show_probe_set import show_probe_set

pytestmark = [
    pytest.mark.filterwarnings("ignore:CKA( with '.*')?. layers (that|whose)"),
    pytest.mark.filterwarnings("ignore:The dirpath has changed"),
    pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`"),
    pytest.mark.usefixtures("_blank_figures"),
]


def monitor():
    return CKAMonitor(["initial", "previous", 1], trajectory=True, layers=["net.0", "head"])


def fit(used, folder, checkpoint=None, **limits):
    torch.manual_seed(0)
    keep = ModelCheckpoint(folder, filename="{epoch}", save_top_k=-1)
    options = {"enable_checkpointing": True, "default_root_dir": folder} | (limits or {"max_epochs": 2})
    fitted = trainer(used, keep, **options)
    fitted.fit(Net(), *loaders(), ckpt_path=checkpoint)
    return fitted


def contents(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def killed(tmp_path):
    """A finished run, without what is written after the last checkpoint."""
    whole = monitor()
    fit(whole, tmp_path / "run")
    files = contents(tmp_path / "run/cka")
    for path in [*tmp_path.glob("run/cka/*.csv"), *tmp_path.glob("run/cka/*.gif")]:
        path.unlink()
    shutil.rmtree(tmp_path / "run/cka/trajectory")
    (tmp_path / "run/cka/initial/heatmap-epoch=001-step=000015.png").unlink()
    return whole, files


@pytest.mark.parametrize("limits", [{"max_epochs": 2}, {"max_steps": 16, "max_epochs": -1}, {"max_epochs": 1}])
def test_results_and_all_files_are_there(tmp_path, monkeypatch, killed, limits):
    whole, files = killed
    shown = []
    monkeypatch.setattr("lightning_cka.monitor.live_probe.show_probe_set", lambda *a, **k: shown.append(a))
    again = monitor()
    fitted = fit(again, tmp_path / "run", tmp_path / "run/epoch=1.ckpt", **limits)
    assert fitted.global_step == 16
    assert shown == []
    assert contents(tmp_path / "run/cka") == files
    assert whole.results.keys() == again.results.keys()
    for name, results in whole.results.items():
        assert [r.epoch for r in results] == [r.epoch for r in again.results[name]]
        assert all(torch.equal(a.matrix, b.matrix) for a, b in zip(results, again.results[name], strict=True))
    # A checkpoint that is saved now can be resumed, and so can this Trainer.
    fitted.save_checkpoint(tmp_path / "again.ckpt")
    monkeypatch.setattr("lightning_cka.monitor.live_probe.show_probe_set", show_probe_set)
    last = monitor()
    fit(last, tmp_path / "run", tmp_path / "again.ckpt", max_epochs=3)
    assert [r.epoch for r in last.results["initial"]] == [0, 1, 2]
    assert {r.reference_name for r in last.results["initial"]} == {"initial"}


def test_into_another_folder(tmp_path, killed):
    _, files = killed
    again = monitor()
    fit(again, tmp_path / "other", tmp_path / "run/epoch=1.ckpt")
    new = contents(tmp_path / "other/cka")
    assert new >= {name for name in files if not name.endswith(".png")}
    assert [r.epoch for r in again.results["initial"]] == [0, 1]


def test_a_second_fit_goes_on_from_there(tmp_path, killed):
    again = monitor()
    fitted = fit(again, tmp_path / "run", tmp_path / "run/epoch=1.ckpt")
    fitted.fit_loop.max_epochs = 3
    fitted.fit(fitted.lightning_module, *loaders())
    assert [r.epoch for r in again.results["previous"]] == [0, 1, 2]
    assert {r.reference_name for r in again.results["initial"]} == {"initial"}


def test_a_checkpoint_without_the_monitor_gives_no_error(tmp_path):
    fit(CKAMonitor(log_key_prefix="other/"), tmp_path / "run")
    again = monitor()
    fit(again, tmp_path / "run", tmp_path / "run/epoch=1.ckpt")
    assert again.results == {}
