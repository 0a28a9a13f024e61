"""``lightning-cka compare`` with the folders of runs."""

import shlex
from pathlib import Path

import pytest
import torch
from cli_runs import fails, write_run
from lightning_cka import CKAResult, compare_banks
from lightning_cka.cli import main

pytestmark = pytest.mark.filterwarnings("ignore:CKA:UserWarning")


@pytest.fixture
def runs(tmp_path):
    """Two runs of the same class, in folders of Lightning; the second is longer."""
    one = write_run(tmp_path / "seed0" / "lightning_logs" / "version_0" / "cka")
    other = write_run(tmp_path / "seed1" / "lightning_logs" / "version_0" / "cka", 5, epochs=(0, 1, 2, 10))
    return one, other


def compared(*arguments):
    assert main(["compare", *arguments, "--output", "out.json"]) == 0
    return CKAResult.load("out.json")


def assert_is(result, a, b):
    assert torch.equal(result.matrix, compare_banks(a, b).matrix)


def test_one_epoch_of_both_runs(runs, capsys):
    result = compared("seed0", "seed1", "--epoch", "1")
    assert_is(result, runs[0][1], runs[1][1])
    assert (result.model_name, result.reference_name) == ("Net (seed0)", "Net (seed1), epoch 1")
    assert "Net (seed0), epoch 1, step 19 and Net (seed1), epoch 1: linear CKA" in capsys.readouterr().out


def test_another_epoch_of_each_run(runs):
    assert_is(compared("seed0", "seed1", "--epoch", "1", "10"), runs[0][1], runs[1][10])
    assert_is(compared("seed0", "seed1", "--epoch", "initial", "last"), runs[0][None], runs[1][10])
    assert_is(compared("seed0", "seed1", "--epoch", "001", "002"), runs[0][1], runs[1][2])
    assert_is(compared("seed0", "seed1", "--step", "9", "109"), runs[0][0], runs[1][10])


def test_two_epochs_of_one_run_keep_the_name_of_the_class(runs):
    result = compared("seed1", "seed1", "--epoch", "2", "0")
    assert_is(result, runs[1][2], runs[1][0])
    assert (result.model_name, result.reference_name) == ("Net", "Net, epoch 0")


def test_the_same_bank_twice_is_a_comparison_with_itself(runs):
    assert compared("seed1", "seed1", "--epoch", "2").self_comparison


def test_a_bank_and_a_run(runs, tmp_path):
    runs[0][1].save("mine.safetensors")
    result = compared("mine.safetensors", "seed1", "--epoch", "2")
    assert_is(result, runs[0][1], runs[1][2])
    assert (result.model_name, result.reference_name) == ("Net (mine)", "Net (seed1), epoch 2")


def test_names(runs):
    result = compared("seed0", "seed1", "--epoch", "1", "--name", "mine", "--reference-name", "theirs")
    assert (result.model_name, result.reference_name) == ("mine", "theirs, epoch 1")
    assert compared("seed0", "seed1", "--epoch", "1", "--model-name", "mine").model_name == "mine"


def test_the_last_bank_of_an_epoch_counts(runs, tmp_path):
    bank = runs[0][1]
    bank.step = 15
    bank.save(tmp_path / "seed0/lightning_logs/version_0/cka/banks/epoch=000-step=000015.safetensors")
    assert_is(compared("seed0", "seed1", "--epoch", "0"), bank, runs[1][0])
    assert_is(compared("seed0", "seed1", "--step", "9"), runs[0][0], runs[1][0])


def test_without_an_epoch_the_choices_and_their_commands_are_listed(runs, capsys):
    text = fails(capsys, "compare", "seed0", "seed1", lines=2)
    assert "--epoch chooses which banks to compare" in text
    assert "epochs in both: initial, 0, 1\n" in text
    assert "epochs in seed1 only: 2, 10\n" in text
    commands = [line.strip() for line in text.splitlines() if line.startswith("  lightning-cka")]
    assert commands == [
        "lightning-cka compare seed0 seed1 --epoch 1",
        "lightning-cka compare seed0 seed1 --epoch 0 10",
    ]
    for command in commands:
        assert main(shlex.split(command)[1:]) == 0


def test_choices_within_one_run_and_beside_a_bank(runs, capsys, tmp_path):
    text = fails(capsys, "compare", "seed1", "seed1", lines=2)
    assert "epochs in seed1: initial, 0, 1, 2, 10" in text
    assert "compare seed1 seed1 --epoch initial 10" in text
    runs[0][1].save("a bank.safetensors")
    text = fails(capsys, "compare", "a bank.safetensors", "seed1", lines=2)
    assert "lightning-cka compare 'a bank.safetensors' seed1 --epoch 10" in text


