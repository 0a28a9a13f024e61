"""The command line, as a shell calls it."""

import csv
import subprocess
import sys
from dataclasses import replace
from importlib.metadata import entry_points
from pathlib import Path

import pytest
import torch
from cli_runs import SIZES, fails
from gram_banks import make_bank
from lightning_cka import CKAResult, compare_banks
from lightning_cka.cli import main
from lightning_cka.compare.flags import Thresholds
from lightning_cka.hsic.kernels import RBF
from PIL import Image

pytestmark = pytest.mark.filterwarnings("ignore:CKA:UserWarning")


@pytest.fixture
def files(tmp_path):
    """A run of three epochs, in the current folder: banks, and results of two references."""
    banks = []
    for epoch, step in ((None, 0), (0, 9), (1, 19)):
        bank = make_bank(len(banks) + 1, sizes=SIZES, epoch=epoch, step=step)
        name = "initial" if epoch is None else f"epoch=00{epoch}-step={step:06d}"
        bank.save(tmp_path / "run" / "banks" / f"{name}.safetensors")
        banks.append(bank)
    results = [compare_banks(bank, banks[0], thresholds=Thresholds(standard_error=0.025)) for bank in banks[1:]]
    for result in results:
        for key in ("initial", "other/rbf"):
            result.save(tmp_path / "run" / key / f"epoch=00{result.epoch}-step={result.step:06d}.json")
    results[0].save(tmp_path / "run" / "earlier-1" / "initial" / "epoch=000-step=000001.json")
    return banks, results


A, B = "run/banks/initial.safetensors", "run/banks/epoch=001-step=000019.safetensors"


def test_compare_prints_a_table_and_writes_the_requested_file(files, capsys, tmp_path):
    banks, _ = files
    for ending in ("png", "pdf", "svg", "csv", "json"):
        assert main(["compare", A, B, "--output", f"out.{ending}"]) == 0
    out, _ = capsys.readouterr()
    assert "Net, initial and Net, epoch 1: linear CKA, 73 samples in 5 batches, mean" in out
    expected = compare_banks(banks[0], banks[2])
    value, error = expected.matrix[1, 1], expected.standard_error[1, 1]
    (line, *_) = [line for line in out.splitlines() if line.startswith("b.c ")]
    assert f"{value:.3f} ± {error:.3f}" in line
    assert torch.equal(CKAResult.load("out.json").matrix, expected.matrix)
    rows = list(csv.DictReader((tmp_path / "out.csv").read_text().splitlines()))
    assert [(row["layer"], row["reference_layer"]) for row in rows] == [
        (a, b) for a in expected.layers for b in expected.reference_layers
    ]
    assert float(rows[3]["cka"]) == value
    with Image.open("out.png") as image:
        assert image.width > 300
        assert image.info["dpi"] == pytest.approx((200, 200), abs=0.1)
    assert (tmp_path / "out.pdf").read_bytes().startswith(b"%PDF")
    assert "<svg" in (tmp_path / "out.svg").read_text()


def test_compare_takes_kernels_layers_and_the_biased_estimator(files, capsys):
    banks, _ = files
    for arguments, options in (
        (["--kernel", "rbf:0.2"], {"kernel": RBF(0.2)}),
        (["--kernel", "distance", "--biased"], {"kernel": "distance", "unbiased": False}),
        (["--layers", "b.*", "--reference-layers", "a", "b.c"], {"layers": "b.*", "reference_layers": ["a", "b.c"]}),
    ):
        assert main(["compare", A, B, "--output", "out.json", *arguments]) == 0
        expected = compare_banks(banks[0], banks[2], **options)
        assert torch.equal(CKAResult.load("out.json").matrix, expected.matrix)
    assert "biased" in capsys.readouterr().out


