"""Help, names of options, and how fast they come."""

import argparse
import inspect
import shlex
import subprocess
import sys

import pytest
from lightning_cka import (
    CKAResult,
    compare_banks,
    compare_many,
    compare_models,
    convergence,
    plotting,
    rank_history,
    trajectories,
    would_freeze,
)
from lightning_cka.cli.arguments import build_parser
from lightning_cka.decisions.rank_history import RankHistory
from lightning_cka.decisions.summary import run_summary
from lightning_cka.figures.animation import write_animation

PYTHON = {
    "compare": (compare_banks, compare_models),
    "trajectory": (trajectories,),
    "difference": (plotting.plot_difference,),
    "samples": (plotting.plot_samples,),
    "spectrum": (plotting.plot_spectrum,),
    "animate": (write_animation,),
    "redundancy": (CKAResult.redundancy,),
    "convergence": (convergence,),
    "freeze": (would_freeze,),
    "summary": (run_summary, plotting.plot_trend),
    "drift": (plotting.plot_drift,),
    "show": (plotting.plot_trend,),
    "matrix": (compare_many, compare_banks),
    "report": (plotting.plot_trend,),
    "rank": (rank_history, RankHistory.falls),
}
ONLY_HERE = {"output", "format", "epoch", "step", "name", "all", "help"}
"""What has no argument in Python: files, which of a run's banks to take, and how many lines to print."""


def commands():
    (action,) = (each for each in build_parser()._actions if isinstance(each, argparse._SubParsersAction))
    return action.choices


@pytest.mark.parametrize("name", PYTHON)
def test_options_that_help_shows_are_named_as_in_python(name):
    arguments = {argument for function in PYTHON[name] for argument in inspect.signature(function).parameters}
    for action in commands()[name]._actions:
        if action.help == argparse.SUPPRESS or not action.option_strings:
            continue
        assert action.dest in arguments | ONLY_HERE, action
        assert f"--{action.dest.replace('_', '-')}" in action.option_strings


def test_every_command_is_described_here():
    assert set(commands()) == set(PYTHON)


@pytest.mark.parametrize(
    ("old", "name"),
    [("--biased", "unbiased"), ("--no-unbiased", "unbiased"), ("--loose", "strict"), ("--no-strict", "strict")],
)
def test_older_names_of_options_work_and_are_hidden(old, name, capsys):
    options = build_parser().parse_args(["compare", "a", "b", old])
    assert getattr(options, name) is False
    assert getattr(build_parser().parse_args(["compare", "a", "b"]), name) is True
    with pytest.raises(SystemExit):
        build_parser().parse_args(["compare", "--help"])
    shown = capsys.readouterr().out
    assert (old in shown) == old.startswith("--no-")


def test_the_help_has_three_examples_that_are_valid():
    examples = [
        line.strip() for line in build_parser().format_help().splitlines() if line.startswith("  lightning-cka ")
    ]
    assert len(examples) == 3
    for parser in (build_parser(), *commands().values()):
        lines = [line for line in (parser.epilog or "").splitlines() if line.startswith("  lightning-cka ")]
        assert lines
        for line in lines:
            build_parser().parse_args(shlex.split(line)[1:])


def test_help_does_not_wait_for_torch():
    code = (
        "import sys\nfrom lightning_cka.cli import main\n"
        "try:\n    main(['compare', '--help'])\nexcept SystemExit:\n    pass\n"
        "assert not {'torch', 'numpy', 'matplotlib', 'lightning'} & set(sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60).returncode == 0


def test_it_runs_as_a_module():
    for module in ("lightning_cka", "lightning_cka.cli"):
        done = subprocess.run([sys.executable, "-m", module, "--help"], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0
        assert done.stdout.startswith("usage: lightning-cka")
