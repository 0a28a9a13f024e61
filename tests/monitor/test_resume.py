"""A run that stops and resumes logs the same as a run without a stop."""

import json
import os
import shutil
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import resume_script
import torch
from conftest import Net, dataset, quietly, run_script, trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning_cka import CKAMonitor, CKAResult, GramBank
from torch.utils.data import DataLoader, TensorDataset

NAMES = ("initial", "epoch-1", "previous", "self", "Net")
pytestmark = [
    pytest.mark.filterwarnings("ignore:CKA:UserWarning"),
    pytest.mark.filterwarnings("ignore:The dirpath has changed"),
    pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`"),
]


def run(tmp_path, name, *args, check=False):
    return run_script("resume_script.py", tmp_path, "--name", name, *args, check=check)


def finish(tmp_path, name, *args):
    """Train two processes, and return their results."""
    run(tmp_path, name, *args, check=True)
    return json.loads((tmp_path / f"{name}.json").read_text())


def finish_alone(tmp_path, name, *args):
    """Train in this process, which saves the time of an import, and return the results."""
    resume_script.main(["--name", name, *map(str, args)])
    return json.loads((tmp_path / f"{name}.json").read_text())


def assert_same_history(one, other):
    assert one["epochs"] == other["epochs"]
    assert other["restarted"] == []
    for key, matrices in one["matrices"].items():
        np.testing.assert_allclose(np.array(other["matrices"][key]), np.array(matrices), rtol=0, atol=1e-12)


@pytest.mark.usefixtures("_without_figures")
def test_killed_processes_resume_where_they_stopped(tmp_path):
    """One of two processes is killed in the fourth epoch; then two processes resume, or one."""
    whole = finish(tmp_path, "whole", "--devices", 2)
    assert whole["epochs"] == {
        f"{name}/{kernel}": [1, 2, 3, 4] if name == "epoch-1" else [0, 1, 2, 3, 4]
        for name in NAMES
        for kernel in ("linear", "rbf")
    }
    assert np.ptp(whole["matrices"]["initial/linear"], axis=0).max() > 1e-3  # A positive control: the weights change.
    killed = run(tmp_path, "killed", "--devices", 2, "--kill", "[1, 3, 1]")
    assert killed.returncode != 0
    assert not (tmp_path / "killed.json").exists()
    folder = tmp_path / "killed" / "cka"
    # The files of logged epochs exist, and no others.
    moments = [f"epoch=00{epoch}-step={step:06d}" for epoch, step in ((0, 2), (1, 5), (2, 8))]
    assert sorted(p.stem for p in (folder / "banks").iterdir()) == [*moments, "initial"]
    assert [CKAResult.load(folder / "initial" / "rbf" / f"{moment}.json").epoch for moment in moments] == [0, 1, 2]
    shutil.copytree(tmp_path / "killed", tmp_path / "alone")
    resumed = finish(tmp_path, "killed", "--devices", 2, "--checkpoint", "killed/epoch=2.ckpt")
    assert_same_history(whole, resumed)
    # One process can read the banks that two have written.
    assert_same_history(whole, finish_alone(tmp_path, "alone", "--checkpoint", "alone/epoch=2.ckpt"))
    for name in ("killed", "alone"):
        files, others = (sorted(p.name for p in (tmp_path / n / "cka").rglob("*")) for n in ("whole", name))
        assert files == others
    # Two processes finish a run that has nothing left to train, whose tables were not written.
    assert not list((tmp_path / "whole" / "cka").glob("*.csv"))
    last = finish(tmp_path, "whole", "--devices", 2, "--checkpoint", "whole/epoch=4.ckpt", "--summary")
    assert_same_history(whole, last)
    tables = {path.name for path in (tmp_path / "whole" / "cka").rglob("*.csv")}
    assert tables == {"linear.csv", "rbf.csv"}


@pytest.mark.usefixtures("_without_figures")
def test_one_killed_process_resumes(tmp_path):
    whole = finish_alone(tmp_path, "whole")
    killed = run(tmp_path, "killed", "--kill", "[0, 3, 2]")
    assert killed.returncode == -signal.SIGKILL
    assert_same_history(whole, finish_alone(tmp_path, "killed", "--checkpoint", "killed/epoch=2.ckpt"))


def fit(monitor, folder, max_epochs, checkpoint=None, width=16, **options):
    """Train on data in a fixed order, without random numbers."""
    torch.manual_seed(0)
    model = Net(width).double()
    model.net[3].p = 0.0
    train, validation = (
        DataLoader(TensorDataset(d.tensors[0].double(), d.tensors[1]), batch_size=16)
        for d in (dataset(seed=1), dataset(seed=2))
    )
    keep = ModelCheckpoint(folder, filename="{epoch}", save_top_k=-1)
    used = trainer(monitor, keep, max_epochs=max_epochs, enable_checkpointing=True, default_root_dir=folder, **options)
    used.fit(model, train, validation, ckpt_path=checkpoint)
    return used


def history(monitor, name="initial"):
    return [result.matrix for result in monitor.results[name]]


def assert_equal(ones, others):
    assert len(ones) == len(others)
    assert all(torch.equal(one, other) for one, other in zip(ones, others, strict=True))


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory):
    """The monitor and the folder of a run without a stop. Both are only read."""
    folder, monitor = tmp_path_factory.mktemp("whole"), CKAMonitor(["initial", 1, "previous", "self"])
    with quietly():
        fit(monitor, folder, 4)
    return monitor, folder


@pytest.fixture
def whole(whole_run, _without_figures):
    return whole_run[0]


@pytest.fixture(scope="module")
def cut_run(tmp_path_factory):
    """The folder of a run that ended after three epochs, and a copy."""
    folder, kept = tmp_path_factory.mktemp("cut"), tmp_path_factory.mktemp("kept")
    with quietly():
        fit(CKAMonitor(["initial", 1, "previous", "self"]), folder, 3)
    shutil.copytree(folder, kept, dirs_exist_ok=True)
    return folder, kept


@pytest.fixture
def cut(cut_run):
    """The folder of that run as it was then. Its checkpoints name the folder, so it is always the same."""
    folder, kept = cut_run
    shutil.rmtree(folder)
    return Path(shutil.copytree(kept, folder))


def test_a_resumed_run_has_bitwise_the_same_results(tmp_path, whole, cut):
    """From each checkpoint, into the same folder and into a new one."""
    for epoch in range(3):
        shutil.copytree(cut, tmp_path / f"same{epoch}", dirs_exist_ok=True)
        for folder in (f"same{epoch}", f"new{epoch}"):
            monitor = CKAMonitor(["initial", 1, "previous", "self"])
            fit(monitor, tmp_path / folder, 4, cut / f"epoch={epoch}.ckpt")
            for name in whole.results:
                assert_equal(history(whole, name), history(monitor, name))
            assert [r.reference_name for r in monitor.results["initial"]] == ["initial"] * 4


def state_of(path, monitor):
    return torch.load(path, weights_only=True)["callbacks"][monitor.state_key]


def leaves(value):
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return [value] if parts is None else [leaf for part in parts for leaf in leaves(part)]


def test_the_checkpoint_holds_plain_values(whole_run):
    monitor, folder = whole_run
    assert {type(leaf) for leaf in leaves(state_of(folder / "epoch=3.ckpt", monitor))} == {str, int, bool}


@pytest.mark.usefixtures("_without_figures")
def test_only_banks_of_references_are_saved_by_default(tmp_path):
    fit(CKAMonitor(["initial", 1, "self"]), tmp_path / "few", 3)
    assert sorted(p.stem for p in tmp_path.glob("few/cka/banks/*")) == ["epoch=001-step=000015", "initial"]
    fit(CKAMonitor("self"), tmp_path / "none", 2)
    assert not (tmp_path / "none/cka/banks").exists()
    monitor = CKAMonitor("self", save_banks="float16", every_n_epochs=2)
    fit(monitor, tmp_path / "all", 4)
    banks = sorted(tmp_path.glob("all/cka/banks/*"))
    assert [p.stem for p in banks] == ["epoch=001-step=000015", "epoch=003-step=000031", "initial"]
    bank = GramBank.load(banks[0])
    assert (bank.epoch, bank.step, bank.seed, bank.model_name, bank.sample_kind) == (1, 15, 0, "Net", "dataset index")
    assert bank.layers == monitor.results["self"][0].layers
    used = CKAMonitor("initial", save_banks=True)
    fit(used, tmp_path / "dev", 2, fast_dev_run=True)
    assert not list(tmp_path.glob("dev/**/*.safetensors"))


def broken(cut, change, **options):
    """Resume after a change to the files of a run; return the monitor and the warnings."""
    change(cut / "cka" / "banks")
    monitor = CKAMonitor(["initial", 1, "previous", "self"], **options)
    with pytest.warns(UserWarning) as caught:
        fit(monitor, cut, 5, cut / "epoch=2.ckpt")
    messages = [str(w.message) for w in caught if "training goes on from step 24" in str(w.message)]
    return monitor, messages


def remove(banks):
    (banks / "initial.safetensors").unlink()


def replace_by_another(banks):
    shutil.copy(banks / "epoch=000-step=000007.safetensors", banks / "initial.safetensors")


def spoil(banks):
    """Make the file unreadable, but with the content hash that the checkpoint has."""
    path = banks / "initial.safetensors"
    path.write_bytes(b"{}" * 100)
    from lightning_cka.runtime.files import digest

    file = banks.parents[1] / "epoch=2.ckpt"
    checkpoint = torch.load(file, weights_only=True)
    (state,) = [s for key, s in checkpoint["callbacks"].items() if key.startswith("CKAMonitor")]
    state["banks"]["initial"]["digest"] = digest(path.read_bytes())
    torch.save(checkpoint, file)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (remove, "is missing"),
        (replace_by_another, "was overwritten"),
        (spoil, "cannot be read"),
    ],
)
def test_a_lost_bank_gives_a_warning_and_another_name(cut, whole, change, problem):
    monitor, messages = broken(cut, change)
    assert len(messages) == 1
    assert f"the bank of reference 'initial' {problem}" in messages[0]
    assert "compared with its current weights instead, as 'initial, restarted at step 24'" in messages[0]
    # The other references continue. The lost one has a new history.
    assert_equal(history(whole, "previous"), history(monitor, "previous")[:4])
    assert_equal(history(whole, "epoch-1"), history(monitor, "epoch-1")[:3])
    assert [(r.epoch, r.reference_name) for r in monitor.results["initial"]] == [
        (3, "initial, restarted at step 24"),
        (4, "initial, restarted at step 24"),
    ]
    # The new history continues after another restart.
    again = CKAMonitor(["initial", 1, "previous", "self"])
    fit(again, cut, 5, cut / "epoch=3.ckpt")
    assert_equal(history(monitor), history(again))
    assert again.results["initial"][-1].reference_name == "initial, restarted at step 24"


@pytest.mark.usefixtures("_without_figures")
@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"seed": 1}, "has another probe set"),
        ({"num_samples": 64}, "has another probe set"),
        ({"layers": "net.*"}, "has other layers"),
    ],
)
def test_banks_of_other_probe_sets_or_layers_are_not_used(cut, options, problem):
    monitor, messages = broken(cut, lambda banks: None, **options)
    assert [problem in message for message in messages] == [True] * 3
    restarted = "restarted at step 24"
    assert [r.reference_name for r in monitor.results["initial"]] == [f"initial, {restarted}"] * 2
    assert [r.reference_name for r in monitor.results["epoch-1"]] == [f"epoch-1, {restarted}"] * 2
    # After one epoch there is a bank of the previous epoch again.
    assert [r.reference_name for r in monitor.results["previous"]] == [f"previous, {restarted}", "previous"]


def test_a_run_whose_folder_was_moved(tmp_path, whole):
    fit(CKAMonitor(["initial", 1, "previous", "self"], dirpath=tmp_path / "old"), tmp_path / "run", 3)
    (tmp_path / "old").rename(tmp_path / "moved")
    monitor = CKAMonitor(["initial", 1, "previous", "self"], dirpath=tmp_path / "moved")
    fit(monitor, tmp_path / "run", 4, tmp_path / "run/epoch=2.ckpt")
    for name in whole.results:
        assert_equal(history(whole, name), history(monitor, name))
    # The banks that are read at the end of training are in the new folder.
    assert [path.parent for path in monitor._session.run.banks.trajectory()[0]] == [tmp_path / "moved" / "banks"] * 5


def test_a_bank_that_was_moved_aside_is_found(tmp_path, cut, whole):
    """Resume from an early checkpoint, which moves later files aside, and then from a later one."""
    shutil.copytree(cut, tmp_path / "kept", ignore=shutil.ignore_patterns("cka"))
    fit(CKAMonitor(["initial", 1, "previous", "self"]), cut, 2, tmp_path / "kept/epoch=0.ckpt")
    monitor = CKAMonitor(["initial", 1, "previous", "self"])
    fit(monitor, cut, 4, tmp_path / "kept/epoch=2.ckpt")
    for name in whole.results:
        assert_equal(history(whole, name), history(monitor, name))


def test_references_may_be_added_on_resume(tmp_path, whole):
    fit(CKAMonitor("self", save_banks=True), tmp_path / "run", 3)
    monitor = CKAMonitor(["initial", 1, "self"])
    fit(monitor, tmp_path / "run", 4, tmp_path / "run/epoch=2.ckpt")
    assert_equal(history(whole, "initial")[3:], history(monitor, "initial"))
    assert_equal(history(whole, "epoch-1")[2:], history(monitor, "epoch-1"))
    assert_equal(history(whole, "self"), history(monitor, "self"))


@pytest.mark.usefixtures("_without_figures")
def test_a_history_with_another_kernel_restarts(tmp_path):
    fit(CKAMonitor("initial"), tmp_path / "run", 2)
    monitor = CKAMonitor("initial", kernel="distance")
    with pytest.warns(UserWarning, match="the history of 'initial' restarts, .* than now: kernel"):
        fit(monitor, tmp_path / "run", 3, tmp_path / "run/epoch=1.ckpt")
    assert [(r.epoch, r.kernel) for r in monitor.results["initial"]] == [(2, "distance")]


@pytest.mark.usefixtures("_without_figures")
def test_a_checkpoint_without_the_monitor(tmp_path):
    used = fit(CKAMonitor("self", log_key_prefix="other/"), tmp_path / "run", 2)
    monitor = CKAMonitor(["initial", 0, 3])
    with pytest.warns(UserWarning) as caught:
        fit(monitor, tmp_path / "run", 5, tmp_path / "run/epoch=1.ckpt")
    messages = [str(w.message) for w in caught if "training goes on from step 16" in str(w.message)]
    assert ["reference 'initial' was not kept" in m or "reference 'epoch-0' was not kept" in m for m in messages] == [
        True
    ] * 2
    assert [r.epoch for r in monitor.results["epoch-3"]] == [3, 4]
    assert used.current_epoch == 2


@pytest.mark.usefixtures("_without_figures")
def test_a_second_run_moves_the_files_of_the_first(tmp_path):
    first = CKAMonitor("initial", save_banks=True, dirpath=tmp_path / "cka")
    fit(first, tmp_path / "run", 3)
    (tmp_path / "cka" / "notes.txt").write_text("a file of the user")
    before = {p.relative_to(tmp_path / "cka"): p.read_bytes() for p in (tmp_path / "cka").rglob("*") if p.is_file()}
    fit(CKAMonitor("initial", save_banks=True, dirpath=tmp_path / "cka"), tmp_path / "run2", 1)
    moved = {
        p.relative_to(tmp_path / "cka/earlier-1"): p.read_bytes()
        for p in (tmp_path / "cka/earlier-1").rglob("*")
        if p.is_file()
    }
    assert moved == {path: content for path, content in before.items() if path.name != "notes.txt"}
    assert sorted(p.name for p in (tmp_path / "cka" / "banks").iterdir()) == [
        "epoch=000-step=000007.safetensors",
        "initial.safetensors",
    ]


def test_files_from_after_the_checkpoint_are_moved_aside(tmp_path, whole):
    fit(CKAMonitor(["initial", 1, "previous", "self"]), tmp_path / "run", 4)
    monitor = CKAMonitor(["initial", 1, "previous", "self"])
    fit(monitor, tmp_path / "run", 3, tmp_path / "run/epoch=1.ckpt")
    cka = tmp_path / "run" / "cka"
    assert sorted(p.stem for p in (cka / "initial").glob("*.json")) == [
        f"epoch=00{epoch}-step={step:06d}" for epoch, step in ((0, 7), (1, 15), (2, 23))
    ]
    assert sorted(p.stem for p in (cka / "earlier-1" / "initial").glob("*.json")) == [
        "epoch=002-step=000023",
        "epoch=003-step=000031",
    ]
    assert_equal(history(whole)[:3], history(monitor))


@pytest.mark.parametrize(
    ("options", "trainer_options", "message"),
    [
        ({"every_n_epochs": 2}, None, "epoch 2 cannot be a reference: with every_n_epochs=2.* epochs 1, 3, ... are"),
        ({}, {"check_val_every_n_epoch": 2}, "check_val_every_n_epoch=2 leaves it without validation"),
        ({}, {"max_epochs": 2}, "with max_epochs=2 it is not reached"),
    ],
)
def test_reference_epochs_that_are_not_logged_raise(tmp_path, options, trainer_options, message):
    with pytest.raises(ValueError, match=message):
        fit(CKAMonitor(2, **options), tmp_path, **({"max_epochs": 5} | (trainer_options or {})))


def test_a_callback_that_monitors_a_later_epoch_raises(tmp_path):
    other = ModelCheckpoint(tmp_path / "best", monitor="cka/epoch-2/mean")
    with pytest.raises(ValueError, match=r"looks for 'cka/epoch-2/mean' at each .* from the end of epoch 2 on"):
        trainer(CKAMonitor(2), other, max_epochs=4, enable_checkpointing=True).fit(
            Net(), DataLoader(dataset(), batch_size=16), DataLoader(dataset(), batch_size=16)
        )


@pytest.mark.usefixtures("_without_figures")
def test_the_reference_of_an_epoch_is_the_model_at_its_end(tmp_path):
    monitor = CKAMonitor([1, "previous"])
    fit(monitor, tmp_path, 3, val_check_interval=0.5)
    first, *rest = monitor.results["epoch-1"]
    # Each epoch has two validations. At the second one of epoch 1, the model is the reference itself.
    torch.testing.assert_close(first.matrix.diagonal(), torch.ones(4, dtype=torch.float64), rtol=0, atol=1e-12)
    assert [(r.epoch, r.step) for r in (first, *rest)] == [(1, 15), (2, 19), (2, 23)]
    assert torch.equal(rest[0].matrix, monitor.results["previous"][-2].matrix)


@pytest.mark.usefixtures("_without_figures")
def test_a_checkpoint_that_was_saved_before_the_validation_of_its_epoch(tmp_path, whole):
    """Lightning does not repeat that validation. The epoch has no result, and later ones are correct."""
    monitor = CKAMonitor(["initial", 1, "previous", "self"])
    early = ModelCheckpoint(tmp_path / "run", filename="{epoch}", every_n_train_steps=8, save_top_k=-1)
    fit(monitor, tmp_path / "run", 2, callbacks=[monitor, early])
    again = CKAMonitor(["initial", 1, "previous", "self"])
    with pytest.warns(UserWarning, match="epoch 1 has no CKA: its checkpoint was saved before its validation"):
        fit(again, tmp_path / "run", 4, tmp_path / "run/epoch=1.ckpt")
    for name, epochs in (("initial", [0, 2, 3]), ("previous", [0, 2, 3]), ("self", [0, 2, 3]), ("epoch-1", [2, 3])):
        expected = {r.epoch: r.matrix for r in whole.results[name]}
        assert [r.epoch for r in again.results[name]] == epochs
        assert_equal([expected[epoch] for epoch in epochs], history(again, name))
    # If the reference epoch is later than the checkpoint, there is no warning.
    fit(CKAMonitor(2), tmp_path / "later", 3)
    fit(CKAMonitor(2), tmp_path / "later", 3, tmp_path / "later/epoch=0.ckpt")


def test_banks_of_other_features_are_not_used(cut, whole):
    monitor, messages = broken(cut, lambda banks: None, feature_fn="mean")
    assert [r.reference_name for r in monitor.results["initial"]] == ["initial, restarted at step 24"] * 2
    assert ["has other features" in message for message in messages] == [True] * 3
    assert len(monitor.results["self"]) == 2


@pytest.mark.usefixtures("_without_figures")
def test_a_frozen_reference_with_other_weights_has_a_new_history(tmp_path):
    def module(seed):
        torch.manual_seed(seed)
        return Net().double()

    fit(CKAMonitor(["self", module(1)]), tmp_path / "run", 2)
    same, other = (CKAMonitor(["self", module(seed)]) for seed in (1, 2))
    fit(same, tmp_path / "run", 3, tmp_path / "run/epoch=1.ckpt")
    assert [r.epoch for r in same.results["reference"]] == [0, 1, 2]
    with pytest.warns(UserWarning, match="the history of 'reference' restarts, .* than now: reference"):
        fit(other, tmp_path / "run", 3, tmp_path / "run/epoch=1.ckpt")
    assert [r.epoch for r in other.results["reference"]] == [2]
    assert [r.epoch for r in other.results["self"]] == [0, 1, 2]


@pytest.mark.usefixtures("_without_figures")
def test_files_of_removed_references_are_moved_aside(tmp_path):
    fit(CKAMonitor(["initial", "previous"], dirpath=tmp_path / "cka"), tmp_path / "one", 1)
    fit(CKAMonitor("self", dirpath=tmp_path / "cka"), tmp_path / "two", 1)
    left = [p for name in ("banks", "initial", "previous") for p in (tmp_path / "cka" / name).iterdir()]
    assert left == []


@pytest.mark.usefixtures("_without_figures")
def test_a_reference_epoch_without_validation_gives_a_warning(tmp_path):
    monitor = CKAMonitor(["self", 2])
    with pytest.warns(UserWarning, match="'epoch-2' was not compared with: that epoch had no validation"):
        fit(monitor, tmp_path, 4, check_val_every_n_epoch=None, val_check_interval=16)


@pytest.mark.usefixtures("_without_figures")
def test_banks_in_half_precision_give_the_same_numbers_after_a_restart(tmp_path):
    """The run itself compares with the rounded banks, which a restarted run reads."""

    def monitor():
        kernels = ["linear", "rbf"]
        return CKAMonitor(["initial", 1, "previous"], save_banks="float16", kernel=kernels, num_samples=64)

    whole, again = monitor(), monitor()
    fit(whole, tmp_path / "whole", 4)
    fit(monitor(), tmp_path / "run", 3)
    fit(again, tmp_path / "run", 4, tmp_path / "run/epoch=1.ckpt")
    for key in whole.results:
        assert_equal(history(whole, key), history(again, key))


@pytest.mark.usefixtures("_without_figures")
@pytest.mark.parametrize(
    ("steps", "message", "left"),
    [
        (4, "epoch 0 lacks the CKA after batch 4: its checkpoint was saved before that validation", [7, 11, 15]),
        (8, "epoch 0 has no CKA: its checkpoint was saved before its validation", [3, 11, 15]),
        (12, "epoch 1 lacks the CKA after batch 4: its checkpoint was saved before that validation", [3, 7, 15]),
        (6, None, [3, 7, 11, 15]),
    ],
)
def test_a_validation_that_is_lost_by_resuming_gives_a_warning(tmp_path, steps, message, left):
    early = ModelCheckpoint(tmp_path / "early", filename="{step}", every_n_train_steps=2, save_top_k=-1)
    options = {"dirpath": tmp_path / "cka"}
    first, again = CKAMonitor("self", **options), CKAMonitor("self", **options)
    fit(first, tmp_path / "run", 2, callbacks=[first, early], val_check_interval=0.5)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit(again, tmp_path / "run", 2, tmp_path / f"early/step={steps}.ckpt", val_check_interval=0.5)
    found = [str(each.message) for each in caught if "skipped on resuming" in str(each.message)]
    assert [each.startswith(message or "") for each in found] == [True] * (message is not None)
    assert [r.step for r in again.results["self"]] == left


@pytest.mark.usefixtures("_without_figures")
def test_unfinished_files_of_dead_processes_are_removed(tmp_path):
    fit(CKAMonitor("initial"), tmp_path / "run", 2)
    cka = tmp_path / "run/cka"
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    names = [f".drift.png.{dead.pid}.tmp", f".drift.png.{os.getppid()}.tmp", f".x.json.{os.getpid()}.tmp", ".notes.tmp"]
    for name in names:
        (cka / "initial" / name).write_text("half")
    fit(CKAMonitor("initial"), tmp_path / "run", 3, tmp_path / "run/epoch=1.ckpt")
    assert [name for name in names if (cka / "initial" / name).exists()] == [names[1], names[3]]


def test_heatmaps_that_were_not_drawn_at_a_kill_are_drawn_on_resuming(tmp_path):
    fit(CKAMonitor(["initial", "self"]), tmp_path / "run", 3)
    moments = ("epoch=001-step=000015", "epoch=002-step=000023")
    pictures = [tmp_path / f"run/cka/{name}/heatmap-{moment}.png" for name in ("initial", "self") for moment in moments]
    contents = [path.read_bytes() for path in pictures]
    for path in pictures:
        path.unlink()
    fit(CKAMonitor(["initial", "self"]), tmp_path / "run", 4, tmp_path / "run/epoch=2.ckpt")
    assert [path.read_bytes() for path in pictures] == contents
