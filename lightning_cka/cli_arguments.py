"""Commands, arguments and help texts of the command line ``lightning-cka``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, NoReturn

from lightning_cka.hsic.check_measures import OneMeasure, check_measures
from lightning_cka.hsic.hat_matrices import Ridge
from lightning_cka.hsic.kernels import RBF, Kernel
from lightning_cka.hsic.neighbors import MutualKNN
from lightning_cka.version import __version__


class _Parser(argparse.ArgumentParser):
    """A parser that reports an error in one line, without the usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message}\n")


def build_parser() -> argparse.ArgumentParser:
    """Return a parser that stores the name of the command in ``command``. Its errors take one line."""
    parser = _Parser(
        prog="lightning-cka",
        description="Compare networks from files that lightning_cka wrote: Gram banks (.safetensors) and results "
        "(.json).",
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, dest="command", metavar="COMMAND")
    _add_compare(commands)
    _add_difference(commands)
    _add_trajectory(commands)
    _add_animate(commands)
    _add_show(commands)
    _add_report(commands)
    return parser


def _add_compare(commands: Any) -> None:
    parser = _command(commands, "compare", "compute CKA between the layers of two banks")
    parser.add_argument("a", metavar="A.safetensors", type=Path, help="bank of the model (rows)")
    parser.add_argument("b", metavar="B.safetensors", type=Path, help="bank of the reference (columns)")
    _add_choices(parser)
    parser.add_argument(
        "--reference-layers",
        nargs="+",
        metavar="PATTERN",
        help="name patterns of the reference's layers (default: the patterns of --layers)",
    )
    parser.add_argument(
        "--exclude", nargs="+", type=int, metavar="SAMPLE", help="numbers of samples to leave out, as flags name them"
    )
    parser.add_argument(
        "--groups",
        type=Path,
        metavar="FILE.txt",
        help="labels of the samples, one per line, for CKA within groups: line i, from 0, is the label of sample i",
    )
    parser.add_argument(
        "--loose",
        action="store_true",
        help="also compare banks of different probe sets, with a warning that names the differences",
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        help="file to write: .png, .pdf or .svg (heatmap), .csv (one row per pair of layers) or .json (the result)",
    )


def _add_difference(commands: Any) -> None:
    parser = _command(commands, "difference", "show by how much CKA differs between two results of one probe set")
    parser.add_argument("later", metavar="LATER.json", type=Path, help="result")
    parser.add_argument("earlier", metavar="EARLIER.json", type=Path, help="result to subtract")
    parser.add_argument(
        "--level", type=float, default=0.95, help="level of intervals and of significance (default: %(default)s)"
    )
    parser.add_argument(
        "--output", type=Path, metavar="FILE", help="file to write: .png (an interval for each layer) or .csv"
    )


def _add_trajectory(commands: Any) -> None:
    parser = _command(commands, "trajectory", "compute CKA of each layer with itself at the other epochs of a run")
    parser.add_argument(
        "folder", metavar="DIR", type=Path, help="dirpath of a CKAMonitor(save_banks=True), or its folder of banks"
    )
    _add_choices(parser)
    parser.add_argument(
        "--output", type=Path, metavar="DIR", help="folder for the figures (default: trajectory in the run's folder)"
    )


def _add_animate(commands: Any) -> None:
    parser = _command(commands, "animate", "write the heatmaps of a run as an animated GIF")
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


def _add_show(commands: Any) -> None:
    parser = _command(commands, "show", "print a table of a result (.json) or of a bank (.safetensors)")
    parser.add_argument("file", metavar="FILE", type=Path, help="result or bank to show")


def _add_report(commands: Any) -> None:
    parser = _command(commands, "report", "write one interactive page of runs side by side, which any browser opens")
    parser.add_argument("folders", metavar="DIR", nargs="+", type=Path, help="dirpath of a CKAMonitor")
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FILE.html",
        help="file to write (default: report.html in DIR, or in the current folder for several runs)",
    )


def _command(commands: Any, name: str, text: str) -> argparse.ArgumentParser:
    """Add a command, with its help text."""
    parser: argparse.ArgumentParser = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
    return parser


def _add_choices(parser: argparse.ArgumentParser) -> None:
    """Add the options for layers, measures, kernel and estimator."""
    parser.add_argument(
        "--layers",
        nargs="+",
        metavar="PATTERN",
        help="names of layers, or patterns as in paths: 'net.*' is each child of net, 'net.**' all below it; a leading "
        "! takes away (default: all)",
    )
    parser.add_argument(
        "--measures",
        nargs="+",
        type=_measure,
        default=["cka"],
        metavar="MEASURE",
        help="cka (default), mutual_knn, rsa or ridge; mutual_knn:P for a part P of the samples as neighbours, ridge:A "
        "for another penalty",
    )
    parser.add_argument(
        "--kernel",
        type=_kernel,
        default="linear",
        metavar="KERNEL",
        help="kernel of cka: linear (default), distance, rbf, or rbf:T for a bandwidth of T times the median distance",
    )
    parser.add_argument("--biased", action="store_true", help="use biased HSIC, whose values depend on the batch size")


def _measure(text: str) -> OneMeasure:
    """Return the measure that an argument names."""
    name, _, parameter = text.partition(":")
    try:
        if name == MutualKNN.key and parameter:
            return MutualKNN(float(parameter))
        if name == Ridge.key and parameter:
            return Ridge(float(parameter))
        check_measures(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: {error}") from error
    return text


def _kernel(text: str) -> Kernel:
    """Return the kernel that an argument names."""
    name, _, threshold = text.partition(":")
    if name == "rbf" and threshold:
        try:
            return RBF(float(threshold))
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"{text!r}: {error}") from error
    if text not in ("linear", "distance", "rbf"):
        raise argparse.ArgumentTypeError(f"unknown kernel {text!r}; expected linear, distance, rbf or rbf:T")
    return text
