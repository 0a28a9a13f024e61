"""Results as CSV files and tables of text."""

import csv

import pytest
import torch
from lightning_cka import CKAResult
from lightning_cka.compare.difference import CKADifference
from lightning_cka.compare.tables import difference_table, result_table, table, trajectory_table, write_csv


def result(**attributes):
    matrix, layers = torch.tensor([[0.25], [0.5]], dtype=torch.float64), ("layer0", "layer1")
    return CKAResult(matrix, layers, ("layer0",), model_name="Live", reference_name="initial", **attributes)


def test_a_csv_file_has_a_row_for_each_pair_of_layers(tmp_path):
    errors = torch.tensor([[0.1], [torch.nan]])
    results = [result(epoch=epoch, step=30, standard_error=errors) for epoch in range(2)]
    write_csv(results, tmp_path / "a.csv")
    rows = list(csv.DictReader((tmp_path / "a.csv").read_text().splitlines()))
    assert len(rows) == 4
    assert rows[2] == {
        "epoch": "1",
        "step": "30",
        "layer": "layer0",
        "reference_layer": "layer0",
        "cka": repr(float(results[1].matrix[0, 0])),
        "standard_error": repr(float(results[1].standard_error[0, 0])),
        "paired": "True",
    }
    assert rows[3]["standard_error"] == "nan"
    assert results[0].to_rows()[1]["layer"] == "layer1"


def test_columns_are_aligned():
    assert table(["name", "x"], [["a", "1.5"], ["long name", "10"]]) == "name         x\na          1.5\nlong name   10"


def test_layers_without_one_of_the_same_name_have_an_empty_cell():
    _, _, header, first, second = result_table(result()).splitlines()
    assert [title.strip() for title in header.split("  ") if title] == [
        "layer",
        "CKA, same name",
        "most similar",
        "CKA",
        "flags",
    ]
    assert first.split() == ["layer0", "0.250", "layer0", "0.250"]
    assert second.split() == ["layer1", "layer0", "0.500"]


def test_differences_without_layers_of_the_same_name_have_no_table():
    one = result()
    difference = CKADifference(one.matrix, one.matrix, 0.1, ("a", "b"), ("c",), one, one, 8.0)
    with pytest.raises(ValueError, match="both results have no pair of layers in common"):
        difference_table(difference)


def test_a_trajectory_is_compared_with_the_last_moment():
    matrix = torch.tensor([[1.0, 0.5], [0.5, 1.0]])
    moments = ("init", "0")
    assert trajectory_table({"conv": CKAResult(matrix, moments, moments)}).splitlines() == [
        "layer   init      0",
        "conv   0.500  1.000",
    ]
