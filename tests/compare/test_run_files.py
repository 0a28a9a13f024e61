"""The names of a run's files and folders."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from lightning_cka.compare.run_files import is_of_training, last_of_training, names_of_runs


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


@pytest.mark.parametrize("count", [1, 2, 9])
def test_the_last_results_of_training_are_found_from_the_end(count):
    def results(steps):
        return [SimpleNamespace(epoch=None, step=step) for step in steps]

    for steps in ([], [None], [0], [None, 0, 4, None, 8, None, None], [1, 2, 3]):
        made = results(steps)
        assert last_of_training(made, count) == [each for each in made if is_of_training(each)][-count:]
