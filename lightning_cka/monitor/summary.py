"""What is written and logged when training ends."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from lightning_cka.compare.result import CKAResult
from lightning_cka.compare.run_files import moment
from lightning_cka.compare.tables import write_csv
from lightning_cka.figures.animation import write_animation
from lightning_cka.figures.drift import plot_drift
from lightning_cka.figures.heatmap import plot_cka
from lightning_cka.figures.trajectories import plot_convergence, plot_trajectories, plot_trajectory
from lightning_cka.monitor.outlet import Outlet

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from lightning_cka.monitor.outlet import Figures


MAX_LAYERS = 16
"""Of trajectories that are drawn."""


OVERVIEW = ("overview", "convergence")


def write_summary(outlet: Outlet, key_prefix: str, path: Path, results: Sequence[CKAResult]) -> None:
    """Write the history of one reference as a table, and as an animation, which is logged too.

    Args:
        outlet: where they go.
        key_prefix: of the animation's key, ``evolution``.
        path: of the files, without their endings ``.csv`` and ``-evolution.gif``.
        results: of one reference, in order.
    """
    trained = [result for result in results if result.epoch is not None]
    if not trained:
        return
    animation = path.with_name(f"{path.name}-evolution.gif")

    def animate() -> None:
        write_animation(trained, animation, pictures=[path / heatmap_file(result) for result in trained])
        outlet.log("video", f"{key_prefix}evolution", animation, trained[-1].step or 0)

    outlet.attempt(lambda: write_csv(trained, path.with_name(f"{path.name}.csv")))
    outlet.attempt(animate)


def trajectory_figures(folder: Path, results: Mapping[str, CKAResult]) -> Figures:
    """Figures of trajectories: of the first 16 layers one by one, all of these in one, and the maps of convergence.

    Args:
        folder: of the files.
        results: of `lightning_cka.compare.trajectories`.

    Returns:
        Layers' names, ``overview`` and ``convergence``, each with what draws it, and its file. A layer of such a name
        gets "-2" after it.
    """
    some = dict(islice(results.items(), MAX_LAYERS))

    def of_layer(result: CKAResult) -> Figure:
        return plot_trajectory(result)[0]

    draw: dict[str, Callable[[], Figure]] = {
        f"{name}-2" if name in OVERVIEW else name: partial(of_layer, result) for name, result in some.items()
    }
    draw["overview"] = lambda: plot_trajectories(some)[0]
    draw["convergence"] = lambda: plot_convergence(results)[0]
    return {name: (figure, folder / f"{name}.png") for name, figure in draw.items()}


def log_figures(outlet: Outlet, key_prefix: str, folder: Path, results: Sequence[CKAResult], step: int) -> None:
    """Draw the latest result and the history; log both, and write them to PNG files.

    Args:
        outlet: where they go.
        key_prefix: of the images' keys, ``heatmap`` and ``drift``.
        folder: of the files, made if need be. The heatmap's name has epoch and step, the drift map is
            written anew each time.
        results: of one reference, in order; the last one is new. Without an epoch it is of a model that was
            validated outside training, and the drift map has no place for it.
        step: of the images, on the axis of Lightning's own scalars.
    """
    last = results[-1]
    figures: dict[str, tuple[Callable[[], Figure], Path]] = {
        "heatmap": (lambda: plot_cka(last)[0], folder / heatmap_file(last))
    }
    if last.epoch is not None and not last.self_comparison and last.same_named():
        trained = [result for result in results if result.epoch is not None]
        figures["drift"] = (lambda: plot_drift(trained)[0], folder / "drift.png")
    outlet.figures(key_prefix, figures, step)


def heatmap_file(result: CKAResult) -> str:
    """The name of a heatmap's file."""
    return f"heatmap-{moment(result.epoch, result.step)}.png"
