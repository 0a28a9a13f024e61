"""`BankStore`: write a run's Gram banks to disk, and find them again after a restart."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from shutil import copyfileobj
from typing import Any

import torch

from lightning_cka.compare.run_files import BANK_SUFFIX, moment_order, parse_moment
from lightning_cka.monitor.journal import Journal
from lightning_cka.monitor.output_errors import OutputErrors
from lightning_cka.probe.bank import GramBank
from lightning_cka.probe.bank_tensors import rounded_to_half
from lightning_cka.probe.probe_identity import BatchInputs
from lightning_cka.runtime.collectives import all_gather
from lightning_cka.runtime.files import file_digest, write_atomically

OTHER_FEATURES = "has other features (forward_fn or feature_fn)"


PROBLEMS = (
    "",
    "was not kept",
    "is missing",
    "was overwritten",
    "cannot be read",
    "has other layers",
    "has another probe set",
    OTHER_FEATURES,
)
"""Why a bank cannot be used. Processes send each other the index in this tuple."""


class BankStore:
    """The banks of one run in ``folder/banks``, each under the name of a moment of training.

    Args:
        folder: The run's folder.
        device: The device on which processes communicate.
        errors: Turns errors of writing into warnings.
        journal: Lists the banks.
        rank: Rank of this process.
        world_size: Number of processes.
        float16: Whether to store Gram matrices in half precision.
        read_only: Whether to write nothing, as in a ``fast_dev_run``.

    Attributes:
        records: Path and content hash of each bank's file, by moment. Rank 0 has all of them, other processes only
            those that were restored.
    """

    def __init__(
        self,
        folder: Path,
        device: torch.device,
        errors: OutputErrors,
        journal: Journal,
        *,
        rank: int,
        world_size: int,
        float16: bool,
        read_only: bool,
    ) -> None:
        self._folder = folder
        self._device = device
        self._errors = errors
        self._journal = journal
        self._unlisted: dict[str, None] = {}
        self._in_memory: Mapping[str, GramBank] = {}
        self._rank = rank
        self._world_size = world_size
        self._float16 = float16
        self._read_only = read_only
        self.records: dict[str, dict[str, str]] = {}

    def restore(self, records: Mapping[str, Mapping[str, str]]) -> None:
        """Take over the records of a checkpoint."""
        self.records = {name: dict(record) for name, record in records.items()}
        self._unlisted = dict.fromkeys(self.records)

    def use_memory(self, banks: Mapping[str, GramBank]) -> None:
        """Use banks of an earlier ``fit()`` of this process, by moment. `load` then needs no files for them."""
        self._in_memory = banks

    def mark_listed(self) -> None:
        """Leave restored records out of checkpoints from now on: the journal has them."""
        self._unlisted.clear()

    def save(self, name: str, bank: GramBank) -> None:
        """Write a bank to its file, or warn if that fails. Every process must call this, with its part of the bank."""
        if self._read_only:
            return
        if self._float16:
            _round_to_half(bank)
        whole = bank.whole(self._device, distributed=True)
        if whole is None:
            return
        path = self._home(name)
        self.records.pop(name, None)
        try:
            whole.save(path, float16=self._float16)
            written = file_digest(path)
        except OSError as error:
            self._errors.warn_about(error, "a bank could not be written, resuming will lack it")
        else:
            self.records[name] = {"path": str(path.resolve()), "digest": written}
            entry = {"bank": name, **self.records[name]}
            if not self._errors.attempt(lambda: self._journal.append(entry)):
                self._unlisted[name] = None

    def remove(self, name: str) -> None:
        """Delete a bank's file.

        Raises:
            OSError: The file cannot be deleted.
        """
        record = self.records.pop(name)
        self._unlisted.pop(name, None)
        Path(record["path"]).unlink(missing_ok=True)
        self._journal.append({"bank": name})

    def load(self, name: str, live: GramBank) -> tuple[GramBank | None, str]:
        """Load this process's part of a bank. Every process must call this; all of them get their part, or none does.

        Args:
            name: The moment of the bank.
            live: The live model's bank, which must have the same layers and probe set.

        Returns:
            The bank and an empty string, or None and one of `PROBLEMS`.
        """
        bank, problem = self._load_part(name, live)
        found = torch.tensor([PROBLEMS.index(problem)], device=self._device)
        worst = max(int(index) for index in all_gather(found, distributed=True))
        return (None, PROBLEMS[worst]) if worst else (bank, "")

    def _load_part(self, name: str, live: GramBank) -> tuple[GramBank | None, str]:
        if (bank := self._in_memory.get(name)) is not None:
            return _if_comparable(bank, live, bank.probe)
        if name not in self.records:
            return None, "was not kept"
        try:
            files = self._existing_files(name)
            path = self._unchanged(name, files)
        except OSError:
            return None, "cannot be read"
        if path is None:
            return None, "was overwritten" if files else "is missing"
        return self._read(path, live, live.batches.keys())

    def _read(self, path: Path, live: GramBank, batches: Collection[int]) -> tuple[GramBank | None, str]:
        """Read some batches of a bank's file, and check whether it can be compared with the live model's bank."""
        try:
            bank = GramBank.load(path, batches=batches)
        except (ValueError, OSError):
            return None, "cannot be read"
        # The file has the inputs of all batches, the live bank those of this process.
        own_inputs = {index: inputs for index, inputs in bank.probe.items() if index % self._world_size == self._rank}
        return _if_comparable(bank, live, own_inputs)

    def usable_files(self, live: GramBank | None) -> dict[str, Path]:
        """Return the files of banks that still match their records and the live model's bank, by moment.

        Args:
            live: The live model's bank; None: do not look into the files.

        Raises:
            OSError: A file cannot be read.
        """
        found = {name: self._unchanged(name, self._existing_files(name)) for name in self.records}
        files = {name: path for name, path in found.items() if path is not None}
        if live is None:
            return files
        return {name: path for name, path in files.items() if self._read(path, live, ())[0] is not None}

    def collect(self, files: Mapping[str, Path]) -> None:
        """Keep only these banks, and copy each one that is elsewhere into the run's folder.

        Raises:
            OSError: A file cannot be copied.
        """
        self.records = {name: self.records[name] for name in files}
        for name, path in files.items():
            home = self._home(name)
            if path.resolve() != home.resolve():
                with path.open("rb") as file:
                    write_atomically(home, partial(copyfileobj, file))
            self.records[name]["path"] = str(home.resolve())

    def name_of_epoch(self, epoch: int) -> str:
        """Return the moment of the last bank of an epoch; empty if there is none."""
        return next((name for name in reversed(self.records) if (parse_moment(name) or ())[:1] == (epoch,)), "")

    def trajectory(self) -> tuple[list[Path], int]:
        """Return the files of all banks of training in order, and the step of the last one; -1 if there is none."""
        moments = {name: when for name in self.records if (when := parse_moment(name)) is not None}
        names = sorted(moments, key=lambda name: moment_order(*moments[name]))
        return [Path(self.records[name]["path"]) for name in names], moments[names[-1]][1] if names else -1

    def state_dict(self, names: Iterable[str]) -> dict[str, Any]:
        """Return a copy of the records with these names, and of those that the journal lacks, for a checkpoint."""
        kept = dict.fromkeys((*names, *self._unlisted))
        return {name: dict(self.records[name]) for name in kept if name in self.records}

    def _home(self, name: str) -> Path:
        return self._folder / "banks" / f"{name}{BANK_SUFFIX}"

    def _existing_files(self, name: str) -> list[Path]:
        """Return the files that may be this bank: in the run's folder, where it was written, or moved aside."""
        own, recorded = self._home(name), Path(self.records[name]["path"])
        aside = sorted(self._folder.glob(f"earlier-*/banks/{own.name}"))
        return [path for path in (own, recorded, *aside) if path.is_file()]

    def _unchanged(self, name: str, files: list[Path]) -> Path | None:
        """Return the first file whose content is what was written."""
        expected = self.records[name]["digest"]
        return next((path for path in files if file_digest(path) == expected), None)


def _if_comparable(
    bank: GramBank, live: GramBank, own_inputs: Mapping[int, BatchInputs]
) -> tuple[GramBank | None, str]:
    """Return the bank if it has the layers and the probe set of the live model's bank; otherwise the problem."""
    if bank.layers != live.layers:
        return None, "has other layers"
    if bank.seed != live.seed or own_inputs != live.probe:
        return None, "has another probe set"
    return bank, ""


def _round_to_half(bank: GramBank) -> None:
    """Give a bank the values that are read from its file, so that a restart does not change later comparisons."""
    for batch in list(bank):
        bank.add(replace(batch, grams=rounded_to_half(batch.grams)))
