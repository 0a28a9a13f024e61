"""Values as pandas tables, and results as pictures in notebooks."""

import sys
from types import SimpleNamespace

import pytest
import torch
from lightning_cka import CKAMonitor, CKAResult


def make_result(**options):
    names = ("conv", "head")
    return CKAResult(torch.eye(2), names, names, torch.full((2, 2), 0.1), epoch=3, step=40, **options)


@pytest.fixture
def _pandas(monkeypatch):
    """A stand-in for pandas, which need not be installed: its DataFrame is the list of rows."""
    monkeypatch.setitem(sys.modules, "pandas", SimpleNamespace(DataFrame=list))


@pytest.mark.usefixtures("_pandas")
def test_a_result_has_one_row_for_each_cell():
    rows = make_result().to_dataframe()
    assert rows == make_result().to_rows()
    assert rows[1] == {
        "epoch": 3,
        "step": 40,
        "layer": "conv",
        "reference_layer": "head",
        "cka": 0.0,
        "standard_error": pytest.approx(0.1),
        "paired": False,
    }


@pytest.mark.usefixtures("_pandas")
def test_a_monitor_has_the_rows_of_a_whole_run():
    monitor = CKAMonitor()
    assert monitor.to_dataframe() == []
    monitor.results = {
        "initial/cka": [make_result(reference_name="initial"), make_result(reference_name="initial")],
        "initial/rsa": [make_result(reference_name="initial", measure="rsa")],
    }
    rows = monitor.to_dataframe()
    assert len(rows) == 12
    assert [row["measure"] for row in rows[::4]] == ["linear CKA", "linear CKA", "RSA"]
    assert rows[0] == {
        "reference": "initial",
        "measure": "linear CKA",
        "epoch": 3,
        "step": 40,
        "layer": "conv",
        "reference_layer": "conv",
        "value": 1.0,
        "standard_error": pytest.approx(0.1),
        "paired": True,
    }
    assert rows[-1].keys() == rows[0].keys()


def test_without_pandas_an_error_says_what_to_do(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match=r"to_dataframe needs pandas: pip install pandas.*to_rows"):
        make_result().to_dataframe()


def test_notebooks_show_pictures():
    monitor = CKAMonitor()
    assert monitor._repr_png_() is None
    monitor.results = {"initial": [make_result()]}
    for shown in (make_result(), monitor):
        assert shown._repr_png_().startswith(b"\x89PNG")
