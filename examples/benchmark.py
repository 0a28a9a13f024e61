"""Measure what CKAMonitor costs: the time and memory of its work in one epoch, and how both grow.

The time is compared with the least possible work, the floor: one bare forward pass over the probe set, the float32
products X X^T of each layer, and one product over all pairs of layers. Tables are in Markdown. A JSON file has all
single runs.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import json
import logging
import platform
import sys
import tempfile
import warnings
from pathlib import Path

import torch
from benchmarks import epoch, growth, measures, one_shot, packages, peer_table, peer_task, peers, report
from benchmarks.markdown import table
from benchmarks.networks import NETWORKS, ON_CPU


def run_epoch(args, device, folder):
    """Print the tables of the monitor's work in one epoch."""
    print("## The monitor's work in one epoch\n")
    print(
        f"{args.samples} samples. Cells are medians of {args.repeats} runs that take turns, with the smallest and the "
        "largest in parentheses.\n\n"
        "- pass: loading samples, forward, Gram matrices, comparison and diagnostics.\n"
        "- training waits: the pass, logging and writing files. A thread draws the figures meanwhile.\n"
        "- extra memory: the peak above a bare forward pass.\n"
        "- bound: the Gram matrices of a model and twice the largest activation.\n"
    )
    found = []
    for name in args.networks:
        found.append(epoch.measure(name, args.samples, args.repeats, device, folder / "epoch" / name))
        print_new_rows([epoch.cost_row(each) for each in found])
    print(f"\nThe training epoch has {epoch.TRAINING_SAMPLES} samples; its time is estimated from a few steps.\n")
    print(table([epoch.detail_row(each) for each in found]), flush=True)
    return found


def run_digits(args, device, folder):
    """Print how much longer an epoch of the digits example takes with the monitor."""
    if importlib.util.find_spec("sklearn") is None:
        print('\nThe digits example needs scikit-learn: pip install -e ".[examples]"')
        return None
    from benchmarks import digits_overhead

    print("\n## A training epoch of the digits example\n")
    print(f"Medians of {args.repeats} runs of {args.digits_epochs} epochs that take turns, with a TensorBoardLogger.\n")
    found = digits_overhead.measure(args.repeats, args.digits_epochs, folder / "digits")
    print(table(digits_overhead.table_rows(found)), flush=True)
    return found


def run_peers(args, device, folder):
    """Print the comparison with other packages."""
    print("\n## Other packages\n")
    for name, error in packages.find_installed()[1].items():
        print(f"{name} cannot be imported: {error}\n")
    print(
        f"{args.peer_samples} samples, R references, {peer_task.EPOCHS} epochs. Our time includes the banks of the "
        "references.\n\n"
        "- error: the largest difference from float64 on the same float32 features.\n"
        "- error to all batches: for packages that return the CKA of the last batch, although they document that of "
        "all.\n"
        f"- about: estimated from one batch, since the run would take more than {args.peer_limit:.0f} s.\n"
    )
    every = []
    for name in args.networks:
        sizes = (args.peer_samples, args.peer_repeats, args.peer_references, args.peer_limit)
        every.append(peers.measure(name, *sizes, device, folder / "peers" / name))
        print_new_rows([row for each in every for row in peer_table.table_rows(each)], len(every[-1]))
    return every


def run_one_shot(args, device, folder):
    """Print what one call of compare_models takes, beside the fastest other package."""
    print(f"\n## One comparison of two models, beside {one_shot.PEER.name}\n")
    if one_shot.PEER not in packages.find_installed()[0]:
        print(f"It is not installed: pip install {one_shot.PEER.name}")
        return None
    print(f"Medians of {args.one_shot_repeats} runs that take turns. The error is the largest one, from float64.\n")
    found = []
    for case in one_shot.CASES:
        for num_batches in case.batches if case.network in args.networks else ():
            found.append(one_shot.measure(case, num_batches, args.one_shot_repeats, device))
            print_new_rows([one_shot.table_row(each) for each in found])
    return found


def run_growth(args, device, folder):
    """Print how the cost grows with samples, layers, width, references, kernels, epochs and processes."""
    print("\n## As the work grows\n")
    base = {key: min(value, args.growth_limit.get(key, value)) for key, value in growth.BASE.items()}
    sizes = ", ".join(f"{key}: {value}" for key, value in base.items())
    print(f"An MLP in batches of {growth.BATCH}. Where a table does not vary them: {sizes}.\n")
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
    if sys.platform == "linux":
        print("\n### Files of banks: saving takes a few MiB, loading the bank and the mapped file\n")
        sizes = itertools.product(args.bank_layers, args.bank_samples, [False, True])
        every["banks"] = [growth.bank_files(*each, folder) for each in sizes]
        print(table([growth.bank_row(each) for each in every["banks"]]), flush=True)
    print("\n### Processes with one thread each\n")
    every["processes"] = []
    for sizes in itertools.product(args.process_samples, args.process_widths, args.process_layers):
        every["processes"].append(growth.in_processes(*sizes, args.repeats, folder / "processes"))
        print_new_rows([growth.process_row(each) for each in every["processes"]])
    return every


