import numpy as np
import pytest
from PIL import Image

from cloc.boxes import iou
from cloc.images import CLIP_MEAN, DetectionPlacement, pad_colour, place_top_left


@pytest.mark.parametrize(
    ("size", "scaled"),
    [((640, 480), (1067, 800)), ((480, 640), (800, 1067)), ((2000, 500), (1333, 333)), ((1, 1), (800, 800)),
     ((10_000, 1), (1333, 1)), ((10_000, 10_000), (800, 800))],
)  # fmt: skip
def test_short_and_long_side_bound_the_resize(size, scaled):
    placement = DetectionPlacement(*size, 800, 1333)
    assert placement.scaled == scaled
    whole = placement.to_canvas([[0, 0, *size]], (1344, 1344))
    assert whole[0].tolist() == pytest.approx([0, 0, scaled[0] / 1344, scaled[1] / 1344])


def test_boxes_come_back_and_are_cut_at_the_border():
    placement = DetectionPlacement(50, 40, 96, 128)
    boxes = np.array([[0.0, 0.0, 50.0, 40.0], [3.0, 7.0, 21.5, 30.25]])
    canvas = (160, 128)
    np.testing.assert_allclose(placement.to_pixels(placement.to_canvas(boxes, canvas), canvas), boxes, atol=1e-12)
    assert placement.to_pixels([[-0.5, 0.1, 2.0, 3.0]], canvas)[0].tolist()[0::2] == [0.0, 50.0]
    assert placement.to_pixels([], canvas).shape == (0, 4)


def test_the_image_lies_where_its_boxes_say():
    """A white square on black: its box on the canvas is where the canvas is white."""
    picture = np.zeros((40, 60, 3), dtype=np.uint8)
    picture[10:30, 20:50] = 255
    placement = DetectionPlacement(60, 40, 80, 200)
    canvas = (160, 96)
    placed = np.asarray(place_top_left(Image.fromarray(picture), placement.scaled, canvas))
    assert placed.shape == (96, 160, 3)
    assert tuple(placed[95, 159]) == pad_colour(CLIP_MEAN)
    rows, columns = np.nonzero(placed[:80, :120].mean(axis=2) > 127)
    seen = [columns.min() / 160, rows.min() / 96, (columns.max() + 1) / 160, (rows.max() + 1) / 96]
    assert iou([seen], placement.to_canvas([[20, 10, 50, 30]], canvas))[0, 0] > 0.95


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="expected an image of at least 1 x 1 pixels"):
        DetectionPlacement(0, 4, 8, 8)
    with pytest.raises(ValueError, match="short_side <= long_side"):
        DetectionPlacement(4, 4, 9, 8)
    with pytest.raises(ValueError, match="expected a canvas of at least"):
        place_top_left(Image.new("RGB", (4, 4)), (8, 8), (8, 7))
