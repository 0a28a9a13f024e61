"""References of the live model some comparisons ago: `reference="previous:3"`."""

import shutil

import pytest
import torch
from conftest import Net
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning_cka import CKAMonitor, GramBank, compare_banks
from test_resume import assert_equal, fit, history
from training import MARKS, epochs_and_steps, run

pytestmark = [
    *MARKS,
    pytest.mark.filterwarnings("ignore:CKA:UserWarning"),
    pytest.mark.filterwarnings("ignore:The dirpath has changed"),
    pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`"),
]
LAGS = ["previous", "previous:2", "previous:3"]


def banks_in_order(folder):
    """Return the bank before training, and those of all comparisons."""
    files = sorted(folder.glob("cka/banks/*step=*"))
    return [GramBank.load(path) for path in [folder / "cka/banks/initial.safetensors", *files]]


def check_against_banks(monitor, banks, number):
    assert list(monitor.results) == ["previous", "previous-2", "previous-3"]
    for lag, results in enumerate(monitor.results.values(), start=1):
        assert len(results) == number
        for place, result in enumerate(results, start=1):
            expected = compare_banks(banks[place], banks[max(0, place - lag)])
            assert torch.allclose(result.matrix, expected.matrix, rtol=0, atol=1e-12)
            assert result.reference_name == LAGS[lag - 1]


@pytest.mark.parametrize("options", [{}, {"every_n_train_steps": 3}, {"every_n_epochs": 2}])
def test_the_values_are_those_of_saved_banks(tmp_path, options):
    """Comparison i is with the bank N comparisons before it, or with the initial one until then."""
    monitor = CKAMonitor(LAGS, save_banks=True, **options)
    fit(monitor, tmp_path, 6 if "every_n_epochs" in options else 3)
    banks = banks_in_order(tmp_path)
    number = len(banks) - 1
    assert number == {"every_n_train_steps": 8}.get(next(iter(options), ""), 3)
    check_against_banks(monitor, banks, number)
    one, two = history(monitor, "previous"), history(monitor, "previous-2")
    assert not torch.allclose(one[-1], two[-1], atol=1e-4)  # A positive control: the weights change.


def test_one_comparison_ago_is_the_previous_one():
    named = CKAMonitor({"last": "previous:1", "last but one": "previous:2"})
    run(named)
    assert [result.reference_name for result in named.results["last but one"]] == ["last but one"] * 2
    plain = CKAMonitor("previous")
    run(plain)
    assert_equal(history(plain, "previous"), history(named, "last"))
    assert CKAMonitor("previous:1").references[0].name == "previous"


@pytest.mark.parametrize("options", [{}, {"keep_banks": 1}])
def test_a_resumed_run_has_bitwise_the_same_results(tmp_path, options):
    """From each checkpoint, into the same folder and into a new one."""
    options = options | {"num_samples": 64}
    whole = CKAMonitor(LAGS, **options)
    fit(whole, tmp_path / "whole", 5)
    fit(CKAMonitor(LAGS, **options), tmp_path / "cut", 4)
    for epoch in range(4):
        shutil.copytree(tmp_path / "cut", tmp_path / f"same{epoch}", dirs_exist_ok=True)
        for folder in (f"same{epoch}", f"new{epoch}"):
            monitor = CKAMonitor(LAGS, **options)
            fit(monitor, tmp_path / folder, 5, tmp_path / f"cut/epoch={epoch}.ckpt")
            for name in whole.results:
                assert epochs_and_steps(monitor, name) == epochs_and_steps(whole, name)
                assert_equal(history(whole, name), history(monitor, name))
                assert {r.reference_name for r in monitor.results[name]} == {name.replace("-", ":")}


@pytest.mark.filterwarnings("ignore:epoch 2 has no CKA")
def test_the_bank_of_an_epoch_whose_validation_is_skipped_takes_its_place(tmp_path):
    """A checkpoint at the last step of an epoch is saved before its validation."""
    early = ModelCheckpoint(tmp_path / "early", filename="{step}", every_n_train_steps=8, save_top_k=-1)
    whole, again = CKAMonitor(LAGS), CKAMonitor(LAGS)
    fit(whole, tmp_path / "whole", 7, callbacks=[whole, early])
    shutil.copytree(tmp_path / "whole/cka", tmp_path / "again/cka")
    fit(again, tmp_path / "again", 7, tmp_path / "early/step=24.ckpt")
    for name in whole.results:
        assert [epoch for epoch, _ in epochs_and_steps(again, name)] == [0, 1, 3, 4, 5, 6]
        assert_equal([each.matrix for each in whole.results[name] if each.epoch != 2], history(again, name))


def test_a_second_fit_continues_the_window(tmp_path):
    monitor = CKAMonitor(LAGS, save_banks=True)
    used = fit(monitor, tmp_path, 2)
    used.fit_loop.max_epochs = 5
    used.fit(used.lightning_module, used.train_dataloader, used.val_dataloaders)
    check_against_banks(monitor, banks_in_order(tmp_path), 5)


def test_a_lost_bank_restarts_the_reference(tmp_path):
    fit(CKAMonitor("previous:3"), tmp_path, 4)
    (tmp_path / "cka/banks/epoch=002-step=000023.safetensors").unlink()  # It waits for its turn.
    monitor = CKAMonitor("previous:3")
    with pytest.warns(UserWarning, match=r"bank of reference 'previous-3' is missing.*as 'previous:3, restarted"):
        fit(monitor, tmp_path, 6, tmp_path / "epoch=3.ckpt")
    assert [(r.epoch, r.reference_name) for r in monitor.results["previous-3"]] == [
        (4, "previous:3, restarted at step 32"),
        (5, "previous:3, restarted at step 32"),
    ]


@pytest.mark.parametrize("wrong", ["previous:0", "previous:", "previous:-1", "previous:two", "previous: 2"])
def test_a_wrong_number_raises(wrong):
    with pytest.raises(ValueError, match=rf"'{wrong}' must be 'previous:N'"):
        CKAMonitor(wrong)


def test_there_is_no_comparison_with_it_before_training():
    monitor = CKAMonitor(["initial", "previous:2"], every_n_train_steps=4, compare_at_start=True)
    run(monitor, model=Net)
    assert [step for _, step in epochs_and_steps(monitor)] == [0, 4, 8, 12, 16]
    assert [step for _, step in epochs_and_steps(monitor, "previous-2")] == [4, 8, 12, 16]
