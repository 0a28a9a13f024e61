"""The command ``rank``: what it reads, prints and writes."""

import csv
from dataclasses import replace
from pathlib import Path

import pytest
from cli_runs import fails, write_run
from lightning_cka import CKAResult, rank_history
from lightning_cka.cli import main
from lightning_cka.compare.run_files import result_files
from lightning_cka.decisions.rank_history import rank_table


@pytest.fixture(autouse=True)
def _run(tmp_path):
    write_run(tmp_path / "run")


def test_the_table_of_a_run_with_banks(capsys):
    for source in ("run", "run/banks"):
        assert main(["rank", source, "--rank-loss", "0.3", "--level", "0.9"]) == 0
        assert capsys.readouterr().out.strip() == rank_table(rank_history("run"), 0.3, 0.9)


def test_one_bank_some_layers_and_excluded_samples(capsys):
    bank = sorted(Path("run/banks").iterdir())[0]
    assert main(["rank", str(bank), "--layers", "a", "--exclude", "3", "--output", "ranks.csv"]) == 0
    history = rank_history(bank, "a", exclude=[3])
    assert capsys.readouterr().out == f"{rank_table(history)}\n\nranks.csv\n"
    (row,) = csv.DictReader(Path("ranks.csv").read_text().splitlines())
    assert float(row["effective_rank"]) == history.rank.item()


def test_results_with_ranks_need_no_banks(tmp_path, capsys):
    history = rank_history("run")
    for bank in Path("run/banks").iterdir():
        bank.unlink()
    assert "has no banks" in fails(capsys, "rank", "run")
    files = result_files(tmp_path / "run" / "initial")
    for file, ranks in zip(files, history.ranks[1:], strict=False):
        replace(CKAResult.load(file), ranks=ranks).save(file)
    assert main(["rank", "run"]) == 0
    out = capsys.readouterr().out
    assert out.strip() == rank_table(rank_history(list(map(CKAResult.load, files))))


def test_bad_numbers_are_refused(capsys):
    assert "rank_loss must be at least 0" in fails(capsys, "rank", "run", "--rank-loss", "-1")
