"""The summary of a run: its columns, its length, and what it says of long runs and of few batches."""

from dataclasses import replace
from math import nan
from pathlib import Path

import pytest
import torch
from gram_banks import bank_of_features
from lightning_cka import CKAResult, Thresholds, compare_banks, convergence, seed_ceiling
from lightning_cka.compare.diagnostics import Diagnostics
from lightning_cka.compare.flags import Flag
from lightning_cka.compare.layer_ranks import LayerRank, LayerRanks
from lightning_cka.decisions.settled import changes_between
from lightning_cka.decisions.summary import MAX_ROWS, run_summary
from scipy.stats import t

pytestmark = pytest.mark.filterwarnings("ignore:CKA:UserWarning")


def run(layers, epochs=3, batches=6, n=12):
    """Banks and results of a run whose layers move less and less, with the references "initial" and "self"."""
    random = torch.Generator().manual_seed(0)
    names = tuple(f"net.{i}" for i in range(layers))
    start = [[torch.randn(n, 5, generator=random) for _ in names] for _ in range(batches)]
    banks = []
    for epoch in range(-1, epochs):
        features = [[x + (1 - 0.5**epoch) * torch.randn(n, 5, generator=random) for x in batch] for batch in start]
        bank = bank_of_features(features if epoch >= 0 else start, names)
        bank.epoch, bank.step = (None, 0) if epoch < 0 else (epoch, 10 * epoch + 9)
        banks.append(bank)
    off = Thresholds.off()
    found = {
        "initial": [replace(compare_banks(b, banks[0], thresholds=off), reference_name="initial") for b in banks[1:]],
        "self": [compare_banks(b, b, thresholds=off) for b in banks[1:]],
    }
    return banks, found


@pytest.fixture(scope="module")
def twelve():
    return run(12)


def test_each_cell_is_what_its_function_returns(twelve):
    banks, results = twelve
    found = run_summary(results, banks, ["initial"])
    assert found.layers == results["initial"][-1].layers
    assert found.header == (
        "initial",
        "initial: change",
        "initial: since",
        "1 - CKA to the next",
        "last state: since",
        "flags",
    )
    last = results["initial"][-1]
    low, high = last.confidence_interval()
    changes = changes_between(last, results["initial"][-2], 0.95)
    converged = convergence(results, banks)
    steps = {step.before: step for step in results["self"][-1].redundancy().consecutive}
    for row, (place, name) in zip(found.to_rows(), enumerate(found.layers), strict=True):
        cell, change, step = (place, place), changes[name], steps.get(name)
        assert row == {
            "layer": name,
            "initial": f"{float(last.matrix[cell]):.3f} ± {float(high[cell] - low[cell]) / 2:.3f}",
            "initial: change": f"{change.value:+.3f} ± {(change.high - change.low) / 2:.3f}",
            "initial: since": converged.of(name, "initial").since,
            "1 - CKA to the next": f"{step.change:.3f} ± {(step.high - step.low) / 2:.3f}" if step else "",
            "last state: since": converged.of(name).since,
            "flags": "",
        }


def test_a_model_of_twelve_layers_takes_twelve_lines(twelve):
    banks, results = twelve
    lines = run_summary(results, banks, ["initial"]).text(Path("cka")).splitlines()
    assert lines[0] == "Summary of model, epoch 2, step 29: linear CKA, 72 samples in 6 batches"
    assert lines[1].startswith("±: half of the 95 % interval; change: since the comparison before; since: within ±0.02")
    assert lines[2] == ""
    assert lines[3].split()[0] == "layer"
    assert [line.split()[0] for line in lines[4:]] == [f"net.{i}" for i in range(12)]


def test_of_many_layers_some_are_shown_and_a_line_says_where_all_are():
    count = MAX_ROWS + 1
    banks, results = run(count, epochs=2, n=6)
    found = run_summary({"initial": results["initial"]}, None, ["initial"])
    lines = found.text(Path("runs/cka")).splitlines()[4:]
    assert len(lines) == MAX_ROWS - 1
    assert [lines[0].split()[0], lines[-2].split()[0]] == ["net.0", "net.20"]
    assert lines[-1] == "18 of 21 layers; all: lightning-cka summary runs/cka --all"
    assert found.markdown(Path("runs/cka")).splitlines()[-1] == lines[-1]
    assert len(found.text(None).splitlines()[4:]) == count == len(found.to_rows())
    assert len(banks) == 3


def test_a_markdown_table_has_one_line_per_layer_and_no_stray_bars(twelve):
    results = {"initial": [rename(each, "net.0", "a|b_c") for each in twelve[1]["initial"]]}
    lines = run_summary(results, None, []).markdown(None).splitlines()
    assert lines[2:4] == ["", "| layer | initial | flags |"][0:2]
    assert lines[4] == "| --- | ---: | ---: |"
    assert lines[5].startswith("| `a\\|b_c` | ")
    assert len(lines) == 5 + 12


def rename(result, before, after):
    names = tuple(after if name == before else name for name in result.layers)
    return replace(result, layers=names, reference_layers=names, left_out_batches=None)


