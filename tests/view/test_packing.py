"""Packed numbers have the digits of the numbers."""

from __future__ import annotations

import base64
import json
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lightning_cka.view.packing import UNDEFINED, packed_integers, packed_json, shown_digits


def unpacked(text, shape):
    """Return integers from `packed_integers`, as the scripts do."""
    planes = np.frombuffer(zlib.decompress(base64.b64decode(text[1:])), np.uint8).reshape(4, -1)
    folded = planes.T.copy().view("<u4").ravel().astype(np.int64)
    values = ((folded >> 1) ^ -(folded & 1)).reshape(shape)
    total = np.cumsum(values, axis=0) if text[0] == "d" else values
    return (total + 2**31) % 2**32 - 2**31


@given(st.floats(-10, 10), st.integers(1, 8))
def test_shown_digits_are_those_of_formatting(value, decimals):
    digits = int(shown_digits(np.array([value]), decimals)[0])
    assert float(f"{value:.{decimals}f}") == digits / 10**decimals


@pytest.mark.parametrize("value", [0.00005, 0.12345, 0.99995, -0.00015, 1.00005, 0.5, 0.0, -0.0, 1.0])
def test_ties_are_rounded_by_the_digits_of_the_number(value):
    assert int(shown_digits(np.array([value]))[0]) == round(float(f"{value:.4f}") * 1e4)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300, -1e9])
def test_numbers_that_are_not_finite_or_too_large_are_undefined(value):
    assert shown_digits(np.array([[0.5, value]])).tolist() == [[5000, UNDEFINED]]


@pytest.mark.parametrize("shape", [(1, 1), (3, 2), (5, 4, 3), (2, 0), (1, 0, 3)])
def test_integers_of_all_sizes_come_back(shape):
    random = np.random.default_rng(0)
    for scale in (2, 2**8, 2**16, 2**31 - 1):
        integers = random.integers(-scale, scale, shape).astype(np.int32)
        integers[random.random(shape) < 0.2] = UNDEFINED
        assert unpacked(packed_integers(integers), shape).tolist() == integers.tolist()


def test_smooth_series_are_packed_as_differences():
    smooth = np.cumsum(np.random.default_rng(0).integers(-9, 9, (200, 50)), axis=0).astype(np.int32) + 10**6
    assert packed_integers(smooth)[0] == "d"
    rough = np.random.default_rng(0).integers(-(10**6), 10**6, (200, 50)).astype(np.int32)
    assert packed_integers(rough)[0] == "p"


def test_plain_values_come_back():
    value = [[0, "<b>", False], {"ä": None}]
    assert json.loads(zlib.decompress(base64.b64decode(packed_json(value)))) == value
