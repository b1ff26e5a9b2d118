import numpy as np
import pytest

from cloc.box_text import BoxTextFormat
from cloc.boxes import iou

SIZE = (200, 100)
BOX = (20.0, 10.0, 120.0, 60.0)
CONVENTIONS = [
    BoxTextFormat("pixels", padded=False),
    BoxTextFormat("unit", padded=True),
    BoxTextFormat("unit", padded=False, digits=2),
    BoxTextFormat("thousand", padded=True),
    BoxTextFormat("thousand", padded=False),
    BoxTextFormat("bins", padded=True, bins=32),
]


@pytest.mark.parametrize("places", CONVENTIONS, ids=lambda places: places.name)
def test_a_box_survives_writing_and_reading(places):
    found = places.read(f"It is at {places.write(BOX, SIZE)}.", SIZE)
    assert len(found.boxes_xyxy) == 1
    assert not found.failures
    assert iou(np.array([BOX]), np.array(found.boxes_xyxy))[0, 0] > 0.9


def test_texts_are_those_of_the_convention():
    assert BoxTextFormat("pixels", padded=False).write(BOX, SIZE) == "[20, 10, 120, 60]"
    assert BoxTextFormat("unit", padded=False, digits=2).write(BOX, SIZE) == "[0.10, 0.10, 0.60, 0.60]"
    # 50 rows are padded on top of a 200 x 100 image, and as many below.
    assert BoxTextFormat("unit", padded=True).write(BOX, SIZE) == "[0.100, 0.300, 0.600, 0.550]"
    assert BoxTextFormat("thousand", padded=False).write(BOX, SIZE) == "[100, 100, 600, 600]"
    assert BoxTextFormat("bins", padded=False, bins=11).write(BOX, SIZE) == "[1, 1, 6, 6]"


@pytest.mark.parametrize(
    ("places", "text", "reason"),
    [
        (BoxTextFormat(), "I cannot see it.", "no_box"),
        (BoxTextFormat(), "[0.1, 0.2, 0.3]", "not_four_numbers"),
        (BoxTextFormat(), "[0.1, 0.2, x, 0.4]", "not_four_numbers"),
        (BoxTextFormat(), "[1e3, 0, 1, 1]", "not_four_numbers"),
        (BoxTextFormat(), "[0.1, 0.2, 1.3, 0.4]", "out_of_range"),
        (BoxTextFormat(), "[10, 20, 30, 40]", "out_of_range"),
        (BoxTextFormat("thousand"), "[0.1, 0.2, 0.3, 0.4]", "not_whole"),
        (BoxTextFormat("bins", bins=32), "[0, 0, 32, 3]", "out_of_range"),
        (BoxTextFormat(padded=False), "[0.5, 0.2, 0.5, 0.4]", "empty_box"),
        (BoxTextFormat(padded=False), "[0.5, 0.2, 0.3, 0.4]", "empty_box"),
        (BoxTextFormat(), "[0.1, 0.0, 0.2, 0.2]", "empty_box"),  # it lies in the padding only
    ],
)
def test_what_does_not_keep_to_the_convention_is_counted(places, text, reason):
    found = places.read(text, SIZE)
    assert found.boxes_xyxy == ()
    assert dict(found.failures) == {reason: 1}


def test_several_boxes_and_a_wrong_one():
    reading = BoxTextFormat(padded=False).read("a [0, 0, 0.5, 0.5] b [0, 0, 1, 1] c [1]", SIZE)
    assert reading.boxes_xyxy == ((0.0, 0.0, 100.0, 50.0), (0.0, 0.0, 200.0, 100.0))
    assert dict(reading.failures) == {"not_four_numbers": 1}


def test_the_convention_lies_in_the_folder(tmp_path):
    with pytest.raises(ValueError, match=r"no places\.json, so it is not known how this host writes places"):
        BoxTextFormat.load(tmp_path)
    BoxTextFormat("thousand", padded=True).save(tmp_path)
    assert BoxTextFormat.load(tmp_path) == BoxTextFormat("thousand", padded=True)
    for wrong in ('{"schema": 1, "order": "yxyx"}', "[1]"):
        (tmp_path / "places.json").write_text(wrong)
        with pytest.raises(ValueError, match="expected schema 1, order xyxy"):
            BoxTextFormat.load(tmp_path)
    (tmp_path / "places.json").write_text("{")
    with pytest.raises(ValueError, match="expected how a host writes places, got text that is no JSON"):
        BoxTextFormat.load(tmp_path)


def test_conventions_that_contradict_themselves():
    with pytest.raises(ValueError, match="pixels refer to the original image"):
        BoxTextFormat("pixels", padded=True)
    with pytest.raises(ValueError, match="expected a scale of pixels, unit, thousand, bins"):
        BoxTextFormat("percent")
