"""`SavedResult`: how results become plain values and files, and results again."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from lightning_cka.compare.drawn_pairs import DrawnPairs
from lightning_cka.compare.result_format import from_json, from_plain, to_json, to_plain
from lightning_cka.runtime.files import write_atomically
from lightning_cka.runtime.text import about_file

T = TypeVar("T", bound="SavedResult")


class SavedResult(DrawnPairs):
    """Saves the attributes of a `CKAResult`, and reads them. The banks of a result are not saved."""

    def state(self) -> dict[str, Any]:
        """Return the attributes as tensors, numbers, strings, lists and dicts, for a checkpoint; see `from_state`.

        The banks are left out.
        """
        content: dict[str, Any] = to_plain(self)
        del content["banks"]
        return content

    @classmethod
    def from_state(cls: type[T], state: Mapping[str, Any]) -> T:
        """Return the result whose `state` this is; also of other versions.

        Raises:
            ValueError: A value is missing, or is not what it must be.
        """
        return cls(**from_plain(state))

    def save(self, path: str | Path) -> None:
        """Write the result to a JSON file, or its heatmap to a picture.

        In JSON, floats keep all digits, and ``nan`` becomes null. The file is written completely or not at all.

        Args:
            path: Path of the file. With the ending ``.png`` (200 dpi), ``.pdf`` or ``.svg`` it gets the heatmap.

        Raises:
            ValueError: The ending is that of a picture in another format.
            OSError: The file cannot be written.
        """
        path = Path(path)
        if not self._save_picture(path):
            write_atomically(path, to_json(self.state()).encode())

    @classmethod
    def load(cls: type[T], path: str | Path) -> T:
        """Read a result that `save` wrote.

        Args:
            path: Path of the file.

        Raises:
            ValueError: The file is not a result, or is damaged. The message is one line that names the file.
            OSError: The file cannot be read.
        """
        path = Path(path)
        try:
            return cls(**from_json(path.read_bytes(), path))
        except ValueError as error:
            raise ValueError(about_file(path.name, f"is not a result of lightning_cka: {error}")) from error
