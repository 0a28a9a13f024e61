"""The view in frames: as W&B wraps a logged page, and in notebooks, also in those that are not trusted."""

from __future__ import annotations

import html
import re

import pytest
import torch
from lightning_cka import CKAMonitor
from lightning_cka.monitor.loggers import LoggerOutput
from lightning_cka.monitor.output_errors import OutputErrors
from lightning_cka.monitor.warn_once import WarnOnce
from lightning_cka.view.page import write_page
from lightning_cka.view.payload import view_payload
from view_results import one_run, results

HOVER = """const [row, column] = arguments;
const canvas = document.querySelector('.maps .grid canvas');
canvas.scrollIntoView({block: 'center'});
const box = canvas.getBoundingClientRect();
const clientX = box.left + (column + 0.5) / canvas.width * box.width;
const clientY = box.bottom - (row + 0.5) / canvas.height * box.height;
canvas.dispatchEvent(new PointerEvent('pointermove', {clientX, clientY, bubbles: true}));"""


def framed(viewer, text, place=0):
    """Open a page, and go into one of its frames."""
    path = viewer.folder / "outer.html"
    path.write_text(text, encoding="utf-8")
    viewer.driver.get(path.resolve().as_uri())
    viewer.driver.switch_to.frame(viewer.element("iframe", place))
    viewer.wait("return document.querySelector('.grid canvas[aria-label]') !== null")


def check_value(viewer, result, row=1, column=3):
    viewer.run(HOVER, row, column)
    viewer.wait("return document.querySelector('.tooltip dd')")
    assert viewer.tooltip()[result.measure_label] == f"{result.matrix[row, column]:.4f}"
    viewer.driver.switch_to.default_content()


def test_a_notebook_shows_monitor_and_result_as_view_and_as_picture(viewer):
    monitor, result = CKAMonitor(), results()[2]
    monitor.results = one_run()
    for shown in (monitor, result):
        assert shown._repr_png_().startswith(b"\x89PNG")
    text = f"<p>{monitor._repr_html_()}</p><p>{result._repr_html_()}</p>"
    framed(viewer, text)
    check_value(viewer, monitor.results["initial/cka"][-1])
    framed(viewer, text, 1)
    viewer.settle()  # The address stays as it is.
    assert not viewer.run("return [...document.querySelectorAll('a')].some(a => a.checkVisibility())")
    check_value(viewer, result)


def test_a_monitor_without_results_shows_nothing():
    assert CKAMonitor()._repr_html_() is None


def test_results_of_validate_are_shown_only_if_there_are_no_others():
    monitor = CKAMonitor()
    validated = results(epochs=1, epoch=None, step=None)
    for trained, expected in ((results(epochs=2), "[0,1]"), ([], "[null]")):
        monitor.results = {"initial": trained + validated}
        assert f'"epochs":{expected}' in html.unescape(monitor._repr_html_())


def test_without_the_frame_the_picture_shows(viewer):
    """A notebook that is not trusted removes frames."""
    text = re.sub("<iframe.*?</iframe>", "", results()[0]._repr_html_(), flags=re.DOTALL)
    path = viewer.folder / "untrusted.html"
    path.write_text(text, encoding="utf-8")
    viewer.driver.get(path.resolve().as_uri())
    width, height = viewer.wait(
        "const i = document.querySelector('img'); return i.naturalWidth && [i.clientWidth, i.clientHeight]"
    )
    assert width > 200
    assert height > 150
    assert viewer.run("return document.elementsFromPoint(50, 50)[0].tagName") == "IMG"


def test_hostile_names_stay_text_in_a_notebook(viewer):
    name = "</iframe><img src=x onerror=\"document.title='bad'\">"
    text = results(4, 1, names=(name, "b", "c", "d"), reference=f'">{name}')[0]._repr_html_()
    framed(viewer, text)
    viewer.driver.switch_to.default_content()
    assert viewer.run("return [document.images.length, document.title]") == [1, ""]


@pytest.mark.parametrize("how", ["src", "srcdoc"])
def test_the_page_of_wandb_works_in_a_sandboxed_frame(viewer, monkeypatch, how):
    wandb = pytest.importorskip("wandb")
    from lightning.pytorch.loggers import WandbLogger

    monkeypatch.setenv("WANDB_SILENT", "true")
    run = one_run()
    path = viewer.folder / "report.html"
    write_page(path, view_payload({"run": run}))
    logger = WandbLogger(project="test", save_dir=viewer.folder, offline=True)
    output = LoggerOutput([logger], OutputErrors(viewer.folder, WarnOnce()))
    assert output.send("report", "cka/report", path, 7) == []
    output.finish()
    wandb.finish()
    wandb.teardown()
    (file,) = viewer.folder.glob("wandb/offline-run-*/files/media/html/cka/report*.html")
    assert file.read_bytes() == path.read_bytes()
    source = html.escape(file.resolve().as_uri() if how == "src" else file.read_text(encoding="utf-8"))
    framed(viewer, f'<iframe sandbox="allow-scripts" width="1000" height="800" {how}="{source}"></iframe>')
    viewer.settle()
    check_value(viewer, run["initial/cka"][-1])


def test_values_that_are_not_defined_are_framed(viewer):
    (result,) = results(epochs=1)
    result.matrix[1, 3] = torch.nan
    framed(viewer, result._repr_html_())
    check_value(viewer, result)
