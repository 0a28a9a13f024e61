"""A payload that grows with a run: the same content as at once, packed once, and shown as one series."""

from __future__ import annotations

from dataclasses import replace

import pytest
from lightning_cka.view import growing
from lightning_cka.view.growing import PART, GrowingPayload
from lightning_cka.view.payload import view_payload
from view_results import flagged, one_run, results, trace_flag


@pytest.fixture
def packed(monkeypatch):
    """The sizes of the blocks that are packed."""
    sizes = []
    original = growing.block_content
    monkeypatch.setattr(growing, "block_content", lambda block: sizes.append(len(block)) or original(block))
    return sizes


def test_few_results_have_the_payload_of_view_payload():
    assert GrowingPayload("run").payload(one_run()) == view_payload({"run": one_run()}, title="CKA of run")
    assert GrowingPayload("run").payload({"initial": []}) == view_payload({}, title="CKA of run")


def test_only_new_results_are_packed(packed):
    run, grown = results(epochs=2 * PART + 3), GrowingPayload("run")
    for count in range(1, len(run) + 1):
        grown.payload({"initial": run[:count]})
        assert sum(packed) <= PART
        packed.clear()
    once = GrowingPayload("run")
    assert grown.payload({"initial": run}) == once.payload({"initial": list(run)})
    assert packed == [3, PART, PART, 3]


def test_a_history_that_was_replaced_is_packed_anew(packed):
    run, grown = results(epochs=PART + 1), GrowingPayload("run")
    grown.payload({"initial": run})
    packed.clear()
    other = [replace(run[0]), *run[1:]]
    assert grown.payload({"initial": other})["runs"] == grown.payload({"initial": run})["runs"]
    assert packed == [PART, 1] * 2
    assert grown.payload({"initial": run[:3]}) == GrowingPayload("run").payload({"initial": run[:3]})


def test_parts_are_shown_as_one_series_with_paired_errors(viewer):
    run = results(epochs=2 * PART + 2)
    run[3] = flagged(run[3], trace_flag("net.1"))
    run[PART + 1] = flagged(run[PART + 1], trace_flag("net.2"))
    payload = GrowingPayload("run").payload({"initial": run})
    (series,) = payload["runs"][0]["series"]
    assert [len(block["epochs"]) for block in series["blocks"]] == [PART, PART, 2]
    # Parts may differ in the decimals of their records.
    series["blocks"][0] = growing.block_content(run[:PART]) | {"model": ["model"] * PART}
    viewer.open_payload(payload)
    for epoch in (0, PART - 1, PART, 2 * PART + 1):
        viewer.go(epoch)
        shown = viewer.hover(1, 3)
        assert shown["linear CKA"] == f"{run[epoch].matrix[1, 3]:.4f}"
        assert shown["standard error"] == f"{run[epoch].standard_error[1, 3]:.4f}"
    viewer.choose("Change since", "epoch 2, step 149")
    for epoch in (1, PART, 2 * PART + 1):
        viewer.go(epoch)
        shown = viewer.hover(1, 1)
        difference = run[epoch].difference(run[2])
        for term, value in (
            ("change since epoch 2, step 149", difference.matrix[1, 1]),
            ("standard error", difference.standard_error[1, 1]),
        ):
            decimals = len(shown[term].partition(".")[2])
            assert decimals >= 3
            assert float(shown[term]) == float(f"{value:.{decimals}f}")
    viewer.go(PART + 1)
    assert "net.2" in viewer.text(".flags")


def test_parts_with_other_decimals_are_joined(viewer, monkeypatch):
    run = results(epochs=6)
    monkeypatch.setattr(growing, "PART", 3)
    fine = GrowingPayload("run").payload({"initial": run})
    monkeypatch.setattr("lightning_cka.view.blocks.LEFT_OUT_DECIMALS", (5, 5))
    coarse = GrowingPayload("run").payload({"initial": run})
    (blocks,), (others,) = ([s["blocks"] for s in p["runs"][0]["series"]] for p in (fine, coarse))
    decimals = {block["paired"]["decimals"] for block in (blocks[0], others[1])}
    fine["runs"][0]["series"][0]["blocks"] = [blocks[0], others[1]]
    viewer.open_payload(fine, "#since=epoch+1,+step+99")
    viewer.go(5)
    shown = viewer.hover(2, 2)["standard error"]
    places = len(shown.partition(".")[2])
    assert places >= 3
    assert float(shown) == float(f"{run[5].difference(run[1]).standard_error[2, 2]:.{places}f}")
    assert decimals == {5, 6}
