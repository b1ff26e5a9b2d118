"""In which frame boxes are is told by share: a single odd box changes nothing."""

from collections import Counter

import numpy as np
import pytest

from cloc.formats.frames import UNIT, XYWH, XYXY, Frame, FrameWatch, PaddingWatch, judge_frame

W, H, K = 640, 480, 120
SIDES = np.array([W, H, W, H])


def boxes_in(form, scale="pixels"):
    """(K, 4) the same boxes in one frame."""
    random = np.random.default_rng(0)
    sides = random.uniform(20, 200, (K, 2))
    low = random.uniform(0, 1, (K, 2)) * ([W, H] - sides)
    boxes = {
        "xywh": np.concatenate([low, sides], axis=1),
        "xyxy": np.concatenate([low, low + sides], axis=1),
        "centre": np.concatenate([low + sides / 2, sides], axis=1),
    }[form]
    return boxes / SIDES * {"pixels": SIDES, "unit": 1, "thousand": 1000}[scale]


def sizes(count=K):
    return np.tile([W, H], (count, 1))


@pytest.mark.parametrize("odd", [None, [600, 10, W + 40, 100], [100, 100, 100, 150], [500, 400, 600, 700]])
@pytest.mark.parametrize(
    ("promised", "form", "scale", "seen"),
    [
        (XYWH, "xywh", "pixels", None),
        (XYWH, "xyxy", "pixels", Frame("xyxy")),
        (XYWH, "centre", "pixels", Frame("centre")),
        (XYWH, "xywh", "unit", Frame("xywh", "unit")),
        (XYWH, "xyxy", "unit", Frame("xyxy", "unit")),
        (XYWH, "xywh", "thousand", Frame("xywh", "thousand")),
        (XYXY, "xyxy", "pixels", None),
        (XYXY, "xywh", "pixels", Frame("xywh")),
        (XYXY, "xyxy", "unit", Frame("xyxy", "unit")),
        (XYXY, "xyxy", "thousand", Frame("xyxy", "thousand")),
        (UNIT, "xyxy", "unit", None),
        (UNIT, "xywh", "unit", Frame("xywh", "unit")),
        (UNIT, "xyxy", "pixels", Frame("xyxy")),
        (UNIT, "xyxy", "thousand", Frame("xyxy", "thousand")),
    ],
)
def test_frames_are_told_by_share(promised, form, scale, seen, odd):
    boxes = boxes_in(form, scale)
    if odd is not None:
        boxes[0] = odd if scale == "pixels" else np.array(odd) * 10
    misfit = judge_frame(boxes, sizes(), promised)
    if seen is None:
        assert misfit is None
        return
    assert misfit.seen == K
    if seen.scale == promised.scale or promised.scale == "unit":
        assert misfit.better == seen
    else:
        assert misfit.better.scale == seen.scale  # which corners of 0 to 1 are meant may fit both ways


def test_boxes_of_another_size_are_refused_without_a_name():
    misfit = judge_frame(boxes_in("xywh") * 2.5, sizes(), XYWH)
    assert misfit.better is None
    assert "are they of images of another size" in str(misfit)


def test_few_boxes_are_only_judged_by_shares_of_the_image():
    assert judge_frame(boxes_in("xyxy")[:7], sizes(7)) is None
    assert judge_frame(np.array([[0.1, 0.2, 0.3, 0.4]]), sizes(1)).better.scale == "unit"
    assert judge_frame(np.array([[0, 0, 1, 1]]), sizes(1)) is None  # a pixel at the corner
    assert judge_frame(np.zeros((0, 4)), sizes(0)) is None


def show(watch, boxes):
    for box in boxes:
        watch.see(tuple(box), W, H)
    watch.refuse()


def test_a_watch_judges_at_the_start_and_an_even_sample_of_the_rest():
    corners, right = boxes_in("xyxy"), boxes_in("xywh")
    message = r"long.json: expected bbox as x, y, width, height in pixels, but .* of 1,000"
    with pytest.raises(ValueError, match=message):
        show(FrameWatch("long.json"), np.tile(corners, (10, 1)))
    late = FrameWatch("late.json")
    show(late, np.tile(right, (10, 1)))
    with pytest.raises(ValueError, match=r"late.json: .* end outside their image or have no area"):
        show(late, np.tile(corners, (200, 1)))
    show(FrameWatch("fine.json"), np.tile(right, (50, 1)))
    FrameWatch("empty.json").refuse()


@pytest.mark.parametrize(("scale", "told"), [(1.0, 0), (0.9, 0), (0.5, 200), (0.16, 200)])
def test_boxes_of_a_smaller_picture_are_told(scale, told):
    draw = np.random.default_rng(0)
    span = draw.uniform(0.05, 0.6, (200, 2))
    low = draw.uniform(0, 1, (200, 2)) * (1 - span)
    watch, dropped = FrameWatch("f.json"), Counter()
    for box in (np.concatenate([low, span], axis=1) * [640, 480, 640, 480] * scale).tolist():
        watch.see(tuple(box), 640, 480)
    watch.refuse(dropped)
    assert dropped["box_of_smaller_picture"] == told


@pytest.mark.parametrize(("padded", "size"), [(True, (640, 400)), (True, (400, 640)), (False, (640, 400))])
def test_boxes_of_the_padded_photo_and_of_the_photo_are_told_apart(padded, size):
    draw = np.random.default_rng(0)
    of_photo = np.sort(draw.uniform(0, 1, (60, 2, 2)), axis=1)
    axis, share = int(size[0] > size[1]), min(size) / max(size)
    of_square = of_photo.copy()
    of_square[..., axis] = (1 - share) / 2 + share * of_photo[..., axis]
    for boxes, is_square in ((of_photo, False), (of_square, True)):
        watch, dropped = PaddingWatch("f.json", padded), Counter()
        for box in boxes.reshape(-1, 4).tolist():
            watch.see(tuple(box), *size)
        if padded and not is_square:
            with pytest.raises(ValueError, match=r"reach into the padding.*--coordinates unit"):
                watch.refuse(dropped)
        else:
            watch.refuse(dropped)
            assert dropped == ({"box_of_padded_square": 60} if is_square and not padded else {})
