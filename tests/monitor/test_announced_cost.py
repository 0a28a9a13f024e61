"""What is said before training about the cost of many layers."""

import pytest
from lightning_cka.monitor.announced_cost import _digit


@pytest.mark.parametrize(("value", "text"), [(0.031, "0.03"), (0.96, "1"), (6.2, "6"), (12.4, "10"), (4321, "4000")])
def test_seconds_have_one_digit_and_no_exponent(value, text):
    assert _digit(value) == text
