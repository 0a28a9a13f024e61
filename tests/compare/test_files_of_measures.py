"""Files and tables of every measure."""

import csv
import json
from dataclasses import replace

import pytest
import torch
from damage import assert_refused, truncated, with_flipped_bits
from gram_banks import make_bank
from lightning_cka import CKAResult, MutualKNN, compare_banks, trajectories
from lightning_cka.cli import main
from lightning_cka.compare.flags import Thresholds
from lightning_cka.compare.tables import difference_table, result_table, write_csv
from measure_cases import MEASURES, TITLES, over_measures, over_others

OFF = Thresholds.off()
SIZES = (16,) * 5

pytestmark = pytest.mark.filterwarnings("ignore:.*layers (that|whose)")


def result(measure, variant=2):
    banks = [make_bank(seed, sizes=SIZES, epoch=seed, step=10 * seed) for seed in (variant, 0)]
    return compare_banks(*banks, measures=measure, thresholds=OFF)


@over_measures
def test_a_file_keeps_the_measure_and_all_digits(measure, tmp_path):
    saved = result(measure)
    saved.save(tmp_path / "r.json")
    loaded = CKAResult.load(tmp_path / "r.json")
    assert loaded.measure == saved.measure == measure
    assert loaded.measure_label == saved.measure_label
    assert torch.equal(loaded.matrix, saved.matrix)
    assert torch.equal(loaded.standard_error, saved.standard_error)
    assert loaded.left_out_batches.values.tolist() == saved.left_out_batches.values.tolist()
    assert CKAResult.from_state(saved.state()).measure == measure
    difference = loaded.difference(CKAResult.from_state(result(measure, 1).state()))
    assert difference.value_title == TITLES[measure]
    assert difference.standard_error.diagonal().isfinite().all()


def test_the_file_of_a_cka_result_has_no_new_field(tmp_path):
    result("cka").save(tmp_path / "r.json")
    content = json.loads((tmp_path / "r.json").read_text())
    assert "measure" not in content
    assert CKAResult.load(tmp_path / "r.json").measure == "cka"


def test_another_measure_cannot_be_taken_for_cka(tmp_path):
    """The checksum has the measure, unlike that of a version which does not know the field."""
    path = tmp_path / "r.json"
    result("rsa").save(path)
    content = json.loads(path.read_text())
    for changed in (content | {"measure": "ridge"}, {k: v for k, v in content.items() if k != "measure"}):
        path.write_text(json.dumps(changed))
        with pytest.raises(ValueError, match="damaged: its checksum differs"):
            CKAResult.load(path)
    path.write_text(json.dumps(content | {"measure": 3, "checksum": None}))
    with pytest.raises(ValueError, match="measure must be a string"):
        CKAResult.load(path)


@pytest.mark.filterwarnings("ignore:.*unknown fields are ignored")
def test_flipped_bits_of_the_measure_are_found(tmp_path):
    path = tmp_path / "r.json"
    saved = replace(result("mutual_knn"), left_out_batches=None, diagnostics=None)
    saved.save(path)
    content = path.read_bytes()
    refused = 0
    for changed in (*with_flipped_bits(content, 200), *truncated(content, 10)):
        path.write_bytes(changed)
        try:
            loaded = CKAResult.load(path)
        except ValueError as error:
            assert_refused(error, "r.json")
            refused += 1
        else:
            assert loaded.measure == "mutual_knn"
            assert torch.equal(loaded.matrix, saved.matrix)
    assert refused > 100


@over_measures
def test_rows_tables_and_csv_name_the_measure(measure, tmp_path):
    one = result(measure)
    assert list(one.to_rows()[0]) == ["epoch", "step", "layer", "reference_layer", measure, "standard_error", "paired"]
    write_csv([one], tmp_path / "r.csv")
    rows = list(csv.DictReader((tmp_path / "r.csv").read_text().splitlines()))
    assert [float(row[measure]) for row in rows] == one.matrix.flatten().tolist()
    texts = [result_table(one), difference_table(one.difference(result(measure, 1)))]
    for text in texts:
        assert TITLES[measure] in text
        assert ("CKA" in text) == ("CKA" in TITLES[measure])
    assert measure == "cka" or one.measure_label in repr(one)


