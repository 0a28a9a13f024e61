"""`ShownResult`: what notebooks show for a result."""

from __future__ import annotations

from typing import Any, cast

from lightning_cka.compare.saved_result import SavedResult


class ShownResult(SavedResult):
    """Lets notebooks show a `CKAResult`."""

    def _repr_html_(self) -> str:
        """Return the interactive view, with the picture for notebooks that are not trusted.

        A notebook that is saved keeps the view, some 200 kB. To save a small notebook, clear the cell's output.
        """
        from lightning_cka.view.notebook import notebook_html
        from lightning_cka.view.payload import view_payload

        result = cast(Any, self)
        title = f"CKA of {result.model_name} with {result.reference_name}"
        return notebook_html(view_payload({result.model_name: {"": [result]}}, title=title), self._repr_png_())
