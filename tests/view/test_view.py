"""The page in a real browser: what it shows against the results, and how it is used."""

from __future__ import annotations

import html
import os
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch
from lightning_cka import CKAResult
from lightning_cka.probe.layer_patterns import names_matching
from lightning_cka.view.page import page
from lightning_cka.view.payload import view_payload
from matplotlib import colormaps
from PIL import Image
from selenium.webdriver.common.keys import Keys
from view_results import flagged, large_run, one_run, results, trace_flag


def expected_cell(result, row, column):
    """Return the texts of a tooltip."""
    low, high = result.confidence_interval()
    cell = row, column
    return {
        result.measure_label: f"{result.matrix[cell]:.4f}",
        "standard error": f"{result.standard_error[cell]:.4f}",
        "95 % interval": f"{low[cell]:.4f} to {high[cell]:.4f}",
        "samples": f"{result.num_samples} in {result.num_batches} batches",
    }


def positive_zero(text):
    return text.replace("-0.0000", "0.0000")


def check_cell(viewer, result, row, column):
    shown = viewer.hover(row, column)
    shown.pop("flags")
    assert shown == {term: positive_zero(text) for term, text in expected_cell(result, row, column).items()}


def check_digits(text, value, least=3):
    """Check all digits that a text shows of a number, of which it must show some."""
    decimals = len(text.partition(".")[2])
    assert least <= decimals <= 4
    assert float(text) == float(f"{value:.{decimals}f}")


def test_the_tooltip_has_the_numbers_of_the_results(viewer):
    run = one_run()
    viewer.open(run)
    for epoch in (4, 0, 3):
        viewer.go(epoch)
        for cell in ((0, 0), (1, 3), (4, 2), (2, 4)):
            check_cell(viewer, run["initial/cka"][epoch], *cell)


def test_the_tooltip_has_the_numbers_of_a_large_run(viewer):
    run = large_run()
    viewer.open(run)
    random = torch.Generator().manual_seed(0)
    for name in ("pretrained", "initial"):
        viewer.choose("Reference", name)
        for epoch in (0, 57, 99):
            viewer.go(epoch)
            for row, column in torch.randint(28, (4, 2), generator=random).tolist():
                check_cell(viewer, run[name][epoch], row, column)


def test_the_tooltip_names_both_layers_and_the_moment(viewer):
    viewer.open(one_run())
    viewer.hover(1, 3)
    assert viewer.texts(".tooltip p")[0] == "net.1 of model\nnet.3 of initial"
    assert viewer.texts(".tooltip p")[1] == "epoch 4, step 249"


def test_the_tooltip_has_the_flags_of_both_layers(viewer):
    viewer.open(one_run())
    viewer.go(3)
    ratio = "single samples with > 20 times the mean squared distance"
    assert viewer.hover(1, 4)["flags"] == [
        f"{ratio}: net.1 (83 at dataset index 17, 93)",
        f"{ratio}: net.4 of the reference (83 at dataset index 5)",
    ]
    assert viewer.hover(0, 4)["flags"] == [f"{ratio}: net.4 of the reference (83 at dataset index 5)"]
    assert viewer.hover(4, 0)["flags"] == []
    viewer.go(0)
    assert viewer.hover(1, 4)["flags"] == []


def test_undefined_values_are_shown_as_nan_in_grey(viewer):
    viewer.open(one_run())
    viewer.go(2)
    shown = viewer.hover(3, 1)
    assert shown["linear CKA"] == "nan"
    assert "95 % interval" not in shown
    pixels = viewer.pixels()
    assert pixels[5:10] == ["c8ccd0"] * 5  # Row 3 of 5 is the second from the top.
    assert "c8ccd0" not in pixels[:5] + pixels[10:]
    assert "nan" in viewer.run("return document.querySelector('.legend').textContent")


def test_too_few_batches_have_no_interval_and_say_why(viewer):
    viewer.open({"initial": results(batches=2)})
    assert viewer.hover(0, 1)["95 % interval"] == "not known: 2 effective batches are too few"


