"""The commands ``convergence`` and ``summary``: what they read, print and write."""

import csv
from pathlib import Path

import pytest
from cli_runs import fails, write_run
from lightning_cka import compare_banks, convergence, would_freeze
from lightning_cka.cli import main
from lightning_cka.decisions.run_results import fixed_references, read_run
from lightning_cka.decisions.summary import run_summary

pytestmark = pytest.mark.filterwarnings("ignore:CKA:UserWarning")


def printed(capsys, *arguments):
    capsys.readouterr()
    assert main(list(arguments)) == 0
    return capsys.readouterr().out


def rows_of(path):
    with Path(path).open(newline="") as file:
        return list(csv.DictReader(file))


def summary_of(folder, **options):
    run = read_run(folder)
    return run_summary(run.results, run.banks, fixed_references(run.results), **options)


@pytest.mark.parametrize("command", ["convergence", "summary", "redundancy", "rank"])
@pytest.mark.parametrize(("inside", "given"), [("run", "."), ("run/initial", ".."), ("run", "../run"), ("", "linked")])
def test_a_folder_may_be_given_by_any_relative_path(tmp_path, monkeypatch, capsys, command, inside, given):
    write_run(tmp_path / "run", epochs=(0, 1, 2))
    (tmp_path / "linked").symlink_to(tmp_path / "run")
    expected = printed(capsys, command, "run")
    monkeypatch.chdir(tmp_path / inside)
    assert printed(capsys, command, given).replace(given, "run") == expected.replace(given, "run")


def test_convergence_prints_the_table_and_writes_files(tmp_path, capsys):
    write_run(tmp_path / "run", epochs=(0, 1, 2))
    expected = repr(convergence("run"))
    assert printed(capsys, "convergence", "run") == f"{expected}\n"
    assert printed(capsys, "convergence", "run/initial") == f"{expected}\n"
    wide = repr(convergence("run", tolerance=0.9, level=0.5))
    text = printed(capsys, "convergence", "run", "--tolerance", "0.9", "--level", "0.5", "--output", "out/a.csv")
    assert text == f"{wide}\n\nout/a.csv\n"
    assert wide != expected
    rows = rows_of("out/a.csv")
    assert [row["layer"] for row in rows] == ["a", "b.c"] * 2
    printed(capsys, "convergence", "run", "--output", "out/a.png")
    assert Path("out/a.png").read_bytes()[:4] == b"\x89PNG"


def test_freeze_prints_what_would_have_been_frozen_and_writes_files(tmp_path, capsys):
    write_run(tmp_path / "run", epochs=(0, 1, 2))
    expected = repr(would_freeze("run", patience=2))
    assert printed(capsys, "freeze", "run", "--patience", "2") == f"{expected}\n"
    options = ["--patience", "1", "--tolerance", "0.9", "--level", "0.5", "--output"]
    other = repr(would_freeze("run", 0.9, 1, 0.5))
    assert printed(capsys, "freeze", "run", *options, "a.csv") == f"{other}\n\na.csv\n"
    assert [row["layer"] for row in rows_of("a.csv")] == ["a", "b.c"]
    printed(capsys, "freeze", "run", *options, "a.png")
    assert Path("a.png").read_bytes()[:4] == b"\x89PNG"
    assert "needs the banks of at least 10 moments" in fails(capsys, "freeze", "run", "--patience", "9")


def test_runs_without_banks_or_results_say_what_is_missing(tmp_path, capsys):
    write_run(tmp_path / "run")
    for bank in Path("run/banks").iterdir():
        bank.unlink()
    assert "Note: CKA with the last state is unknown, because there are no banks" in printed(
        capsys, "convergence", "run"
    )
    assert "needs" not in printed(capsys, "summary", "run")
    Path("empty").mkdir()
    for command in ("convergence", "summary"):
        assert "'empty' has no results (.json) and no banks" in fails(capsys, command, "empty")
        assert "there is no folder 'nope'" in fails(capsys, command, "nope")
    assert "--output must end with one of" in fails(capsys, "convergence", "run", "--output", "x.txt")
    assert "--output must end with one of .md, .csv" in fails(capsys, "summary", "run", "--output", "x.png")
    write_run(tmp_path / "banks-only", epochs=(0,))
    for result in Path("banks-only/initial").iterdir():
        result.unlink()
    assert "there are no results of training" in fails(capsys, "summary", "banks-only")


def test_the_summary_has_all_references_and_writes_files(tmp_path, capsys):
    banks = write_run(tmp_path / "run")
    for epoch in (0, 1):
        compare_banks(banks[epoch], banks[epoch]).save(f"run/self/epoch={epoch:03d}-step={10 * epoch + 9:06d}.json")
    expected = summary_of("run")
    assert expected.header[0] == "initial"
    assert "1 - CKA to the next" in expected.header
    assert printed(capsys, "summary", "run") == f"{expected.text(Path('run'))}\n"
    printed(capsys, "summary", "run", "--output", "out/s.md", "--tolerance", "0.5")
    assert Path("out/s.md").read_text() == summary_of("run", tolerance=0.5).markdown(None) + "\n"
    printed(capsys, "summary", "run", "--output", "out/s.csv")
    assert rows_of("out/s.csv") == expected.to_rows()


def test_all_shows_all_layers(tmp_path, capsys):
    write_run(tmp_path / "run", layers=("a", "b.c"))
    few = printed(capsys, "summary", "run")
    assert printed(capsys, "summary", "run", "--all") == few
    found = summary_of("run")
    assert few == f"{found.text(None)}\n"
