"""Hostile names and damaged data: names are text, and errors are messages."""

from __future__ import annotations

import base64
import json
import zlib

import pytest
from lightning_cka.view.page import page, payload_json, write_page
from lightning_cka.view.payload import view_payload
from view_results import flagged, results, trace_flag

HOSTILE = (
    "<img src=x onerror=alert(1)>",
    "</script><script>alert(1)</script>",
    "<!--<script>",
    "]]>&amp;&#60;",
    "\u2028\u2029\\u003c",
    "__proto__",
    "constructor",
    "javascript:alert(1)",
    "{payload}{script}",
    "' onmouseover='alert(1)",
    '"><b>',
    "\U0001f600 x.y*[!z]",
)


def hostile_runs():
    """Return results all of whose names are hostile."""
    runs = {}
    for name in HOSTILE:
        found = results(len(HOSTILE), 2, name, names=HOSTILE, model_name=name)
        runs[name] = {name: [flagged(each, trace_flag(name)) for each in found]}
    return runs


def test_hostile_names_are_shown_as_text(viewer):
    runs = hostile_runs()
    viewer.open(runs, title=HOSTILE[1], notes=HOSTILE)
    scripts = viewer.run("return document.querySelectorAll('script').length")
    assert scripts == 2  # The data and the view.
    assert viewer.run("return document.querySelectorAll('img, [onmouseover], [onerror]').length") == 0
    assert viewer.texts("h1") == [HOSTILE[1]]
    assert viewer.run("return [...document.querySelectorAll('.notes li')].map(e => e.textContent)") == list(HOSTILE)
    assert viewer.run("return [...document.querySelectorAll('.runs span')].map(e => e.textContent)") == list(HOSTILE)
    assert viewer.run("return Object.prototype.polluted") is None
    for place, name in enumerate(HOSTILE):
        viewer.run(
            """const select = document.querySelector('label.field select');
            select.selectedIndex = arguments[0]; select.dispatchEvent(new Event('change'));""",
            place,
        )
        viewer.drawn()
        # The run of this name is one of the first four, or none of the chosen runs has the reference.
        if place >= 4:
            viewer.run("document.querySelectorAll('.runs input')[arguments[0]].click()", place)
            viewer.drawn()
        viewer.hover(place, place)
        names = viewer.run("return [...document.querySelectorAll('.tooltip b')].map(e => e.textContent)")
        assert names == [name, name]
        viewer.click(place, place)
        assert name in viewer.run("return document.querySelector('.layer h2').textContent")
    assert viewer.run("return document.querySelectorAll('script').length") == 2


def test_hostile_names_survive_in_csv_and_svg(viewer):
    found = results(len(HOSTILE), 1, names=HOSTILE)
    viewer.open({"initial": found})
    assert [row["layer"] for row in viewer.table()][:: len(HOSTILE)] == list(HOSTILE)
    assert b"<img" not in viewer.saved("SVG")


def test_embedded_data_cannot_end_their_element():
    text = payload_json(view_payload(hostile_runs(), title=HOSTILE[1], notes=HOSTILE))
    assert not {"<", ">", "&", "\u2028", "\u2029"} & set(text)
    assert "\\u003c/script" in text
    assert json.loads(text)["notes"] == list(HOSTILE)


def test_the_page_has_no_address():
    text = page(view_payload({"run": {"initial": results()}}))
    assert "src=" not in text.replace("default-src", "").replace("script-src", "").replace("img-src", "")
    assert text.count("http") == text.count("http-equiv") + text.count('"http://www.w3.org/2000/svg"')


def test_the_page_forbids_other_scripts_and_requests(viewer):
    viewer.open({"initial": results()})
    script = """const done = arguments[0];
    const image = new Image(); image.onload = () => done('loaded'); image.onerror = () => done('refused');
    image.src = 'https://example.com/x.png';"""
    assert viewer.driver.execute_async_script(script) == "refused"
    viewer.run("document.body.append(Object.assign(document.createElement('script'), {textContent: 'window.ran = 1'}))")
    assert viewer.run("return window.ran") is None
    viewer.driver.get_log("browser")
    viewer.driver.get_log("performance")  # Chromium reports what the policy refuses.


