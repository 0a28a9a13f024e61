"""The file format of Gram banks.

A bank is a safetensors file. For each batch ``i`` it has the tensors

- ``i.offsets``, ``i.scales`` and ``i.row_squares`` of `lightning_cka.hsic.packed.PackedGrams`;
- ``i.halves``, ``(L, n(n-1)/2)``: the strictly lower triangles of the U-centered Gram matrices, row by row;
- ``i.halves_unit``, ``(L,)``, only if ``i.halves`` is in half precision: the powers of 2 that it is multiplied by.

The metadata has JSON under "lightning_cka": the version of the format and of the package; the model's class, layers,
epoch, step and batch sizes; and under "probe" what identifies the probe set: its seed, what the sample numbers are,
and for each batch its index, sample numbers, a hash of the inputs, and the samples whose inputs are not finite.

Each batch has a checksum of its tensors, "tensors", so that single batches can be read. The "checksum" of the JSON is
over all of the fields above but the versions. A later version that adds fields leaves them out of it: "copies" has the
groups of samples with identical inputs. Everything is
checked before a number is used. Files of version 0.1.0 have no checksums.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

from safetensors import SafetensorError, safe_open

from lightning_cka.probe.bank_batch import BankBatch
from lightning_cka.probe.bank_header import BankHeader, copies_of, header_of, read_header
from lightning_cka.probe.bank_tensors import NO_CHECKSUM, read_grams, tensor_kinds, write_grams
from lightning_cka.runtime.checkpoint_files import BANK_HEADER
from lightning_cka.runtime.tensor_layout import TensorLayout
from lightning_cka.runtime.text import about_file

if TYPE_CHECKING:
    from lightning_cka.probe.bank import GramBank


_OTHERS = (".ckpt", ".pt", ".pth", ".bin", ".json")
"""Endings of checkpoints and results."""


class BankContent(NamedTuple):
    """What a bank file contains."""

    header: BankHeader
    """What describes the bank and all its batches."""
    batches: list[BankBatch]
    """The batches that were read."""


def write_bank(bank: GramBank, file: BinaryIO, *, float16: bool) -> None:
    """Write a bank to an open, empty file, some layers at a time.

    Args:
        bank: The bank.
        file: The file.
        float16: Whether to store the Gram matrices in half precision.

    Raises:
        OSError: The file cannot be written.
    """
    kinds = {batch.index: tensor_kinds(batch.grams, float16=float16) for batch in bank}
    layout = TensorLayout({f"{index}.{name}": kind for index in kinds for name, kind in kinds[index].items()})

    copies = copies_of(bank)

    def header(checksums: Mapping[int, str]) -> bytes:
        return layout.header({BANK_HEADER: json.dumps(header_of(bank, checksums, copies), separators=(",", ":"))})

    # The checksums precede the tensors in the file. They are known when the tensors have been written.
    size = len(header(dict.fromkeys(kinds, NO_CHECKSUM)))
    checksums = {}
    for batch in bank:
        starts = {name: size + layout.starts[f"{batch.index}.{name}"] for name in kinds[batch.index]}
        checksums[batch.index] = write_grams(file, starts, batch.grams, float16=float16)
    file.seek(0)
    file.write(header(checksums))


def read_bank(path: Path, batches: Collection[int] | None) -> BankContent:
    """Read a bank's file.

    Args:
        path: Path of the file.
        batches: Indices of the batches to read. None reads all of them.

    Raises:
        ValueError: The file is not a bank, is damaged, or has a newer format. The message is one line, of at most 300
            characters, that names the file.
        FileNotFoundError: There is no such file.
    """
    if not path.is_file():
        reason = "is a folder" if path.is_dir() else "does not exist"
        raise FileNotFoundError(f"there is no bank {str(path)!r}: it {reason}")
    try:
        with safe_open(path, framework="pt") as file:
            header = read_header(path, file.metadata())
            num_layers = len(header.attributes["layers"])
            read = [
                BankBatch(
                    index,
                    read_grams(file, index, num_layers, len(inputs.samples), header.checksums[index]),
                    inputs.fingerprint,
                    inputs.samples,
                    header.bad_inputs[index],
                    header.input_hashes.get(index, ()),
                )
                for index, inputs in header.probe.items()
                if batches is None or index in batches
            ]
    except ValueError as error:
        raise ValueError(about_file(path.name, _sentence(str(error)))) from error
    except (SafetensorError, RuntimeError, TypeError) as error:  # What safetensors raises depends on its version.
        problem = f"cannot be read as a bank: {type(error).__name__}: {error}"
        if path.suffix.lower() in _OTHERS:
            problem = "is no Gram bank, but a checkpoint or a result. GramBank.from_model makes a bank of a checkpoint"
        raise ValueError(about_file(path.name, problem)) from error
    return BankContent(header, read)


def _sentence(problem: str) -> str:
    """Return what follows the name of the file."""
    return problem if problem.startswith(("is ", "has ")) else f"cannot be read as a bank: {problem}"
