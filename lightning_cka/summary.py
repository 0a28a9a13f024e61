"""What is written and logged when training ends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_cka.animation import write_animation
from lightning_cka.loggers import heatmap_file, log_and_save, log_video
from lightning_cka.panels import plot_convergence, plot_trajectories, plot_trajectory
from lightning_cka.result import CKAResult
from lightning_cka.tables import write_csv

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_LAYERS = 16
"""Of trajectories that are drawn."""

OVERVIEW = ("overview", "convergence")


def write_summary(loggers: Sequence[Any], key_prefix: str, path: Path, results: Sequence[CKAResult]) -> None:
    """Write the history of one reference as a table, and as an animation, which W&B gets too.

    Args:
        loggers: of the Trainer.
        key_prefix: of the animation's key, ``evolution``.
        path: of the files, without their endings ``.csv`` and ``-evolution.gif``.
        results: of one reference, in order.

    Raises:
        OSError: a file cannot be written.
    """
    trained = [result for result in results if result.epoch is not None]
    if not trained:
        return
    write_csv(trained, path.with_name(f"{path.name}.csv"))
    animation = path.with_name(f"{path.name}-evolution.gif")
    write_animation(trained, animation, pictures=[path / heatmap_file(result) for result in trained])
    log_video(loggers, f"{key_prefix}evolution", animation, trained[-1].step or 0)


def log_trajectories(
    loggers: Sequence[Any], key_prefix: str, folder: Path, results: Mapping[str, CKAResult], step: int
) -> list[str]:
    """Draw trajectories: the first 16 layers one by one, all of these in one, and the maps of convergence.

    Args:
        loggers: of the Trainer.
        key_prefix: of the images' keys, layers' names, ``overview`` and ``convergence``. A layer of such a name gets
            "-2" after it.
        folder: of the files.
        results: of `lightning_cka.compare.trajectories`.
        step: of the images, on the axis of Lightning's own scalars.

    Returns:
        Class names of the loggers that cannot take images.

    Raises:
        OSError: a file cannot be written.
    """
    some = dict(islice(results.items(), MAX_LAYERS))
    figures: dict[str, Figure] = {
        f"{name}-2" if name in OVERVIEW else name: plot_trajectory(result)[0] for name, result in some.items()
    }
    figures["overview"] = plot_trajectories(some)[0]
    figures["convergence"] = plot_convergence(results)[0]
    files = {name: (figure, folder / f"{name}.png") for name, figure in figures.items()}
    return log_and_save(loggers, key_prefix, files, step)
