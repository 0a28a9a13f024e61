"""The header of a bank's file: JSON that describes the bank, with a checksum over its fields."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from lightning_cka.hsic.grams import MIN_SAMPLES
from lightning_cka.probe.input_hashes import groups_of_copies, hashes_of_groups
from lightning_cka.probe.probe_identity import BatchInputs
from lightning_cka.runtime.checked_values import (
    Place,
    list_of,
    optional,
    record,
    text,
    unique_texts,
    whole,
    whole_numbers,
)
from lightning_cka.runtime.checkpoint_files import BANK_HEADER
from lightning_cka.runtime.json_text import checksum, parse_json
from lightning_cka.runtime.text import about_file, one_line, shortened
from lightning_cka.runtime.unchecked_files import note_unchecked
from lightning_cka.version import __version__

if TYPE_CHECKING:
    from lightning_cka.probe.bank import GramBank

FORMAT_VERSION = 1
"""Version of the file format that is written. Files of lower versions can be read."""

_BATCH = record(
    {
        "index": whole(),
        "samples": whole_numbers,
        "inputs": text,
        "bad_inputs": whole_numbers,
        "tensors": optional(text),
    },
    {"bad_inputs": (), "tensors": None},
)

_HEADER = record(
    {
        "format_version": whole(1),
        "package_version": text,
        "model_name": text,
        "layers": unique_texts,
        "epoch": optional(whole()),
        "step": optional(whole()),
        "batch_sizes": list_of(whole(MIN_SAMPLES)),
        "probe": record({"seed": whole(-(2**63), 2**64 - 1), "sample_kind": text, "batches": list_of(_BATCH)}),
        "copies": optional(list_of(whole_numbers)),
        "checksum": optional(text),
    },
    {"package_version": "unknown", "checksum": None, "copies": None},
)


class BankHeader(NamedTuple):
    """What the header of a bank's file says."""

    attributes: dict[str, Any]
    """Arguments of `GramBank`, by name."""
    probe: dict[int, BatchInputs]
    """Samples and inputs of all batches in the file, by index."""
    checksums: dict[int, str | None]
    """Checksum of the tensors of each batch, by index. None: a file of an older version has none."""
    bad_inputs: dict[int, tuple[int, ...]]
    """Samples whose inputs are not finite, by index of the batch."""
    input_hashes: dict[int, tuple[int, ...]]
    """Numbers of each batch's samples that are equal for copies, by index of the batch; empty if they are unknown."""


def header_of(bank: GramBank, checksums: Mapping[int, str], copies: Mapping[str, list[list[int]]]) -> dict[str, Any]:
    """Return the header of a bank.

    Args:
        bank: The bank.
        checksums: Checksum of the tensors of each batch, by index.
        copies: What `copies_of` returns.
    """
    header = {
        "format_version": FORMAT_VERSION,
        "package_version": __version__,
        "model_name": bank.model_name,
        "layers": bank.layers,
        "epoch": bank.epoch,
        "step": bank.step,
        "batch_sizes": [batch.grams.num_samples for batch in bank],
        "probe": {
            "seed": bank.seed,
            "sample_kind": bank.sample_kind,
            "batches": [
                {
                    "index": batch.index,
                    "samples": batch.samples,
                    "inputs": batch.fingerprint,
                    "bad_inputs": batch.bad_inputs,
                    "tensors": checksums[batch.index],
                }
                for batch in bank
            ],
        },
    }
    return header | {"checksum": _checksum(header)} | dict(copies)


def copies_of(bank: GramBank) -> dict[str, list[list[int]]]:
    """Return the groups of samples with identical inputs, by the name of the field; nothing if they are unknown."""
    if not all(batch.input_hashes for batch in bank):
        return {}
    samples = [sample for batch in bank for sample in batch.samples]
    return {"copies": groups_of_copies(samples, [value for batch in bank for value in batch.input_hashes])}


def read_header(path: Path, metadata: Mapping[str, str] | None) -> BankHeader:
    """Return the header of a bank's file, after it was checked.

    Args:
        path: The file.
        metadata: The file's metadata.

    Raises:
        ValueError: There is no header, it is damaged, or it has a later format version.
    """
    if not metadata or BANK_HEADER not in metadata:
        raise ValueError("is a safetensors file, but not a bank of lightning_cka")
    content = parse_json(metadata[BANK_HEADER])
    _check_version(content)
    place = Place()
    header = _HEADER(content, place)
    if header["checksum"] is None:
        note_unchecked("bank", path)
    elif _checksum(header) != header["checksum"]:
        raise ValueError("is damaged: the checksum of its header differs")
    _check_batches(header)
    if place.unknown:
        later = f"was written by lightning_cka {one_line(header['package_version'], 30)}: unknown fields are ignored"
        warnings.warn(about_file(path.name, f"{later}: {shortened(place.unknown)}"), stacklevel=2)
    return _bank_header(header)


def _checksum(header: Mapping[str, Any]) -> str:
    """Return the checksum of the known fields of a header that describe the bank."""
    versions = ("format_version", "package_version", "checksum", "copies")
    return checksum({name: value for name, value in header.items() if name not in versions})


def _check_version(content: Any) -> None:
    version = content.get("format_version") if isinstance(content, dict) else None
    if isinstance(version, int) and version > FORMAT_VERSION:
        package = one_line(str(content.get("package_version", "unknown"))[:40], 30)
        raise ValueError(
            f"has format version {min(version, 10**9)}, of lightning_cka {package}; this one reads versions up to "
            f"{FORMAT_VERSION}: install a newer lightning_cka"
        )


def _check_batches(header: Mapping[str, Any]) -> None:
    batches = header["probe"]["batches"]
    if [len(batch["samples"]) for batch in batches] != header["batch_sizes"]:
        raise ValueError("is damaged: the numbers of samples differ from batch_sizes")
    if len({batch["index"] for batch in batches}) < len(batches):
        raise ValueError("is damaged: two batches have the same index")
    if batches and not header["layers"]:
        raise ValueError("is damaged: it has batches, but no layers")


def _bank_header(header: Mapping[str, Any]) -> BankHeader:
    identity = header["probe"]
    attributes = {
        "layers": tuple(header["layers"]),
        "model_name": header["model_name"],
        "sample_kind": identity["sample_kind"],
        "seed": identity["seed"],
        "epoch": header["epoch"],
        "step": header["step"],
    }
    batches = identity["batches"]
    probe = {batch["index"]: BatchInputs(tuple(batch["samples"]), batch["inputs"]) for batch in batches}
    return BankHeader(
        attributes,
        probe,
        {batch["index"]: batch["tensors"] for batch in batches},
        {batch["index"]: tuple(batch["bad_inputs"]) for batch in batches},
        _input_hashes(batches, header["copies"]),
    )


def _input_hashes(batches: Any, copies: list[list[int]] | None) -> dict[int, tuple[int, ...]]:
    """Return numbers by index of the batch that are equal for copies, in place of the hashes, which are not stored."""
    if copies is None:
        return {}
    samples = [sample for batch in batches for sample in batch["samples"]]
    numbers = iter(hashes_of_groups(samples, copies))
    return {batch["index"]: tuple(next(numbers) for _ in batch["samples"]) for batch in batches}
