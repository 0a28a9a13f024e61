"""`keep_banks=` bounds the banks on disk, and their size is announced before training."""

import logging
import re

import pytest
import torch
from conftest import Net, loaders, trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning_cka import CKAMonitor

pytestmark = [
    pytest.mark.filterwarnings("ignore:CKA( with '.*')?. layers (that|whose)"),
    pytest.mark.filterwarnings("ignore:The dirpath has changed"),
    pytest.mark.usefixtures("_without_figures"),
]


def fit(monitor, folder, max_epochs, checkpoint=None, top=1, **options):
    torch.manual_seed(0)
    keep = ModelCheckpoint(folder, filename="{epoch}", save_top_k=top)
    used = trainer(monitor, keep, max_epochs=max_epochs, enable_checkpointing=True, default_root_dir=folder, **options)
    used.fit(Net(), *loaders(), ckpt_path=checkpoint)


def kept(folder):
    names = [path.stem for path in (folder / "cka/banks").iterdir()]
    return sorted(int(name[6:9]) if name.startswith("epoch") else -1 for name in names)


@pytest.mark.parametrize(
    ("reference", "options", "epochs"),
    [
        ("self", {"save_banks": True, "keep_banks": 2}, [-1, 3, 4]),
        ("initial", {"save_banks": "float16", "keep_banks": 1}, [-1, 4]),
        (["initial", 1], {"save_banks": True, "keep_banks": 2}, [-1, 1, 3, 4]),
        ("previous", {"keep_banks": 1}, [-1, 4]),
        ("previous", {}, [-1, 0, 1, 2, 3, 4]),
        ("self", {"trajectory": True, "keep_banks": 9}, [-1, 0, 1, 2, 3, 4]),
    ],
)
def test_old_banks_are_deleted(tmp_path, reference, options, epochs):
    fit(CKAMonitor(reference, **options), tmp_path, 5)
    assert [epoch for epoch in kept(tmp_path) if (reference, epoch) != ("previous", 3) or not options] == epochs


def test_banks_that_a_kept_checkpoint_needs_stay(tmp_path):
    """All checkpoints are kept here, so that each of them can be resumed from."""
    fit(CKAMonitor("previous", keep_banks=1), tmp_path / "run", 4, top=-1)
    for epoch in range(4):
        again = CKAMonitor("previous", keep_banks=1)
        fit(again, tmp_path / f"from{epoch}", 4 + (epoch == 3), tmp_path / f"run/epoch={epoch}.ckpt", top=-1)
        assert {r.reference_name for r in again.results["previous"]} == {"previous"}
        assert [r.epoch for r in again.results["previous"]] == list(range(4 + (epoch == 3)))


def test_a_resumed_run_goes_on_deleting(tmp_path):
    fit(CKAMonitor("self", save_banks=True, keep_banks=1), tmp_path, 2)
    fit(CKAMonitor("self", save_banks=True, keep_banks=1), tmp_path, 5, tmp_path / "epoch=1.ckpt")
    assert kept(tmp_path) == [-1, 4]


@pytest.mark.parametrize("value", [0, -1])
def test_a_limit_below_one_raises(value):
    with pytest.raises(ValueError, match=f"keep_banks must be at least 1, but is {value}"):
        CKAMonitor(keep_banks=value)


@pytest.mark.parametrize(
    ("reference", "options", "trained", "number"),
    [
        ("self", {"save_banks": True}, {}, 5),
        ("previous", {}, {"val_check_interval": 0.5}, 9),
        ("self", {"save_banks": "float16", "keep_banks": 2}, {}, 3),
        ("self", {"trajectory": True, "every_n_epochs": 2}, {}, 3),
        ("initial", {}, {}, None),
    ],
)
def test_the_size_is_announced(tmp_path, caplog, reference, options, trained, number):
    logger = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    logger.addHandler(caplog.handler)
    with caplog.at_level(logging.INFO, logger=logger.name):
        fit(CKAMonitor(reference, num_samples=128, gram_batch_size=64, **options), tmp_path, 4, **trained)
    logger.removeHandler(caplog.handler)
    found = [re.search(r"about (\S+) MiB on disk, (\d+) x \S+ = (\S+) MiB in all", m) for m in caplog.messages]
    found = [match for match in found if match]
    if number is None:
        assert found == []
        return
    (match, *_) = found
    files = list((tmp_path / "cka/banks").iterdir())
    assert int(match[2]) == number
    size = sum(path.stat().st_size for path in files) / len(files) / 2**20
    assert float(match[1]) == pytest.approx(size, rel=0.3)