def test_a_run_without_banks_says_what_writes_them(runs, capsys, tmp_path):
    (tmp_path / "empty").mkdir()
    assert "'empty' has no banks" in (text := fails(capsys, "compare", "empty", "seed1", "--epoch", "1"))
    assert "CKAMonitor(save_banks=True)" in text
    write_run(tmp_path / "short", epochs=())  # Only the bank that resuming needs.
    text = fails(capsys, "compare", "short", "seed1", "--epoch", "1")
    assert "'short' has no bank of epoch 1, but of initial. CKAMonitor(save_banks=True) keeps one" in text
    assert "short: CKAMonitor(save_banks=True) keeps one" in fails(capsys, "compare", "short", "seed1", lines=2)


def test_a_folder_of_several_runs_lists_them(runs, capsys):
    text = fails(capsys, "compare", ".", "seed1", "--epoch", "1")
    assert "'.' has the banks of 2 runs: pass one of seed0/lightning_logs/version_0/cka, seed1/" in text


def test_banks_that_were_moved_aside_are_no_run(runs, tmp_path):
    write_run(tmp_path / "seed0" / "lightning_logs" / "version_0" / "cka" / "earlier-1")
    assert_is(compared("seed0", "seed1", "--epoch", "1"), runs[0][1], runs[1][1])


def test_options_that_do_not_fit(runs, capsys):
    bank = next(Path("seed0").rglob("initial.safetensors"))
    assert "no path is a folder" in fails(capsys, "compare", bank, bank, "--epoch", "1")
    assert "one value for each folder, but got 2 for 1" in fails(capsys, "compare", bank, "seed1", "--epoch", "1", "2")
    assert "one value for each folder, but got 3 for 2" in fails(
        capsys, "compare", "seed0", "seed1", "--epoch", "1", "2", "3"
    )
    assert "'seed0' has no bank of epoch 7, but of initial, 0, 1" in fails(
        capsys, "compare", "seed0", "seed1", "--epoch", "7"
    )
    assert "not allowed with argument" in fails(capsys, "compare", "seed0", "seed1", "--epoch", "7", "--step", "1")
    assert "expected a number, initial or last, but got 'best'" in fails(
        capsys, "compare", "seed0", "seed1", "--epoch", "best"
    )
    assert "Put the paths before the options" in fails(capsys, "compare", "--epoch", "1", "seed0", "seed1")
    for option, value in (("--architecture", "x:Net"), ("--dataloader", "x:f"), ("--seed", "0"), ("--device", "cpu")):
        assert f"{option} is for checkpoints" in fails(
            capsys, "compare", "seed0", "seed1", "--epoch", "1", option, value
        )


def test_layers_are_paired_by_position_on_request(runs, tmp_path):
    write_run(tmp_path / "other", 9, epochs=(1,), layers=("x", "y"))
    with pytest.raises(KeyError):
        compared("seed0", "other", "--epoch", "1").same_named()["a"]
    assert list(compared("seed0", "other", "--epoch", "1", "--pair", "position").same_named()) == ["a", "b.c"]


def test_layers_are_paired_by_a_mapping_on_request(runs, tmp_path, capsys):
    write_run(tmp_path / "other", 9, epochs=(1,), layers=("x", "y"))
    result = compared("seed0", "other", "--epoch", "1", "--pair", "b.c=x", "a=y")
    assert result.paired().layers == {"a": "y", "b.c": "x"}
    assert result.same_named() == {"a": result.matrix[0, 1].item(), "b.c": result.matrix[1, 0].item()}
    command = ["compare", "seed0", "other", "--epoch", "1", "--pair"]
    assert "--pair takes name, position, or pairs like conv1=stem, but got 'b.c'" in fails(capsys, *command, "b.c")
    assert "but got 'position'" in fails(capsys, *command, "a=x", "position")
    assert "--pair gives the layer 'a' two partners: 'x' and 'y'" in fails(capsys, *command, "a=x", "a=y")
    assert "'z' is no compared layer of the reference" in fails(capsys, *command, "a=z")
    assert "Put the paths before the options" in fails(
        capsys, "compare", "seed0", "other", "--epoch", "1", "--pair", "a=x", "seed0"
    )
