"""A small part of the table in the guide on flags: healthy networks have none, and planted problems are found."""

import sys
from pathlib import Path

import pytest

pytest.importorskip("sklearn")
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
SURE = [
    "one input times 100",
    "one sample's features times 100",
    "a class's features +4 SD, both",
    "copies of one sample, 25 %",
    "own loader, sorted by class",
]


@pytest.mark.parametrize("name", ["autoencoder", "MLP classifier"])
def test_a_healthy_network_has_no_flag_and_planted_problems_are_found(name, monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "examples"))
    from benchmarks import flags

    try:
        healthy, planted = flags.measure(name, seed=7)
    finally:
        for module in [module for module in sys.modules if module.split(".")[0] == "benchmarks"]:
            sys.modules.pop(module)
    assert healthy == {"initial": [], "itself": [], "another seed": []}
    assert {title: planted[title][0] for title in SURE} == dict.fromkeys(SURE, True)
    assert all(planted[title][1] for title in SURE[:4])
