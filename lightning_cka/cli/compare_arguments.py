"""The arguments of the command ``compare``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from lightning_cka.cli.argument_types import moment_of
from lightning_cka.cli.shared_arguments import add_command, add_exclude, add_layers, add_measures, add_strict

_SOURCE = "bank (.safetensors), folder of a run with banks, or checkpoint"


def add_compare(commands: Any) -> None:
    """Add the command ``compare``."""
    parser = add_command(
        commands,
        "compare",
        "compute CKA between the layers of two networks",
        "lightning-cka compare A.safetensors B.safetensors --layers 'conv*' --kernel rbf --output figure.png",
        "lightning-cka compare runs/seed0 runs/seed1 --epoch 9 --name 'seed 0' --reference-name 'seed 1'",
        "lightning-cka compare runs/seed0 runs/seed1 --epoch 3 10",
        "lightning-cka compare a.ckpt b.ckpt --architecture package.module:Net --dataloader package.module:make_loader",
        "lightning-cka compare a.ckpt runs/seed0 --epoch 9 --architecture package.module:Net --dataloader "
        "package.module:validation_loader",
    )
    parser.add_argument("a", metavar="A", type=Path, help=f"{_SOURCE} of the model (rows)")
    parser.add_argument("b", metavar="B", type=Path, help=f"{_SOURCE} of the reference (columns)")
    add_layers(parser)
    parser.add_argument(
        "--reference-layers",
        nargs="+",
        metavar="PATTERN",
        help="name patterns of the reference's layers (default: the patterns of --layers)",
    )
    parser.add_argument(
        "--pair",
        nargs="+",
        default=["name"],
        metavar="PAIR",
        help="which layers are paired: those of the same name (name, default), those at the same position (position), "
        "or pairs such as conv1=stem conv2=block.0",
    )
    add_measures(parser)
    add_exclude(parser)
    parser.add_argument(
        "--groups",
        type=Path,
        metavar="FILE.txt",
        help="labels of the samples, one per line, for CKA within groups: line i, from 0, is the label of sample i",
    )
    parser.add_argument(
        "--name",
        "--model-name",
        metavar="NAME",
        help="name of the model in titles (default: its class, with what tells the two paths apart)",
    )
    parser.add_argument("--reference-name", metavar="NAME", help="name of the reference in titles")
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        help="file to write: .png, .pdf or .svg (heatmap), .csv (one row per pair of layers) or .json (the result)",
    )
    _add_for_banks(parser)
    _add_for_checkpoints(parser)


def add_matrix(commands: Any) -> None:
    """Add the command ``matrix``."""
    parser = add_command(
        commands,
        "matrix",
        "compute CKA of many models with each other",
        "lightning-cka matrix runs/seed* --output models.pdf",
        "lightning-cka matrix runs/seed0 runs/seed1 teacher.safetensors --layers 'blocks.*' --epoch 9",
    )
    parser.add_argument(
        "sources",
        metavar="DIR_OR_BANK",
        nargs="+",
        type=Path,
        help="folder of a run with banks, or bank (.safetensors)",
    )
    _add_moment(parser, "of all runs: a number, initial or last (default)")
    add_layers(parser, "all that all models have")
    add_measures(parser)
    add_exclude(parser)
    parser.add_argument("--names", nargs="+", metavar="NAME", help="names of the models (default: parts of the paths)")
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        help="file to write: .png, .pdf or .svg (heatmap, dendrogram and map) or .csv (one row per pair of models)",
    )


def _add_moment(parser: argparse._ActionsContainer, text: str, **options: Any) -> None:
    """Add ``--epoch`` and ``--step``, of which one may be given."""
    moment = parser.add_mutually_exclusive_group()
    for option in ("epoch", "step"):
        moment.add_argument(f"--{option}", type=moment_of, metavar=option.upper(), help=f"{option} {text}", **options)


def _add_for_banks(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("for banks and folders of runs")
    _add_moment(group, "of both runs, or one for each: a number, initial or last", nargs="+")
    add_strict(group)


def _add_for_checkpoints(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("for checkpoints, also beside a bank or a run")
    group.add_argument(
        "--architecture",
        metavar="MODULE:NAME",
        help="class of the networks, or a function without arguments that returns one, such as package.module:Net",
    )
    group.add_argument(
        "--dataloader",
        metavar="MODULE:NAME",
        help="function without arguments that returns a DataLoader, which should shuffle; beside a bank, one of the "
        "dataset that the bank is of, in any order",
    )
    group.add_argument("--feature-fn", metavar="NAME", help="flatten (default), mean, cls, last or tokens")
    group.add_argument(
        "--gram-batch-size", type=int, metavar="N", help="number of samples in a Gram matrix (not beside a bank)"
    )
    group.add_argument("--seed", type=int, help="seed of the dataloader's shuffling (default: 0; not beside a bank)")
    group.add_argument("--device", help="device to compute on, such as cuda (default: cpu)")
