"""The names of a run's files and folders."""

from pathlib import Path

import pytest
from lightning_cka.compare.run_files import names_of_runs


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["/a/b/cka"], ["b"]),
        (["/a/b/mine"], ["mine"]),
        (["/a/one/cka", "/a/two/cka"], ["one", "two"]),
        (["/a/b", "/a/b/c"], [".", "c"]),
        (["/a/c", "/a/b/c"], [".", "b"]),
        (["/a/x/1/cka", "/a/y/2/cka"], ["x/1", "y/2"]),
    ],
)
def test_names_are_what_differs(paths, names):
    assert names_of_runs([Path(path) for path in paths]) == names
