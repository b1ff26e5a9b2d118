"""From proposals to regions: best phrase, threshold, border, doubles, overlap, cap; each reason is counted."""

import numpy as np
import pytest

from cloc.label.proposals import Proposals, to_regions

PHRASES = ("dog", "red ball")


def found(*rows):
    """Rows of (box, score, phrase number)."""
    boxes = np.array([row[0] for row in rows], dtype=float).reshape(-1, 4)
    return Proposals(boxes, np.array([row[1] for row in rows]), np.array([row[2] for row in rows], dtype=int))


BOX, NEAR = (10, 10, 30, 30), (11, 10, 31, 30)

# case, proposals, options, (phrase, score) of the regions, dropped
CASES = [
    ("most confident first", [(BOX, 0.2, 0), (NEAR, 0.7, 1)], {}, [("red ball", 0.7), ("dog", 0.2)], {}),
    ("the threshold itself is not above it", [(BOX, 0.1, 0)], {}, [], {}),
    ("one box with two phrases", [(BOX, 0.3, 0), (BOX, 0.6, 1)], {}, [("red ball", 0.6)], {"doubled_box": 1}),
    ("outside", [((50, 0, 60, 9), 0.9, 0), (BOX, 0.3, 0)], {}, [("dog", 0.3)], {"box_outside": 1}),
    ("no number", [((np.nan, 0, 60, 9), 0.9, 0)], {}, [], {"box_outside": 1}),
    ("near, no nms", [(BOX, 0.9, 0), (NEAR, 0.8, 0)], {}, [("dog", 0.9), ("dog", 0.8)], {}),
    ("near, nms", [(NEAR, 0.8, 1), (BOX, 0.9, 0)], {"overlap": 0.5}, [("dog", 0.9)], {"overlapping_box": 1}),
    ("cap", [(NEAR, 0.8, 1), (BOX, 0.9, 0)], {"limit": 1}, [("dog", 0.9)], {"box_above_limit": 1}),
    ("equal scores keep their order", [(NEAR, 0.5, 1), (BOX, 0.5, 0)], {}, [("red ball", 0.5), ("dog", 0.5)], {}),
    ("nothing", [], {"overlap": 0.5, "limit": 3}, [], {}),
]


@pytest.mark.parametrize(("rows", "options", "kept", "dropped"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_regions_of_an_image(rows, options, kept, dropped):
    regions, left = to_regions(found(*rows), PHRASES, (40, 35), 0.1, **options)
    assert [(region.phrase, region.score) for region in regions] == kept
    assert left == dropped


def test_a_box_is_cut_at_the_border_and_rounded():
    (region,) = to_regions(found(((-5, 1.23456, 99, 20), 0.5, 0)), PHRASES, (40, 35), 0.1)[0]
    assert region.box == (0.0, 1.23, 40.0, 20.0)
