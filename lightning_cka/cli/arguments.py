"""The parser of the command line: its commands, their arguments and their help. It imports nothing slow."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, NoReturn

from lightning_cka.cli.compare_arguments import add_compare, add_matrix
from lightning_cka.cli.run_arguments import add_convergence, add_freeze, add_summary
from lightning_cka.cli.shared_arguments import (
    add_ceiling,
    add_command,
    add_exclude,
    add_layers,
    add_level,
    add_measures,
    add_picture_or_table,
)
from lightning_cka.version import __version__

_EXAMPLES = """\
examples:
  lightning-cka compare runs/seed0 runs/seed1 --epoch 9 --output all_layers.pdf
  lightning-cka compare runs/seed0 runs/seed1 --epoch 3 10
  lightning-cka compare a.ckpt b.ckpt --architecture package.module:Net --dataloader package.module:make_loader
"""


class _Parser(argparse.ArgumentParser):
    """A parser that reports an error in one line, without the usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message}\n")


def build_parser() -> argparse.ArgumentParser:
    """Return a parser that stores the name of the command in ``command``. Its errors take one line."""
    parser = _Parser(
        prog="lightning-cka",
        description="Compare networks by the CKA of their layers, and draw pictures, from files: Gram banks\n"
        "(.safetensors) and results (.json) that lightning_cka wrote, folders of runs, and checkpoints.",
        epilog=_EXAMPLES + "\nlightning-cka COMMAND --help lists all options of a command.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, dest="command", metavar="COMMAND")
    add_compare(commands)
    add_matrix(commands)
    _add_difference(commands)
    _add_drift(commands)
    _add_trajectory(commands)
    _add_animate(commands)
    _add_samples(commands)
    _add_spectrum(commands)
    _add_redundancy(commands)
    _add_rank(commands)
    add_convergence(commands)
    add_freeze(commands)
    add_summary(commands)
    _add_show(commands)
    _add_report(commands)
    return parser


def _add_difference(commands: Any) -> None:
    parser = add_command(
        commands,
        "difference",
        "show by how much CKA differs between two results of one probe set",
        "lightning-cka difference cka/initial/epoch=009-step=000500.json cka/initial/epoch=008-step=000450.json",
    )
    parser.add_argument("later", metavar="LATER.json", type=Path, help="result")
    parser.add_argument("earlier", metavar="EARLIER.json", type=Path, help="result to subtract")
    parser.add_argument(
        "--level", type=float, default=0.95, help="level of intervals and of significance (default: %(default)s)"
    )
    parser.add_argument(
        "--output", type=Path, metavar="FILE", help="file to write: .png, .pdf or .svg (intervals of layers) or .csv"
    )


def _add_drift(commands: Any) -> None:
    parser = add_command(
        commands, "drift", "draw CKA of each layer by epoch", "lightning-cka drift cka/initial --output drift.pdf"
    )
    parser.add_argument("folder", metavar="DIR", type=Path, help="folder of one reference, such as cka/initial")
    add_ceiling(parser)
    _add_picture(parser)


def _add_trajectory(commands: Any) -> None:
    parser = add_command(
        commands,
        "trajectory",
        "compute CKA of each layer with itself at the other epochs of a run",
        "lightning-cka trajectory cka --format pdf",
    )
    parser.add_argument(
        "folder", metavar="DIR", type=Path, help="dirpath of a CKAMonitor(save_banks=True), or its folder of banks"
    )
    add_layers(parser)
    add_measures(parser)
    parser.add_argument(
        "--output", type=Path, metavar="DIR", help="folder for the figures (default: trajectory in the run's folder)"
    )
    parser.add_argument(
        "--format", choices=("png", "pdf", "svg"), default="png", help="format of the figures (default: %(default)s)"
    )


def _add_animate(commands: Any) -> None:
    parser = add_command(
        commands, "animate", "write the heatmaps of a run as an animated GIF", "lightning-cka animate cka"
    )
    parser.add_argument(
        "sources",
        metavar="DIR_OR_RESULTS",
        nargs="+",
        type=Path,
        help="dirpath of a CKAMonitor (one GIF per reference), folder of one reference, or result files (.json) of one "
        "reference in order",
    )
    parser.add_argument("--output", type=Path, metavar="FILE.gif", help="file to write (default: beside the results)")
    parser.add_argument(
        "--seconds", type=float, default=0.4, help="duration of a frame, from 0.01 to 100 (default: %(default)s)"
    )


def _add_samples(commands: Any) -> None:
    parser = add_command(
        commands,
        "samples",
        "draw where the samples of a probe batch lie in layers",
        "lightning-cka samples cka --layer conv3 --labels labels.txt --epochs init 0 9 --output samples.pdf",
    )
    parser.add_argument("bank", metavar="BANK", type=Path, help="bank (.safetensors), or folder of a run with banks")
    parser.add_argument("--layer", nargs="+", metavar="PATTERN", help="layers to draw, as --layers of compare")
    parser.add_argument(
        "--labels", type=Path, metavar="FILE.txt", help="labels for colours, one per line: line i, from 0, is sample i"
    )
    parser.add_argument(
        "--batch", type=int, help="index of the probe batch (default: that of a marked sample, else the first)"
    )
    parser.add_argument("--epochs", nargs="+", metavar="EPOCH", help="epochs to draw; init is before training")
    parser.add_argument("--marked", nargs="+", type=int, metavar="SAMPLE", help="numbers of samples to mark")
    add_exclude(parser)
    parser.add_argument("--across", type=int, help="maximum number of panels side by side")
    _add_picture(parser)


def _add_spectrum(commands: Any) -> None:
    parser = add_command(
        commands,
        "spectrum",
        "draw which part of a layer's variance each direction has",
        "lightning-cka spectrum cka/banks/initial.safetensors --output spectrum.svg",
    )
    parser.add_argument("bank", metavar="BANK.safetensors", type=Path, help="bank")
    add_layers(parser, "8 evenly spaced ones")
    add_exclude(parser)
    _add_picture(parser)


def _add_redundancy(commands: Any) -> None:
    parser = add_command(
        commands,
        "redundancy",
        "show which layers of a model are alike, and which could be removed with the least change",
        "lightning-cka redundancy cka --output redundancy.pdf",
    )
    parser.add_argument(
        "source",
        metavar="RUN_OR_FILE",
        type=Path,
        help="result of a model with itself (.json), bank (.safetensors), or folder of a run, whose last one is taken",
    )
    parser.add_argument(
        "--alike", type=float, default=0.9, help="CKA above which layers are alike (default: %(default)s)"
    )
    add_level(parser)
    add_picture_or_table(parser)


def _add_rank(commands: Any) -> None:
    parser = add_command(
        commands,
        "rank",
        "show the effective rank of each layer over epochs, and which layers have lost it",
        "lightning-cka rank cka --output ranks.pdf",
    )
    parser.add_argument(
        "source",
        metavar="RUN_OR_BANK",
        type=Path,
        help="folder of a run with banks, or of one with CKAMonitor(log_ranks=True); or bank (.safetensors)",
    )
    add_layers(parser)
    add_exclude(parser)
    parser.add_argument(
        "--rank-loss",
        type=float,
        default=0.5,
        metavar="PART",
        help="part of its largest rank so far above which a layer's loss is reported (default: %(default)s)",
    )
    add_level(parser)
    add_picture_or_table(parser)


def _add_show(commands: Any) -> None:
    parser = add_command(
        commands,
        "show",
        "print a table of a result (.json) or of a bank (.safetensors)",
        "lightning-cka show cka/initial/epoch=009-step=000500.json --output heatmap.pdf",
    )
    parser.add_argument("file", metavar="FILE", type=Path, help="result or bank to show")
    add_ceiling(parser)
    parser.add_argument(
        "--output", type=Path, metavar="FILE", help="file for the heatmap of a result: .png, .pdf or .svg"
    )


def _add_report(commands: Any) -> None:
    parser = add_command(
        commands,
        "report",
        "write one interactive page of runs side by side, for any browser",
        "lightning-cka report runs/seed0 runs/seed1 --output both.html",
    )
    parser.add_argument("folders", metavar="DIR", nargs="+", type=Path, help="dirpath of a CKAMonitor")
    add_ceiling(parser)
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FILE.html",
        help="file to write (default: report.html in DIR; for several runs, in the current folder)",
    )


def _add_picture(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--output", type=Path, metavar="FILE", required=True, help="file to write: .png, .pdf or .svg")
