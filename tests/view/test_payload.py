"""What is in a payload."""

from __future__ import annotations

import json
from dataclasses import replace

import torch
from lightning_cka.view.blocks import blocks_of
from lightning_cka.view.payload import view_payload
from view_results import one_run, results


def series_of(runs):
    return view_payload({"run": runs})["runs"][0]["series"]


def test_a_payload_is_json_without_nan():
    json.dumps(view_payload({"run": one_run()}), allow_nan=False)


def test_series_have_the_names_of_references_and_measures():
    names = [(series["reference"], series["measure"]) for series in series_of(one_run())]
    assert names == [("initial", "linear CKA"), ("initial", "mutual kNN"), ("previous", "linear CKA")]


def test_equal_names_are_told_apart_by_their_keys():
    found = series_of({"a.ckpt": results(), "a.ckpt-1": results(), "b": results(reference="b")})
    assert [series["reference"] for series in found] == ["initial (a.ckpt)", "initial (a.ckpt-1)", "b"]


def test_references_without_results_and_runs_without_references_are_left_out():
    payload = view_payload({"one": {"initial": results(), "7": []}, "two": {"initial": []}, "three": {}})
    assert [(run["name"], len(run["series"])) for run in payload["runs"]] == [("one", 1)]


def test_a_restarted_reference_stays_one_series():
    run = results(epochs=4)
    later = [replace(each, reference_name="initial, restarted at step 240") for each in run[2:]]
    (series,) = series_of({"initial": run[:2] + later})
    assert series["reference"] == "initial"
    (block,) = series["blocks"]
    assert block["reference"] == ["initial"] * 2 + ["initial, restarted at step 240"] * 2


def test_blocks_end_where_layers_or_probe_batches_change():
    run = results(epochs=6)
    records = replace(run[4].left_out_batches, batches=tuple("abcdefgh"))
    changed = [*run[:4], replace(run[4], left_out_batches=records), replace(run[5], left_out_batches=None)]
    assert [len(block) for block in blocks_of(changed)] == [4, 1, 1]
    assert [len(block) for block in blocks_of(results(epochs=2) + results(layers=3, epochs=2))] == [2, 2]


def test_results_without_records_or_pairs_have_no_paired_errors():
    for changes in ({"left_out_batches": None}, {"reference_layers": tuple("abcde")}):
        (block,) = series_of({"initial": [replace(each, **changes) for each in results()]})[0]["blocks"]
        assert block["paired"] is None


def test_one_batch_has_no_paired_errors():
    (block,) = series_of({"initial": results(batches=1, standard_error=torch.full((5, 5), torch.nan))})[0]["blocks"]
    assert block["paired"] is None
    assert block["factors"] == [None] * 4
