"""The file of the view: its size, its scripts and that it is written whole."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import lightning_cka
import pytest
from lightning_cka.view.page import SCRIPTS, page, script, style, write_page
from lightning_cka.view.payload import view_payload
from view_results import large_run, results

STATIC = Path(lightning_cka.__file__).parent / "view" / "static"


def test_28_layers_100_epochs_and_3_references_take_at_most_1_2_mb(tmp_path):
    write_page(tmp_path / "report.html", view_payload({"run": large_run()}))
    assert (tmp_path / "report.html").stat().st_size <= 1.2e6


def test_a_page_that_cannot_be_written_leaves_the_old_one(tmp_path, monkeypatch):
    path = tmp_path / "new" / "report.html"
    write_page(path, view_payload({"run": {"initial": results()}}, title="old"))

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        write_page(path, view_payload({"run": {"initial": results()}}, title="new"))
    assert "<title>old</title>" in path.read_text()
    assert [file.name for file in path.parent.iterdir()] == ["report.html"]


def test_all_scripts_are_in_the_page():
    assert set(SCRIPTS) == {path.name for path in STATIC.glob("*.js")}
    text = page(view_payload({}))
    assert script() in text
    assert style() in text
    assert not re.search(r"^(import|export)\b", script(), re.MULTILINE)


@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts_are_safe_and_import_earlier_ones_only(name):
    text = (STATIC / name).read_text()
    unsafe = r"innerHTML|outerHTML|insertAdjacent|document\.write|\beval\b|new Function|\bfetch\b|XMLHttp|WebSocket"
    assert not re.search(unsafe, text)
    for other in re.findall(r'from "\./(.+?)"', text):
        assert SCRIPTS.index(other) < SCRIPTS.index(name)


@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts_are_tidy(name):
    lines = (STATIC / name).read_text().split("\n")
    assert lines[0].startswith("/** ")
    assert lines[-1] == ""
    for line in lines:
        assert len(line) <= 120
        assert line == line.rstrip()
        assert "\t" not in line


def test_a_wheel_has_the_files_of_the_page_and_of_the_tab(tmp_path):
    wheel = pytest.importorskip("hatchling.builders.wheel")
    (path,) = wheel.WheelBuilder(str(STATIC.parents[2])).build(directory=str(tmp_path), versions=["standard"])
    names = set(zipfile.ZipFile(path).namelist())
    files = [file.relative_to(STATIC.parents[2]).as_posix() for file in STATIC.rglob("*") if file.is_file()]
    assert {Path(name).suffix for name in files} == {".js", ".css", ".html"}
    assert set(files) <= names
    (entry_points,) = (name for name in names if name.endswith("dist-info/entry_points.txt"))
    assert "lightning_cka.view.tensorboard_plugin:CKAPlugin" in zipfile.ZipFile(path).read(entry_points).decode()


def test_the_scripts_come_without_torch():
    code = (
        "import sys; from lightning_cka.view import page; page.page({'title': ''}); assert 'torch' not in sys.modules"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