def test_trajectory_draws_all_layers(files, capsys, tmp_path):
    assert main(["trajectory", "run"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[2].split() == ["layer", "init", "0", "1"]
    assert out[4].split()[-1] == "1.000"
    assert {p.name for p in (tmp_path / "run" / "trajectory").iterdir()} == {
        "a.png",
        "b.c.png",
        "overview.png",
        "convergence.png",
    }
    assert main(["trajectory", "run/banks", "--output", "elsewhere", "--layers", "a"]) == 0
    assert (tmp_path / "elsewhere" / "a.png").exists()


def test_animate_takes_a_run_a_reference_or_files(files, capsys, tmp_path):
    assert main(["animate", "run"]) == 0
    assert capsys.readouterr().out.split() == ["run/initial-evolution.gif", "run/other/rbf-evolution.gif"]
    with Image.open("run/initial-evolution.gif") as image:
        assert image.n_frames == 2
    assert main(["animate", "run/initial", "--output", "one.gif", "--seconds", "0.1"]) == 0
    with Image.open("one.gif") as image:
        assert image.info["duration"] == 100
    results = [str(path) for path in sorted((tmp_path / "run" / "initial").glob("*.json"))]
    assert main(["animate", *results]) == 0
    assert (tmp_path / "run" / "initial" / "evolution.gif").exists()


def test_difference_prints_a_table_and_writes_the_requested_file(files, capsys, tmp_path):
    _, results = files
    later, earlier = (f"run/initial/epoch=00{r.epoch}-step={r.step:06d}.json" for r in reversed(results))
    for ending in ("png", "pdf", "svg", "csv"):
        assert main(["difference", later, earlier, "--level", "0.9", "--output", f"out.{ending}"]) == 0
        out = capsys.readouterr().out
        assert out.endswith(f"\n\nout.{ending}\n")
    difference = results[1].difference(results[0])
    low, high = difference.confidence_interval(0.9)
    lines = out.splitlines()
    assert lines[0].startswith(f"CKA, epoch 1 minus epoch 0: mean {difference.mean():+.4f} ± ")
    assert " ".join(lines[2].split()) == "layer difference standard error 90 % interval significant (Holm)"
    assert lines[3].split()[:2] == ["a", f"{difference.matrix[0, 0]:+.4f}"]
    assert f"{difference.standard_error[0, 0]:.4f}  {low[0, 0]:+.4f} to {high[0, 0]:+.4f}" in lines[3]
    rows = list(csv.DictReader((tmp_path / "out.csv").read_text().splitlines()))
    assert float(rows[0]["standard_error"]) == difference.standard_error[0, 0]
    assert rows[1]["standard_error"] == "nan"  # Files have no records of other pairs.
    with Image.open("out.png") as image:
        assert image.width > 300
    assert "--output must end with one of .png, .pdf, .svg, .csv, but got 'x.json'" in fails(
        capsys, "difference", later, earlier, "--output", "x.json"
    )
    replace(results[0], left_out_batches=None).save("old.json")
    assert "the earlier result has no left_out_batches" in fails(capsys, "difference", later, "old.json")
    for result, name in zip(results, ("x.json", "y.json"), strict=True):
        replace(result, reference_layers=("p", "q"), diagnostics=None).save(name)
    assert "keep errors for paired layers only" in fails(capsys, "difference", "x.json", "y.json")


def test_a_difference_from_few_batches_has_no_interval(capsys, tmp_path):
    banks = [make_bank(variant) for variant in range(3)]
    for bank, name in zip(banks[1:], ("x.json", "y.json"), strict=True):
        compare_banks(bank, banks[0]).save(name)
    assert main(["difference", "y.json", "x.json"]) == 0
    out = capsys.readouterr().out
    assert " to " not in out
    assert "effective batches, but an interval needs about four" in out


def test_show_takes_results_and_banks(files, capsys):
    _, results = files
    result = results[1]
    assert main(["show", "run/initial/epoch=001-step=000019.json"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("Net, epoch 1, step 19 and Net, initial: linear CKA")
    for place, (name, line) in enumerate(zip(result.layers, lines[3:], strict=True)):
        assert line.startswith(name)
        assert f"{result.matrix[place, place]:.3f} ± {result.standard_error[place, place]:.3f}" in line
        assert ("standard error" in line) == any(flag.layer == name for flag in result.flags)
    assert result.flags
    assert main(["show", A]) == 0
    out = capsys.readouterr().out
    assert "Net, initial: 73 samples in 5 batches, seed 0" in out
    assert "effective dimension" in out


def test_show_a_model_compared_with_itself_and_layers_without_the_same_name(files, capsys):
    banks, results = files
    compare_banks(banks[0], banks[0]).save("self.json")
    replace(results[0], reference_layers=("x", "y"), diagnostics=None, standard_error=None).save("other.json")
    for name in ("self", "other"):
        assert main(["show", f"{name}.json"]) == 0
        out = capsys.readouterr().out
        assert "same name" not in out
        assert out.splitlines()[2].split()[:3] == ["layer", "most", "similar"]
    assert "±" not in out


def test_bad_input_gives_one_line_and_status_2(files, capsys, tmp_path):
    assert "there is no file or folder 'nope'" in fails(capsys, "compare", "nope", B)
    (tmp_path / "text.json").write_text("{}")
    assert "'text.json' is not a result of lightning_cka" in fails(capsys, "show", "text.json")
    (tmp_path / "text.safetensors").write_text("{}")
    assert "'text.safetensors' cannot be read as a bank" in fails(capsys, "compare", "text.safetensors", B)
    assert "there is no file or folder 'missing.json'" in fails(capsys, "show", "missing.json")
    assert "unknown kernel 'cubic'; expected linear, distance, rbf or rbf:T" in fails(
        capsys, "compare", A, B, "--kernel", "cubic"
    )
    assert "threshold" in fails(capsys, "compare", A, B, "--kernel", "rbf:-1")
    assert "must end with one of .png, .pdf, .svg, .csv, .json, but got 'x.txt'" in fails(
        capsys, "compare", A, B, "--output", "x.txt"
    )
    assert "'z' matches none" in fails(capsys, "compare", A, B, "--layers", "z")
    assert "there are no results in run/banks" in fails(capsys, "animate", "run/banks")
    assert "--output names one animation, but there are 2" in fails(capsys, "animate", "run", "--output", "x.gif")
    assert "--output must end with .gif, but got 'x.mp4'" in fails(
        capsys, "animate", "run/initial", "--output", "x.mp4"
    )
    assert "there is no folder 'missing'" in fails(capsys, "trajectory", "missing")
    assert "invalid choice: 'paint'" in fails(capsys, "paint")
    make_bank(2, sizes=SIZES, seed=8).save("seed.safetensors")
    assert "they differ in the seed (0 and 8). strict=False (--no-strict)" in fails(
        capsys, "compare", A, "seed.safetensors"
    )
    assert main(["compare", A, "seed.safetensors", "--loose"]) == 0
    err = capsys.readouterr().err
    assert err.startswith(
        "lightning-cka: warning: the banks have different probe sets: they differ in the seed (0 and 8)"
    )


def test_it_is_installed_and_helps(capsys):
    (found,) = (entry for entry in entry_points(group="console_scripts") if entry.name == "lightning-cka")
    assert found.value == "lightning_cka.cli:main"
    assert found.load() is main
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    assert caught.value.code == 0
    out, _ = capsys.readouterr()
    assert all(name in out for name in ("compare", "trajectory", "animate", "show"))
    assert fails(capsys, "show", "missing.json")


def test_a_pipe_that_is_closed_early_is_no_error(files):
    """As in ``lightning-cka compare ... | head -1``: the file is written, and there is no error message."""
    command = f"{sys.executable} -m lightning_cka.cli compare {A} {B} --output out.json | true; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0
    assert all(line.startswith("lightning-cka: warning: CKA") for line in done.stderr.splitlines())
    assert CKAResult.load("out.json").layers == ("a", "b.c")


def test_without_arguments_the_help_is_shown(capsys):
    with pytest.raises(SystemExit) as raised:
        main([])
    assert raised.value.code == 2
    assert "compute CKA between the layers of two networks" in capsys.readouterr().err


@pytest.mark.usefixtures("files")
def test_report_writes_a_page_of_the_run(capsys):
    main(["report", "run"])
    assert capsys.readouterr().out == "run/report.html\n"
    text = Path("run/report.html").read_text()
    assert "<title>CKA of run</title>" in text
    assert "earlier-1" not in text


@pytest.mark.usefixtures("files")
def test_report_puts_several_runs_into_one_page(capsys, tmp_path):
    (tmp_path / "run" / "initial").rename(tmp_path / "second")
    main(["report", "run", "second", "--output", "both.html"])
    assert capsys.readouterr().out == "both.html\n"
    assert "<title>CKA of run, second</title>" in (tmp_path / "both.html").read_text()


@pytest.mark.usefixtures("files")
def test_report_warns_about_damaged_files_and_leaves_them_out(capsys, tmp_path):
    for file in (tmp_path / "run" / "initial").glob("*.json"):
        file.write_text("{}")
    main(["report", "run"])
    assert capsys.readouterr().err.count("is not a result of lightning_cka") == 2
    assert "is not a result of lightning_cka" in (tmp_path / "run" / "report.html").read_text()


def test_report_needs_folders_with_results(capsys, tmp_path):
    for folder, problem in (("missing", "there is no folder"), (str(tmp_path), "there are no results")):
        with pytest.raises(SystemExit) as exit_info:
            main(["report", folder])
        assert exit_info.value.code == 2
        assert problem in capsys.readouterr().err
