"""Checkpoints do not grow with the number of results: results are read from their files on resuming."""

import json
import pickle
import shutil

import pytest
import torch
from conftest import Net, loaders, trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning_cka import CKAMonitor, CKAResult
from lightning_cka.monitor.journal import JOURNAL
from lightning_cka.runtime.files import digest

pytestmark = [
    pytest.mark.filterwarnings("ignore:CKA:UserWarning"),
    pytest.mark.filterwarnings("ignore:The dirpath has changed"),
    pytest.mark.usefixtures("_without_figures"),
]


def fit(monitor, folder, max_epochs, checkpoint=None):
    torch.manual_seed(0)
    keep = ModelCheckpoint(folder, filename="{epoch}", save_top_k=-1)
    used = trainer(monitor, keep, max_epochs=max_epochs, enable_checkpointing=True, default_root_dir=folder)
    used.fit(Net(), *loaders(), ckpt_path=checkpoint)
    return used


def epochs(monitor, name="initial"):
    return [result.epoch for result in monitor.results.get(name, [])]


def state_after(tmp_path, monkeypatch, num_epochs):
    """Return the size of a checkpoint's state, and the number of results that became plain values for it."""
    calls = []
    monitor = CKAMonitor(["initial", "previous", "self"], save_banks=True, dirpath=tmp_path / str(num_epochs))
    fit(monitor, tmp_path / f"run{num_epochs}", num_epochs)
    whole_state = CKAResult.state
    monkeypatch.setattr(CKAResult, "state", lambda result: calls.append(0) or whole_state(result))
    state = monitor.state_dict()
    monkeypatch.setattr(CKAResult, "state", whole_state)
    return len(pickle.dumps(state)), len(calls)


def test_the_state_does_not_grow_with_the_number_of_epochs(tmp_path, monkeypatch):
    few, many = (state_after(tmp_path, monkeypatch, n) for n in (1, 12))
    assert few[1] == many[1] == 0
    assert abs(many[0] - few[0]) <= 20  # Only the digits of numbers differ.


@pytest.mark.parametrize("change", [lambda path: path.unlink(), lambda path: path.write_text("{}")])
def test_results_whose_files_are_missing_or_changed_are_named(tmp_path, change):
    fit(CKAMonitor(["initial", "self"]), tmp_path / "run", 3)
    change(tmp_path / "run/cka/initial/epoch=001-step=000015.json")
    again = CKAMonitor(["initial", "self"])
    with pytest.warns(UserWarning, match="1 results of .* or were changed, .*: 'initial' of epoch 1, step 15$"):
        fit(again, tmp_path / "run", 4, tmp_path / "run/epoch=2.ckpt")
    assert epochs(again) == [0, 2, 3]
    assert epochs(again, "self") == [0, 1, 2, 3]
    # The next checkpoint no longer refers to it.
    last = CKAMonitor(["initial", "self"])
    fit(last, tmp_path / "run", 5, tmp_path / "run/epoch=3.ckpt")
    assert epochs(last) == [0, 2, 3, 4]


@pytest.mark.parametrize("content", [None, b"", b"\xff\n", b'{"result": "initial"}\n'])
def test_without_the_list_the_results_in_the_folder_are_used(tmp_path, content):
    fit(CKAMonitor("initial"), tmp_path / "run", 4)
    journal = tmp_path / "run/cka" / JOURNAL
    journal.unlink() if content is None else journal.write_bytes(content)
    again = CKAMonitor("initial")
    with pytest.warns(UserWarning, match=r"history.jsonl, the list of the checkpoint's results, is missing in"):
        fit(again, tmp_path / "run", 4, tmp_path / "run/epoch=2.ckpt")
    assert epochs(again) == [0, 1, 2, 3]


def test_every_checkpoint_finds_its_results_after_other_restarts(tmp_path):
    fit(CKAMonitor("initial"), tmp_path / "run", 4)
    shutil.copytree(tmp_path / "run", tmp_path / "copy")
    for epoch in (0, 2, 1, 2, 3):
        again = CKAMonitor("initial")
        fit(again, tmp_path / "run", 4 + (epoch == 3), tmp_path / f"copy/epoch={epoch}.ckpt")
        assert epochs(again) == list(range(4 + (epoch == 3)))


