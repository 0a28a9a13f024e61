"""The page that shows a payload: one HTML file with its scripts, its style and its data, without a network."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from lightning_cka.runtime.files import write_atomically

_STATIC = Path(__file__).parent / "static"

SCRIPTS = (
    "packed.js",
    "series.js",
    "names.js",
    "colours.js",
    "elements.js",
    "moments.js",
    "cell_text.js",
    "curves.js",
    "layer.js",
    "grid.js",
    "flags.js",
    "exports.js",
    "controls.js",
    "panel.js",
    "view.js",
)
"""The modules of the view. Each imports from those before it only."""

_START = """
LightningCKA.mount(document.body, document.getElementById("lightning-cka").textContent);
"""


@cache
def script() -> str:
    """Return all modules as one classic script, which defines ``LightningCKA.mount(element, payload)``.

    A page may also load ``view.js`` as a module: ``import { mount } from "./view.js"``.
    """
    modules = [(_STATIC / name).read_text(encoding="utf-8") for name in SCRIPTS]
    joined = "\n".join(re.sub(r"^(import [^;]*;\n|export )", "", module, flags=re.MULTILINE) for module in modules)
    return f'"use strict";\nconst LightningCKA = (() => {{\n{joined}\nreturn {{ mount }};\n}})();\n'


@cache
def style() -> str:
    """Return the style sheet. Its rules hold inside elements of the class ``cka-view`` only."""
    return (_STATIC / "view.css").read_text(encoding="utf-8")


def payload_json(payload: Mapping[str, Any]) -> str:
    """Return the JSON of a payload, which may stand inside a script element: no name can end the element."""
    text = json.dumps(payload, separators=(",", ":"), allow_nan=False)  # ASCII: other characters are escaped.
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def page(payload: Mapping[str, Any]) -> str:
    """Return an HTML page that shows a payload of `lightning_cka.view.payload.view_payload`.

    The page loads nothing, and its content security policy forbids all other scripts and all addresses.
    """
    code = script() + _START
    digest = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode("ascii")
    parts = {
        "script_hash": f"sha256-{digest}",
        "title": html.escape(str(payload["title"])),
        "style": style(),
        "payload": payload_json(payload),
        "script": code,
    }
    template = (_STATIC / "view.html").read_text(encoding="utf-8")
    return re.sub(r"\{(\w+)\}", lambda found: parts[found[1]], template)


def write_page(path: str | Path, payload: Mapping[str, Any]) -> None:
    """Write the page to a file, completely or not at all.

    Args:
        path: Path of the file. Missing folders are created.
        payload: As in `page`.

    Raises:
        OSError: The file cannot be written.
    """
    write_atomically(Path(path), page(payload).encode("utf-8", "replace"))
