"""The commands ``trajectory`` and ``animate``: pictures of a whole run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning_cka.cli.output_files import write_line
from lightning_cka.cli.run_banks import RunBanks
from lightning_cka.compare.result import CKAResult
from lightning_cka.compare.run_files import results_of_references
from lightning_cka.compare.tables import trajectory_table
from lightning_cka.compare.trajectory import trajectories
from lightning_cka.figures.animation import write_animation
from lightning_cka.figures.pictures import write_figure
from lightning_cka.hsic.measure import measure_title
from lightning_cka.monitor.logged_figures import trajectory_figures


def trajectory(options: Any) -> None:
    """Draw the trajectories of a run, and print the CKA with the last moment."""
    by_measure = trajectories(
        RunBanks.in_folder(options.folder).files[0].parent,
        options.layers,
        measures=options.measures,
        kernel=options.kernel,
        unbiased=options.unbiased,
    )
    folder = options.output or options.folder / "trajectory"
    for name, results in by_measure.items():
        output = folder if len(by_measure) == 1 else folder / name
        for draw, path in trajectory_figures(output, results).values():
            write_figure(draw(), path.with_suffix(f".{options.format}"))
        title = measure_title(next(iter(results.values())).measure)
        write_line(f"{title} of each layer with the same layer at the last moment:\n")
        write_line(trajectory_table(results))
        write_line(f"\nFigures: {output}")


def animate(options: Any) -> None:
    """Write one animation per reference, and print the paths."""
    animations = _animations(options.sources)
    if options.output is not None:
        if len(animations) > 1:
            raise ValueError(
                f"--output names one animation, but there are {len(animations)}: pass the folder of one reference"
            )
        if options.output.suffix != ".gif":
            raise ValueError(f"--output must end with .gif, but got {str(options.output)!r}")
        animations = dict.fromkeys([options.output], *animations.values())
    for path, files in animations.items():
        write_animation([CKAResult.load(file) for file in files], path, seconds=options.seconds)
        write_line(str(path))


def _animations(sources: Sequence[Path]) -> dict[Path, list[Path]]:
    """Return the result files of each animation, by its default path.

    Args:
        sources: Folders, or result files of one reference.
    """
    if not all(source.is_dir() for source in sources):
        return {sources[0].with_name("evolution.gif"): list(sources)}
    animations = {
        place.with_name(f"{place.name}-evolution.gif"): files
        for folder in sources
        for place, files in results_of_references(folder)
    }
    if not animations:
        raise ValueError(f"there are no results in {', '.join(map(str, sources))}")
    return animations
