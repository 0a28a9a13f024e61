"""The results in the folder of a run, by reference."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from lightning_cka.compare.run_files import result_files


def results_of_references(folder: Path) -> Iterator[tuple[Path, list[Path]]]:
    """Yield the folder of each reference in a folder, and its result files in order of time.

    Folders ``earlier-1``, ``earlier-2``, ... inside are skipped, because they hold earlier runs.
    """
    folder = folder.resolve() if folder.name in ("", "..") else folder
    for place in (folder, *sorted(path for path in folder.rglob("*") if path.is_dir())):
        is_earlier_run = any(part.startswith("earlier-") for part in place.relative_to(folder).parts)
        if not is_earlier_run and (files := result_files(place)):
            yield place, files
