"""Damaged and hostile inputs: every reader takes, counts or refuses them in one line (`python -m tools.damage`)."""

import pytest

from tools.damage.readers import READERS, plan
from tools.damage.running import FATAL, Reader, feed_all

RARE = {"checkpoint", "export", "tower"}
"""Half a second each and more: a few in the suite, many in the slow test."""
THOUSAND, TEN_THOUSAND = 1000, 10_000
NUMBERS = {reader.name: [n for one, n in plan(THOUSAND, list(READERS)) if one is reader] for reader in READERS}


def fatal(jobs, seed, folder):
    """What no input may do, by what makes that input again."""
    seen = list(feed_all(jobs, seed, folder))
    assert len(seen) == len(jobs)
    return {
        f"python -m tools.damage --seed {seed} --only '{one.reader}' --number {one.number}": one.told[:400]
        for one in seen
        if one.kind == FATAL
    }


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.name)
def test_a_thousand_damaged_inputs_end_in_no_other_way(reader, spine_warm, tmp_path):
    numbers = NUMBERS[reader.name][: 2 if reader.name in RARE else None]
    assert fatal([(reader, number) for number in numbers], 0, tmp_path) == {}


@pytest.mark.slow
@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.name)
def test_ten_thousand_damaged_inputs_end_in_no_other_way(reader, spine_warm, tmp_path):
    jobs = [(one, number) for one, number in plan(TEN_THOUSAND, list(READERS)) if one is reader]
    assert fatal(jobs, 1, tmp_path) == {}


def _raise(state, random, folder):
    raise TypeError("no such luck")


def _exit(state, random, folder):
    import os

    os._exit(3)


def _allocate(state, random, folder):
    return "ok" if len(bytearray(1 << 32)) else ""


def _refuse(state, random, folder):
    raise ValueError("expected a box, got none; name one")


@pytest.mark.parametrize(
    ("feed", "kind", "told"),
    [
        (_raise, FATAL, "TypeError: no such luck"),
        (_exit, FATAL, "the process died (exit code 3)"),
        (_allocate, FATAL, "MemoryError"),
        (_refuse, "refused", "expected a box, got none; name one"),
        (lambda *_: "ok", "ok", ""),
    ],
)
def test_what_falls_is_seen_and_the_next_one_is_fed(feed, kind, told, tmp_path):
    reader = Reader("one", 1, lambda world: None, feed)
    found = list(feed_all([(reader, 0), (reader, 1)], 0, tmp_path))
    assert [(one.number, one.kind) for one in found] == [(0, kind), (1, kind)]
    assert all(one.told.startswith(told) for one in found)


def test_the_same_number_is_the_same_input(tmp_path):
    (image,) = (reader for reader in READERS if reader.name == "image")
    for name in ("one", "two"):
        list(feed_all([(image, 5), (image, 6)], 0, tmp_path / name, keep=True))
    one, two = (sorted((tmp_path / name / "inputs").rglob("photo")) for name in ("one", "two"))
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in two]
    assert one[0].read_bytes() != one[1].read_bytes()
