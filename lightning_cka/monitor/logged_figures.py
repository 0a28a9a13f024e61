"""The figures and animations that are logged and written to files: heatmap, drift, evolution, trajectories."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from lightning_cka.compare.result import CKAResult
from lightning_cka.compare.run_files import is_of_training, moment
from lightning_cka.compare.tables import write_csv
from lightning_cka.decisions.ranks_of_run import rank_history
from lightning_cka.figures.animation import write_animation
from lightning_cka.figures.convergence_maps import plot_convergence
from lightning_cka.figures.drift import plot_drift
from lightning_cka.figures.measures import plot_measures
from lightning_cka.figures.ranks import plot_ranks
from lightning_cka.figures.trajectories import plot_trajectories, plot_trajectory
from lightning_cka.monitor.figure_queue import FigureQueue
from lightning_cka.monitor.logged_ranks import HISTORY
from lightning_cka.monitor.loggers import LoggerOutput
from lightning_cka.runtime.file_names import distinct_file_names
from lightning_cka.runtime.spacing import spread_evenly

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from lightning_cka.decisions.ceiling import SeedCeiling
    from lightning_cka.monitor.figure_queue import Draw, Figures


MAX_LAYERS = 16
"""Number of layers whose trajectories are drawn."""


OVERVIEW = ("overview", "convergence")


def log_figures(
    queue: FigureQueue,
    key_prefix: str,
    folder: Path,
    results: Sequence[CKAResult],
    step: int,
    ceiling: SeedCeiling | None = None,
) -> None:
    """Draw, log and write the heatmap of the latest result and the drift map of all results.

    There is no drift map for a self-comparison, without paired layers, or for ``trainer.validate()``.

    Args:
        queue: Draws the figures.
        key_prefix: Prefix of the logged keys ``heatmap`` and ``drift``.
        folder: Folder of the PNG files. The heatmap's file name has epoch and step; ``drift.png`` is overwritten.
        results: Results of one reference, in order; the last one is new.
        step: The step of the images, on the axis of Lightning's own scalars.
        ceiling: The seed ceiling for the drift map; None: there is none.
    """
    last = results[-1]
    figures: dict[str, tuple[Draw, Path]] = {
        "heatmap": (lambda: queue.heatmaps.png(key_prefix, last), folder / heatmap_file(last))
    }
    if is_of_training(last) and not last.self_comparison and last.same_named():
        trained = _of_training(results)
        figures["drift"] = (lambda: plot_drift(trained, ceiling=ceiling)[0], folder / "drift.png")
    queue.submit(key_prefix, figures, step)


def measures_figure(
    folder: Path, results: Mapping[str, Sequence[CKAResult]], ceilings: Mapping[str, SeedCeiling]
) -> Figures:
    """Return the figure of all measures of one reference; empty where there is no drift map.

    Args:
        folder: Folder of the PNG file, which is overwritten.
        results: Results of the reference in order, by measure; the last ones are new.
        ceilings: Seed ceilings by measure.
    """
    last = next(iter(results.values()))[-1]
    if len(results) < 2 or not is_of_training(last) or last.self_comparison or not last.same_named():
        return {}
    trained = {measure: _of_training(history) for measure, history in results.items()}
    return {"measures": (lambda: plot_measures(trained, ceilings=ceilings.values())[0], folder / "measures.png")}


def rank_figure(path: Path, results: Sequence[CKAResult], rank_loss: float | None) -> Figures:
    """Return the figure of effective ranks.

    Args:
        path: Its PNG file.
        results: Results of one reference in order, some of which have ranks.
        rank_loss: Loss above which layers are flagged; None: none are.
    """
    return {HISTORY: (lambda: plot_ranks(rank_history(results), rank_loss=rank_loss)[0], path)}


def write_summary(loggers: LoggerOutput, key_prefix: str, path: Path, results: Sequence[CKAResult]) -> None:
    """Write the results of one reference as a table and as an animation, and log the animation.

    Args:
        loggers: Get the animation.
        key_prefix: Prefix of the logged key ``evolution``.
        path: Path of the files without the endings ``.csv`` and ``-evolution.gif``. It is the folder of the heatmaps.
        results: Results of one reference, in order.
    """
    trained = _of_training(results)
    if not trained:
        return
    animation = path.with_name(f"{path.name}-evolution.gif")

    def animate() -> None:
        write_animation(trained, animation, pictures=[path / heatmap_file(result) for result in trained])
        loggers.send("video", f"{key_prefix}evolution", animation, trained[-1].step or 0)

    loggers.errors.attempt(lambda: write_csv(trained, path.with_name(f"{path.name}.csv")))
    loggers.errors.attempt(animate)


def trajectory_figures(folder: Path, results: Mapping[str, CKAResult]) -> dict[str, tuple[Callable[[], Figure], Path]]:
    """Return the figures of trajectories: one for each of up to 16 layers, an overview, and the convergence.

    Of more layers, evenly spaced ones are drawn.

    Args:
        folder: Folder of the PNG files.
        results: Results by layer, from `lightning_cka.compare.trajectories`.

    Returns:
        By layer name, and by ``overview`` and ``convergence``: a function that draws the figure, and its file. A layer
        that has one of these two names gets "-2" after it. A name that is not safe as a file name is changed.
    """
    drawn = dict(spread_evenly(list(results.items()), MAX_LAYERS))

    def draw_layer(result: CKAResult) -> Figure:
        return plot_trajectory(result)[0]

    draw: dict[str, Callable[[], Figure]] = {
        file: partial(draw_layer, drawn[name]) for name, file in distinct_file_names(drawn, OVERVIEW).items()
    }
    draw["overview"] = lambda: plot_trajectories(drawn)[0]
    draw["convergence"] = lambda: plot_convergence(results)[0]
    return {name: (function, folder / f"{name}.png") for name, function in draw.items()}


def heatmap_file(result: CKAResult) -> str:
    """Return the name of a heatmap's file."""
    return f"heatmap-{moment(result.epoch, result.step)}.png"


def drawn_before_kill(folder: Path, results: Sequence[CKAResult]) -> int:
    """Return up to how many results the heatmaps are there.

    Of an earlier one that is missing, the user has deleted the file. If all are missing, as in a new folder, the last
    one alone counts as not drawn.
    """
    drawn = [count for count, result in enumerate(results, 1) if (folder / heatmap_file(result)).exists()]
    return max(drawn, default=len(results) - 1)


def _of_training(results: Sequence[CKAResult]) -> list[CKAResult]:
    """Return the results without those of ``trainer.validate()``."""
    return [result for result in results if is_of_training(result)]
