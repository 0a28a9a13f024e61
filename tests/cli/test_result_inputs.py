"""``lightning-cka compare`` with results, with unlike paths, and with what is neither."""

import shlex

import pytest
import torch
from cli_runs import fails, write_run
from lightning_cka.cli import main
from safetensors.torch import save_file

pytestmark = pytest.mark.filterwarnings("ignore:CKA:UserWarning")
RESULT = "initial/epoch=001-step=000019.json"


def test_two_results_get_the_commands_that_take_them(tmp_path, capsys):
    write_run(tmp_path / "one")
    write_run(tmp_path / "two", 5)
    text = fails(capsys, "compare", f"one/{RESULT}", f"two/{RESULT}", lines=2)
    assert "compare takes banks, runs or checkpoints, but these are results" in text
    commands = [shlex.split(line)[1:] for line in text.splitlines() if line.startswith("  lightning-cka")]
    bank = "banks/epoch=001-step=000019.safetensors"
    assert commands == [
        ["difference", f"one/{RESULT}", f"two/{RESULT}"],
        ["compare", f"one/{bank}", f"two/{bank}"],
        ["show", f"one/{RESULT}"],
        ["show", f"two/{RESULT}"],
    ]
    for command in commands:
        assert main(command) == 0


def test_results_without_banks_offer_no_comparison_of_banks(tmp_path, capsys):
    write_run(tmp_path / "one")
    (tmp_path / "one" / RESULT).rename("a.json")
    (tmp_path / "one/initial/epoch=000-step=000009.json").rename("b.json")
    text = fails(capsys, "compare", "a.json", "b.json", lines=2)
    assert "lightning-cka difference a.json b.json" in text
    assert "lightning-cka compare" not in text


def test_one_result_is_not_compared_with_anything_else(tmp_path, capsys):
    write_run(tmp_path / "one")
    text = fails(capsys, "compare", "one", f"one/{RESULT}", "--epoch", "1")
    assert f"'one/{RESULT}' is a result: it has CKA values, but no Gram matrices" in text
    assert "`lightning-cka difference`" in text
    assert "is a result" in fails(capsys, "compare", f"one/{RESULT}", f"one/{RESULT}")


def test_a_checkpoint_beside_a_run_needs_its_network_and_its_samples(tmp_path, capsys):
    write_run(tmp_path / "one")
    for name, write in (("a.ckpt", torch.save), ("b.safetensors", save_file)):
        write({"weight": torch.zeros(2)}, tmp_path / name)
        for paths in ((name, "one"), ("one", name)):
            text = fails(capsys, "compare", *paths, "--epoch", "1")
            assert f"'{name}' is a checkpoint, which has weights only: --architecture and --dataloader missing" in text


def test_other_paths_say_what_they_are_and_what_was_expected(tmp_path, capsys):
    write_run(tmp_path / "one")
    (tmp_path / "notes.txt").touch()
    assert "there is no file or folder 'missing'" in fails(capsys, "compare", "missing", "one")
    text = fails(capsys, "compare", "one", "notes.txt")
    assert "'notes.txt' has an unknown ending: expected a bank (.safetensors), a result (.json), the folder" in text
    assert "'one' is a folder, but show takes a result (.json) or a bank" in fails(capsys, "show", "one")
    assert "this is a bank: use the command compare, samples or spectrum" in fails(
        capsys, "show", "one/banks/initial.safetensors", "--output", "x.png"
    )
