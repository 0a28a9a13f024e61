"""`CKAPlugin`: the tab "CKA" of TensorBoard, which finds it by the entry point ``tensorboard_plugins``.

TensorBoard imports this module when it starts. It must not import torch, numpy or matplotlib.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tensorboard import plugin_util
from tensorboard.backend import http_util
from tensorboard.plugins import base_plugin
from werkzeug.wrappers import Request, Response

if TYPE_CHECKING:
    from lightning_cka.view.event_reader import EventReader

_STATIC = Path(__file__).parent / "static"

_TYPES = {".js": "text/javascript", ".css": "text/css"}


class CKAPlugin(base_plugin.TBPlugin):  # type: ignore[misc]  # TensorBoard has no types.
    """Serves the scripts of the view and the comparisons that `CKAMonitor` has written into event files.

    Args:
        context: TensorBoard's context of plugins.
    """

    plugin_name = "lightning_cka"

    def __init__(self, context: Any) -> None:
        self._provider = context.data_provider
        self._reader: EventReader | None = None

    def get_plugin_apps(self) -> dict[str, Callable[..., Any]]:
        """Return the functions that answer requests, by path."""
        files = [path for path in _STATIC.rglob("*") if path.suffix in _TYPES]
        apps = {f"/{path.relative_to(_STATIC).as_posix()}": partial(_file, path) for path in files}
        return {path: Request.application(app) for path, app in apps.items()} | {
            "/results": Request.application(self._results)
        }

    def is_active(self) -> bool:
        """Return False: TensorBoard itself finds out whether a run has events of this plugin."""
        return False

    def frontend_metadata(self) -> base_plugin.FrontendMetadata:
        """Return the tab's name and its script."""
        return base_plugin.FrontendMetadata(es_module_path="/tensorboard/index.js", tab_name="CKA")

    def _results(self, request: Request) -> Response:
        from lightning_cka.view.event_reader import EventReader

        if self._reader is None:
            self._reader = EventReader(self._provider)
        context, experiment = plugin_util.context(request.environ), plugin_util.experiment_id(request.environ)
        text = self._reader.answer(context, experiment, request.args.get("known", ""))
        return _response(request, text, "application/json")


def _file(path: Path, request: Request) -> Response:
    return _response(request, path.read_text(encoding="utf-8"), _TYPES[path.suffix])


def _response(request: Request, content: str, kind: str) -> Response:
    found: Response = http_util.Respond(request, content, kind)
    return found
