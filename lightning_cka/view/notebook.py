"""The view inside a notebook, with a picture for notebooks that show no frames."""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping
from typing import Any

from lightning_cka.view.page import page

HEIGHT = 860
"""Height of the frame in pixels."""


def notebook_html(payload: Mapping[str, Any], picture: bytes) -> str:
    """Return HTML that shows a payload in a frame, so that its style and its scripts stay apart from the notebook.

    The frame lies on the picture. Notebooks that are not trusted remove the frame, and then the picture shows. The text
    has about 100 kB, the data of the payload and the picture. A notebook that is saved keeps it.

    Args:
        payload: As in `lightning_cka.view.page.page`.
        picture: A PNG picture of the same results.
    """
    title = html.escape(str(payload["title"]))
    source = base64.b64encode(picture).decode("ascii")
    frame = f"grid-area: 1 / 1; width: 100%; height: {HEIGHT}px; border: 0; background: white"
    return (
        '<div style="display: grid">'
        f'<img style="grid-area: 1 / 1; max-width: 100%" alt="{title}" src="data:image/png;base64,{source}">'
        f'<iframe style="{frame}" sandbox="allow-scripts allow-downloads" title="{title}" '
        f'srcdoc="{html.escape(page(payload))}"></iframe>'
        "</div>"
    )
