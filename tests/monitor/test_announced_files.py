"""The line that says where the files of a run are."""

import logging

import pytest
from fitting import fit
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning_cka import CKAMonitor

# Small models and probe sets are flagged, which these tests do not check; see tests/compare/test_flags.py.
pytestmark = [
    pytest.mark.usefixtures("_without_figures"),
    pytest.mark.filterwarnings("ignore:CKA( with '.*')?. layers (that|whose)"),
]


def lines(caplog, *monitors, **kwargs):
    caplog.clear()
    with caplog.at_level(logging.INFO):
        fit(*monitors, max_epochs=1, **kwargs)
    return [record.message for record in caplog.records if record.message.startswith("CKA files")]


def test_one_line_names_the_folder_and_the_command(caplog):
    logger = [TensorBoardLogger("my runs"), CSVLogger("csv")]
    command = "tensorboard --logdir 'my runs/lightning_logs' --samples_per_plugin images=200"
    expected = f"CKA files: cka (open report.html; pictures in initial/); open with: {command}"
    assert lines(caplog, CKAMonitor(dirpath="cka"), logger=logger) == [expected]
    assert lines(caplog, CKAMonitor("self", dirpath="b"), logger=False) == [
        "CKA files: b (open report.html; pictures in self/)"
    ]


def test_a_fast_dev_run_writes_no_files_and_announces_none(caplog):
    assert lines(caplog, CKAMonitor(), fast_dev_run=True) == []
