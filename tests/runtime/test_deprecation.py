"""Deprecated names work, and their warnings point at the line that uses them."""

import inspect
from dataclasses import dataclass
from typing import NamedTuple

import pytest
from lightning_cka import Thresholds
from lightning_cka.runtime.deprecation import read_renamed, renamed_arguments, renamed_attribute


@renamed_arguments(share="ratio", old="new")
@dataclass(frozen=True)
class Options:
    ratio: float = 1.0
    new: int = 2

    share = renamed_attribute("share", "ratio")


class Sample(NamedTuple):
    index: int
    ratio: float

    @property
    def share(self):
        return read_renamed(self, "share", "ratio")


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (lambda: Options(5.0).share, 5.0),
        (lambda: Sample(3, 7.0).share, 7.0),
        (lambda: Options(share=5.0), Options(ratio=5.0)),
        (lambda: Thresholds(trace_share=5.0), Thresholds(trace_ratio=5.0)),
    ],
    ids=["property", "property of a NamedTuple", "constructor", "constructor of Thresholds"],
)
def test_the_warning_points_at_the_line_of_the_user(call, expected):
    with pytest.warns(DeprecationWarning, match=r"'(trace_)?share' is deprecated: use '(trace_)?ratio'") as caught:
        assert call() == expected
    (warning,) = caught
    assert warning.filename == __file__
    assert warning.lineno == call.__code__.co_firstlineno


def test_each_old_argument_warns_and_new_ones_do_not():
    with pytest.warns(DeprecationWarning) as caught:
        assert Options(share=5.0, old=3) == Options(5.0, 3)
    assert {str(warning.message) for warning in caught} == {
        "'share' is deprecated: use 'ratio'",
        "'old' is deprecated: use 'new'",
    }


def test_the_signature_and_the_documentation_name_what_to_use():
    assert list(inspect.signature(Options).parameters) == ["ratio", "new"]
    assert Options.share.__doc__ == "Deprecated: use ``ratio``."
