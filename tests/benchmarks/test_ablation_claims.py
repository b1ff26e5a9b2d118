"""Claims are read as written, and what the seeds say about them agrees with tables of Student's t."""

import pytest

from benchmarks.experiments.claims import (
    AGREES,
    DISAGREES,
    UNCLEAR,
    UNMEASURED,
    judge_claim,
    measure_spread,
    parse_claim,
)


def test_a_claim_is_taken_apart():
    claim = parse_claim("pairs > 0.25 * boxes on ap_new against ap_old")
    assert (claim.left, claim.sign, claim.factor, claim.right) == ("pairs", ">", 0.25, "boxes")
    assert (claim.metric, claim.other, claim.margin) == ("ap_new", "ap_old", 0.0)
    plain = parse_claim("prompter > roialign on t2r_recall@10")
    assert (plain.factor, plain.metric, plain.other) == (1.0, "t2r_recall@10", "t2r_recall@10")
    assert parse_claim("m2 >= m4 on mean within 0.02").margin == 0.02


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a better than b", r"claim 'a better than b': expected `ARM > ARM on METRIC`"),
        ("a < b on m", "expected `ARM > ARM on METRIC`"),
        ("a > b on m within 0.1", "> takes no margin"),
        ("a <= b on m", "<= needs `within MARGIN`"),
    ],
)
def test_what_is_no_claim_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        parse_claim(text)


def test_spread_of_three_seeds_by_hand():
    found = measure_spread([0.1, 0.2, 0.3])
    assert found.mean == pytest.approx(0.2)
    assert found.deviation == pytest.approx(0.1)
    half = 4.302653 * 0.1 / 3**0.5  # t of two degrees of freedom at 97.5 %
    assert found.ci95 == pytest.approx((0.2 - half, 0.2 + half), abs=1e-6)
    assert measure_spread([0.4]).ci95 is None
    assert measure_spread([]).mean is None


@pytest.mark.parametrize(
    ("claim", "values", "expected"),
    [
        ("a > b on m", [0.10, 0.11, 0.12], AGREES),
        ("a > b on m", [-0.10, -0.11, -0.12], DISAGREES),
        ("a > b on m", [0.1, -0.1, 0.05], UNCLEAR),
        ("a > b on m", [0.1], UNMEASURED),
        ("a > b on m", [0.0, 0.0, 0.0], UNCLEAR),
        ("a <= b on m within 0.02", [0.0, 0.001, -0.001], AGREES),
        ("a <= b on m within 0.02", [0.10, 0.11, 0.12], DISAGREES),
        ("a <= b on m within 0.02", [0.0, 0.05, -0.05], UNCLEAR),
        ("a <= b on m within 0.02", [-0.5, -0.51, -0.52], AGREES),
        ("a >= b on m within 0.02", [-0.001, 0.0, 0.001], AGREES),
        ("a >= b on m within 0.02", [-0.10, -0.11, -0.12], DISAGREES),
        ("a >= b on m within 0.02", [0.5, 0.51, 0.52], AGREES),
        ("a >= b on m within 0.02", [-0.02, -0.02, -0.02], AGREES),
    ],
)
def test_verdicts(claim, values, expected):
    assert judge_claim(parse_claim(claim), measure_spread(values)) == expected
