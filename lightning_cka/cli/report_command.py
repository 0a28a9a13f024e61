"""The command ``report``: one interactive page of runs."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from lightning_cka.cli.ceilings import ceilings_of_measures
from lightning_cka.cli.output_files import check_ending, write_line
from lightning_cka.view.page import write_page
from lightning_cka.view.payload import view_payload
from lightning_cka.view.run_folders import read_runs


def report(options: Any) -> None:
    """Write one page that shows the runs in folders, and print its path.

    Raises:
        ValueError: A folder has no results, or the banks of a ceiling do not fit them.
        NotADirectoryError: There is no such folder.
    """
    path: Path = options.output or (options.folders[0] if len(options.folders) == 1 else Path()) / "report.html"
    check_ending(path, (".html",))
    runs, notes = read_runs(options.folders)
    for note in notes:
        warnings.warn(note, stacklevel=2)
    ceilings = ceilings_of_measures(options.ceiling, [series for run in runs.values() for series in run.values()])
    write_page(path, view_payload(runs, title=f"CKA of {', '.join(runs)}", notes=notes, ceilings=ceilings))
    write_line(str(path))
