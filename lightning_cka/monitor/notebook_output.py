"""`NotebookOutput`: what notebooks show for a monitor."""

from __future__ import annotations

from lightning_cka.compare.result import CKAResult
from lightning_cka.compare.run_files import is_of_training
from lightning_cka.monitor.trainer_events import TrainerEvents


class NotebookOutput(TrainerEvents):
    """Lets notebooks show the results of a monitor."""

    def _repr_html_(self) -> str | None:
        """Return the interactive view of all results, which notebooks show; None before the first.

        A notebook that is saved keeps the view: about 100 kB and the results, that is 1.2 MB for 28 layers, 100 epochs
        and 3 references. To save a small notebook, clear the cell's output.
        """
        from lightning_cka.view.notebook import notebook_html
        from lightning_cka.view.payload import view_payload

        picture = self._repr_png_()
        if picture is None:
            return None
        trained = {key: [each for each in history if is_of_training(each)] for key, history in self.results.items()}
        shown = trained if any(trained.values()) else self.results
        model = next(history[0].model_name for history in shown.values() if history)
        return notebook_html(view_payload({model: shown}, title=f"CKA of {model}"), picture)

    def _repr_png_(self) -> bytes | None:
        """Return the heatmaps of the last comparisons as a PNG picture, which notebooks show; None before the first."""
        from lightning_cka.figures.panels import plot_comparison
        from lightning_cka.figures.pictures import png, render

        last: list[CKAResult] = [history[-1] for history in self.results.values() if history]
        return png(render(plot_comparison(last)[0])) if last else None
