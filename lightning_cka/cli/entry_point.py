"""`main`: run one command of the command line, with its errors and warnings as lines of text."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from lightning_cka.cli.arguments import build_parser
from lightning_cka.cli.choices import ChoiceNeededError

_MODULE_OF = {
    "compare": "compare_command",
    "difference": "difference_command",
    "drift": "picture_commands",
    "matrix": "matrix_command",
    "samples": "picture_commands",
    "spectrum": "picture_commands",
    "trajectory": "run_commands",
    "animate": "run_commands",
    "redundancy": "redundancy_command",
    "rank": "rank_command",
    "convergence": "convergence_command",
    "freeze": "convergence_command",
    "summary": "summary_command",
    "show": "show_command",
    "report": "report_command",
}
"""The module that has the function of each command. It is imported when the command runs, so that help is fast."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: Arguments of the command line. None takes `sys.argv`.

    Returns:
        The exit status 0.

    Raises:
        SystemExit: The status is 2 for bad input, with one line on standard error, or with a list of choices. It is 2
            without arguments, with the help. It is 0 after ``--help`` and ``--version``.
    """
    parser = build_parser()
    if not (sys.argv[1:] if arguments is None else arguments):
        parser.exit(2, parser.format_help())
    options = parser.parse_args(arguments)
    try:
        with _warnings_as_lines():
            module = import_module(f"lightning_cka.cli.{_MODULE_OF[options.command]}")
            getattr(module, options.command)(options)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader closed the pipe early, as `head` does. Without this, Python's own flush at exit would fail.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except ChoiceNeededError as error:
        parser.exit(2, f"{parser.prog}: error: {error}\n")
    except (ValueError, OSError) as error:
        parser.error(" ".join(str(error).split()))
    return 0


@contextmanager
def _warnings_as_lines() -> Iterator[None]:
    """Show each warning as one line, without the file and the line of code that caused it."""

    def show(message: Warning | str, *_args: Any, **_kwargs: Any) -> None:
        sys.stderr.write(f"lightning-cka: warning: {message}\n")

    with warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = show
        yield
