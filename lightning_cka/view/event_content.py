"""`event_content`: one comparison as bytes for an event file of TensorBoard, from which the tab builds its view."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable

from lightning_cka.compare.result import CKAResult
from lightning_cka.decisions.ceiling import SeedCeiling
from lightning_cka.view.blocks import block_content
from lightning_cka.view.ceiling_content import ceiling_content
from lightning_cka.view.events import EVENT_FORMAT
from lightning_cka.view.payload import flag_rows, packed_series


def event_content(key: str, result: CKAResult, ceilings: Iterable[SeedCeiling] = ()) -> bytes:
    """Return one comparison as compressed JSON, which `lightning_cka.view.events.read_event` reads.

    It has the layers' names and the numbers that the view shows: 28 layers take about 5 kB.

    Args:
        key: The logged key of the reference and the measure. It tells series apart.
        result: The comparison.
        ceilings: Seed ceilings. The first one that fits goes with the comparison.
    """
    series = packed_series(result.reference_name, [result], [block_content([result])], flag_rows([result]))
    content = {
        "format": EVENT_FORMAT,
        "key": key,
        "series": series | ceiling_content(ceilings, [result]),
    }
    return zlib.compress(json.dumps(content, separators=(",", ":"), allow_nan=False).encode())
