"""Run an example, whose path is the first argument, with blank figures: its test looks at other things.

Processes that the benchmark starts are forked, too.
"""

import runpy
import sys
from pathlib import Path
from types import SimpleNamespace

import forked_scripts
from conftest import blank_figures

if __name__ == "__main__":
    del sys.argv[0]
    sys.path[0] = str(Path(sys.argv[0]).parent)
    from benchmarks import growth

    growth.subprocess = SimpleNamespace(run=forked_scripts.run_python)
    with blank_figures():
        runpy.run_path(sys.argv[0], run_name="__main__")