def run_measures(args, device, folder):
    """Print what each measure takes for one batch."""
    print("\n## Measures, for one batch of two models\n")
    found = measures.measure(20, args.measure_samples, 64, args.repeats, device)
    print(table([measures.row(found)]), flush=True)
    return found


def run_report(args, device, folder):
    """Print what the interactive view takes to write."""
    print("\n## The file of the interactive view\n")
    print(
        f"{len(report.REFERENCES)} references, {report.BATCHES} batches. A thread writes it while training goes on.\n"
    )
    found = [report.measure(28, epochs, args.repeats, folder) for epochs in args.report_epochs]
    print(table([report.row(each) for each in found]), flush=True)
    return found


PARTS = {
    "epoch": run_epoch,
    "digits": run_digits,
    "report": run_report,
    "one-shot": run_one_shot,
    "peers": run_peers,
    "growth": run_growth,
    "measures": run_measures,
}


def print_new_rows(rows, new=1):
    """Print the last rows of a table; the first time, print its head, too."""
    lines = table(rows).splitlines()
    print("\n".join(lines if len(rows) == new else lines[-new:]), flush=True)


def parse_arguments():
    """Return the arguments of the command line, and the names of the parts to run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--samples", type=int, default=2048, help="size of the probe set")
    parser.add_argument("--repeats", type=int, default=5, help="runs of each measurement")
    parser.add_argument(
        "--networks", nargs="*", choices=list(NETWORKS), help="default: all on a GPU, else the small ones"
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--output", type=Path, default=Path("benchmark.json"))
    parser.add_argument("--no-epoch", action="store_true", help="leave out the tables of networks")
    parser.add_argument("--no-digits", action="store_true", help="leave out the digits example")
    parser.add_argument("--digits-epochs", type=int, default=8, help="epochs of each run of the digits example")
    parser.add_argument("--report", action="store_true", help="measure how long the interactive view takes to write")
    parser.add_argument("--report-epochs", type=int, nargs="+", default=[100, 500], help="lengths of its runs")
    parser.add_argument("--peers", action="store_true", help="compare with the other packages that are installed")
    parser.add_argument("--peer-samples", type=int, default=512, help="samples for the other packages")
    parser.add_argument("--peer-repeats", type=int, default=3, help="runs of each package")
    parser.add_argument("--peer-references", type=int, nargs="+", default=[1, 3], help="numbers of references")
    parser.add_argument("--peer-limit", type=float, default=100.0, help="longest run of a package, in seconds")
    parser.add_argument("--one-shot", action="store_true", help="compare one call of compare_models with pytorch-cka")
    parser.add_argument("--one-shot-repeats", type=int, default=5, help="its runs of each package")
    parser.add_argument("--measures", action="store_true", help="measure CKA, mutual kNN, RSA and ridge CKA")
    parser.add_argument("--measure-samples", type=int, default=256, help="samples in a batch for the measures")
    parser.add_argument("--growth", action="store_true", help="measure how the cost grows")
    parser.add_argument("--growth-limit", nargs="*", default=[], metavar="SIZE=N", help="such as layers=100")
    parser.add_argument("--bank-samples", type=int, nargs="+", default=[8192])
    parser.add_argument("--bank-layers", type=int, nargs="+", default=[50])
    parser.add_argument("--process-samples", type=int, nargs="+", default=[1024, 2048])
    parser.add_argument("--process-widths", type=int, nargs="+", default=[256, 1024])
    parser.add_argument("--process-layers", type=int, nargs="+", default=[20, 40])
    args = parser.parse_args()
    args.growth_limit = {key: int(value) for key, value in (each.split("=") for each in args.growth_limit)}
    chosen = {"epoch": not args.no_epoch, "digits": not args.no_digits, "peers": args.peers, "growth": args.growth}
    chosen |= {"measures": args.measures, "report": args.report, "one-shot": args.one_shot}
    return args, [part for part, is_chosen in chosen.items() if is_chosen]


def main():
    args, parts = parse_arguments()
    device = torch.device(args.device)
    if args.networks is None:
        args.networks = ON_CPU if device.type == "cpu" else list(NETWORKS)
    warnings.filterwarnings("ignore", module="lightning")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    name = torch.cuda.get_device_name() if device.type == "cuda" else platform.machine()
    print(f"torch {torch.__version__}, {device}, {torch.get_num_threads()} threads, {name}\n")
    found = {"torch": torch.__version__, "device": name, "threads": torch.get_num_threads()}
    args.output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        for part in parts:
            found[part] = PARTS[part](args, device, Path(folder))
            args.output.write_text(json.dumps(found, indent=1))
    print(f"\nWritten to {args.output}")


if __name__ == "__main__":
    main()
