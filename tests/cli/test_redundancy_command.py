"""The command ``redundancy``: what it reads, prints and writes."""

import csv
from pathlib import Path

import pytest
from cli_runs import fails, write_run
from lightning_cka import compare_banks
from lightning_cka.cli import main
from lightning_cka.decisions.redundancy import redundancy_table

pytestmark = pytest.mark.filterwarnings("ignore:CKA:UserWarning")


@pytest.fixture
def results(tmp_path):
    """A run with banks, and the results of a model with itself by epoch."""
    banks = write_run(tmp_path / "run")
    return {epoch: compare_banks(bank, bank) for epoch, bank in banks.items() if epoch is not None}


def saved(results, *keys):
    for key in keys:
        for epoch, result in results.items():
            result.save(f"run/{key}/epoch={epoch:03d}-step={10 * epoch + 9:06d}.json")


def printed(capsys, *arguments):
    capsys.readouterr()
    assert main(["redundancy", *arguments]) == 0
    return capsys.readouterr().out


def test_a_run_a_result_and_a_bank_give_the_last_epoch(results, capsys):
    expected = redundancy_table(results[1].redundancy()) + "\n"
    assert printed(capsys, "run") == expected  # From the bank: a run without the reference "self".
    saved(results, "self")
    assert printed(capsys, "run") == expected
    assert printed(capsys, "run/self") == expected
    assert printed(capsys, "run/self/epoch=001-step=000019.json") == expected
    assert printed(capsys, "run/banks/epoch=001-step=000019.safetensors") == expected
    assert printed(capsys, "run/self/epoch=000-step=000009.json") == redundancy_table(results[0].redundancy()) + "\n"
    assert expected != redundancy_table(results[0].redundancy()) + "\n"


def test_options_and_files(results, capsys):
    saved(results, "self")
    text = printed(capsys, "run", "--alike", "0.001", "--level", "0.8", "--output", "out/x.csv")
    expected = results[1].redundancy(0.001, 0.8)
    assert text == f"{redundancy_table(expected)}\n\nout/x.csv\n"
    rows = list(csv.DictReader(Path("out/x.csv").read_text().splitlines()))
    assert [(row["layer"], row["next_layer"]) for row in rows] == [("a", "b.c")]
    assert float(rows[0]["low"]) == expected.consecutive[0].low


def test_what_is_refused(results, capsys, tmp_path):
    assert "alike must be in (0, 1)" in fails(capsys, "redundancy", "run", "--alike", "2")
    assert "compares Net" in fails(capsys, "redundancy", "run/initial/epoch=001-step=000019.json")
    saved(results, "self", "self/rbf")
    text = fails(capsys, "redundancy", "run")
    assert "'run' has 2 series of a model with itself: pass one of run/self, run/self/rbf" in text
    (tmp_path / "empty").mkdir()
    text = fails(capsys, "redundancy", "empty")
    assert "no results of a model with itself and no banks" in text
    assert 'reference="self" or save_banks=True' in text
    Path("net.ckpt").touch()
    assert "a checkpoint, but redundancy takes" in fails(capsys, "redundancy", "net.ckpt")
    endings = "--output must end with one of .png, .pdf, .svg, .csv"
    assert endings in fails(capsys, "redundancy", "run", "--output", "x.jpeg")