def test_results_without_errors_show_none(viewer):
    viewer.open({"initial": results(standard_error=None, effective_batches=None, left_out_batches=None)})
    assert viewer.hover(0, 1) == {"linear CKA": viewer.hover(0, 1)["linear CKA"]} | {
        "95 % interval": "not known",
        "samples": "2048 in 8 batches",
        "flags": [],
    }


def test_changes_have_paired_errors_for_paired_layers(viewer):
    run = results(epochs=6)
    viewer.open({"initial": run})
    for epoch, base in ((5, 1), (2, 4), (3, 2)):
        viewer.choose("Change since", f"epoch {base}, step {50 * base + 49}")
        viewer.go(epoch)
        difference = run[epoch].difference(run[base])
        low, high = difference.confidence_interval()
        for layer in (0, 4):
            shown = viewer.hover(layer, layer)
            cell = layer, layer
            check_digits(shown[f"change since epoch {base}, step {50 * base + 49}"], difference.matrix[cell])
            check_digits(shown["standard error"], difference.standard_error[cell])
            for text, bound in zip(shown["95 % interval"].split(" to "), (low[cell], high[cell]), strict=True):
                check_digits(text, bound)
        shown = viewer.hover(1, 3)
        check_digits(shown[f"change since epoch {base}, step {50 * base + 49}"], difference.matrix[1, 3], least=1)
        assert "standard error" not in shown
        assert shown["95 % interval"].startswith("not known")


def test_changes_are_blue_and_red_around_white(viewer):
    viewer.open({"initial": results()})
    viewer.choose("Change since", "epoch 3, step 199")
    assert set(viewer.pixels()) == {"f7f6f6"}
    viewer.go(0)
    red, _, blue = bytes.fromhex(viewer.pixels()[-5])  # The first layer with itself, which was higher.
    assert red > blue


def test_rows_and_columns_are_as_in_the_figures(viewer):
    viewer.open({"initial": [flagged(each, trace_flag("net.1")) for each in results(layers=3)]})
    labels = viewer.labels()
    assert labels[:3] == ["0", "⚠ 1", "2"]
    assert labels[-2:] == ["model: net.*", "initial: net.*"]
    texts = "[...document.querySelectorAll('.maps .grid svg text')]"
    places = viewer.run(f"return {texts}.slice(0, 3).map(t => t.getBoundingClientRect().y)")
    assert places == sorted(places, reverse=True)  # The first layer is at the bottom.


def test_the_colours_are_those_of_the_figures(viewer):
    run = results()
    viewer.open({"initial": run})
    for name in ("magma", "viridis", "cividis"):
        viewer.choose("Colour map", name)
        expected = colormaps[name](run[-1].matrix.flip(0).clamp(0, 1).numpy().ravel())[:, :3] * 255
        shown = torch.tensor([list(bytes.fromhex(pixel)) for pixel in viewer.pixels()])
        assert (shown - torch.tensor(expected)).abs().max() < 6


def test_the_colour_range_is_fixed_or_fitted(viewer):
    run = results()
    viewer.open({"initial": run})
    legend = "return [...document.querySelectorAll('.legend text')].map(t => t.textContent)"
    assert viewer.run(legend)[:3] == ["0", "0.5", "1"]
    viewer.choose("Colours", "fitted")
    lowest, _, highest, *_ = map(float, viewer.run(legend)[:3])
    values = torch.stack([each.matrix for each in run])
    assert lowest == pytest.approx(float(values.min()), abs=1e-3)
    assert highest == pytest.approx(float(values.max()), abs=1e-3)


