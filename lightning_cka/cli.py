"""``lightning-cka``: banks and results on disk, with neither model nor GPU."""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from lightning_cka.compare.banks import compare_banks
from lightning_cka.compare.result import CKAResult
from lightning_cka.compare.run_files import BANK_SUFFIX, result_files
from lightning_cka.compare.tables import DIAGNOSTIC_COLUMNS, format_value, layer_row, result_table, table, write_csv
from lightning_cka.compare.trajectory import trajectories
from lightning_cka.figures.animation import write_animation
from lightning_cka.figures.canvas import render, write_picture
from lightning_cka.figures.heatmap import plot_cka
from lightning_cka.hsic.kernels import RBF, Kernel
from lightning_cka.monitor.logged_figures import trajectory_figures
from lightning_cka.probe.bank import GramBank
from lightning_cka.version import __version__


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: None: those of the process.

    Returns:
        The exit status, 0. Bad input exits the process with 2 and one line on the standard error stream.
    """
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        with _warnings_as_lines():
            options.run(options)
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever reads the output has seen enough; else Python would complain when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (ValueError, OSError) as error:
        parser.error(" ".join(str(error).split()))
    return 0


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message}\n")


def _parser() -> _Parser:
    parser = _Parser(
        prog="lightning-cka",
        description="Compare networks from the banks of Gram matrices and the results that lightning_cka wrote.",
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    one = _command(commands, _compare, "compare", "CKA between the layers of two banks")
    one.add_argument("a", metavar="A.safetensors", type=Path, help="bank of the model, the rows")
    one.add_argument("b", metavar="B.safetensors", type=Path, help="bank of the reference, the columns")
    _add_choices(one)
    one.add_argument(
        "--reference-layers", nargs="+", metavar="PATTERN", help="layers of the reference (default: as --layers)"
    )
    one.add_argument(
        "--loose", action="store_true", help="compare banks of different probe sets too, and say what differs"
    )
    one.add_argument(
        "--output", type=Path, metavar="FILE", help="where to: .png (heatmap), .csv (long format) or .json (all)"
    )

    one = _command(commands, _trajectory, "trajectory", "CKA of each layer with itself at the other epochs of a run")
    one.add_argument("folder", metavar="DIR", type=Path, help="dirpath of a CKAMonitor(save_banks=True), or its banks")
    _add_choices(one)
    one.add_argument("--output", type=Path, metavar="DIR", help="where to (default: trajectory, in the folder)")

    one = _command(commands, _animate, "animate", "an animated GIF of the heatmaps of a run")
    one.add_argument(
        "sources",
        metavar="DIR_OR_RESULTS",
        nargs="+",
        type=Path,
        help="dirpath of a CKAMonitor (a GIF for each reference), the folder of one reference, or its results (.json)",
    )
    one.add_argument("--output", type=Path, metavar="FILE.gif", help="where to (default: beside the results)")
    one.add_argument("--seconds", type=float, default=0.4, help="that each frame is shown (default: %(default)s)")

    one = _command(commands, _show, "show", "a table of a result (.json), or of a bank's layers (.safetensors)")
    one.add_argument("file", metavar="FILE", type=Path, help="what to show")
    return parser


def _command(commands: Any, run: Callable[[Any], None], name: str, text: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
    parser.set_defaults(run=run)
    return parser


def _add_choices(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--layers", nargs="+", metavar="PATTERN", help="layers by name pattern (default: all)")
    parser.add_argument(
        "--kernel",
        type=_kernel,
        default="linear",
        metavar="KERNEL",
        help="linear (default), distance, rbf, or rbf:T for a bandwidth of T times the median distance",
    )
    parser.add_argument("--biased", action="store_true", help="biased HSIC, whose values depend on the batch size")


def _kernel(text: str) -> Kernel:
    name, _, threshold = text.partition(":")
    if name == "rbf" and threshold:
        try:
            return RBF(float(threshold))
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"{text!r}: {error}") from error
    if text not in ("linear", "distance", "rbf"):
        raise argparse.ArgumentTypeError(f"unknown kernel {text!r}; expected linear, distance, rbf or rbf:T")
    return text


def _compare(options: Any) -> None:
    writers: Mapping[str, Callable[[CKAResult, Path], object]] = {
        ".png": _draw,
        ".csv": lambda result, path: write_csv([result], path),
        ".json": lambda result, path: result.save(path),
    }
    output: Path | None = options.output
    if output is not None and output.suffix not in writers:
        raise ValueError(f"--output must end with {', '.join(writers)}, but is {str(output)!r}")
    result = compare_banks(
        options.a,
        options.b,
        layers=options.layers,
        reference_layers=options.reference_layers,
        kernel=options.kernel,
        unbiased=not options.biased,
        strict=not options.loose,
    )
    if output is not None:
        writers[output.suffix](result, output)
    _say(result_table(result))
    if output is not None:
        _say(f"\n{output}")


def _draw(result: CKAResult, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    plot_cka(result)[0].savefig(path)


def _trajectory(options: Any) -> None:
    found = trajectories(options.folder, options.layers, kernel=options.kernel, unbiased=not options.biased)
    moments = next(iter(found.values())).layers
    output = options.output or options.folder / "trajectory"
    for draw, path in trajectory_figures(output, found).values():
        write_picture(path, render(draw()))
    _say(f"CKA of each layer with itself at the last of {len(moments)} moments:\n")
    _say(
        table(("layer", *moments), ((name, *map(format_value, r.matrix[:, -1].tolist())) for name, r in found.items()))
    )
    _say(f"\nFigures: {output}")


def _animate(options: Any) -> None:
    if all(source.is_dir() for source in options.sources):
        runs = {path: files for source in options.sources for path, files in _histories(source)}
        if not runs:
            raise ValueError(f"there are no results in {', '.join(map(str, options.sources))}")
    else:
        runs = {options.sources[0].with_name("evolution.gif"): options.sources}
    if options.output is not None:
        if len(runs) > 1:
            raise ValueError(f"--output takes one animation, but there are {len(runs)}: name the folder of one")
        runs = dict.fromkeys([options.output], *runs.values())
    if wrong := [path for path in runs if path.suffix != ".gif"]:
        raise ValueError(f"--output must end with .gif, but is {str(wrong[0])!r}")
    for path, files in runs.items():
        write_animation([CKAResult.load(file) for file in files], path, seconds=options.seconds)
        _say(str(path))


def _histories(folder: Path) -> Iterator[tuple[Path, list[Path]]]:
    """The results of each reference in a folder, and where their animation goes; those of other runs are passed by."""
    folder = folder.resolve() if folder.name in ("", "..") else folder
    for place in (folder, *sorted(path for path in folder.rglob("*") if path.is_dir())):
        inside = place.relative_to(folder).parts
        if (files := result_files(place)) and not any(part.startswith("earlier-") for part in inside):
            yield place.with_name(f"{place.name}-evolution.gif"), files


def _show(options: Any) -> None:
    path: Path = options.file
    if path.suffix == BANK_SUFFIX:
        bank = GramBank.load(path)
        _say(f"{bank.title}: {bank.num_samples} samples in {len(bank.batches)} batches, seed {bank.seed}\n")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # The table says it.
            result = compare_banks(bank, bank)
        layers = result.diagnostics.layers if result.diagnostics else {}
        _say(table(("layer", *DIAGNOSTIC_COLUMNS, "flags"), (layer_row(result, name, layers[name]) for name in layers)))
    else:
        _say(result_table(CKAResult.load(path)))


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")


@contextmanager
def _warnings_as_lines() -> Iterator[None]:
    """Warnings without the place in the code that they come from."""

    def show(message: Warning | str, *_rest: Any, **_named: Any) -> None:
        sys.stderr.write(f"lightning-cka: warning: {message}\n")

    with warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = show
        yield


if __name__ == "__main__":
    sys.exit(main())