def damaged(change):
    payload = json.loads(json.dumps(view_payload({"run": {"initial": results()}})))
    block = payload["runs"][0]["series"][0]["blocks"][0]
    change(payload, payload["runs"][0], payload["runs"][0]["series"][0], block)
    return payload


def packed(content):
    return base64.b64encode(zlib.compress(content)).decode()


DAMAGES = {
    "format": lambda payload, *_: payload.update(format=99),
    "no runs": lambda payload, *_: payload.update(runs=[]),
    "runs": lambda payload, *_: payload.update(runs={"a": 1}),
    "null run": lambda payload, *_: payload.update(runs=[None]),
    "name": lambda payload, run, *_: run.update(name={"toString": 1}),
    "null series": lambda payload, run, *_: run.update(series=[None]),
    "no blocks": lambda payload, run, series, _: series.update(blocks=[]),
    "null block": lambda payload, run, series, _: series.update(blocks=[None]),
    "rows": lambda *found: found[3].update(rows=[1, 2, 3, 4, 5]),
    "other rows": lambda *found: found[3].update(rows=["a"], pairs=[]),
    "pairs": lambda *found: found[3].update(pairs=[[0, 99]]),
    "hostile pairs": lambda *found: found[3].update(pairs=[["length", "constructor"]]),
    "fewer epochs": lambda *found: found[3].update(epochs=[1]),
    "no epochs": lambda *found: found[3].update(
        {name: [] for name in ("epochs", "steps", "samples", "batches", "effective", "factors", "means")}
    ),
    "huge": lambda *found: found[3].update(rows=["a"] * 10**4, columns=["b"] * 10**4, pairs=[]),
    "base64": lambda *found: found[3].update(values="d%%%"),
    "zlib": lambda *found: found[3].update(errors="dAAAA"),
    "too short": lambda *found: found[3].update(bounds="p" + packed(b"1234")),
    "too long": lambda *found: found[3].update(values="p" + packed(bytes(10**6))),
    "not text": lambda *found: found[3].update(values=5),
    "batches": lambda *found: found[3]["paired"].update(batches=10**9),
    "negative batches": lambda *found: found[3]["paired"].update(batches=-1),
    "flags": lambda payload, run, series, _: series.update(flags=packed(b"[[0, 1]]")),
    "flag of no result": lambda payload, run, series, _: series.update(
        flags=packed(b'[[9, "a", false, "b", "c", "d", []]]')
    ),
    "flags that are not JSON": lambda payload, run, series, _: series.update(flags=packed(b"[[")),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damaged_data_give_a_message(viewer, name):
    viewer.open_payload(damaged(DAMAGES[name]))
    message = viewer.wait("return document.querySelector('.problem')?.textContent")
    assert message.startswith("These results cannot be shown: ")
    assert viewer.run("return document.querySelector('.problem').getAttribute('role')") == "alert"


@pytest.mark.parametrize("text", ["", "null", "3", '"x"', "[]", "{", "{}", '{"format": 1}'])
def test_other_json_gives_a_message(viewer, text):
    content = page(view_payload({}))
    path = viewer.folder / "report.html"
    path.write_text(content.replace(payload_json(view_payload({})), text))
    viewer.open_file(path)
    assert viewer.text(".problem").startswith("These results cannot be shown: ")


def test_no_results_give_a_message_with_the_notes(viewer):
    viewer.open({}, notes=["'epoch=000-step=000001.json' is damaged"])
    message = "'epoch=000-step=000001.json' is damaged; there are no results."
    assert viewer.text(".problem") == f"These results cannot be shown: {message}"


def test_names_that_are_not_unicode_can_be_written(tmp_path):
    write_page(tmp_path / "report.html", view_payload({"a\udcff": {"initial": results()}}, title="a\udcff"))
    assert "<title>a?</title>" in (tmp_path / "report.html").read_text()
