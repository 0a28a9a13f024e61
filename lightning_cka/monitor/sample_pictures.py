"""`SamplePictures`: log where the samples of the probe set lie, for flagged layers and at the end of training."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info

from lightning_cka.compare.flags import INPUT
from lightning_cka.compare.result import CKAResult
from lightning_cka.compare.run_files import is_of_training, moment
from lightning_cka.compare.sample_marks import SampleMarks
from lightning_cka.figures.sample_animation import write_sample_animation
from lightning_cka.figures.samples import draw_samples
from lightning_cka.monitor.live_probe import LiveProbe
from lightning_cka.monitor.reference import LABELS, SAMPLES
from lightning_cka.monitor.run_output import ResultLogger
from lightning_cka.monitor.settings import Settings
from lightning_cka.monitor.trainer_state import is_trial
from lightning_cka.probe.bank import GramBank, open_bank
from lightning_cka.runtime.devices import sums_device
from lightning_cka.runtime.file_names import distinct_file_names
from lightning_cka.runtime.files import write_atomically
from lightning_cka.runtime.json_text import parse_json
from lightning_cka.runtime.spacing import spread_evenly

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from lightning_cka.compare.bank_series import BankSource

MAX_LAYERS = 16
"""Largest number of layers that are drawn at a time."""

_MAX_ANIMATED = 6
_MAX_FRAMES = 30
"""Largest numbers of layers and frames of the GIF: a frame of one layer takes 0.1 seconds."""

_OVERVIEW, _EVOLUTION = "overview", "evolution"


class SamplePictures:
    """Draws the samples of the live model's last bank, which it keeps.

    Every process must make one, and call all methods.

    Args:
        settings: The monitor's settings.
        probe: The probe set.
        trainer: The Trainer.
        module: The live model.

    Raises:
        ValueError: ``labels_fn`` fails, or does not return one label per sample.
        TypeError: It does not return integers.
    """

    def __init__(self, settings: Settings, probe: LiveProbe, trainer: Trainer, module: LightningModule) -> None:
        self._settings = settings
        self._device = sums_device(module.device)
        self._is_trial = is_trial(trainer)
        self._labels = probe.labels(trainer, settings.labels_fn)
        self._seen: set[tuple[str, str]] = set()
        self._bank: GramBank | None = None
        if self._labels is None:  # Also on other ranks, which log nothing.
            rank_zero_info(
                "CKA: the pictures of samples have one colour, because probe batches are not pairs with one integer "
                "for each sample; labels_fn= can return the labels of a batch"
            )

    def write_labels(self, output: ResultLogger) -> None:
        """Write the labels to a file, for pictures of a run that has nothing left to train."""
        if output.writes:
            output.errors.attempt(lambda: _write_labels(output.folder, self._labels))

    def draw_flagged(self, bank: GramBank, results: Sequence[CKAResult], output: ResultLogger) -> None:
        """Start to draw the layers in which a flag is the first of its kind that names samples.

        Args:
            bank: This process's part of the live model's bank. It is kept until the next call.
            results: The results of the comparison with each reference, through each kernel.
            output: Draws the figures.
        """
        self._bank = bank
        new = _flagged(results) - self._seen
        if self._is_trial or not new:
            return
        self._seen |= new
        layers = [name for name in bank.layers if name in {layer for layer, _ in new}][:MAX_LAYERS]
        whole = bank.whole(self._device, distributed=True)
        if whole is not None and output.writes:
            draw = _Drawer(self._settings, output, self._labels, results, whole.layers)
            draw.flagged(whole, layers)

    def draw_end(self, results: Mapping[str, Sequence[CKAResult]], files: Sequence[Path], output: ResultLogger) -> None:
        """Draw all layers as they are at the end of training; see `draw_end_of_run`."""
        if self._is_trial:
            return
        last = None if self._bank is None else self._bank.whole(self._device, distributed=True)
        if output.writes:
            draw = partial(draw_end_of_run, results, files, last, self._labels, self._settings, output)
            output.errors.attempt(draw)


def draw_end_of_run(
    results: Mapping[str, Sequence[CKAResult]],
    files: Sequence[Path],
    last: GramBank | None,
    labels: Mapping[int, int] | None,
    settings: Settings,
    output: ResultLogger,
) -> None:
    """Start to draw an overview of the last bank; with the files of at least two banks, each layer over epochs, a GIF.

    Args:
        results: All results, by key.
        files: The files of the banks of all logged epochs, in order of time; empty if they are not kept.
        last: The live model's last bank. None: that of the last file; without files, nothing is drawn.
        labels: Labels of the samples.
        settings: The monitor's settings.
        output: Draws the figures.
    """
    latest = [trained[-1] for history in results.values() if (trained := list(filter(is_of_training, history)))]
    source: BankSource | None = last or (files[-1] if files else None)
    if source is not None:
        header = open_bank(source, batches=())
        _Drawer(settings, output, labels, latest, header.layers).end(source, header.step or 0, files)


def read_labels_file(folder: Path) -> dict[int, int] | None:
    """Return the labels that a run has written to its folder; None if there are none, or the file is damaged."""
    try:
        content = parse_json((folder / SAMPLES / LABELS).read_bytes())
        return {int(sample): int(label) for sample, label in content.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return None


def _flagged(results: Sequence[CKAResult]) -> set[tuple[str, str]]:
    """Return layers of the model, each with the reason of a flag that names samples in it."""
    flags = [flag for result in results for flag in result.flags if flag.samples and not flag.of_reference]
    return {(flag.layer, flag.reason) for flag in flags if flag.layer != INPUT}


def _write_labels(folder: Path, labels: Mapping[int, int] | None) -> None:
    write_atomically(folder / SAMPLES / LABELS, json.dumps(labels).encode())


class _Drawer:
    """Draws pictures of the samples of one model."""

    def __init__(
        self,
        settings: Settings,
        output: ResultLogger,
        labels: Mapping[int, int] | None,
        results: Sequence[CKAResult],
        layers: Sequence[str],
    ) -> None:
        self._output = output
        self._labels = labels
        self._marks = SampleMarks((), results)
        self._exclude = settings.selection.excluded
        self._layers = layers
        self._names = distinct_file_names(layers, (_OVERVIEW, _EVOLUTION))
        self._folder = output.folder / SAMPLES

    def flagged(self, bank: GramBank, layers: Iterable[str]) -> None:
        """Start to draw some layers of a bank, one picture each."""
        when = moment(bank.epoch, bank.step)
        self._submit(
            {
                name: (self._figure(bank, [layer]), self._folder / f"{name}-{when}.png")
                for layer in layers
                for name in (self._names[layer],)
            },
            bank.step or 0,
        )

    def end(self, bank: BankSource, step: int, files: Sequence[Path]) -> None:
        """Start to draw an overview, and with several files each layer over epochs, and write the GIF."""
        chosen = spread_evenly(self._layers, MAX_LAYERS)
        figures = {_OVERVIEW: (self._figure(bank, chosen), self._folder / f"{_OVERVIEW}.png")}
        if len(files) > 1:
            for layer in chosen:
                name = self._names[layer]
                figures[name] = (self._figure(files, [layer]), self._folder / f"{name}.png")
        self._submit(figures, step)
        if len(files) > 1:
            self._output.write_animation(SAMPLES, partial(self._animate, files), step)

    def _figure(self, bank: BankSource | Sequence[BankSource], layers: Sequence[str]) -> Callable[[], Figure]:
        return lambda: draw_samples(bank, layers, self._labels, self._marks, exclude=self._exclude)[0]

    def _animate(self, files: Sequence[Path], path: Path) -> None:
        layers = spread_evenly(self._layers, _MAX_ANIMATED)
        write_sample_animation(
            files, layers, path, self._labels, self._marks, exclude=self._exclude, max_frames=_MAX_FRAMES
        )

    def _submit(self, figures: Mapping[str, tuple[Callable[[], Figure], Path]], step: int) -> None:
        self._output.draw(SAMPLES, figures, step)
