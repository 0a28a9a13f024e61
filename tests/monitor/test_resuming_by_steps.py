"""Runs that compare by optimizer steps, resumed in the middle of an epoch: no step is lost or repeated."""

import warnings

import pytest
import torch
from conftest import dataset, loaders, trainer
from lightning.pytorch import seed_everything
from lightning.pytorch.callbacks import Callback
from lightning_cka import CKAMonitor, trajectories
from test_comparing_by_steps import steps
from torch.utils.data import DataLoader
from training import MARKS, Net, epochs_and_steps

pytestmark = [
    *MARKS,
    pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before the epoch ended"),
]


class Saves(Callback):
    """Saves a checkpoint after some steps: before the monitor compares if it comes before it."""

    def __init__(self, folder, *at):
        self.folder, self.at = folder, at

    def on_train_batch_end(self, trainer, *args):
        if trainer.global_step in self.at:
            trainer.save_checkpoint(self.folder / f"{trainer.global_step}.ckpt")


def fit(callbacks, checkpoint=None, **kwargs):
    """Train without shuffling, so that a resumed run sees the same batches."""
    seed_everything(3, workers=True, verbose=False)
    used = trainer(*callbacks, **kwargs)
    used.fit(Net(), DataLoader(dataset(seed=1), batch_size=16), loaders()[1], ckpt_path=checkpoint)
    return used


@pytest.mark.parametrize("at", [6, 7, 8, 9])
@pytest.mark.parametrize("is_before", [True, False])
def test_a_due_step_is_neither_lost_nor_repeated(tmp_path, at, is_before):
    """Step 8 is the end of an epoch. A checkpoint that is saved before the comparison of step 6 or 9 lacks it."""

    def monitor():
        return CKAMonitor(
            ["initial", "previous"], every_n_train_steps=3, compare_at_start=True, dirpath="cka", num_samples=64
        )

    whole, saves = monitor(), Saves(tmp_path, at)
    fit([saves, whole] if is_before else [whole, saves])
    again = monitor()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit([again], tmp_path / f"{at}.ckpt")
    assert not [each for each in caught if "CKA" in str(each.message) and "layers" not in str(each.message)]
    assert steps(again) == steps(whole) == [0, 3, 6, 9, 12, 15]
    assert steps(again, "previous") == steps(whole, "previous") == [3, 6, 9, 12, 15]
    for name in ("initial", "previous"):
        for one, other in zip(whole.results[name], again.results[name], strict=True):
            if one.step <= at:  # Later ones depend on what Lightning restores.
                assert torch.allclose(one.matrix, other.matrix, rtol=0, atol=1e-12)
    assert {path.stem for path in (tmp_path / "cka/initial").glob("*.json")} == {f"step={n:06d}" for n in steps(whole)}


def test_a_second_fit_continues_and_does_not_start_again():
    monitor = CKAMonitor(every_n_train_steps=5, compare_at_start=True, save_banks=True, dirpath="cka")
    used = fit([monitor], max_epochs=1)
    assert steps(monitor) == [0, 5]
    used.fit_loop.max_epochs = 2
    used.fit(used.lightning_module, DataLoader(dataset(seed=1), batch_size=16), loaders()[1])
    assert steps(monitor) == [0, 5, 10, 15]


def test_a_resumed_run_may_change_from_epochs_to_steps(tmp_path):
    fit([CKAMonitor(["initial", "previous"], dirpath="cka"), Saves(tmp_path, 12)])
    again = CKAMonitor(["initial", "previous"], every_n_train_steps=5, dirpath="cka")
    fit([again], tmp_path / "12.ckpt")
    assert epochs_and_steps(again) == epochs_and_steps(again, "previous") == [(0, 7), (None, 15)]


@pytest.mark.parametrize(("keep", "left"), [(None, [4, 8, 12, 16]), (2, [12, 16]), (1, [16])])
def test_the_number_of_kept_banks_counts_comparisons(tmp_path, keep, left):
    monitor = CKAMonitor(every_n_train_steps=4, save_banks=True, keep_banks=keep, dirpath="cka")
    fit([monitor])
    names = {path.stem for path in (tmp_path / "cka/banks").glob("*.safetensors")}
    assert names == {"initial", *(f"step={step:06d}" for step in left)}
    found = trajectories("cka")
    assert found["head"].layers == ("step 0", *(f"step {step}" for step in left))


def test_previous_is_restored_from_the_bank_of_its_step(tmp_path):
    fit([CKAMonitor("previous", every_n_train_steps=3, dirpath="cka"), Saves(tmp_path, 7)])
    again = CKAMonitor("previous", every_n_train_steps=3, dirpath="cka")
    fit([again], tmp_path / "7.ckpt")
    assert again._run.state_dict()["references"]["previous"]["snapshot"] == "step=000015"
    assert steps(again, "previous") == [3, 6, 9, 12, 15]
