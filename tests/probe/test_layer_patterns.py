"""Patterns of layer names are those of paths."""

from fnmatch import fnmatchcase

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning_cka.probe.layer_patterns import (
    across_dots,
    hint_of_dots,
    is_class_name,
    names_matching,
    stops_before_ten,
)
from torch import nn

NAMES = ["net", "net.0", "net.0.norm", "net.0.attn.q", "net.10", "norm", "conv1", "conv2.norm", "conv"]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("net.*", ["net.0", "net.10"]),
        ("net.**", ["net.0", "net.0.norm", "net.0.attn.q", "net.10"]),
        ("*", ["net", "norm", "conv1", "conv"]),
        ("**", NAMES),
        ("net.?", ["net.0"]),
        ("net?0", []),
        ("net.[0-9]", ["net.0"]),
        ("net.[!1]*", ["net.0"]),
        ("net[.]0", []),
        ("*.norm", ["conv2.norm"]),
        ("**.norm", ["net.0.norm", "norm", "conv2.norm"]),
        ("net.**.q", ["net.0.attn.q"]),
        ("net.**.0", ["net.0"]),
        ("**norm", ["net.0.norm", "norm", "conv2.norm"]),
        ("conv?", ["conv1"]),
        ("conv*", ["conv1", "conv"]),
        ("conv**", ["conv1", "conv2.norm", "conv"]),
        ("net.0.**.**.q", ["net.0.attn.q"]),
        ("Net.*", []),
        ("net.[", []),
        ("net.[9-0]", []),
    ],
)
def test_patterns_of_paths(pattern, expected):
    assert names_matching(pattern, NAMES) == expected


def matches(pattern, name):
    """Match levels one by one: the definition, for patterns whose ``**`` are whole levels."""
    if not pattern:
        return not name
    if pattern[0] == "**":
        least = 1 if len(pattern) == 1 else 0  # At the end, it is everything below.
        return any(matches(pattern[1:], name[taken:]) for taken in range(least, len(name) + 1))
    return bool(name) and fnmatchcase(name[0], pattern[0]) and matches(pattern[1:], name[1:])


LEVELS = st.lists(st.sampled_from(["a", "b", "ab", "a1"]), min_size=1, max_size=4)
PATTERNS = st.lists(
    st.sampled_from(["a", "ab", "*", "**", "?", "a?", "a*", "[ab]", "*b", "[!b]*"]), min_size=1, max_size=4
)


@given(PATTERNS, st.lists(LEVELS, max_size=8))
@settings(max_examples=300, deadline=None, derandomize=True)
def test_patterns_match_level_by_level(pattern, names):
    joined = list(dict.fromkeys(".".join(name) for name in names))
    expected = [name for name in joined if matches(pattern, name.split("."))]
    assert names_matching(".".join(pattern), joined) == expected


@given(PATTERNS, st.lists(LEVELS, max_size=8))
@settings(max_examples=200, deadline=None, derandomize=True)
def test_doubled_asterisks_match_all_that_single_ones_matched(pattern, names):
    joined = {".".join(name) for name in names}
    old = ".".join(level for level in pattern if "?" not in level and "[!" not in level)
    assert {name for name in joined if fnmatchcase(name, old)} <= set(names_matching(across_dots(old), joined))


def test_a_pattern_that_needs_dots_is_told_what_to_write():
    assert hint_of_dots("*.attn.q", NAMES) == (
        "'*' and '?' stay within one dotted level; write ** to match across dots: '**.attn.q' (also net.0.attn.q)"
    )
    assert hint_of_dots("net.**", NAMES) == hint_of_dots("nett.*", NAMES) == ""
    assert "dots (also" in hint_of_dots("net.0?norm", NAMES)


@pytest.mark.parametrize("text", ["Linear", "torch.nn.Linear", "torch.nn.modules.linear.Linear"])
def test_names_of_classes(text):
    assert is_class_name(text, nn.Linear)
    assert is_class_name(text, nn.modules.linear.NonDynamicallyQuantizableLinear)  # It is derived from it.
    assert not is_class_name(text, nn.Bilinear)


@pytest.mark.parametrize("text", ["linear", "other.Linear", "torch.n.Linear", "object", ""])
def test_names_of_other_classes(text):
    assert not is_class_name(text, nn.Linear)


BLOCKS = [f"net.{i}" for i in range(12)] + [f"net.{i}.norm" for i in range(12)] + ["net.0.conv9", "net.1.conv10"]


@pytest.mark.parametrize(
    ("pattern", "missed"),
    [
        ("net.?", ["net.10", "net.11"]),
        ("net.[0-9].norm", ["net.10.norm", "net.11.norm"]),
        ("net.[5-9]", ["net.10", "net.11"]),
        ("net.[0-4]", []),
        ("net.*", []),
        ("net.?.conv?", []),
    ],
)
def test_patterns_that_stop_at_9(pattern, missed):
    assert stops_before_ten(pattern, names_matching(pattern, BLOCKS), BLOCKS) == missed
