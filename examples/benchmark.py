"""What watching costs: the monitor's work of one epoch against its floor, its memory, and its share of an epoch.

The floor is one bare forward pass over the probe set, the float32 products X X^T of each layer, and one
product over all pairs of layers. Tables are in Markdown; all single runs are in a JSON file beside them.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import json
import logging
import platform
import tempfile
import warnings
from pathlib import Path

import torch
from benchmarks import epoch, growth, peers
from benchmarks.moment import table
from benchmarks.networks import NETWORKS, ON_CPU


def epochs(args, device, folder):
    print("## The monitor's work in an epoch\n")
    print(
        f"{args.samples} samples, medians of {args.repeats} runs made in turns, in parentheses the smallest and the "
        "largest. pass: samples,\nforward, Gram matrices, comparison, diagnostics; training waits for that, logging, "
        "and files; a thread draws the figures\nmeanwhile. Extra memory: peak above a bare forward; bound: a model's "
        "Gram matrices and twice the largest activation.\n"
    )
    found = []
    for name in args.networks:
        found.append(epoch.measure(name, args.samples, args.repeats, device, folder / "epoch" / name))
        print_growing([epoch.row_of(each) for each in found])
    print(f"\nTraining epoch: over {epoch.TRAINING_SAMPLES} samples, told from a few steps.\n")
    print(table([epoch.detail_of(each) for each in found]), flush=True)
    return found


def digits(args, folder):
    from benchmarks import digits_share

    print("\n## Share of a training epoch of the digits example\n")
    print(f"Medians of {args.repeats} runs of {args.digits_epochs} epochs, made in turns; TensorBoard is the logger.\n")
    found = digits_share.measure(args.repeats, args.digits_epochs, folder / "digits")
    print(table(digits_share.rows_of(found)), flush=True)
    return found


def compare_with_peers(args, device, folder):
    _, missing = peers.installed()
    print("\n## Other packages\n")
    for name, why in missing.items():
        print(f"{name} cannot be imported: {why}\n")
    print(
        f"{args.peer_samples} samples, R references over {peers.EPOCHS} epochs, with what it takes to show ours to the "
        "references. error: the worst cell\nagainst float64 on the same float32 features; to all batches: where a "
        "package gives the last batch's CKA, which the first\ncolumn compares it with, instead of that of all, as "
        f"documented. about: told from one batch, since it would take more than {args.peer_limit:.0f} s.\n"
    )
    every = []
    for name in args.networks:
        every.append(
            peers.measure(
                name, args.peer_samples, args.peer_repeats, args.peer_references, args.peer_limit, device,
                folder / "peers" / name,
            )
        )  # fmt: skip
        print_growing([row for each in every for row in peers.rows_of(each)], len(every[-1]))
    return every


def grow(args, device, folder):
    print("\n## As the work grows\n")
    base = {key: min(value, args.growth_limit.get(key, value)) for key, value in growth.BASE.items()}
    print(
        ", ".join(f"{key}: {value}" for key, value in base.items()), "unless said otherwise; an MLP, batches of "
        f"{growth.BATCH}; lines of the least relative squares\n",
    )  # fmt: skip
    every = {}
    for vary, sizes in growth.SIZES.items():
        chosen = [size for size in sizes if size <= args.growth_limit.get(vary, size)]
        every[vary] = [
            growth.measure(base | {vary: size}, args.repeats, device, folder / "growth" / f"{vary}-{size}")
            for size in chosen
        ]
        rows, lines = growth.table_of(vary, every[vary])
        print(f"\n### {vary.capitalize()}: {growth.EXPECTED[vary]}\n\n{table(rows)}\n")
        print("\n".join(f"- {line}" for line in lines), flush=True)
    print("\n### Processes, of one thread each\n")
    every["processes"] = []
    for sizes in itertools.product(args.process_samples, args.process_widths, args.process_layers):
        every["processes"].append(growth.in_processes(*sizes, args.repeats, folder / "processes"))
        print_growing([growth.row_of_processes(each) for each in every["processes"]])
    return every


def print_growing(rows, new=1):
    """Those rows of a table that are new, under its head if they are the first."""
    lines = table(rows).splitlines()
    print("\n".join(lines if len(rows) == new else lines[-new:]), flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--samples", type=int, default=2048)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument(
        "--networks", nargs="*", choices=list(NETWORKS), help="default: those for a CPU, on a GPU all of them"
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--output", type=Path, default=Path("benchmark.json"))
    parser.add_argument("--no-epoch", action="store_true", help="leave the table of networks out")
    parser.add_argument("--no-digits", action="store_true", help="leave the digits example out")
    parser.add_argument("--digits-epochs", type=int, default=8, help="of each run")
    parser.add_argument("--peers", action="store_true", help="compare with other packages that are installed")
    parser.add_argument("--peer-samples", type=int, default=512)
    parser.add_argument("--peer-repeats", type=int, default=3)
    parser.add_argument("--peer-references", type=int, nargs="+", default=[1, 3])
    parser.add_argument("--peer-limit", type=float, default=100.0, help="seconds of one run of one package")
    parser.add_argument("--growth", action="store_true", help="tables of the cost as the work grows")
    parser.add_argument("--growth-limit", nargs="*", default=[], metavar="SIZE=N", help="such as layers=100")
    parser.add_argument("--process-samples", type=int, nargs="+", default=[1024, 2048])
    parser.add_argument("--process-widths", type=int, nargs="+", default=[256, 1024])
    parser.add_argument("--process-layers", type=int, nargs="+", default=[20, 40])
    args = parser.parse_args()
    args.growth_limit = {key: int(value) for key, value in (each.split("=") for each in args.growth_limit)}
    device = torch.device(args.device)
    if args.networks is None:
        args.networks = ON_CPU if device.type == "cpu" else list(NETWORKS)
    warnings.filterwarnings("ignore", module="lightning")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    name = torch.cuda.get_device_name() if device.type == "cuda" else platform.machine()
    print(f"torch {torch.__version__}, {device}, {torch.get_num_threads()} threads, {name}\n")
    found = {"torch": torch.__version__, "device": name, "threads": torch.get_num_threads()}
    args.output.parent.mkdir(parents=True, exist_ok=True)

    def keep(part, value):
        found[part] = value
        args.output.write_text(json.dumps(found, indent=1))

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        if not args.no_epoch:
            keep("epoch", epochs(args, device, folder))
        if not args.no_digits:
            if importlib.util.find_spec("sklearn") is None:
                print('\nThe digits example needs scikit-learn: pip install -e ".[examples]"')
            else:
                keep("digits", digits(args, folder))
        if args.peers:
            keep("peers", compare_with_peers(args, device, folder))
        if args.growth:
            keep("growth", grow(args, device, folder))
    print(f"\nWritten to {args.output}")


if __name__ == "__main__":
    main()
