"""Arguments of the commands ``convergence``, ``freeze`` and ``summary``, which read the folder of a run."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from lightning_cka.cli.shared_arguments import add_ceiling, add_command, add_level, add_picture_or_table


def add_convergence(commands: Any) -> None:
    """Add the command ``convergence``."""
    parser = add_command(
        commands,
        "convergence",
        "show since when each layer of a run has converged",
        "lightning-cka convergence cka --output convergence.pdf",
    )
    _add_run(parser)
    add_picture_or_table(parser)


def add_freeze(commands: Any) -> None:
    """Add the command ``freeze``."""
    parser = add_command(
        commands,
        "freeze",
        "show which layers FreezeConverged would have frozen in a run, and when",
        "lightning-cka freeze cka --tolerance 0.02 --output freeze.pdf",
    )
    _add_run(parser, tolerance=0.01)
    parser.add_argument(
        "--patience", type=int, default=3, help="number of comparisons to look back (default: %(default)s)"
    )
    add_picture_or_table(parser)


def add_summary(commands: Any) -> None:
    """Add the command ``summary``."""
    parser = add_command(
        commands,
        "summary",
        "print one table of a run, as at the end of training",
        "lightning-cka summary cka --all",
    )
    _add_run(parser)
    parser.add_argument("--all", action="store_true", help="show all measures and layers (default: one, at most 20)")
    add_ceiling(parser)
    parser.add_argument("--output", type=Path, metavar="FILE", help="file to write: .md or .csv, with all layers")


def _add_run(parser: argparse.ArgumentParser, tolerance: float = 0.02) -> None:
    parser.add_argument(
        "folder", metavar="DIR", type=Path, help="dirpath of a CKAMonitor, or the folder of one reference in it"
    )
    parser.add_argument(
        "--tolerance",
        type=float,
        default=tolerance,
        help="change of CKA that does not matter (default: %(default)s)",
    )
    add_level(parser)