def test_results_that_cannot_be_written_are_in_the_checkpoint(tmp_path):
    (tmp_path / "file").touch()
    monitor = CKAMonitor(["initial", "self"], dirpath=tmp_path / "file")
    with pytest.warns(UserWarning, match="training continues"):
        fit(monitor, tmp_path / "run", 2)
    again = CKAMonitor(["initial", "self"], dirpath=tmp_path / "file")
    with pytest.warns(UserWarning, match="'initial' was not kept|training continues"):
        fit(again, tmp_path / "run", 3, tmp_path / "run/epoch=1.ckpt")
    assert epochs(again, "self") == [0, 1, 2]
    pairs = zip(monitor.results["self"], again.results["self"], strict=False)
    assert all(torch.equal(one.matrix, other.matrix) for one, other in pairs)


def test_results_that_could_not_be_written_for_a_while(tmp_path):
    class Blocked(CKAMonitor):
        def on_validation_start(self, trainer, pl_module):
            block = tmp_path / "cka" / "initial" / "epoch=001-step=000015.json"
            if trainer.current_epoch == 1 and not trainer.sanity_checking:
                block.mkdir(parents=True)

    monitor = Blocked("initial", dirpath=tmp_path / "cka")
    with pytest.warns(UserWarning, match="training continues"):
        fit(monitor, tmp_path / "run", 3)
    (tmp_path / "cka" / "initial" / "epoch=001-step=000015.json").rmdir()
    again = CKAMonitor("initial", dirpath=tmp_path / "cka")
    state = torch.load(tmp_path / "run/epoch=2.ckpt", weights_only=True)["callbacks"][monitor.state_key]
    assert [each["epoch"] for each in state["results"]["initial"]] == [1]
    checkpoint = torch.load(tmp_path / "run/epoch=2.ckpt", weights_only=True)
    checkpoint["callbacks"][again.state_key] = checkpoint["callbacks"].pop(monitor.state_key)
    torch.save(checkpoint, tmp_path / "renamed.ckpt")
    fit(again, tmp_path / "run", 4, tmp_path / "renamed.ckpt")
    assert epochs(again) == [0, 1, 2, 3]


def test_checkpoints_that_hold_results_still_load(tmp_path):
    """Version 0.1.0 wrote no list, and kept all results in the checkpoint."""
    monitor = CKAMonitor(["initial", "self"])
    fit(monitor, tmp_path / "run", 2)
    path = tmp_path / "run/epoch=1.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    state = checkpoint["callbacks"][monitor.state_key]
    del state["journal"], state["last"], state["checksum"], state["format_version"], state["package_version"]
    state["results"] = {key: [r.state() for r in history] for key, history in monitor.results.items()}
    state["banks"] = monitor._run.banks.state_dict(monitor._run.banks.records)
    torch.save(checkpoint, path)
    shutil.rmtree(tmp_path / "run/cka/self")
    (tmp_path / "run/cka" / JOURNAL).unlink()
    again = CKAMonitor(["initial", "self"])
    fit(again, tmp_path / "run", 3, path)
    assert epochs(again) == epochs(again, "self") == [0, 1, 2]
    last = CKAMonitor(["initial", "self"])
    fit(last, tmp_path / "run", 4, tmp_path / "run/epoch=2.ckpt")
    assert epochs(last, "self") == [0, 1, 2, 3]


def test_the_list_names_each_file_with_its_hash(tmp_path):
    fit(CKAMonitor(["initial", "self"], save_banks=True), tmp_path / "run", 2)
    cka = tmp_path / "run/cka"
    entries = [json.loads(line) for line in (cka / JOURNAL).read_text().splitlines()]
    files = {
        cka / entry["file"] if "file" in entry else cka / "banks" / entry["path"].split("/")[-1] for entry in entries
    }
    assert files == {*cka.glob("*/*.json"), *cka.glob("banks/*")}
    for entry in entries:
        path = cka / entry["file"] if "file" in entry else cka.parent / entry["path"]
        assert digest(path.read_bytes()) == entry["digest"]
