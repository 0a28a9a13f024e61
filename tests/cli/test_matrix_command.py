"""The command ``matrix``, and the option ``--ceiling`` of other commands."""

import csv

import pytest
from cli_runs import fails, write_run
from lightning_cka import CKAResult, compare_many, seed_ceiling
from lightning_cka.cli import main
from PIL import Image

pytestmark = pytest.mark.filterwarnings("ignore:(CKA|RSA).*:UserWarning")

RUNS = ["runs/seed0", "runs/seed1", "runs/seed2"]
LAST = "banks/epoch=001-step=000019.safetensors"


@pytest.fixture(autouse=True)
def _runs(tmp_path):
    for place, run in enumerate(RUNS):
        write_run(tmp_path / run, variant=1 + 10 * place)


def test_a_table_of_the_last_banks(capsys):
    assert main(["matrix", *RUNS]) == 0
    expected = compare_many(RUNS, progress_bar=False)
    out, err = capsys.readouterr()
    heading, _, header, *rows, _, errors = out.splitlines()
    assert heading == "linear CKA of 3 models, mean of 2 layers, 73 samples"
    assert header.split() == ["model", "seed0", "seed1", "seed2"]
    for row, name, values in zip(rows, expected.names, expected.matrix.tolist(), strict=True):
        assert row.split() == [name, *(f"{value:.3f}" for value in values)]
    assert errors == f"standard errors over probe batches: at most {float(expected.standard_error.max()):.3f}"
    assert "%" not in err  # There is no progress bar, because nobody sees it.


def test_files_with_options(tmp_path, capsys):
    for ending in ("png", "csv"):
        assert main(["matrix", *RUNS, "--output", f"new/models.{ending}", "--epoch", "0", "--layers", "b.*"]) == 0
        assert capsys.readouterr().out.endswith(f"new/models.{ending}\n")
    with Image.open("new/models.png") as image:
        assert image.width > 600
    rows = list(csv.DictReader((tmp_path / "new/models.csv").read_text().splitlines()))
    first = "banks/epoch=000-step=000009.safetensors"
    expected = compare_many([f"{run}/{first}" for run in RUNS], "b.c", progress_bar=False)
    assert [(row["model"], row["other_model"]) for row in rows] == [
        ("seed0", "seed1"),
        ("seed0", "seed2"),
        ("seed1", "seed2"),
    ]
    assert float(rows[1]["cka"]) == float(expected.matrix[0, 2])


def test_several_measures_have_a_file_each(tmp_path, capsys):
    options = ["--measures", "cka", "rsa", "--kernel", "rbf", "--biased", "--names", "x", "y", "z"]
    assert main(["matrix", *RUNS, *options, "--output", "m.csv"]) == 0
    out = capsys.readouterr().out
    assert "rbf CKA, biased of 3 models" in out
    assert "RSA of 3 models" in out
    assert (tmp_path / "m-cka.csv").read_text().splitlines()[1].startswith("x,y,")
    assert (tmp_path / "m-rsa.csv").read_text().startswith("model,other_model,rsa,")


def test_banks_and_folders_that_cannot_be_compared(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert "expected at least 2 banks" in fails(capsys, "matrix", RUNS[0])
    assert "'empty' has no banks" in fails(capsys, "matrix", RUNS[0], "empty")
    assert "has no bank of epoch 7" in fails(capsys, "matrix", *RUNS, "--epoch", "7")
    assert "--output must end with one of .png, .pdf, .svg, .csv" in fails(capsys, "matrix", *RUNS, "--output", "x.gif")
    assert "not allowed with" in fails(capsys, "matrix", *RUNS, "--epoch", "0", "--step", "9")


RESULT = f"{RUNS[0]}/initial/epoch=001-step=000019.json"


def test_show_says_how_far_layers_are_below_the_seed_ceiling(capsys):
    assert main(["show", RESULT, "--ceiling", *RUNS[1:]]) == 0
    two = capsys.readouterr().out
    assert "seed ceiling: mean over the pairs of 2 seeds; chance: 0" in two
    assert "no interval of the seed ceiling: it has 2 seeds, and needs 3" in two
    assert main(["show", RESULT, "--ceiling", *RUNS]) == 0
    table = capsys.readouterr().out.split("seed ceiling")[1].splitlines()
    ceiling = seed_ceiling([f"{run}/{LAST}" for run in RUNS], progress_bar=False)
    (row, _) = ceiling.below(CKAResult.load(RESULT))
    line = next(line for line in table if line.startswith("a "))
    numbers = [f"{row['cka']:.3f}", f"{row['ceiling']:.3f}", f"{row['below']:+.3f}"]
    assert line.split() == ["a", *numbers, f"{row['low']:+.3f}", "to", f"{row['high']:+.3f}"]


def test_drift_draws_the_seed_ceiling(capsys, monkeypatch):
    drawn = []
    monkeypatch.setattr(
        "lightning_cka.cli.picture_commands.plot_drift", lambda results, ceiling: drawn.append(ceiling) or [0]
    )
    monkeypatch.setattr("lightning_cka.cli.picture_commands.write_figure", lambda *_args: None)
    assert main(["drift", f"{RUNS[0]}/initial", "--ceiling", *RUNS, "--output", "x.png"]) == 0
    assert (drawn[0].num_seeds, drawn[0].layers) == (3, ("a", "b.c"))
    assert main(["drift", f"{RUNS[0]}/initial", "--output", "x.png"]) == 0
    assert drawn[1] is None


def test_ceilings_that_do_not_fit(tmp_path, capsys):
    rbf = CKAResult(**(vars(CKAResult.load(RESULT)) | {"kernel": "rbf(0.3)"}))
    rbf.save("rbf.json")
    assert main(["show", "rbf.json", "--ceiling", *RUNS]) == 0  # By the kernel of the result.
    custom = CKAResult(**(vars(rbf) | {"kernel": "custom"}))
    custom.save("custom.json")
    problem = fails(capsys, "show", "custom.json", "--ceiling", *RUNS)
    assert "--ceiling cannot compute the result's measure: unknown kernel 'custom'" in problem
    write_run(tmp_path / "other", variant=5, layers=("x", "y"))
    assert "none of the result's paired layers" in fails(capsys, "show", RESULT, "--ceiling", "other", "other")
    assert "--ceiling is for the values of a result" in fails(capsys, "show", f"{RUNS[0]}/{LAST}", "--ceiling", *RUNS)


def test_a_report_has_the_seed_ceiling(tmp_path, capsys):
    assert main(["report", RUNS[0], "--ceiling", *RUNS]) == 0
    page = (tmp_path / RUNS[0] / "report.html").read_text()
    assert '"ceiling":{"label":"seed ceiling (3 seeds, chance: 0)"' in page
    assert main(["report", RUNS[0]]) == 0
    assert '"ceiling":{' not in (tmp_path / RUNS[0] / "report.html").read_text()


def test_a_summary_has_the_seed_ceiling(capsys):
    assert main(["summary", RUNS[0], "--ceiling", *RUNS]) == 0
    header, *rows = capsys.readouterr().out.splitlines()[3:]
    assert "seed ceiling" in header
    ceiling = seed_ceiling([f"{run}/{LAST}" for run in RUNS], progress_bar=False)
    half = ceiling.bounds()[1] - ceiling.values
    for row, value, error in zip(rows, ceiling.values.tolist(), half.tolist(), strict=True):
        assert f"{value:.3f} ± {error:.3f}" in row
    assert main(["summary", RUNS[0]]) == 0
    assert "seed ceiling" not in capsys.readouterr().out