def test_slider_and_keys_move_through_time(viewer):
    viewer.open(one_run())
    assert viewer.text(".moment") == "epoch 4, step 249"
    viewer.go(1)
    assert viewer.text(".moment") == "epoch 1, step 99"
    assert "epoch 1, step 99" in viewer.text(".subtitle")
    viewer.run("document.activeElement.blur()")
    viewer.key(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    assert viewer.text(".moment") == "epoch 3, step 199"
    viewer.key(Keys.ARROW_LEFT)
    assert viewer.text(".moment") == "epoch 2, step 149"
    viewer.key(Keys.ARROW_RIGHT, selector="input[type=range]")
    assert viewer.text(".moment") == "epoch 3, step 199"
    slider = "return document.querySelector('input[type=range]').getAttribute('aria-valuetext')"
    assert viewer.run(slider) == "epoch 3, step 199"


def test_play_shows_each_moment_until_the_end(viewer):
    viewer.open(one_run())
    viewer.go(0)
    viewer.run(
        """window.seen = []; const moment = document.querySelector('.moment');
        new MutationObserver(() => seen.push(moment.textContent)).observe(moment, {childList: true});
        document.querySelector('.play').click();"""
    )
    viewer.wait("return document.querySelector('.play').getAttribute('aria-label') === 'Play' && seen.length > 3")
    assert viewer.run("return seen") == [f"epoch {epoch}, step {50 * epoch + 49}" for epoch in range(1, 5)]


def test_steps_are_used_where_an_epoch_has_several_results(viewer):
    viewer.open({"initial": [replace(each, epoch=0) for each in results()]})
    viewer.go(1)
    assert viewer.text(".moment") == "epoch 0, step 99"
    assert viewer.labels(".drift .grid")[-1] == "step"


def test_reference_and_measure_can_be_chosen(viewer):
    run = one_run()
    viewer.open(run)
    assert viewer.options("Reference") == ["initial", "previous"]
    assert viewer.options("Measure") == ["linear CKA", "mutual kNN"]
    viewer.choose("Measure", "mutual kNN")
    check_cell(viewer, run["initial/mutual_knn"][4], 2, 1)
    viewer.choose("Measure", "linear CKA")
    viewer.choose("Reference", "previous")
    check_cell(viewer, run["previous"][4], 2, 1)
    viewer.choose("Measure", "mutual kNN")
    assert viewer.text(".maps .panels") == "No chosen run has this reference and this measure."
    viewer.choose("Reference", "initial")
    check_cell(viewer, run["initial/mutual_knn"][4], 2, 1)


def test_several_runs_are_side_by_side(viewer):
    runs = {"one": {"initial": results()}, "two": {"initial": results(layers=3, epochs=3, seed=2)}}
    viewer.open(runs)
    assert len(viewer.texts(".maps figure")) == 2
    viewer.go(1)
    for panel, run in enumerate(runs.values()):
        shown = viewer.hover(2, 0, panel=panel)
        assert shown["linear CKA"] == f"{run['initial'][1].matrix[2, 0]:.4f}"
    viewer.go(3)  # The second run has no such epoch: its last one is shown.
    assert viewer.hover(2, 0, panel=1)["linear CKA"] == f"{runs['two']['initial'][2].matrix[2, 0]:.4f}"
    viewer.run("document.querySelectorAll('.runs input')[0].click()")
    viewer.drawn()
    assert viewer.texts(".maps h3") == [f"two, mean {runs['two']['initial'][2].mean():.4f}"]


PATTERNS = ("net.1", "net.*", "**.attn", "!**.attn", "net.?", "net.[0-2]", "net.[!0-2]", "*", "**", "net.1?", "nothing")


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_filter_has_the_package_s_patterns(viewer, pattern):
    names = ("stem", "net.0", "net.1", "net.2.attn", "net.3", "net.10", "net.10.attn")
    shown = [result_of_layers(names)]
    viewer.open({"initial": shown})
    viewer.filter(pattern)
    taken = names_matching(pattern.removeprefix("!"), names)
    kept = [name for name in names if name not in taken] if pattern[0] == "!" else taken
    rows = list(dict.fromkeys(row["layer"] for row in viewer.table()))
    assert rows == (kept or list(names))
    assert viewer.texts(".field .hint") == ["" if kept else "no layer matches"]


def result_of_layers(names):
    return CKAResult(torch.eye(len(names), dtype=torch.float64), names, names, epoch=0, step=1)


def test_a_click_on_a_row_shows_its_curve_and_what_it_is_most_alike_to(viewer):
    run = results(epochs=4)
    for each in run[2:]:
        each.matrix[1, 4] = 0.99
    viewer.open({"initial": run})
    assert viewer.text(".layer h2").startswith("Mean over time")
    viewer.click(1, 3)
    assert viewer.text(".layer h2") == "net.1 over time; dashed: with net.3"
    assert viewer.texts(".layer li") == [
        "most alike to net.1, epochs 0–1",
        "most alike to net.4, epochs 2–3",
    ]
    assert viewer.run("return document.querySelectorAll('.curve path').length") == 4  # Two lines and their bands.
    viewer.click(1, 3)
    assert viewer.text(".layer h2").startswith("Mean over time")


def test_a_click_on_the_curve_moves_in_time(viewer):
    viewer.open(one_run())
    x, y = viewer.run(
        """const curve = document.querySelector('.curve'); curve.scrollIntoView({block: 'center'});
        const box = curve.getBoundingClientRect(); return [box.left + 42, box.top + 40];"""
    )
    for kind in ("mousePressed", "mouseReleased"):
        viewer.cdp("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)
    assert viewer.text(".moment") == "epoch 0, step 49"


def test_the_drift_map_has_layers_by_time(viewer):
    run = one_run()
    viewer.open(run)
    shown = viewer.hover(2, 1, selector=".drift .grid")
    assert shown["linear CKA"] == f"{run['initial/cka'][1].matrix[2, 2]:.4f}"
    viewer.click(2, 1, selector=".drift .grid")
    assert viewer.text(".moment") == "epoch 1, step 99"
    assert viewer.text(".layer h2") == "net.2 over time"


def test_the_flags_tell_what_when_and_which_samples(viewer):
    viewer.open(one_run())
    assert viewer.texts(".flag summary") == [
        "⚠ net.1 trace ratio epochs 2–3",
        "⚠ net.4 of the reference trace ratio epoch 3",
    ]
    is_now = "return [...document.querySelectorAll('.flag')].map(f => f.classList.contains('now'))"
    viewer.run("document.querySelectorAll('.flag').forEach(f => f.open = true)")
    assert viewer.run(is_now) == [False, False]
    viewer.go(2)
    assert viewer.run(is_now) == [True, False]
    sentence, samples = viewer.texts(".flag p")[:2]
    assert sentence.startswith("CKA: layers that single samples dominate")
    assert "net.1" in sentence
    assert samples == "Samples: dataset index 17, dataset index 93"
    viewer.run("document.querySelectorAll('.flag button')[1].click()")
    assert viewer.text(".moment") == "epoch 3, step 199"


def test_csv_has_what_is_seen(viewer):
    run = one_run()
    viewer.open(run)
    viewer.go(3)
    viewer.filter("net.1, net.3")
    result = run["initial/cka"][3]
    rows = viewer.table()
    assert [(row["layer"], row["reference_layer"]) for row in rows] == [
        (f"net.{one}", f"net.{other}") for one in (1, 3) for other in (1, 3)
    ]
    low, high = result.confidence_interval()
    for row in rows:
        cell = int(row["layer"][-1]), int(row["reference_layer"][-1])
        assert (row["reference"], row["measure"], row["epoch"], row["step"]) == ("initial", "linear CKA", "3", "199")
        for name, matrix in zip(
            ("value", "standard_error", "low", "high"), (result.matrix, result.standard_error, low, high), strict=True
        ):
            assert row[name] == positive_zero(f"{matrix[cell]:.4f}")


def test_csv_of_a_large_run_has_each_value(viewer):
    run = large_run()
    viewer.open(run)
    values = torch.tensor([float(row["value"]) for row in viewer.table()], dtype=torch.float64).reshape(28, 28)
    torch.testing.assert_close(values, run["initial"][-1].matrix, rtol=0, atol=5.0001e-5)


def test_csv_of_changes_has_their_errors(viewer):
    run = results()
    viewer.open({"initial": run})
    viewer.choose("Change since", "epoch 0, step 49")
    difference = run[3].difference(run[0])
    rows = viewer.table()
    check_digits(rows[0]["change_change"], difference.matrix[0, 0])
    check_digits(rows[0]["change_error"], difference.standard_error[0, 0])
    assert rows[1]["change_error"] == ""
    assert rows[0]["since"] == "epoch 0, step 49"


def test_svg_and_png_have_what_is_seen(viewer):
    viewer.open(one_run(), title='A <run> & its "title"')
    svg = viewer.saved("SVG").decode()
    texts = ["".join(node.itertext()) for node in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]
    assert {'A <run> & its "title"', "model: net.*", "nan", "Drift"} <= set(texts)
    assert svg.count("<rect") > 25 + 25  # The cells of the heatmap and of the drift map.
    png = viewer.saved("PNG")
    image = Image.open(BytesIO(png))
    assert image.size[0] > 1000
    assert len(image.convert("RGB").getcolors(2**24)) > 20


def test_a_link_opens_the_same_view(viewer):
    viewer.open(one_run())
    viewer.choose("Reference", "previous")
    viewer.choose("Colours", "fitted")
    viewer.choose("Colour map", "viridis")
    viewer.filter("net.[0-2]")
    viewer.go(1)
    viewer.choose("Change since", "epoch 2, step 149")
    viewer.click(1, 2)
    viewer.settle()
    fragment = viewer.run("return location.hash")
    assert viewer.run("return document.querySelector('.exports a').getAttribute('href')") == fragment
    viewer.cdp("Input.dispatchMouseEvent", type="mouseMoved", x=1, y=1)
    before = viewer.run("return document.body.innerText"), viewer.pixels(), viewer.table()
    viewer.open_file(viewer.folder / "report.html", fragment)
    assert (viewer.run("return document.body.innerText"), viewer.pixels(), viewer.table()) == before
    assert viewer.text(".moment") == "epoch 1, step 99"
    assert viewer.text(".layer h2").startswith("net.1 over time")


def test_an_address_that_changes_shows_its_state(viewer):
    viewer.open(one_run())
    viewer.run("location.hash = '#at=epoch+1%2C+step+99&reference=previous'")
    viewer.drawn()
    assert viewer.text(".moment") == "epoch 1, step 99"
    assert "with previous" in viewer.text(".subtitle")


def test_the_page_works_in_a_sandboxed_frame(viewer):
    run = one_run()
    content = html.escape(page(view_payload({"run": run})))
    path = viewer.folder / "outer.html"
    path.write_text(f'<iframe sandbox="allow-scripts" width="900" height="900" srcdoc="{content}"></iframe>')
    viewer.driver.get(path.as_uri())
    viewer.driver.switch_to.frame(0)
    viewer.wait("return document.querySelector('.grid canvas[aria-label]') !== null")
    viewer.go(1)
    viewer.settle()
    assert viewer.text(".moment") == "epoch 1, step 99"
    viewer.key(Keys.ARROW_UP, selector=".maps canvas")
    assert viewer.tooltip()["linear CKA"] == f"{run['initial/cka'][1].matrix[1, 0]:.4f}"
    viewer.driver.switch_to.default_content()


MOUNT = """document.body.replaceChildren();
window.view = LightningCKA.mount(document.body, arguments[0]);"""


def mounted(viewer, runs):
    """Show runs in a view that another payload can be given to, as TensorBoard's tab does while a run is live."""
    viewer.open(runs)
    viewer.run(MOUNT, view_payload(runs))
    viewer.wait("return document.querySelector('.grid canvas[aria-label]') !== null")


def update(viewer, runs):
    viewer.run("view.update(arguments[0])", view_payload(runs))
    viewer.drawn()


def test_another_payload_is_shown_in_the_same_state(viewer):
    run = results(epochs=6)
    mounted(viewer, {"run": {"initial": run[:3]}})
    viewer.filter("net.1")
    assert viewer.text(".moment") == "epoch 2, step 149"
    update(viewer, {"run": {"initial": run}})
    assert viewer.text(".moment") == "epoch 5, step 299"  # The view follows the end.
    assert len(viewer.pixels()) == 1
    viewer.go(1)
    update(viewer, {"run": {"initial": run}})
    assert viewer.text(".moment") == "epoch 1, step 99"
    assert viewer.texts(".cka-view h1") == ["CKA"]


def test_another_payload_leaves_open_what_is_open_and_what_has_the_focus(viewer):
    run = [flagged(each, trace_flag("net.1"), trace_flag("net.3")) for each in results(epochs=7)]
    mounted(viewer, {"run": {"initial": run[:5]}})
    viewer.run("document.querySelectorAll('.flag')[1].open = true")
    grown = {"new": {"initial": results(seed=1)}, "run": {"initial": run}}
    isolated = "return document.activeElement === arguments[0] && document.activeElement !== document.body"
    for selector in (".flag button", ".maps canvas", ".drift canvas", "input[type=search]", "select", ".play"):
        element = viewer.element(selector, 1 if selector == ".flag button" else 0)
        viewer.run("arguments[0].focus({focusVisible: true})", element)
        for runs in (grown, {"run": {"initial": run[:5]}}):
            update(viewer, runs)
            assert viewer.run(isolated, element), selector
            is_open = viewer.run("return [...document.querySelectorAll('.flag')].map(f => f.open)")
            assert is_open == [False, True]
    update(viewer, {"run": {"initial": run}})
    assert viewer.texts(".flag summary") == [f"⚠ net.{layer} trace ratio epochs 0–6" for layer in (1, 3)]


def test_another_payload_leaves_the_box_of_a_run_with_its_focus(viewer):
    runs = {name: {"initial": results(seed=seed)} for seed, name in enumerate("abc")}
    mounted(viewer, {"a": runs["a"], "c": runs["c"]})
    box = viewer.element(".runs input", 1)
    viewer.run("arguments[0].focus()", box)
    update(viewer, {"b": runs["b"], "a": runs["a"], "c": runs["c"]})
    assert viewer.run("return document.activeElement === arguments[0]", box)
    assert viewer.texts(".runs label") == ["b", "a", "c"]
    assert viewer.run("return [...document.querySelectorAll('.runs input')].map(b => b.checked)") == [False, True, True]


def test_another_payload_leaves_the_tooltip_of_the_chosen_cell(viewer):
    run = results(epochs=6)
    mounted(viewer, {"run": {"initial": run[:3]}})
    assert viewer.hover(1, 3)["linear CKA"] == f"{run[2].matrix[1, 3]:.4f}"
    update(viewer, {"run": {"initial": run}})
    assert viewer.tooltip()["linear CKA"] == f"{run[5].matrix[1, 3]:.4f}"
    update(viewer, {"run": {"initial": results(layers=2)}})
    assert viewer.texts(".tooltip") == []  # There is no such layer.


def test_time_goes_on_playing_with_another_payload(viewer):
    run = results(epochs=9)
    mounted(viewer, {"run": {"initial": run[:6]}})
    viewer.run("document.querySelector('.play').click()")
    viewer.wait("return document.querySelector('.moment').textContent.startsWith('epoch 2')")
    update(viewer, {"run": {"initial": run}})
    assert viewer.run("return document.querySelector('.play').getAttribute('aria-label')") == "Pause"
    viewer.wait("return document.querySelector('.play').getAttribute('aria-label') === 'Play'")
    assert viewer.text(".moment") == "epoch 8, step 449"


def test_damaged_data_do_not_end_a_view_that_is_live(viewer):
    runs = {"run": {"initial": results()}}
    mounted(viewer, runs)
    viewer.run("view.update({format: 1})")
    assert viewer.wait("return document.querySelector('.problem')?.textContent").startswith("These results cannot")
    update(viewer, runs)
    assert viewer.texts(".problem") == []
    check_cell(viewer, runs["run"]["initial"][-1], 1, 2)


def test_a_view_may_be_hidden_at_first(viewer):
    """As in a tab of TensorBoard, or in a cell of a notebook that is folded."""
    viewer.open({"initial": results()})
    viewer.run(
        f"document.body.style.display = 'none'; {MOUNT}",
        view_payload({"run": one_run()}),
    )
    viewer.drawn()
    viewer.go(1)
    viewer.run("document.body.style.display = ''")
    viewer.drawn()
    assert viewer.text(".moment") == "epoch 1, step 99"
    assert viewer.run("return document.querySelector('.maps canvas').clientWidth") > 300


def test_unknown_states_are_ignored(viewer):
    viewer.open(
        one_run(), "#reference=none&at=epoch+77&run=x&row=nothing&since=never&range=odd&map=constructor&layers=%5B"
    )
    assert viewer.text(".moment") == "epoch 4, step 249"


def test_the_heatmap_works_with_the_keyboard(viewer):
    run = one_run()
    viewer.open(run)
    viewer.key(Keys.ARROW_UP, Keys.ARROW_UP, Keys.ARROW_RIGHT, selector=".maps canvas")
    shown = viewer.tooltip()
    assert shown["linear CKA"] == f"{run['initial/cka'][4].matrix[2, 1]:.4f}"
    live = viewer.run("return document.querySelector('[aria-live]').textContent")
    assert "net.2" in live
    assert shown["linear CKA"] in live
    viewer.key(Keys.ENTER)
    viewer.drawn()
    assert viewer.text(".layer h2") == "net.2 over time; dashed: with net.1"
    viewer.key(Keys.ESCAPE)
    assert viewer.texts(".tooltip") == []


def test_controls_have_roles_and_names(viewer):
    viewer.open(one_run())
    nodes = viewer.cdp("Accessibility.getFullAXTree")["nodes"]
    shown = {(node["role"]["value"], node.get("name", {}).get("value")) for node in nodes if not node["ignored"]}
    roles = {role for role, _ in shown}
    assert {"combobox", "searchbox", "slider", "button", "link", "heading", "region"} <= roles
    interactive = {"combobox", "searchbox", "slider", "button", "link", "application"}
    assert not [each for each in shown if each[0] in interactive and not each[1]]
    assert ("slider", "Time") in shown
    assert ("button", "Play") in shown


def test_touch_shows_a_cell(viewer):
    run = one_run()
    viewer.open(run)
    viewer.cdp("Emulation.setTouchEmulationEnabled", enabled=True)
    x, y = viewer.cell_place(3, 2)
    viewer.cdp("Input.dispatchTouchEvent", type="touchStart", touchPoints=[{"x": x, "y": y}])
    viewer.cdp("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])
    viewer.drawn()
    assert viewer.tooltip()["linear CKA"] == f"{run['initial/cka'][4].matrix[3, 2]:.4f}"
    assert viewer.text(".layer h2") == "net.3 over time; dashed: with net.2"
    viewer.cdp("Emulation.setTouchEmulationEnabled", enabled=False)


@pytest.mark.parametrize("width", [400, 1000, 2000])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_fits_into_windows_of_all_sizes(viewer, width, scheme, tmp_path):
    viewer.scheme(scheme)
    viewer.resize(width, 900)
    viewer.open(large_run())
    viewer.click(20, 20)
    assert viewer.run("return document.documentElement.scrollWidth") <= width
    boxes = viewer.run("return [...document.querySelectorAll('.grid')].map(g => g.getBoundingClientRect().width)")
    assert min(boxes) > 250
    folder = Path(os.environ.get("LIGHTNING_CKA_SCREENSHOTS", tmp_path))
    viewer.screenshot(folder / f"view-{width}-{scheme}.png")


def test_a_comparison_outside_training_is_shown(viewer):
    (result,) = results(epochs=1, epoch=None, step=None)
    viewer.open({"result": [result]})
    check_cell(viewer, result, 1, 2)
    assert viewer.texts(".time") == []
    assert viewer.texts(".drift") == []


def test_a_model_compared_with_itself_has_no_drift(viewer):
    viewer.open({"self": results(reference="model", self_comparison=True)})
    assert viewer.texts(".drift") == []
    viewer.click(1, 1)
    assert "most alike to net.1" not in viewer.text(".layer ul")


def test_layers_may_change_within_a_run(viewer):
    run = results(epochs=2) + results(layers=3, epochs=4)[2:]
    viewer.open({"initial": run})
    check_cell(viewer, run[3], 2, 1)
    viewer.go(0)
    check_cell(viewer, run[0], 4, 1)
    viewer.choose("Change since", "epoch 3, step 199")
    name = "change since epoch 3, step 199"
    shown = viewer.hover(1, 1)
    check_digits(shown[name], run[0].matrix[1, 1] - run[3].matrix[1, 1], least=1)
    assert viewer.hover(4, 4)[name] == "nan"
