"""Numbers as exporters write them: one rule for ids, boxes and flags."""

import math

import pytest

from cloc.formats.numbers import parse_flag, parse_four, parse_real, parse_whole

NAN, INF = math.nan, math.inf


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (7, 7), ("7", 7), (" 7 ", 7), (7.0, 7), ("7.0", 7), ("-3", -3), ("007", 7), (2**63 - 1, 2**63 - 1),
        (True, None), (None, None), ("", None), ("a", None), (7.5, None), ("7.5", None), (NAN, None), (INF, None),
        (2**63, None), (str(2**63), None), ("9" * 5000, None), (1e300, None), ([7], None), ("1_0", None), ("٧", None),
    ],
)  # fmt: skip
def test_whole_numbers(value, number):
    assert parse_whole(value) == number


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (0.5, 0.5), (2, 2.0), ("0.5", 0.5), ("1e-3", 0.001), (" 3 ", 3.0), (".5", 0.5), (True, None), ("nan", None),
        ("inf", None), (NAN, None), (INF, None), (10**400, None), ("1e999", None), ("0x1", None), (None, None),
    ],
)  # fmt: skip
def test_real_numbers(value, number):
    assert parse_real(value) == number


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (0, False), (1, True), ("0", False), ("1", True), ("0.0", False), ("false", False), ("True", True),
        (True, True), (False, False), (None, False), ("", False), ([1], False), ("maybe", False), (0.0, False),
    ],
)  # fmt: skip
def test_flags(value, told):
    assert parse_flag(value) is told


def test_four_numbers_of_a_box():
    assert parse_four([1, 2.5, "3", " 4.5"]) == (1.0, 2.5, 3.0, 4.5)
    assert parse_four((1, NAN, 3, 4))[0] == 1.0
    assert parse_four([1, 10**400, 3, 4]) == (INF,) * 4
    for bad in ([1, 2, 3], [1, 2, 3, "x"], [1, 2, 3, None], "1234", None, [1, 2, 3, True], {"x": 1}):
        assert parse_four(bad) is None
