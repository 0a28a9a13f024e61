"""The examples run with few epochs and print what they promise."""

import json
import os
import re
from pathlib import Path

import forked_scripts
import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
BLANK = Path(__file__).parent / "scripts" / "blank_script.py"


def run(tmp_path, name, *args, draw=True):
    """Run an example in a new process, and return the process. Without drawing, the monitor's figures are blank."""
    command = [EXAMPLES / name, *args] if draw else [BLANK, EXAMPLES / name, *args]
    process = forked_scripts.run(command, tmp_path, os.environ, timeout=240)
    assert process.returncode == 0, process.stdout[-2000:] + process.stderr[-4000:]
    return process


@pytest.mark.parametrize(
    ("name", "args", "expected"),
    [
        ("finetune_from_checkpoint.py", ["--epochs", "2"], r"conv1 +[01]\.\d\d [01]\.\d\d\n[\s\S]*Figures: "),
        (
            "freeze_converged.py",
            ["--epochs", "3", "--seeds", "1", "--patience", "1", "--tolerance", "0.5"],
            r"CNN, 1 seeds[\s\S]*frozen: conv1 +with 1 of 1 [\s\S]*transformer[\s\S]*frozen: rows +with 1 of 1 ",
        ),
        ("ddp.py", ["--epochs", "1"], r"2 processes, 896 probe samples in 14 batches"),
        ("compare_two_models.py", ["--epochs", "1"], r"fc2 +linear\d  CKA 0\.\d+ ± 0\.\d+"),
    ],
)
def test_an_example_prints_its_result_and_draws_a_figure(tmp_path, name, args, expected):
    assert re.search(expected, run(tmp_path, name, *args).stdout)
    assert list(tmp_path.rglob("*.png"))


def test_the_benchmark_prints_all_its_tables(tmp_path):
    small = ["--networks", "MLP", "--samples", "256", "--repeats", "1", "--digits-epochs", "3", "--output", "b/b.json"]
    peers = [
        "--peers",
        "--peer-samples",
        "256",
        "--peer-repeats",
        "1",
        "--peer-limit",
        "1",
        "--peer-references",
        "1",
        "2",
    ]
    limits = ["samples=256", "layers=4", "width=64", "references=2", "kernels=2", "epochs=1"]
    growth = ["--growth", "--growth-limit", *limits, "--bank-samples", "1024", "--bank-layers", "20"]
    processes = ["--process-samples", "256", "--process-widths", "64", "--process-layers", "4"]
    opinions = ["--measures", "--measure-samples", "16"]
    report = ["--report", "--report-epochs", "3"]
    text = run(tmp_path, "benchmark.py", *small, *peers, *growth, *processes, *opinions, *report, draw=False).stdout
    assert re.search(r"\| MLP, 50 layers of 512 \(256\) \| 50 \|", text)
    for name in (
        "initial, previous, self",
        "the same without report.html",
        "the same with report.html after each epoch",
    ):
        assert re.search(rf"\| {name} \| \d", text)
    assert re.search(r"\| 28 \| 3 \| \d.*s \| \d.*s \| 0\.\d \|", text)
    error = re.search(r"\| MLP \(50\) \| lightning-cka \|(?:.*\|){6} (\d\S+) \| \S+ \| \S+ \|", text).group(1)
    assert 0 < float(error) < 1e-6
    assert re.search(r"\| references \|.*\n.*\n\| 1 \|.*\n\| 2 \|", text)
    assert re.search(r"\| kernels \|.*\n.*\n\| 1 \|.*\n\| 2 \|", text)
    found = json.loads((tmp_path / "b" / "b.json").read_text())
    assert [bank["float16"] for bank in found["growth"].get("banks", ())] in ([], [False, True])
    assert set(found) >= {"epoch", "digits", "peers", "growth"}
    assert set(found["measures"]["seconds"]) == {"cka", "mutual_knn", "rsa", "ridge"}
    two = found["growth"]["processes"][0]["processes"]["2"]
    # Both processes send the same: at least the sums of products, a 4 x 4 matrix in float64.
    assert two[0]["bytes"] == two[1]["bytes"] >= 128


def test_the_digits_run_with_its_defaults_has_no_flags(tmp_path):
    process = run(tmp_path, "digits.py", draw=False)
    assert re.search(r"conv1 +[01]\.\d+ ± 0\.\d+[\s\S]*heatmap-epoch=014-step=000224.png", process.stdout)
    assert "Epoch 14" in process.stderr + process.stdout  # Warnings would be in the same stream.
    assert not re.search(r"\bCKA\b.*layers (that|whose)|not exchangeable", process.stderr + process.stdout)


def test_reliability_reaches_the_closed_form_limit_and_flags_each_scenario(tmp_path):
    text = run(tmp_path, "reliability.py", "--points", "5", "--samples", "256", "--epochs", "4").stdout
    parts = text.split("\n\n")
    translated, outlier, shared = (next(part for part in parts if f"({c})" in part) for c in "abc")
    for part in (translated, outlier, shared):
        limit, at_the_end = map(float, re.search(r"limit (\d\.\d+), measured .*, (\d\.\d+) at c = 1e6", part).groups())
        assert limit == pytest.approx(at_the_end, abs=2e-6)
    assert set(re.findall(r"first flagged for (\w+)", translated)) == {"separated_group", "disagreement"}
    single = {"trace_ratio", "leave_one_out", "influence", "disagreement"}
    assert set(re.findall(r"first flagged for (\w+)", outlier)) == single
    assert "at loader position 0" in outlier
    changes = next(part for part in parts if part.startswith("Changes of a layer"))
    rows = re.findall(r"^(\w.+?)((?: +(?:\d\.\d\d|nan)){6})\n((?: {4}.*\n?)+)", changes, re.M)
    assert len(rows) == 6
    *less, more = [([float(value) for value in values.split()], flags) for _, values, flags in rows]
    for (linear, _, neighbors, *_), flags in less:
        assert neighbors > linear + 0.15
        assert "disagreement: fc1 (less changed than CKA says" in flags
    assert "cause: the outlier sample 37" in less[-1][1]
    (linear, *_, ridge), flags = more
    assert linear > 0.99
    assert ridge < 0.2
    assert "disagreement: fc1 (all but one direction changed" in flags
    assert list(tmp_path.rglob("reliability.png"))