def test_references_that_move_have_no_change_and_flags_are_named_once(twelve):
    flag = Flag("net.3", "trace_ratio", 83.0, 20.0, (17,))
    flagged = [replace(each, diagnostics=Diagnostics(flags=(flag,))) for each in twelve[1]["initial"]]
    previous = [replace(each, reference_name="previous") for each in flagged]
    found = run_summary({"initial": flagged, "previous": previous}, None, ["initial"])
    assert found.header == ("initial", "initial: change", "initial: since", "previous", "flags")
    assert found.columns["flags"]["net.3"] == "trace ratio"
    assert found.columns["flags"]["net.4"] == ""


def test_effective_ranks_have_a_column_if_they_were_computed(twelve):
    ranks = LayerRanks({"net.0": LayerRank(3.21, 0.1, 6, 2.0), "net.1": LayerRank(4.0, nan, 1, 2.0)}, {}, 12)
    results = [replace(each, ranks=ranks) for each in twelve[1]["initial"]]
    found = run_summary({"initial": results}, None, [])
    assert found.header[-2:] == ("effective rank", "flags")
    half = 0.1 * t.ppf(0.975, 5)
    assert [row["effective rank"] for row in found.to_rows()[:3]] == [f"3.2 ± {half:.1f}", "4.0", ""]


def test_too_few_batches_are_said_and_give_no_intervals():
    results = run(2, batches=2)[1]
    text = run_summary(results, None, ["initial"]).text(None)
    assert "no confidence interval: the probe set has 2.0 effective batches" in text
    assert " ± " not in text.split("layer", 1)[1]


def test_old_results_without_errors_have_values_alone():
    matrix = torch.tensor([[0.5, 0.1], [0.2, 0.25]])
    old = CKAResult(matrix, ("a", "b"), ("a", "b"), epoch=3, step=9, num_samples=8, num_batches=2)
    found = run_summary({"initial": [old]}, [], ["initial"])
    assert found.columns["initial"] == {"a": "0.500", "b": "0.250"}
    assert found.columns["initial: since"] == {"a": "", "b": ""}
    with pytest.raises(ValueError, match="there are no results of training, which a summary needs"):
        run_summary({"initial": [replace(old, epoch=None, step=None)]}, None, [])


def test_of_several_measures_the_first_is_shown_and_a_line_says_where_all_are(twelve):
    banks, _ = twelve
    results = {}
    for measure in ("cka", "mutual_knn"):
        pairs = {"initial": banks[0], "self": None}
        for name, other in pairs.items():
            made = [compare_banks(b, other or b, measures=measure, thresholds=Thresholds.off()) for b in banks[1:]]
            results[f"{name}/{measure}"] = [replace(each, reference_name=name) for each in made]
    found = run_summary(results, None, ["initial/cka", "initial/mutual_knn"])
    first = ["initial/cka", "initial/cka: change", "initial/cka: since", "1 - linear CKA to the next"]
    second = [text.replace("linear CKA", "mutual kNN").replace("cka", "mutual_knn") for text in first]
    assert list(found.header) == [*first, *second, "flags"]
    assert found.heading.startswith("Summary of model, epoch 2, step 29: linear CKA, mutual kNN, 72 samples")
    lines = found.text(Path("cka")).splitlines()
    assert "mutual" not in lines[3]
    assert lines[-1] == "without mutual kNN; all: lightning-cka summary cka --all"
    assert all(title in found.text(None).splitlines()[3] for title in found.header)
    assert second[0] in found.markdown(None)
    assert second[0] not in found.markdown(Path("cka"))
    assert found.to_rows()[0][second[0]] == found.columns[second[0]]["net.0"]


def test_the_seed_ceiling_has_a_column(twelve):
    banks, results = twelve
    ceiling = seed_ceiling(banks[1:], progress_bar=False)
    found = run_summary(results, None, ["initial"], ceilings=[ceiling])
    half = float(ceiling.bounds()[1][0] - ceiling.values[0])
    assert found.columns["seed ceiling"]["net.0"] == f"{float(ceiling.values[0]):.3f} ± {half:.3f}"
    other = seed_ceiling(banks[1:], kernel="rbf", progress_bar=False)
    assert "seed ceiling" not in run_summary(results, None, ["initial"], ceilings=[other]).header
    assert "seed ceiling" not in run_summary({"self": results["self"]}, None, [], ceilings=[ceiling]).header


def test_undefined_values_have_no_sign_and_one_batch_is_one(twelve):
    matrix = torch.full((1, 1), nan)
    old = [CKAResult(matrix, ("a",), ("a",), epoch=e, step=e, num_samples=8, num_batches=1) for e in range(2)]
    found = run_summary({"initial": old}, [], ["initial"])
    assert found.columns["initial"] == {"a": "nan"}
    assert "8 samples in 1 batch" in found.heading
    assert "batches" not in found.heading.splitlines()[0]
    dead = [replace(each, matrix=each.matrix * nan) for each in twelve[1]["initial"]]
    assert run_summary({"initial": dead}, None, ["initial"]).columns["initial: change"]["net.0"] == "nan"
