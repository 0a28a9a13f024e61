"""Two live runs do not write to one folder."""

import json
import os
import socket
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
from conftest import Net, loaders, trainer
from lightning_cka import CKAMonitor
from lightning_cka.monitor.folder_owner import OWNER_FILE, STALE_AFTER, FolderOwner
from lightning_cka.runtime.processes import is_running, start_time

pytestmark = [
    pytest.mark.filterwarnings("ignore:CKA( with '.*')?. layers (that|whose)"),
    pytest.mark.usefixtures("_without_figures"),
]
ALONE = SimpleNamespace(
    is_global_zero=True, fast_dev_run=False, strategy=SimpleNamespace(broadcast=lambda value: value)
)


def write_owner(folder, age=0.0, **owner):
    folder.mkdir(exist_ok=True)
    path = folder / OWNER_FILE
    path.write_text(json.dumps(owner))
    os.utime(path, (time.time() - age,) * 2)


def dead_pid():
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def live(**changes):
    pid = os.getppid()
    return {"host": socket.gethostname(), "pid": pid, "started": start_time(pid), "token": "x"} | changes


@pytest.mark.parametrize(
    ("owner", "is_live"),
    [
        (live(), True),
        (live(started="1"), False),  # Another process got the same number.
        (live(pid=os.getpid()), False),  # This process has no run with that token.
        (live(pid="dead"), False),
        (live(host="elsewhere"), True),
        (live(host="elsewhere", age=2 * STALE_AFTER), False),
        ({"age": 120.0}, False),
    ],
)
def test_only_a_live_owner_keeps_its_folder(tmp_path, owner, is_live):
    if owner.get("pid") == "dead":
        owner = owner | {"pid": dead_pid()}
    write_owner(tmp_path / "cka", **owner)
    own = FolderOwner()
    if is_live:
        with pytest.warns(UserWarning, match=r"another live run writes to .*cka: .* of this one are in .*cka-1$"):
            assert own.acquire(tmp_path / "cka", ALONE) == tmp_path / "cka-1"
    else:
        assert own.acquire(tmp_path / "cka", ALONE) == tmp_path / "cka"
    own.release()
    assert (tmp_path / "cka" / OWNER_FILE).exists() == is_live
    assert not list(tmp_path.rglob("*.tmp"))


def test_owners_of_one_process_get_three_folders(tmp_path):
    owners = [FolderOwner() for _ in range(3)]
    with pytest.warns(UserWarning, match="another live run"):
        folders = [owner.acquire(tmp_path / "cka", ALONE).name for owner in owners]
    assert folders == ["cka", "cka-1", "cka-2"]
    for owner in owners:
        owner.release()
    assert not list(tmp_path.rglob(OWNER_FILE))


def test_a_second_live_run_has_a_folder_of_its_own_and_can_be_resumed(tmp_path):
    write_owner(tmp_path / "cka", **live())
    monitor = CKAMonitor("initial", dirpath=tmp_path / "cka")
    fitted = trainer(monitor, max_epochs=1)
    with pytest.warns(UserWarning, match="another live run"):
        fitted.fit(Net(), *loaders())
    assert [p.name for p in tmp_path.rglob("*.json") if p.name != OWNER_FILE] == ["epoch=000-step=000007.json"]
    assert (tmp_path / "cka-1" / "initial").is_dir()
    fitted.save_checkpoint(tmp_path / "last.ckpt")
    (tmp_path / "cka" / OWNER_FILE).unlink()
    again = CKAMonitor("initial", dirpath=tmp_path / "cka")
    trainer(again, max_epochs=2).fit(Net(), *loaders(), ckpt_path=tmp_path / "last.ckpt")
    assert [r.epoch for r in again.results["initial"]] == [0, 1]
    assert {r.reference_name for r in again.results["initial"]} == {"initial"}


class Fails(Net):
    error = None

    def training_step(self, batch, batch_idx):
        (owner,) = self.trainer.callbacks[0]._session._folder.glob(OWNER_FILE)
        assert json.loads(owner.read_text())["pid"] == os.getpid()
        if self.error is not None:
            raise self.error
        return super().training_step(batch, batch_idx)


@pytest.mark.parametrize("error", [None, RuntimeError("a fault"), KeyboardInterrupt()])
def test_no_file_is_left(tmp_path, error):
    model = Fails()
    model.error = error
    used = trainer(CKAMonitor("initial", dirpath=tmp_path / "cka"), max_epochs=1)
    if error is None:
        used.fit(model, *loaders())
    else:
        with pytest.raises((RuntimeError, KeyboardInterrupt, SystemExit)):
            used.fit(model, *loaders())
    assert (tmp_path / "cka").exists()
    assert not list(tmp_path.rglob(OWNER_FILE))


def test_processes():
    assert is_running(os.getpid())
    assert is_running(dead_pid()) is False
    assert start_time(os.getpid()) == start_time(os.getpid())
