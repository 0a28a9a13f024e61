"""Names of files and folders that are made of any text."""

import itertools
from pathlib import PurePosixPath, PureWindowsPath

import pytest
from lightning_cka.runtime.file_names import (
    MAX_BYTES,
    distinct_file_names,
    distinct_names,
    file_key,
    safe_file_name,
    take_file_name,
)

ORDINARY = (
    *("net.0", "initial", "epoch=3-step=120", "best model (1)", "resnet18.a1_in1k", "layer1.conv", "rbf-2", "模型"),
    *("é", "v1..2", "at 10:30", "lambda<3", "con1", "console", "_", "-", "~", "x" * 120, "earlier"),
)
UNSAFE = (
    *("", ".", "..", "...", "../x", "/abs/x", "/", "\\", "a/b", "a\\b", "..\\x", "C:\\x", "c:x", "C:", "\\\\host\\x"),
    *(".hidden", "..a", "a.", "a ", "a. .", " a", "a\nb", "a\x00b", "\x1b[31m", "\u2028", "\ud800", "a\x7f", "x" * 121),
    *(
        "x" * 300,
        "é" * 300,
        "模" * 100,
        "con",
        "CON",
        "con.txt",
        "nul",
        "Aux.a.b",
        "COM1",
        "lpt9.png",
        "com¹",
        "CONIN$",
    ),
)


@pytest.mark.parametrize("name", ORDINARY)
def test_ordinary_names_stay(name):
    assert safe_file_name(name) == name


@pytest.mark.parametrize("name", UNSAFE)
def test_other_names_become_the_name_of_one_file(name, tmp_path):
    safe = safe_file_name(name)
    assert safe != name
    assert safe == safe_file_name(name)
    assert 0 < len(safe.encode()) <= MAX_BYTES
    for path in (PurePosixPath(safe), PureWindowsPath(safe)):
        assert path.parts == (safe,)
        assert not path.is_absolute()
    assert not PureWindowsPath(safe).drive
    assert safe[0] != "."
    assert safe[-1] not in ". "
    assert safe.isprintable()
    file = tmp_path / f"{safe}-evolution.gif"
    file.write_text("x")
    assert list(tmp_path.iterdir()) == [file]
    assert safe_file_name(safe) == safe


def test_different_names_stay_different():
    names = [*ORDINARY, *UNSAFE]
    assert len({file_key(safe_file_name(name)) for name in names}) == len(names)
    found = distinct_file_names(names)
    assert len({file_key(safe) for safe in found.values()}) == len(names)
    assert all(found[name] == name for name in ORDINARY)


@pytest.mark.parametrize("names", list(itertools.permutations(["a/b", "a_b", "A_B", "a\\b", "\uff41_b"]))[::7])
def test_names_that_become_the_same(names):
    found = distinct_file_names(names)
    assert list(found) == list(names)
    assert len({file_key(safe) for safe in found.values()}) == 5
    first = next(name for name in names if file_key(name) == "a_b")
    assert found[first] == first


def test_a_reserved_name_gets_a_number_that_no_other_name_has():
    assert distinct_file_names(["overview", "overview-2"], ["overview"]) == {
        "overview": "overview-3",
        "overview-2": "overview-2",
    }
    assert distinct_names(["mean", "a"], ["mean"]) == {"mean": "mean-2", "a": "a"}
    punctuated = {
        "a+b": "a+b-2",
        "ab": "ab",
        "a*b": "a*b-3",
        "+": "+-2",
        "*": "*-3",
        "me=an": "me=an-2",
        "x[0]": "x[0]",
    }
    assert distinct_names(punctuated, ["mean"]) == punctuated
    latin = {"層1": "層1", "слой1": "слой1-2", "層": "層-2", "ß": "ß-3"}
    assert distinct_names(latin, []) == latin
    assert distinct_names(["a.b", "a-b", "a_b", "a b"], []) == {n: n for n in ("a.b", "a-b", "a_b", "a b")}
    for names in (["mean", "mean-2", "mean-3"], ["mean-3", "mean-2", "mean"]):
        assert distinct_names(names, ["mean"]) == {"mean": "mean-4", "mean-2": "mean-2", "mean-3": "mean-3"}


def test_a_taken_name_gets_a_number_and_endings_count():
    taken = {"banks"}
    names = [take_file_name(name, taken, ("", ".csv")) for name in ("Banks", "a", "a", "A", "a.csv", "a-2", "..")]
    assert names[:6] == ["Banks-2", "a", "a-2", "A-3", "a.csv-2", "a-2-2"]
    assert names[6].startswith("_-")
    long = [take_file_name("x" * 120, taken) for _ in range(3)]
    assert len(set(long)) == 3
    assert all(len(name) <= MAX_BYTES for name in long)
