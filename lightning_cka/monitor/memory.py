"""What a run remembers beyond a restart: its results, and the banks of the model's earlier states."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightning.pytorch.utilities import rank_zero_info

from lightning_cka.compare.result import CKAResult
from lightning_cka.compare.run_files import BANK_SUFFIX, INITIAL, moment, parse_moment
from lightning_cka.monitor.reference import Reference
from lightning_cka.monitor.run_folder import has_results, result_path
from lightning_cka.probe.bank import GramBank
from lightning_cka.runtime.collectives import all_gather
from lightning_cka.runtime.files import digest, set_aside, write_atomically

_PROBLEMS = (
    "",
    "was not kept",
    "is not there any more",
    "is another one by now",
    "cannot be read",
    "is of other layers",
    "is of another probe set",
    "is of other features (forward_fn or feature_fn)",
)
"""What may be wrong with a bank that is looked for. Processes tell each other the place in this list."""


_RESTARTED = "restarted-"
"""Begins the file names of banks that stand for lost ones: no part of the run's history."""


class Kind(NamedTuple):
    """What results must have in common to be one history."""

    kernel: str
    unbiased: bool
    layers: list[str]
    features: str
    """How the model is shown a batch, and its activations turned into features."""
    probe: str
    reference: str
    """A frozen reference's weights and layers."""


