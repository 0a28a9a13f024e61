"""The files of a run."""

import pytest
import torch
from conftest import Net
from fitting import fit
from lightning_cka import CKAMonitor, CKAResult

# Small models and probe sets are flagged, which these tests do not check; see tests/compare/test_flags.py.
pytestmark = pytest.mark.filterwarnings("ignore:CKA( with '.*')?. layers (that|whose)")


@pytest.mark.usefixtures("_without_figures")
def test_results_are_on_disk_if_training_fails_later(tmp_path):
    class Fails(Net):
        def on_train_epoch_start(self):
            if self.current_epoch == 2:
                raise RuntimeError("a fault")

    monitor = CKAMonitor(["initial", "self"], dirpath=tmp_path)
    with pytest.raises(RuntimeError, match="a fault"):
        fit(monitor, model=Fails(), max_epochs=3)
    for name, results in monitor.results.items():
        loaded = [CKAResult.load(path) for path in sorted((tmp_path / name).glob("*.json"))]
        assert [r.epoch for r in loaded] == [0, 1]
        for one, other in zip(results, loaded, strict=True):
            assert torch.equal(one.matrix, other.matrix)
            assert one.diagnostics == other.diagnostics


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
        "a bank could not be written, resuming will lack it, training continues",
        "figures or files could not be written, training continues",
    ):
        assert any(what in message for message in messages)
    assert len(monitor.results["initial"]) == 2
