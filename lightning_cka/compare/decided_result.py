"""`DecidedResult`: what a result answers to the questions that people decide by."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, cast

from lightning_cka.compare.shown_result import ShownResult

if TYPE_CHECKING:
    from lightning_cka.decisions.redundancy import Redundancy


class DecidedResult(ShownResult):
    """Gives a `CKAResult` the methods whose answers are in the room `decisions`."""

    def redundancy(self, alike: float = 0.9, level: float = 0.95) -> Redundancy:
        """Return which layers of a model are alike, in which blocks, and which one could go with the least change.

        It needs a result of a model with itself. Layers count as consecutive in the order of ``layers``. That is the
        order of execution for the default layers and for a single pattern. Several patterns give the layers of the
        first pattern first: pass them in the order of execution.

        Args:
            alike: CKA above which two layers are alike, in (0, 1).
            level: Level of the confidence intervals, in (0, 1). There is no correction for the number of layers.

        Returns:
            The change 1 - CKA from each layer to the next, the blocks of alike layers, and the layers by how little
            their removal would change what the next layer gets. With fewer than about four effective batches, there
            are neither blocks nor removable layers, and a warning gives the reason.

        Raises:
            ValueError: The result compares two models, or an argument is out of range.
        """
        from lightning_cka.decisions.redundancy import redundancy

        found = redundancy(cast(Any, self), alike, level)
        if found.note:
            warnings.warn(found.note, stacklevel=2)
        return found
