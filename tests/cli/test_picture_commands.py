"""The commands ``drift``, ``samples`` and ``spectrum``, and the formats of all commands that draw."""

import pytest
from cli_runs import fails, write_run
from lightning_cka import CKAResult
from lightning_cka.cli import main
from lightning_cka.figures.pictures import FORMATS, write_figure
from matplotlib.figure import Figure

pytestmark = pytest.mark.filterwarnings("ignore:CKA:UserWarning")
STARTS = {".png": b"\x89PNG", ".pdf": b"%PDF", ".svg": b"<?xml"}
BANK = "run/banks/epoch=001-step=000019.safetensors"
LATER, EARLIER = "run/initial/epoch=001-step=000019.json", "run/initial/epoch=000-step=000009.json"
COMMANDS = {
    "compare": ["compare", BANK, "run/banks/initial.safetensors"],
    "difference": ["difference", LATER, EARLIER],
    "drift": ["drift", "run/initial"],
    "samples": ["samples", BANK, "--layer", "a"],
    "spectrum": ["spectrum", BANK],
    "redundancy": ["redundancy", BANK],
    "rank": ["rank", BANK],
    "show": ["show", LATER],
    "matrix": ["matrix", BANK, "run/banks/initial.safetensors"],
}


@pytest.fixture(autouse=True)
def _run(tmp_path):
    write_run(tmp_path / "run")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_that_draws_writes_png_pdf_and_svg(name, tmp_path, capsys):
    for ending, start in STARTS.items():
        path = tmp_path / "new" / f"{name}{ending}"
        assert main([*COMMANDS[name], "--output", str(path)]) == 0
        assert path.read_bytes().startswith(start)
        assert capsys.readouterr().out.endswith(f"{path}\n")
    assert [path.suffix for path in sorted(path.parent.iterdir())] == [".pdf", ".png", ".svg"]


@pytest.mark.parametrize("name", COMMANDS)
def test_other_endings_are_refused_before_anything_is_computed(name, capsys):
    assert "--output must end with one of .png, .pdf, .svg" in fails(capsys, *COMMANDS[name], "--output", "x.jpeg")


def test_endings_may_be_in_upper_case(tmp_path):
    assert main([*COMMANDS["spectrum"], "--output", "x.PDF"]) == 0
    assert (tmp_path / "x.PDF").read_bytes().startswith(b"%PDF")


@pytest.mark.parametrize("ending", ["pdf", "svg"])
def test_trajectories_have_the_format_that_is_asked_for(ending, tmp_path):
    assert main(["trajectory", "run", "--format", ending]) == 0
    names = {path.name for path in (tmp_path / "run" / "trajectory").iterdir()}
    assert names == {f"{name}.{ending}" for name in ("a", "b.c", "overview", "convergence")}


def test_a_picture_that_cannot_be_finished_leaves_the_old_one(tmp_path, monkeypatch):
    path = tmp_path / "x.png"
    path.write_bytes(b"old")

    def fail(self, file, **_options):
        file.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(Figure, "savefig", fail)
    with pytest.raises(OSError, match="disk full"):
        write_figure(Figure(), path)
    assert path.read_bytes() == b"old"
    assert [each.name for each in tmp_path.glob("x*")] == ["x.png"]


def test_drift_takes_the_results_of_one_reference(tmp_path, capsys, monkeypatch):
    drawn = []
    monkeypatch.setattr(
        "lightning_cka.cli.picture_commands.plot_drift", lambda results, **_options: (drawn.append(results), 0)[1:]
    )
    monkeypatch.setattr("lightning_cka.cli.picture_commands.write_figure", lambda *_args: None)
    CKAResult.load(LATER).save("run/validate.json")  # The result of trainer.validate() has another name.
    assert main(["drift", "run", "--output", "x.png"]) == 0
    assert [result.epoch for result in drawn[0]] == [0, 1]
    CKAResult.load(LATER).save("run/initial/rbf/epoch=001-step=000019.json")  # Of another kernel.
    assert main(["drift", "run/initial", "--output", "x.png"]) == 0
    assert len(drawn[1]) == 2
    text = fails(capsys, "drift", "run", "--output", "x.png")
    assert "'run' has the results of 2 references: pass one of run/initial, run/initial/rbf" in text
    assert "'run/banks' has no results (.json)" in fails(capsys, "drift", "run/banks", "--output", "x.png")
    assert "there is no folder 'missing'" in fails(capsys, "drift", "missing", "--output", "x.png")
    assert "the following arguments are required: --output" in fails(capsys, "drift", "run")


def test_samples_take_a_run_and_labels(tmp_path, capsys, monkeypatch):
    seen = []

    def draw(*args, **options):
        seen.append((args, options))
        return Figure(), []

    monkeypatch.setattr("lightning_cka.cli.picture_commands.plot_samples", draw)
    (tmp_path / "labels.txt").write_text("3\n-1\n")
    options = ["--epochs", "init", "1", "--batch", "2", "--marked", "5", "--exclude", "7", "8", "--across", "2"]
    assert main(["samples", "run", "--labels", "labels.txt", *options, "--output", "x.svg"]) == 0
    (args, options) = seen.pop()
    assert [str(args[0]), *args[1:]] == ["run", None, [3, -1], 2, ["init", "1"]]
    assert options == {"marked": [5], "exclude": [7, 8], "across": 2}
    (tmp_path / "labels.txt").write_text("3\nthree\n")
    assert main(["samples", "run", "--labels", "labels.txt", "--output", "x.svg"]) == 0
    assert seen.pop()[0][2] == ["3", "three"]
    assert "No such file" in fails(capsys, "samples", "run", "--labels", "none.txt", "--output", "x.svg")


def test_heatmaps_have_the_epochs_of_both_sides(monkeypatch):
    drawn = []
    monkeypatch.setattr(
        "lightning_cka.cli.compare_command.plot_cka", lambda result: (drawn.append(result), Figure())[1:]
    )
    assert main(["compare", "run", "run", "--epoch", "1", "0", "--output", "x.png"]) == 0
    (result,) = drawn
    assert (result.model_name, result.reference_name, result.epoch) == ("Net, epoch 1", "Net, epoch 0", None)
    assert tuple(STARTS) == FORMATS
