"""The tab of a real TensorBoard in a real browser, and what the plugin's process imports and serves."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
from lightning_cka import CKAResult
from tensorboards import ROOT, Run, entry_point, get, search_path, tensorboard
from test_safety import HOSTILE, hostile_runs
from test_view import check_cell, check_digits
from view_results import results

tensorboard_package = pytest.importorskip("tensorboard")


def write_run(folder, run, keys="{}/"):
    written = Run(folder)
    for key, found in run.items():
        written.write(keys.format(f"cka/{key}"), found)
    return written


def check_change(viewer, result, base, layer):
    """Check the change of a paired layer, with its paired error."""
    moment = f"epoch {base.epoch}, step {base.step}"
    viewer.choose("Change since", moment)
    shown, difference = viewer.hover(layer, layer), result.difference(base)
    check_digits(shown[f"change since {moment}"], difference.matrix[layer, layer])
    check_digits(shown["standard error"], difference.standard_error[layer, layer])
    viewer.choose("Change since", "show values")


def test_the_module_that_tensorboard_imports_takes_no_time():
    code = f"""
import sys
from tensorboard import default
before = set(sys.modules)
import {entry_point().module}
new = set(sys.modules) - before
assert new == {{"lightning_cka", "lightning_cka.view", "{entry_point().module}"}}, new
assert not {{"torch", "matplotlib", "lightning"}} & set(sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", code], timeout=120).returncode == 0


def test_reading_events_needs_no_torch():
    code = "import sys; import lightning_cka.view.event_reader; assert not {'torch', 'matplotlib'} & set(sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=120).returncode == 0


def test_the_entry_point_is_a_plugin(tmp_path, monkeypatch):
    plugin = entry_point().load()
    assert issubclass(plugin, tensorboard_package.plugins.base_plugin.TBPlugin)
    assert plugin.plugin_name == entry_point().name
    code = (
        "from tensorboard.default import get_dynamic_plugins as g; print([p.__name__ for p in g()].count('CKAPlugin'))"
    )
    monkeypatch.setenv("PYTHONPATH", search_path(tmp_path))
    assert subprocess.run([sys.executable, "-c", code], timeout=120, capture_output=True).stdout.strip() == b"1"


@contextmanager
def training(folder):
    """Train in a process of its own, until the block ends."""
    script = ROOT / "tests" / "scripts" / "live_script.py"
    paths = [str(ROOT), str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    with (folder / "training.log").open("wb") as log:
        process = subprocess.Popen([sys.executable, script], cwd=folder, env=environment, stdout=log, stderr=log)
    try:
        yield process
        folder.joinpath("stop").touch()
        assert process.wait(120) == 0, folder.joinpath("training.log").read_text()
    finally:
        process.kill()
        process.wait()


LAST = "return Number(document.querySelector('input[type=range]').max)"
"""The number of the last epoch."""


def test_the_tab_shows_a_run_that_is_still_written(viewer, tmp_path):
    with training(tmp_path) as process, tensorboard(tmp_path / "logs", tmp_path) as address:

        def result(epoch, reference):
            (file,) = tmp_path.glob(f"cka/{reference}/epoch={epoch:03d}-*.json")
            return CKAResult.load(file)

        viewer.open_tab(address)
        viewer.wait(f"{LAST} > 11", seconds=150)  # TensorBoard keeps ten tensors of a tag.
        assert viewer.options("Reference") == ["initial", "previous"]
        for epoch in (11, 0, 7):
            viewer.go(epoch)
            check_cell(viewer, result(epoch, "initial"), 1, 3)
            check_change(viewer, result(epoch, "initial"), result(5, "initial"), 4)
        viewer.choose("Reference", "previous")
        check_cell(viewer, result(7, "previous"), 4, 4)
        link = viewer.run("return document.querySelector('.exports a').href")
        assert link.startswith(f"{address}/data/plugin_entry.html?name=lightning_cka#")
        assert get(link.partition("#")[0])
        last = viewer.run(LAST)
        viewer.wait(f"{LAST} > arguments[0]", last, seconds=60)
        assert viewer.text(".moment").startswith("epoch 7,")
        viewer.go(10**6)
        last = viewer.run(LAST)
        viewer.wait(f"{LAST} > arguments[0]", last, seconds=60)
        last = viewer.run(LAST)
        assert int(viewer.text(".moment").split(",")[0].removeprefix("epoch ")) >= last  # The view follows the end.
        viewer.go(last - 1)
        check_cell(viewer, result(last - 1, "previous"), 0, 2)
        write_run(tmp_path / "logs" / "another", {"initial": results(epochs=3, seed=5)})
        viewer.wait("return document.querySelectorAll('.runs input').length === 2", seconds=60)
        check_the_scheme(viewer, Path(os.environ.get("LIGHTNING_CKA_SCREENSHOTS", tmp_path)))
        assert process.poll() is None
        viewer.driver.switch_to.default_content()
        viewer.driver.get("about:blank")


def check_the_scheme(viewer, folder):
    """Check that the tab is dark if TensorBoard is, and take screenshots."""
    viewer.screenshot(folder / "tensorboard-light.png")
    viewer.run("window.parent.document.body.classList.add('dark-mode')")
    viewer.settle()
    dark = "return getComputedStyle(document.querySelector('.cka-view')).backgroundColor"
    assert viewer.run(dark) == "rgb(22, 20, 26)"
    viewer.screenshot(folder / "tensorboard-dark.png")


def test_the_tab_works_without_unsafe_eval_and_shows_names_as_text(viewer, tmp_path):
    """TensorBoard allows `unsafe-eval`. Here, it does not, and a hostile run has an event that is none."""
    runs = hostile_runs()
    for place, run in enumerate(runs.values()):
        written = write_run(tmp_path / "logs" / f"run {place}", run)
    from tensorboard.compat.proto.summary_pb2 import Summary

    value = Summary.Value(tag="<b>")
    value.metadata.plugin_data.plugin_name = "lightning_cka"
    value.metadata.data_class = 2
    value.tensor.dtype = 7
    value.tensor.string_val.append(b"<script>alert(1)</script>")
    written.writer.file_writer.add_summary(Summary(value=[value]), 0)
    written.writer.flush()
    script = tmp_path / "strict_tensorboard.py"
    script.write_text(
        "from tensorboard import main\n"
        "from tensorboard.backend import http_util\n"
        "http_util._CSP_SCRIPT_UNSAFE_EVAL = False\n"
        "main.run_main()\n"
    )
    with tensorboard(tmp_path / "logs", tmp_path, module="strict_tensorboard") as address:
        policy = get(f"{address}/data/plugin_entry.html?name=lightning_cka")[1]["Content-Security-Policy"]
        assert "unsafe-eval" not in policy
        viewer.open_tab(address)
        viewer.wait("return document.querySelectorAll('.runs input').length === arguments[0]", len(runs), seconds=60)
        viewer.wait("return document.querySelector('.notes li') !== null", seconds=60)
        note = f"run {len(runs) - 1}, <b>: this comparison cannot be shown: it is damaged"
        assert viewer.text(".notes li").startswith(note)
        for place, name in enumerate(HOSTILE):
            viewer.choose("Reference", name)
            assert viewer.run("return document.querySelectorAll('img, [onmouseover], [onerror]').length") == 0, place
        viewer.driver.switch_to.default_content()
        viewer.driver.get("about:blank")


def test_the_plugin_serves_its_own_files_only(tmp_path):
    write_run(tmp_path / "logs", {"initial": results(epochs=2)})
    with tensorboard(tmp_path / "logs", tmp_path) as address:
        base = f"{address}/data/plugin/lightning_cka"
        for path in ("tensorboard/index.js", "view.js", "view.css"):
            content, headers = get(f"{base}/{path}")
            assert headers["X-Content-Type-Options"] == "nosniff"
            assert not [word for word in (b"http:", b"https:") if word in content.replace(b"http://www.w3.org", b"")]
        for path in ("../page.py", "%2e%2e/page.py", "view.html"):
            with pytest.raises(OSError, match="404"):
                get(f"{base}/{path}")
        first = json.loads(get(f"{base}/results")[0])
        while not first["payload"]["runs"]:
            first = json.loads(get(f"{base}/results")[0])
        assert json.loads(get(f"{base}/results?known={first['mark']}")[0]) == {"mark": first["mark"], "payload": None}
