"""Make names of layers, references and kernels safe as names of files and folders."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Collection, Iterable, Sequence
from itertools import count

from lightning_cka.runtime.files import digest

MAX_BYTES = 120
"""Length of the longest name, in UTF-8. File systems allow 255 bytes, and names get endings."""

# Separators, control characters, and the letter of a drive, such as "c:". Lone surrogates cannot be encoded.
_UNSAFE = re.compile(r"[\\/\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]|(?<=^[A-Za-z]):|^\.+|[. ]+$|^ +")
# MLflow does not take these. Lightning removes them from the names of its metrics.
_PUNCTUATION = re.compile(r"[!-,:-@\[-^`{-~]")
_NOT_IN_MLFLOW = re.compile(r"[^A-Za-z0-9_/. -]+")
_UNSAFE_ON_WINDOWS = re.compile(r'[<>:"|?*]')
_RESERVED = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³])(\..*)?", re.IGNORECASE)
"""Names of devices on Windows, with any ending."""


def safe_file_name(name: str) -> str:
    """Return a name that is safe as the name of one file or folder on any system.

    Ordinary names stay as they are. Other names are changed, and get a hash of the name at the end, so that different
    names stay different.

    Args:
        name: Any text: a path, a name with control characters, a name of thousands of characters, or an empty one.

    Returns:
        A name of 1 to 120 bytes without separators, that is not hidden and is no name of a device.
    """
    safe = _UNSAFE.sub("_", name)
    if os.name == "nt":
        safe = _UNSAFE_ON_WINDOWS.sub("_", safe)
    if _RESERVED.fullmatch(safe):
        safe = f"_{safe}"
    if safe == name and name and len(name.encode()) <= MAX_BYTES:
        return name
    suffix = f"-{digest(name.encode(errors='surrogatepass'))[:12]}"
    start = safe.encode()[: MAX_BYTES - len(suffix)].decode(errors="ignore")
    return f"{start.rstrip('. ')}{suffix}"


def distinct_names(names: Iterable[str], reserved: Collection[str]) -> dict[str, str]:
    """Return names of logged values, by name: with a number at the end where they would be mixed up.

    Lightning removes punctuation and other letters than a to z from names of MLflow's metrics. So names must not differ
    in them alone, and something must be left.

    Args:
        names: Different names. Those that are not reserved, and lose nothing in MLflow, stay as they are.
        reserved: Names that mean something else.
    """
    ordered = list(dict.fromkeys(names))
    found = {name: name for name in ordered if _in_mlflow(name) == name and name not in reserved}
    taken = {"", *map(_in_mlflow, reserved), *found}
    for name in ordered:
        if name not in found:
            tried = (name if number == 1 else f"{name}-{number}" for number in count(1))
            found[name] = next(each for each in tried if _in_mlflow(each) not in taken)
            taken.add(_in_mlflow(found[name]))
    return {name: found[name] for name in ordered}


def distinct_file_names(
    names: Iterable[str], reserved: Iterable[str] = (), endings: Sequence[str] = ("",)
) -> dict[str, str]:
    """Return safe file names, by name, that are different on any system, even if it ignores the case of letters.

    Args:
        names: Different names. Ordinary ones stay as they are; of those that some systems take for the same, the first.
        reserved: Names that other files have.
        endings: Endings of the files that each name gives.
    """
    ordered = list(dict.fromkeys(names))
    taken = {file_key(name) for name in reserved}
    found: dict[str, str] = {}
    is_ordinary = {name: safe_file_name(name) == name and file_key(name) not in taken for name in ordered}
    for name in sorted(ordered, key=lambda name: not is_ordinary[name]):
        found[name] = take_file_name(name, taken, endings)
    return {name: found[name] for name in ordered}


def take_file_name(name: str, taken: set[str], endings: Sequence[str] = ("",)) -> str:
    """Return a safe file name that is not taken, with a number at the end if needed, and add it to ``taken``.

    Args:
        name: Any name; may be taken.
        taken: Values of `file_key` of files that exist.
        endings: Endings of the files that the name gives.
    """
    base = safe_file_name(name)
    for number in count(1):
        safe = base if number == 1 else safe_file_name(f"{base}-{number}")
        files = {file_key(f"{safe}{ending}") for ending in endings}
        if not files & taken:
            break
    taken |= files
    return safe


def file_key(name: str) -> str:
    """Return what is the same for names that a system may take for the same file, or a logger for the same value."""
    return _without_punctuation(unicodedata.normalize("NFKC", name).casefold())


def _in_mlflow(name: str) -> str:
    return _NOT_IN_MLFLOW.sub("", name)


def _without_punctuation(name: str) -> str:
    return _PUNCTUATION.sub("", name)
