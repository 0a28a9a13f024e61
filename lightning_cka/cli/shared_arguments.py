"""Arguments that several commands have."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from lightning_cka.cli.argument_types import kernel_of, measure_of


def add_command(commands: Any, name: str, text: str, *examples: str) -> argparse.ArgumentParser:
    """Add a command, with its help text and examples."""
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=text,
        description=f"{text[0].upper()}{text[1:]}.",
        epilog="\n  ".join([f"example{'s' * (len(examples) > 1)}:", *examples]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    return parser


def add_layers(parser: argparse.ArgumentParser, default: str = "all") -> None:
    """Add ``--layers``."""
    parser.add_argument(
        "--layers",
        nargs="+",
        metavar="PATTERN",
        help="names of layers, or patterns as in paths: 'net.*' is each child of net, 'net.**' all below it; a leading "
        f"! takes away (default: {default})",
    )


def add_measures(parser: argparse.ArgumentParser) -> None:
    """Add the options for measures, kernel and estimator."""
    parser.add_argument(
        "--measures",
        nargs="+",
        type=measure_of,
        default=["cka"],
        metavar="MEASURE",
        help="cka (default), mutual_knn, rsa or ridge; mutual_knn:P for a part P of the samples as neighbours, ridge:A "
        "for another penalty",
    )
    parser.add_argument(
        "--kernel",
        type=kernel_of,
        default="linear",
        metavar="KERNEL",
        help="kernel of cka: linear (default), distance, rbf, or rbf:T for a bandwidth of T times the median distance",
    )
    _add_flag(
        parser,
        "unbiased",
        "use the unbiased HSIC (default); values of the biased one depend on the batch size",
        opposite="biased",
    )


def add_strict(parser: argparse._ActionsContainer) -> None:
    """Add ``--strict``, for banks."""
    _add_flag(
        parser,
        "strict",
        "refuse banks of different probe sets (default), or compare them with a warning that names the differences",
        opposite="loose",
    )


def add_exclude(parser: argparse.ArgumentParser) -> None:
    """Add ``--exclude``."""
    parser.add_argument(
        "--exclude", nargs="+", type=int, metavar="SAMPLE", help="numbers of samples to leave out, as flags name them"
    )


def add_level(parser: argparse.ArgumentParser) -> None:
    """Add ``--level``."""
    parser.add_argument("--level", type=float, default=0.95, help="level of intervals (default: %(default)s)")


def add_picture_or_table(parser: argparse.ArgumentParser) -> None:
    """Add ``--output`` for a picture or a table."""
    parser.add_argument("--output", type=Path, metavar="FILE", help="file to write: .png, .pdf, .svg or .csv")


def add_ceiling(parser: argparse.ArgumentParser) -> None:
    """Add ``--ceiling``."""
    parser.add_argument(
        "--ceiling",
        nargs="+",
        type=Path,
        metavar="BANK_OR_DIR",
        help="banks of runs that differ in the seed alone, or their folders: what these reach is shown, too",
    )


def _add_flag(parser: argparse._ActionsContainer, name: str, text: str, *, opposite: str) -> None:
    """Add a flag that is on by default, and the older name of its opposite, which help does not show."""
    parser.add_argument(f"--{name}", action=argparse.BooleanOptionalAction, default=True, help=text)
    parser.add_argument(f"--{opposite}", dest=name, action="store_false", help=argparse.SUPPRESS)
