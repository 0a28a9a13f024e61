"""The seed ceiling in the payload and in the view."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from lightning_cka.compare.left_out_batches import LeftOutBatches
from lightning_cka.decisions.ceiling import SeedCeiling
from lightning_cka.view.ceiling_content import ceiling_content
from lightning_cka.view.growing import GrowingPayload
from lightning_cka.view.payload import view_payload
from view_results import one_run, results


def ceiling(seeds=4, layers=("net.0", "net.1"), **options):
    values = torch.tensor([0.93751, 0.5], dtype=torch.float64)[: len(layers)]
    errors = torch.full_like(values, 0.01)
    record = LeftOutBatches(tuple(map(str, range(8))), torch.ones(8).double(), layers, values[:, None].expand(-1, 8))
    return SeedCeiling(layers, values, errors, errors, seeds, record, **options)


def test_values_and_bounds_by_layer():
    top = ceiling()
    low, high = top.bounds(0.95)
    content = ceiling_content([top], results())["ceiling"]
    assert content["label"] == "seed ceiling (4 seeds, chance: 0)"
    assert content["layers"] == {
        name: [pytest.approx(float(value), abs=5e-5) for value in (top.values[row], low[row], high[row])]
        for row, name in enumerate(top.layers)
    }
    assert content["layers"]["net.0"][0] == 0.9375
    assert ceiling_content([ceiling(2)], results())["ceiling"]["layers"]["net.1"] == [0.5, None, None]
    assert ceiling_content([ceiling(unbiased=False)], results(unbiased=False))["ceiling"]["label"] == (
        "seed ceiling (4 seeds)"
    )


def test_series_have_the_ceiling_of_their_measure():
    run = one_run()
    tops = [ceiling(kernel="rbf"), ceiling(), ceiling(3, measure="mutual_knn")]
    both = view_payload({"run": run}, title="CKA of run", ceilings=tops)
    assert both == GrowingPayload("run").payload(run, tops)
    series = both["runs"][0]["series"]
    assert [each["ceiling"]["label"][14:21] for each in series] == ["4 seeds", "3 seeds", "4 seeds"]
    assert not any("ceiling" in each for each in view_payload({"run": run})["runs"][0]["series"])


def test_results_that_no_ceiling_fits_have_none():
    assert ceiling_content([ceiling(kernel="rbf")], results()) == {}
    assert ceiling_content([ceiling()], results(batches=5)) == {}  # Another probe set.
    alone = [replace(each, self_comparison=True) for each in results()]
    assert ceiling_content([ceiling()], alone) == {}


def test_the_curve_of_a_layer_has_a_dashed_line_with_a_band(viewer):
    viewer.open_payload(view_payload({"run": {"initial": results()}}, ceilings=[ceiling()]))
    viewer.click(1, 1)
    assert viewer.text(".layer h2") == "net.1 over time; dashed: seed ceiling (4 seeds, chance: 0)"
    dashed = viewer.run(
        "return [...document.querySelectorAll('.curve path[stroke-dasharray]')].map(path => path.getAttribute('d'))"
    )
    assert len(dashed) == 1
    heights = {point.split(" ")[1] for point in dashed[0].removeprefix("M").removesuffix("h0.01").split("L")}
    assert len(heights) == 1  # A horizontal line.
    viewer.click(2, 2)  # It has no ceiling.
    assert viewer.text(".layer h2") == "net.2 over time"
    viewer.click(1, 3)
    assert viewer.text(".layer h2") == "net.1 over time; dashed: with net.3, seed ceiling (4 seeds, chance: 0)"