def test_a_csv_file_of_several_measures_has_a_column_for_each(tmp_path):
    results = [result(measure) for measure in MEASURES]
    write_csv(results, tmp_path / "r.csv")
    rows = list(csv.DictReader((tmp_path / "r.csv").read_text().splitlines()))
    assert list(rows[0]) == ["epoch", "step", "layer", "reference_layer", *MEASURES, "standard_error", "paired"]
    assert [[bool(row[name]) for name in MEASURES] for row in rows[::4]] == torch.eye(4).bool().tolist()
    write_csv([], tmp_path / "none.csv")
    assert (tmp_path / "none.csv").read_text() == "epoch,step,layer,reference_layer,cka,standard_error,paired\n"


@pytest.fixture
def run(tmp_path):
    for seed, name in enumerate(("initial", "epoch=000-step=000009", "epoch=001-step=000019")):
        bank = make_bank(seed, sizes=SIZES, epoch=seed - 1 if seed else None, step=10 * seed - bool(seed))
        bank.save(tmp_path / "run" / "banks" / f"{name}.safetensors")
    return tmp_path / "run"


A, B = "run/banks/epoch=001-step=000019.safetensors", "run/banks/initial.safetensors"


@pytest.mark.parametrize("ending", ["png", "csv", "json"])
def test_the_command_line_compares_by_several_measures(run, capsys, ending):
    measures = ["cka", "mutual_knn", "mutual_knn:0.3", "rsa", "ridge:0.1"]
    assert main(["compare", A, B, "--measures", *measures, "--output", f"out/x.{ending}"]) == 0
    out = capsys.readouterr().out
    names = ["cka", "mutual_knn", "mutual_knn-2", "rsa", "ridge"]
    assert sorted(path.name for path in (run.parent / "out").iterdir()) == sorted(f"x-{n}.{ending}" for n in names)
    for label in ("linear CKA,", "mutual kNN,", "mutual kNN (0.3),", "RSA,", "ridge CKA (0.1),"):
        assert f"epoch 1 and Net, initial: {label}" in out.replace(", step 19", "")
    if ending == "json":
        later, earlier = (CKAResult.load(run.parent / "out" / f"x-{name}.json") for name in ("mutual_knn-2", "cka"))
        assert later.measure == MutualKNN(0.3).name
        capsys.readouterr()
        assert main(["difference", "out/x-mutual_knn-2.json", "out/x-cka.json"]) == 0
        assert capsys.readouterr().out.startswith("similarity, mutual kNN (0.3) minus linear CKA: mean ")
        assert main(["show", "out/x-rsa.json"]) == 0
        shown = capsys.readouterr().out
        assert "RSA, same name" in shown
        assert "CKA" not in shown
        assert later.difference(earlier).mean() == pytest.approx(later.mean() - earlier.mean())


def test_the_command_line_draws_trajectories_of_several_measures(run, capsys):
    assert main(["trajectory", "run", "--measures", "mutual_knn:0.2", "rsa"]) == 0
    out = capsys.readouterr().out
    assert "mutual kNN (0.2) of each layer with the same layer at the last moment:" in out
    assert "RSA of each layer" in out
    for name in ("mutual_knn", "rsa"):
        assert {path.name for path in (run / "trajectory" / name).iterdir()} == {
            "a.png",
            "b.c.png",
            "overview.png",
            "convergence.png",
        }


@over_others
def test_trajectories_from_files_are_those_of_the_banks(run, measure):
    files = [run / "banks" / "initial.safetensors", *sorted((run / "banks").glob("epoch*"))]
    found = trajectories(files, measures=measure, thresholds=OFF)
    assert found["a"].layers == ("init", "0", "1")
    expected = compare_banks(A, B, measures=measure, thresholds=OFF).same_named()
    assert {name: float(each.matrix[-1, 0]) for name, each in found.items()} == pytest.approx(expected)
