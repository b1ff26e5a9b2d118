import math
from dataclasses import replace

import pytest
import torch

from cloc.structures import Batch, DataError, Region, Sample


@pytest.mark.parametrize(
    ("box", "phrase", "reason", "told"),
    [
        ((0, 0, 1), "a", "bad_box", r"expected four numbers \[x0, y0, x1, y1\] in pixels, got \(0, 0, 1\)"),
        ((0, 0, 1, "9"), "a", "bad_box", "expected four numbers"),
        ((0, 0, math.nan, 2), "a", "nan_box", "expected finite numbers"),
        ((0, 0, math.inf, 2), "a", "nan_box", "expected finite numbers"),
        ((3, 0, 3, 2), "a", "empty_box", r"expected x1 > x0 and y1 > y0"),
        ((5, 0, 3, 2), "a", "empty_box", r"expected x1 > x0 and y1 > y0"),
        ((0, 0, 1, 1), " \n", "empty_phrase", "expected a text"),
        ((0, 0, 1, 1), None, "empty_phrase", "expected a text, got None"),
        ((0, 0, 1, 1), "half \ud83d", "empty_phrase", "expected a text"),
    ],
)
def test_a_region_proves_itself(box, phrase, reason, told):
    with pytest.raises(DataError, match=told) as caught:
        Region(box, phrase)
    assert caught.value.reason == reason


@pytest.mark.parametrize("entry", [None, [], {"box": [0, 0, 1, 1]}, {"phrase": "a"}, "text"])
def test_an_entry_without_box_or_phrase_is_refused(entry):
    with pytest.raises(DataError, match="expected an object with 'box' and 'phrase'"):
        Region.from_json(entry)


@pytest.mark.parametrize("box", [None, 7, "0011", {"x": 1}])
def test_a_box_that_is_no_list_is_refused(box):
    with pytest.raises(DataError, match="expected four numbers"):
        Region.from_json({"box": box, "phrase": "a"})


def test_a_region_keeps_what_it_does_not_know():
    entry = {"box": [1, 2, 3.5, 4], "phrase": "Cat", "score": 0.5, "category_id": 3, "crowd": True, "span": [0, 3]}
    assert Region.from_json(entry).to_json() == entry
    assert "score" not in Region((0, 0, 1, 1), "a").to_json()


def test_a_region_is_cut_at_the_border():
    region = Region((-5, 2, 50, 20), "a", extras={"category_id": 1})
    assert region.inside(40, 30) == replace(region, box=(0, 2, 40, 20))
    whole = Region((0, 0, 40, 30), "a")
    assert whole.inside(40, 30) is whole
    with pytest.raises(DataError, match=r"lies outside its image of 40 x 30 pixels") as caught:
        Region((40, 0, 60, 9), "a").inside(40, 30)
    assert caught.value.reason == "box_outside"


def meta(**changes):
    return {"schema": 1, "width": 40, "height": 30, "caption": "c", "regions": [], **changes}


def test_a_sample_counts_what_it_leaves_out():
    entries = [
        {"box": [0, 0, 9, 9], "phrase": "fine"},
        {"box": [-3, 0, 9, 9], "phrase": "cut"},
        {"box": [0, 0, math.nan, 9], "phrase": "nan"},
        {"box": [5, 5, 5, 9], "phrase": "thin"},
        {"box": [50, 5, 60, 9], "phrase": "outside"},
        {"box": [0, 0, 9, 9], "phrase": ""},
        {"box": [0, 0, 9], "phrase": "short"},
        {"phrase": "no box"},
        "no object",
    ]
    sample = Sample.from_json("k", b"", "jpg", "c", meta(regions=entries))
    assert [region.phrase for region in sample.regions] == ["fine", "cut"]
    assert sample.regions[1].box == (0, 0, 9, 9)
    assert sample.dropped == {
        "box_cut_at_border": 1, "nan_box": 1, "empty_box": 1, "box_outside": 1, "empty_phrase": 1, "bad_box": 1,
        "bad_region": 2,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "bad_json"),
        ([], "bad_json"),
        ({"width": 4}, "bad_json"),
        (meta(schema=2), "bad_schema"),
        (meta(regions=None), "bad_json"),
        (meta(regions={"box": 1}), "bad_json"),
        (meta(captions="text"), "bad_json"),
        (meta(captions=[7]), "bad_text"),
        (meta(width="40"), "bad_size"),
        (meta(height=0), "bad_size"),
    ],
)
def test_a_sample_that_cannot_be_used_is_refused_by_reason(content, reason):
    with pytest.raises(DataError, match="k") as caught:
        Sample.from_json("k", b"", "jpg", "c", content)
    assert caught.value.reason == reason


def test_keys_and_formats_are_checked():
    with pytest.raises(DataError, match="expected a name without a dot"):
        Sample("a.b", b"", "jpg", 4, 4, "", ())
    with pytest.raises(DataError, match="expected jpg, png or webp, got 'gif'"):
        Sample("a", b"", "gif", 4, 4, "", ())


def test_a_sample_keeps_what_it_does_not_know():
    content = meta(regions=[{"box": [0, 0, 9, 9], "phrase": "a"}], captions=["c", "d"], licence=4, image_id=17)
    sample = Sample.from_json("k", b"x", "png", "c", content)
    assert sample.to_json() == content
    assert sample.extras == {"captions": ["c", "d"], "licence": 4, "image_id": 17}


def batch(**changes):
    ids = torch.zeros(2, 3, dtype=torch.int64)
    parts = {
        "pixel_values": torch.zeros(2, 3, 8, 8), "caption_ids": ids, "caption_attention": ids,
        "caption_image": torch.arange(2), "boxes": torch.zeros(2, 2, 4),
        "boxes_mask": torch.tensor([[True, False], [False, False]]), "phrase_ids": ids[:1], "phrase_attention": ids[:1],
        "phrase_of_region": torch.zeros(1, dtype=torch.int64), "phrase_text_id": torch.ones(1, dtype=torch.int64),
        "unique_in_image": torch.ones(1, dtype=torch.bool),
    }  # fmt: skip
    return Batch(**{**parts, **changes})


def test_a_batch_counts_and_is_moved_whole():
    made = batch(keys=("a", "b"))
    assert made.images_with_regions == 1
    moved = made.to("cpu")
    assert torch.equal(moved.boxes_mask, made.boxes_mask)
    assert (moved.keys, moved.skipped) == (made.keys, made.skipped)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"boxes": torch.zeros(2, 3, 4)}, r"boxes: expected \(2, M, 4\), got \(2, 3, 4\)"),
        ({"pixel_values": torch.zeros(3, 3, 8, 8)}, r"boxes: expected \(3, M, 4\)"),
        ({"phrase_of_region": torch.zeros(2)}, "phrase_of_region: expected 1 rows, got 2"),
        ({"unique_in_image": torch.zeros(0)}, "expected 1 rows"),
        ({"caption_image": torch.arange(1)}, "caption_ids: expected 1 rows, got 2"),
    ],
)
def test_a_batch_proves_itself(changes, told):
    with pytest.raises(ValueError, match=told):
        batch(**changes)
