"""The file format of Gram banks.

A bank is a safetensors file. For each batch ``i`` it has the tensors

- ``i.offsets``, ``i.scales`` and ``i.row_squares`` of `lightning_cka.hsic.packed.PackedGrams`;
- ``i.halves``, ``(L, n(n-1)/2)``: the strictly lower triangles of the U-centered Gram matrices, row by row;
- ``i.halves_unit``, ``(L,)``, only if ``i.halves`` is in half precision: the powers of 2 that it is multiplied by.

The metadata has JSON under "lightning_cka": the version of the format and of the package; the model's class, layers,
epoch, step and batch sizes; and under "probe" what identifies the probe set: its seed, what the sample numbers are,
and for each batch its index, sample numbers, a hash of the inputs, and the samples whose inputs are not finite.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_safetensors
from torch import Tensor

from lightning_cka.hsic.folding import half_size, triangle_indices
from lightning_cka.hsic.packed import PackedGrams
from lightning_cka.probe.bank_batch import BankBatch
from lightning_cka.probe.probe_identity import BatchInputs
from lightning_cka.version import __version__

if TYPE_CHECKING:
    from lightning_cka.probe.bank import GramBank

FORMAT_VERSION = 1
"""Version of the file format that is written. Files of lower versions can be read."""


HEADER = "lightning_cka"


class BankContent(NamedTuple):
    """What a bank file contains."""

    attributes: dict[str, Any]
    """Arguments of `GramBank`, by name."""
    probe: dict[int, BatchInputs]
    """Samples and inputs of all batches in the file, by index."""
    batches: list[BankBatch]
    """The batches that were read."""


def write_bank(bank: GramBank, *, float16: bool) -> bytes:
    """Return the content of a bank's file.

    Args:
        bank: The bank.
        float16: Whether to store the Gram matrices in half precision.
    """
    tensors: dict[str, Tensor] = {}
    for batch in bank:
        parts = dict(batch.grams._asdict())
        parts["halves"] = parts["halves"].index_select(1, triangle_indices(batch.grams.num_samples))
        if float16:
            parts["halves"], parts["halves_unit"] = _to_half(parts["halves"])
        tensors.update((f"{batch.index}.{name}", part.contiguous()) for name, part in parts.items())
    return to_safetensors(tensors, {HEADER: json.dumps(_header(bank), separators=(",", ":"))})


def read_bank(path: Path, batches: Collection[int] | None) -> BankContent:
    """Read a bank's file.

    Args:
        path: Path of the file.
        batches: Indices of the batches to read. None reads all of them.

    Raises:
        ValueError: The file is not a bank, cannot be read, or has a newer format.
        FileNotFoundError: There is no such file.
    """
    if not path.is_file():
        reason = "is a folder" if path.is_dir() else "does not exist"
        raise FileNotFoundError(f"there is no bank {str(path)!r}: it {reason}")
    try:
        with safe_open(path, framework="pt") as file:
            return _content(file, _read_header(path.name, file.metadata()), batches)
    except (SafetensorError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path.name!r} cannot be read as a bank: {type(error).__name__}: {error}") from error


def _header(bank: GramBank) -> dict[str, Any]:
    return {
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
                }
                for batch in bank
            ],
        },
    }


def _read_header(name: str, metadata: dict[str, str] | None) -> dict[str, Any]:
    if not metadata or HEADER not in metadata:
        raise ValueError(f"{name!r} is a safetensors file, but not a bank of lightning_cka")
    header: dict[str, Any] = json.loads(metadata[HEADER])
    if header["format_version"] > FORMAT_VERSION:
        version = header.get("package_version", "unknown")
        raise ValueError(
            f"{name!r} has format version {header['format_version']}, of lightning_cka {version}; "
            f"this one reads versions up to {FORMAT_VERSION}: install a newer lightning_cka"
        )
    return header


def _content(file: Any, header: dict[str, Any], batches: Collection[int] | None) -> BankContent:
    identity = header["probe"]
    attributes = {
        "layers": tuple(header["layers"]),
        "model_name": header["model_name"],
        "sample_kind": identity["sample_kind"],
        "seed": identity["seed"],
        "epoch": header["epoch"],
        "step": header["step"],
    }
    probe = {batch["index"]: BatchInputs(tuple(batch["samples"]), batch["inputs"]) for batch in identity["batches"]}
    bad_inputs = {batch["index"]: tuple(batch.get("bad_inputs", ())) for batch in identity["batches"]}
    chosen = probe if batches is None else {index: inputs for index, inputs in probe.items() if index in batches}
    read = [
        BankBatch(index, _read_grams(file, index), inputs.fingerprint, inputs.samples, bad_inputs[index])
        for index, inputs in chosen.items()
    ]
    return BankContent(attributes, probe, read)


def _read_grams(file: Any, index: int) -> PackedGrams:
    parts = {name: file.get_tensor(f"{index}.{name}") for name in PackedGrams._fields}
    if parts["halves"].dtype == torch.float16:
        unit = file.get_tensor(f"{index}.halves_unit")
        parts["halves"] = parts["halves"].to(unit.dtype) * unit[:, None]
    n = parts["offsets"].shape[1]
    folded = parts["halves"].new_zeros(len(parts["halves"]), n * half_size(n))
    parts["halves"] = folded.index_copy_(1, triangle_indices(n), parts["halves"])
    return PackedGrams(**parts)


def _to_half(halves: Tensor) -> tuple[Tensor, Tensor]:
    """Convert vectors ``(L, p)`` to half precision, relative to powers of 2 ``(L,)``."""
    largest = halves.abs().amax(1)
    # The largest entry is scaled to [2^14, 2^15), so that small entries have the whole range of float16 below it.
    unit = torch.where(largest > 0, torch.exp2(largest.log2().floor() - 14), torch.ones_like(largest))
    return (halves / unit[:, None]).half(), unit
