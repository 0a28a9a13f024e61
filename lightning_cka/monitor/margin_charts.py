"""`MarginCharts`: charts with confidence bands in the tab "Custom Scalars" of TensorBoard."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from math import isnan, nan
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from lightning_cka.monitor.logged_scalars import band_names
from lightning_cka.monitor.output_errors import OutputErrors
from lightning_cka.monitor.settings import Settings
from lightning_cka.runtime.namespaces import class_names

Bands = tuple[str, str, str]
"""Keys of a value, of its lower bound and of its upper bound."""

Layout = dict[str, dict[str, list[Any]]]
"""By category and by title of the chart: "Margin", and a list of the three keys."""

_TAG = b"custom_scalars__config__"

_MARK = "with 95 % intervals"
"""Part of the titles of all categories. It tells our layouts in event files from others."""

_LAYOUTS: WeakKeyDictionary[Any, Layout] = WeakKeyDictionary()
"""A run of TensorBoard has one layout, so all monitors of a logger share it."""


class MarginCharts:
    """Tells TensorBoard which keys are a value and its confidence interval. Other loggers have no such charts.

    A run of TensorBoard has one layout. If you have written one yourself, it is left alone.

    Args:
        loggers: The Trainer's loggers.
        errors: Receives the loggers' errors.
    """

    def __init__(self, loggers: Sequence[Any], errors: OutputErrors) -> None:
        self._loggers = [logger for logger in loggers if "TensorBoardLogger" in class_names(logger)]
        self._errors = errors
        self._is_new = False

    def add_scalars(
        self, settings: Settings, key: str, scalars: Mapping[str, float], mean: Bands, layers: Iterable[str]
    ) -> None:
        """Add charts of the scalars of a comparison that have confidence intervals.

        Args:
            settings: The monitor's settings.
            key: The key of `Settings.key`.
            scalars: Values by the last part of the logged key.
            mean: The last parts of the keys of the mean and its bounds.
            layers: Names of the layers that have values.
        """
        prefix, group = settings.logged(key), settings.log_key_prefix.rstrip("/") or "CKA"
        of_layers = band_names(layers) if settings.log_intervals else {}
        for category, bands in ((f"{group}: mean", {key: mean}), (f"{prefix.rstrip('/')}: layers", of_layers)):
            defined = {title: band for title, band in bands.items() if not isnan(scalars.get(band[1], nan))}
            self._add(category, prefix, defined)

    def _add(self, category: str, key_prefix: str, charts: Mapping[str, Bands]) -> None:
        """Add charts, which `write` writes if they are new.

        Args:
            category: What is above the charts; " with 95 % intervals" is added.
            key_prefix: Prefix of the keys.
            charts: The keys of each chart, by its title.
        """
        for logger in self._loggers if charts else ():
            layout = _LAYOUTS.setdefault(logger, {})
            known = layout.setdefault(f"{category} {_MARK}", {})
            self._is_new = self._is_new or not charts.keys() <= known.keys()
            for title, keys in charts.items():
                known[title] = ["Margin", [_tag(logger, key_prefix + key) for key in keys]]

    def write(self) -> None:
        """Write the charts of all monitors if this one has new ones."""
        for logger in self._loggers if self._is_new else ():
            failure = "TensorBoard got no charts with confidence bands"
            self._errors.attempt(partial(_write, logger, _LAYOUTS[logger]), failure)
        self._is_new = False


def _tag(logger: Any, key: str) -> str:
    """Return the key as the logger writes it."""
    prefix = getattr(logger, "_prefix", "")
    return f"{prefix}{logger.LOGGER_JOIN_CHAR}{key}" if prefix else key


def _write(logger: Any, layout: Layout) -> None:
    """Write the layout, which replaces the last one of this run, unless this is the user's."""
    writer = logger.experiment
    writer.flush()
    if not any(_has_other_layout(path) for path in Path(logger.log_dir).glob("*tfevents*")):
        writer.add_custom_scalars(layout)


def _has_other_layout(path: Path) -> bool:
    """Whether an event file has a layout that is not of a `MarginCharts`."""
    if not path.stat().st_size:
        return False
    with path.open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as content:
        place = content.find(_TAG)
        while place >= 0:
            following = content.find(_TAG, place + 1)
            end = following if following >= 0 else len(content)
            if content.find(_MARK.encode(), place, min(end, place + 4096)) < 0:
                return True
            place = following
    return False