def test_a_collapse_is_flagged_early_and_early_stopping_ends_it(tmp_path):
    text = run(tmp_path, "collapse.py", "--quick", draw=False).stdout
    row = r"{} +(\d+\.\d) +(\d+\.\d) +(\d\.\d\d) +(\d+\.\d) +(\w+)"
    found = {
        name: re.search(row.format(name), text).groups()
        for name in ("both terms", "no covariance term", "neither term")
    }
    (_, both, _, _, flag), (first, last, deviation, _, epoch), (*_, small, _, never) = found.values()
    assert flag == never == "never"  # Representations that shrink evenly keep their effective rank.
    assert float(small) < 0.2
    assert float(last) < 0.5 * float(first) < float(both)
    assert float(deviation) > 0.9
    assert epoch in "123"
    ended = re.search(r"ended it after (\d) of 5 epochs:\n  projector has lost (\d+) to (\d+) % of", text).groups()
    assert ended[0] == str(int(epoch) + 1)
    assert 40 < int(ended[1]) < int(ended[2])
    assert {path.name for path in tmp_path.glob("collapse/*.png")} == {
        "both-terms.png",
        "no-covariance-term.png",
        "neither-term.png",
    }


def test_cka_as_a_loss_makes_a_student_resemble_its_teacher(tmp_path):
    text = run(tmp_path, "cka_as_loss.py", "--quick").stdout
    number = r" +(\d+\.\d) ± +\d+\.\d"
    row = re.search(rf"^ +50{number}{number} +[+-]\d+\.\d ± +\d+\.\d +(0\.\d\d) -> (0\.\d\d)$", text, re.MULTILINE)
    plain, distilled, before, after = map(float, row.groups())
    assert min(plain, distilled) > 20  # Chance is 10 %.
    assert after > before + 0.03
    assert list(tmp_path.rglob("cka_as_loss.png"))


def test_a_map_is_made_to_order_and_accuracy_stays(tmp_path):
    text = run(tmp_path, "manipulated_map.py", "--quick").stdout
    parts = re.split(r"\n\n(?=[A-Z])", text.split("\n\nFigure")[0])
    _, trained, last_like_first, all_alike, none_alike, summary = parts
    maps = [
        [[float(value) for value in row.split()] for row in re.findall(r"^  \w+ ((?: +-?\d\.\d\d){6})$", part, re.M)]
        for part in (trained, last_like_first, all_alike, none_alike)
    ]
    means = [(sum(map(sum, rows)) - 6) / 30 for rows in maps]
    assert means[2] > means[0] + 0.05
    assert means[3] < means[0] - 0.4
    assert maps[1][0][0] > maps[0][0][0] + 0.1  # The last layer, at the top, with the first one.
    for part in (last_like_first, all_alike, none_alike):
        before, after = map(float, re.search(r"accuracy (\d+\.\d) % -> (\d+\.\d) %", part).groups())
        assert after > before - 10
        assert len(re.findall(r"\d \( ?-?\d", part)) == 12  # Angle and R² of 6 layers, with chance.
        assert "flagged: " in part
        assert "nan" not in part
    disagree = sum(part.count("flagged: disagreement, ") for part in parts)
    assert f"The flag disagreement names {disagree} of 18 layers" in summary
    assert len(re.findall(r"^  \w+ +[01]\.\d\d$", summary, re.M)) == 4
    assert list(tmp_path.rglob("manipulated_map.png"))


def test_cka_identifies_layers_and_cca_does_not(tmp_path):
    text = run(tmp_path, "layer_identification.py", "--networks", "3", "--epochs", "6", "--width", "16").stdout
    percent = {name: float(value) for name, value in re.findall(r"^  (\S.*?) +(\d+\.\d) ± ", text, re.MULTILINE)}
    assert len(percent) == 12
    assert min(percent[name] for name in ("Ridge CKA", "RSA", "Mutual kNN")) > percent["CCA (R²)"]
    assert percent["CKA (linear)"] > percent["Linear regression"] > percent["SVCCA (mean ρ)"]
    assert percent["CKA (RBF 0.4)"] > percent["CCA (R²)"]
    assert re.search(r"CKA \(linear\) +\d+\.\d ± +\d+\.\d +99\.3", text)
    assert list(tmp_path.rglob("layer_identification.png"))


def test_skipping_redundant_blocks_first_keeps_the_accuracy_longest(tmp_path):
    text = run(tmp_path, "skip_redundant.py", "--quick").stdout
    lines = re.findall(r"^ +\d+(?: +\d+\.\d){4} ", text, re.MULTILINE)
    rows = [list(map(float, line.split())) for line in lines]
    assert [row[0] for row in rows] == list(range(12))
    whole, *skipped = [row[1:] for row in rows]
    assert len(set(whole)) == 1
    assert whole[0] > 80
    smallest, _, largest, _ = (sum(values[place] for values in skipped[:5]) / 5 for place in range(4))
    assert smallest > largest + 20
    assert max(skipped[-1]) < 30  # Chance is 10 %.
    assert re.search(r"Rank correlation .*: -?\d\.\d\d ± ", text)
    assert {path.name for path in tmp_path.rglob("*.png")} == {"skip_redundant.png", "redundancy.png"}