class Memory:
    """The results and the banks of a run, in files, and what a checkpoint knows of them.

    Args:
        folder: of the run's files.
        references: that the model is compared with; those that are earlier states of it get their banks here.
        kinds: of the results to come, by their key.
        device: the one that the processes talk through.
        rank: of this process.
        world_size: number of processes.
        float16: store banks in half precision.

    Attributes:
        results: by reference, with several kernels by both, in order.
        banks: path and digest of each bank's file, by moment. Of the first process; others know what was restored.
    """

    def __init__(
        self,
        folder: Path,
        references: Sequence[Reference],
        kinds: Mapping[str, Kind],
        device: torch.device,
        *,
        rank: int,
        world_size: int,
        float16: bool,
    ) -> None:
        self._folder = folder
        self._references = references
        self._kinds = kinds
        self._device = device
        self._rank = rank
        self._world_size = world_size
        self._float16 = float16
        self.results: dict[str, list[CKAResult]] = {}
        self.banks: dict[str, dict[str, str]] = {}

    @property
    def earlier(self) -> list[Reference]:
        """The references that are earlier states of the model."""
        return [reference for reference in self._references if reference.is_earlier]

    def begin(self, now: GramBank) -> None:
        """Start a history with a bank of the model before its first step."""
        for reference in self.earlier:
            reference.forget()
            if reference.epoch is None:
                reference.set_bank(now, INITIAL)

    def restore_results(self, state: Mapping[str, Any]) -> list[str]:
        """Go on with the results of a checkpoint.

        Args:
            state: what `state` gave; may be empty.

        Returns:
            What there is to be warned of.
        """
        messages = []
        for key, kind in self._kinds.items():
            history = [CKAResult.from_state(each) for each in state.get("results", {}).get(key, ())]
            if not history:
                continue
            before = Kind(*state["kinds"][key])
            changed = [name for name, now in kind._asdict().items() if getattr(before, name) != now]
            if changed:
                messages.append(
                    f"the history of '{key}' starts anew, since it is of other settings in the checkpoint than now: "
                    f"{', '.join(changed)}"
                )
            else:
                self.results[key] = history
        return messages

    def restore_banks(self, state: Mapping[str, Any], now: GramBank, epoch: int, step: int) -> list[str]:
        """Give references their banks back, or, where one is lost, the bank of the model as it is now.

        Every process must call this.

        Args:
            state: what `state` gave; may be empty.
            now: the bank of the model as it is, on the probe set as it is; with an epoch, it is the one of that epoch.
            epoch: that training goes on with.
            step: likewise.

        Returns:
            What there is to be warned of.
        """
        features = {Kind(*kind).features for kind in state.get("kinds", {}).values()}
        same_features = features <= {kind.features for kind in self._kinds.values()}
        self.banks = {name: dict(record) for name, record in state.get("banks", {}).items()} if same_features else {}
        messages = []
        for reference in self.earlier:
            reference.forget()
            if now.epoch is not None and (reference.source == "previous" or reference.epoch == now.epoch):
                reference.set_bank(now, moment(now.epoch, now.step))
                continue
            known = state.get("references", {}).get(reference.name, {})
            snapshot = known.get("snapshot") or self._moment_of(reference)
            if not snapshot and reference.epoch is not None and reference.epoch >= epoch:
                continue  # Its time is to come.
            bank, problem = self._find(snapshot, now) if same_features else (None, _PROBLEMS[-1])
            if bank is not None:
                reference.set_bank(bank, snapshot, known.get("restarted", known.get("anew", "")))
                continue
            reference.set_bank(now, f"{_RESTARTED}step={step:06d}", f"restarted at step {step}")
            for key in [key for key in self.results if key.split("/")[0] == reference.name]:
                del self.results[key]  # Nothing shall pass for a comparison with what is lost.
            messages.append(
                f"training goes on from step {step}, but the bank of reference '{reference.name}' {problem}: the "
                f"model is compared with its weights of now instead, as '{reference.title}', in a history of its own"
            )
        return messages

    def unsaved(self, now: GramBank) -> str:
        """The name to keep a bank under that references stand for; empty if none does."""
        return next((reference.snapshot for reference in self.earlier if reference.bank is now), "")

    def trajectory(self) -> tuple[list[Path], int]:
        """Files of the banks of the moments of training, in order, and the last one's step; -1 if there is none."""
        known = {name: when for name in self.banks if (when := parse_moment(name)) is not None}
        names = sorted(known, key=lambda name: known[name])
        return [Path(self.banks[name]["path"]) for name in names], known[names[-1]][1] if names else -1

    def keep(self, name: str, bank: GramBank) -> None:
        """Write a bank to the file of a moment. Every process must call this, with its part of the bank.

        Raises:
            OSError: on the first process alone, it cannot be written.
        """
        whole = bank.whole(self._device, distributed=True)
        if whole is None:
            return
        path = self._folder / "banks" / f"{name}{BANK_SUFFIX}"
        self.banks.pop(name, None)
        content = whole.save(path, float16=self._float16)
        self.banks[name] = {"path": str(path.resolve()), "digest": digest(content)}

    def state(self) -> dict[str, Any]:
        """For a checkpoint: plain values and small tensors."""
        return {
            "folder": str(self._folder.resolve()),
            "banks": {name: dict(record) for name, record in self.banks.items()},
            "references": {
                r.name: {"snapshot": r.snapshot, "restarted": r.restarted} for r in self.earlier if r.snapshot
            },
            "kinds": {key: list(kind) for key, kind in self._kinds.items()},
            "results": {
                key: [result.state() for result in history if result.epoch is not None]
                for key, history in self.results.items()
            },
        }

    def _moment_of(self, reference: Reference) -> str:
        """The moment that a reference is of, if its bank was kept."""
        if reference.source == "initial":
            return INITIAL
        if reference.epoch is None:
            return ""
        return next((name for name in reversed(self.banks) if (parse_moment(name) or ())[:1] == (reference.epoch,)), "")

    def _find(self, name: str, now: GramBank) -> tuple[GramBank | None, str]:
        bank, problem = self._look(name, now)
        found = torch.tensor([_PROBLEMS.index(problem)], device=self._device)
        worst = max(int(each) for each in all_gather(found, distributed=True))
        return (None, _PROBLEMS[worst]) if worst else (bank, "")

    def _look(self, name: str, now: GramBank) -> tuple[GramBank | None, str]:
        """This process's part of a bank, or what is wrong with it."""
        if name not in self.banks:
            return None, "was not kept"
        try:
            path, there = self._path_of(name)
        except OSError:
            return None, "cannot be read"
        if path is None:
            return None, "is another one by now" if there else "is not there any more"
        return self._load(path, now, now.batches.keys())

    def _load(self, path: Path, now: GramBank, batches: Collection[int]) -> tuple[GramBank | None, str]:
        """A bank, or why it cannot be compared with the model as it is, as far as this process sees it."""
        try:
            bank = GramBank.load(path, batches=batches)
        except (ValueError, OSError):
            return None, "cannot be read"
        if bank.layers != now.layers:
            return None, "is of other layers"
        mine = {place: inputs for place, inputs in bank.probe.items() if place % self._world_size == self._rank}
        if bank.seed != now.seed or mine != now.probe:
            return None, "is of another probe set"
        return bank, ""

    def _path_of(self, name: str) -> tuple[Path | None, bool]:
        """Where a bank is, be it that the folder was moved, or that it was set aside; and whether anything is there."""
        record = self.banks[name]
        recorded = Path(record["path"])
        own = Path("banks", recorded.name)
        aside = sorted(self._folder.glob(f"earlier-*/{own.as_posix()}"))
        places = [place for place in (self._folder / own, recorded, *aside) if place.is_file()]
        return next((p for p in places if digest(p.read_bytes()) == record["digest"]), None), bool(places)

    def tidy(self, state: Mapping[str, Any], now: GramBank | None) -> None:
        """Make the folder hold this run and no other: for the first process, once banks and results are restored.

        Args:
            state: that they were restored from.
            now: see `restore_banks`; None if there is no need for banks.

        Files of other runs are moved; see `lightning_cka.runtime.files.set_aside`.

        Raises:
            OSError: a file cannot be moved or written.
        """
        paths = {name: path for name in self.banks if (path := self._path_of(name)[0]) is not None}
        if now is not None:
            paths = {name: path for name, path in paths.items() if self._load(path, now, ())[0]}
        self.banks = {name: self.banks[name] for name in paths}
        banks = {path.resolve() for path in paths.values()}
        folder = self._folder.resolve()
        # Also if the folder was moved, or copied.
        goes_on = state.get("folder") == str(folder) or any(folder in path.parents for path in banks)
        files = {result_path(self._folder, key, result) for key, history in self.results.items() for result in history}
        moments = {(file.parent, file.stem) for file in files}

        def belongs(file: Path) -> bool:
            if file.suffix == BANK_SUFFIX:
                return file.resolve() in banks
            when = re.search(r"epoch=\d+-step=\d+", file.name)
            return goes_on and (when is None or file.parent == self._folder or (file.parent, when[0]) in moments)

        before = [path.name for path in self._folder.glob("*") if has_results(path)]
        names = [name + end for name in before for end in ("", ".csv", "-evolution.gif")]
        if moved := set_aside(self._folder, [*names, "banks", "trajectory"], belongs):
            rank_zero_info(
                f"CKA: files in {self._folder} that are no part of this run's past were moved to {moved.name}"
            )
        for name, path in paths.items():
            home = self._folder / "banks" / f"{name}{BANK_SUFFIX}"
            if path.resolve() != home.resolve():
                write_atomically(home, path.read_bytes())
            self.banks[name]["path"] = str(home.resolve())
        for key, history in self.results.items():
            for result in history:
                if not (file := result_path(self._folder, key, result)).exists():
                    result.save(file)
