"""Rows as a pandas table, for those who have pandas."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any


def dataframe(rows: Sequence[dict[str, Any]]) -> Any:
    """Return rows as a `pandas.DataFrame`. Only this call imports pandas.

    Raises:
        ImportError: pandas is not installed.
    """
    try:
        pandas = import_module("pandas")
    except ImportError as error:
        raise ImportError("to_dataframe needs pandas: pip install pandas. Without it, use to_rows()") from error
    return pandas.DataFrame(rows)
