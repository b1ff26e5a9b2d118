import math

import pytest
import torch

from cloc.losses.assignment import assign, row_iou


def grid(stride, rows, columns, side):
    """Square anchors of a level, row by row, in pixels."""
    y, x = torch.meshgrid(torch.arange(rows) + 0.5, torch.arange(columns) + 0.5, indexing="ij")
    centres = torch.stack([x.flatten(), y.flatten()], dim=1) * stride
    return torch.cat([centres - side / 2, centres + side / 2], dim=1)


def pyramid(width=128, height=96):
    levels = [grid(s, math.ceil(height / s), math.ceil(width / s), 4 * s) for s in (8, 16, 32, 64)]
    return torch.cat(levels), [len(level) for level in levels]


def iou(a, b):
    w = min(a[2], b[2]) - max(a[0], b[0])
    h = min(a[3], b[3]) - max(a[1], b[1])
    if w <= 0 or h <= 0:
        return 0.0
    return w * h / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - w * h)


def assign_plain(anchors, level_sizes, boxes, top=9):
    """One box, one anchor at a time: {anchor: box} and the number of boxes without any."""
    anchors, boxes = anchors.tolist(), boxes.tolist()
    wanted = {}
    for b, box in enumerate(boxes):
        centre = ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)
        candidates, start = [], 0
        for size in level_sizes:
            rows = range(start, start + size)
            far = {k: math.hypot((anchors[k][0] + anchors[k][2]) / 2 - centre[0],
                                 (anchors[k][1] + anchors[k][3]) / 2 - centre[1]) for k in rows}  # fmt: skip
            candidates += sorted(rows, key=far.get)[:top]
            start += size
        overlaps = [iou(anchors[k], box) for k in candidates]
        mean = sum(overlaps) / len(overlaps)
        deviation = (
            math.sqrt(sum((o - mean) ** 2 for o in overlaps) / (len(overlaps) - 1)) if len(overlaps) > 1 else 0.0
        )
        for k, overlap in zip(candidates, overlaps, strict=True):
            x, y = (anchors[k][0] + anchors[k][2]) / 2, (anchors[k][1] + anchors[k][3]) / 2
            if overlap >= mean + deviation and box[0] < x < box[2] and box[1] < y < box[3]:
                if k not in wanted or overlap > wanted[k][0]:
                    wanted[k] = (overlap, b)
    owners = {k: b for k, (_, b) in wanted.items()}
    return owners, len(set(range(len(boxes))) - set(owners.values()))


def random_boxes(count, seed=0, width=128, height=96, smallest=3.0):
    generator = torch.Generator().manual_seed(seed)
    sides = torch.tensor([width, height])
    size = smallest + torch.rand(count, 2, generator=generator, dtype=torch.float64) ** 2 * (sides - smallest)
    low = torch.rand(count, 2, generator=generator, dtype=torch.float64) * (sides - size)
    return torch.cat([low, low + size], dim=1)


@pytest.mark.parametrize("count", [0, 1, 2, 17, 500])
def test_agrees_with_the_plain_loop(count):
    anchors, sizes = pyramid()
    boxes = random_boxes(count, seed=count)
    found = assign(anchors, sizes, boxes)
    owners, lone = assign_plain(anchors, sizes, boxes)
    assert dict(zip(found.anchor.tolist(), found.box.tolist(), strict=True)) == owners
    assert found.lone == lone
    assert not found.forced.any()
    assert found.anchor.tolist() == sorted(found.anchor.tolist())


def test_one_box_by_hand():
    """Four anchors of 8 px in a row, a box that is the second one: IoUs 1/3, 1, 1/3, 0."""
    anchors = grid(4, 1, 4, 8)
    found = assign(anchors, [4], torch.tensor([[2.0, -2.0, 10.0, 6.0]]))
    mean = (1 + 2 / 3) / 4
    deviation = math.sqrt(((1 - mean) ** 2 + 2 * (1 / 3 - mean) ** 2 + mean**2) / 3)
    assert 1 / 3 < mean + deviation < 1
    assert (found.anchor.tolist(), found.box.tolist(), found.lone) == ([1], [0], 0)


def test_an_anchor_that_two_boxes_want_goes_to_the_better_one():
    anchors = grid(8, 1, 1, 8)
    boxes = torch.tensor([[0.0, 0.0, 8.0, 6.0], [0.0, 0.0, 8.0, 7.0]])
    found = assign(anchors, [1], boxes)
    assert (found.anchor.tolist(), found.box.tolist(), found.lone) == ([0], [1], 1)


def test_a_box_between_the_centres_has_no_anchor_unless_it_may_take_one():
    anchors = grid(8, 2, 2, 8)  # centres at 4 and 12
    small = torch.tensor([[6.0, 6.0, 9.0, 9.0]])
    assert assign(anchors, [4], small).lone == 1
    found = assign(anchors, [4], small, nearest_when_none=True)
    assert (found.lone, found.forced.tolist(), found.box.tolist()) == (0, [True], [0])
    assert found.anchor.tolist() == [0]  # the corner that it overlaps most


def test_forced_boxes_take_different_anchors_and_what_is_left_is_counted():
    anchors = grid(8, 1, 2, 8)
    small = torch.tensor([[7.0, 2.0, 9.5, 5.0], [7.0, 2.0, 9.5, 5.5], [7.0, 2.0, 9.5, 6.0]])
    found = assign(anchors, [2], small, nearest_when_none=True)
    assert (sorted(found.box.tolist()), found.lone) == ([0, 1], 1)


def test_a_forced_anchor_is_never_taken_from_another_box():
    anchors, sizes = pyramid()
    boxes = random_boxes(200, seed=3, smallest=1.0)
    plain, with_force = assign(anchors, sizes, boxes), assign(anchors, sizes, boxes, nearest_when_none=True)
    assert plain.lone > with_force.lone
    kept = dict(zip(with_force.anchor.tolist(), with_force.box.tolist(), strict=True))
    for anchor, box in zip(plain.anchor.tolist(), plain.box.tolist(), strict=True):
        assert kept[anchor] == box


def test_iou_of_rows_is_the_plain_iou():
    a, b = random_boxes(20, 1), random_boxes(20, 2)
    expected = [iou(x, y) for x, y in zip(a.tolist(), b.tolist(), strict=True)]
    assert row_iou(a[:, None], b)[:, 0].tolist() == pytest.approx(expected, abs=1e-12)
