import numpy as np
import pytest
import torch

from cloc.data.collate import collate, prepare
from cloc.images import Placement
from cloc.structures import DataError
from cloc.text import text_id
from cloc.tokenizer import clip_tokenizer, tokenise

REGIONS = [
    ((0, 0, 10, 10), "a"),
    ((10, 0, 30, 10), "b"),
    ((0, 10, 40, 30), "c"),
    ((5, 5, 9, 9), "d"),
    ((1, 1, 2, 2), "e"),
]


def ready(sample, regions=4, seed=0, epoch=0):
    return prepare(sample, 32, regions, seed, epoch)


def batch(*prepared, regions=4):
    return collate(prepared, clip_tokenizer(), 32, regions)


def test_boxes_move_along_with_resize_and_pad(spine_sample):
    item = ready(spine_sample(size=(40, 30), regions=REGIONS[2:3]))
    np.testing.assert_allclose(item.boxes, [[0, 15 / 40, 1, 35 / 40]], atol=1e-7)
    assert item.boxes.dtype == np.float32
    assert item.pixel_values.shape == (3, 32, 32)


@pytest.mark.parametrize("size", [(40, 30), (31, 40), (33, 33)])
def test_each_box_is_its_own_region(size, spine_sample):
    item = ready(spine_sample(size=size, regions=REGIONS), regions=9)
    by_phrase = dict(zip(item.phrases, item.boxes, strict=True))
    assert len(by_phrase) == 5
    for box, phrase in REGIONS:
        inside = np.clip(box, 0, [*size, *size])
        np.testing.assert_allclose(by_phrase[phrase], Placement(*size).to_canvas([inside])[0], atol=1e-6)


def test_the_draw_depends_on_seed_epoch_and_key_only(spine_sample):
    sample = spine_sample(key="x", regions=REGIONS)
    first = ready(sample, regions=2, epoch=4).phrases
    ready(spine_sample(key="y", regions=REGIONS), regions=2)
    torch.manual_seed(99)
    np.random.seed(99)  # noqa: NPY002
    assert ready(sample, regions=2, epoch=4).phrases == first
    assert len({ready(sample, 2, epoch=e).phrases for e in range(20)}) > 4
    assert len({ready(sample, 2, seed=s).phrases for s in range(20)}) > 4
    assert len({ready(spine_sample(key=f"k{k}", regions=REGIONS), 2).phrases for k in range(20)}) > 4


def test_every_region_is_drawn_equally_often(spine_sample):
    sample = spine_sample(size=(8, 8), regions=[((0, 0, i + 1, 4), str(i)) for i in range(5)])
    drawn = [phrase for epoch in range(400) for phrase in ready(sample, 2, epoch=epoch).phrases]
    shares = [drawn.count(str(i)) / 400 for i in range(5)]
    assert max(abs(share - 0.4) for share in shares) < 0.09


def test_no_regions_are_drawn_for_the_clip_objective(spine_sample):
    item = ready(spine_sample(regions=REGIONS), regions=0)
    assert item.boxes.shape == (0, 4)
    assert batch(item, regions=0).boxes_mask.tolist() == [[False]]


def test_a_phrase_that_stands_for_two_regions_is_not_unique(spine_sample):
    regions = [((0, 0, 9, 9), "Dog"), ((10, 0, 19, 9), " dog "), ((0, 10, 9, 19), "cat")]
    item = ready(spine_sample(regions=regions))
    assert dict(zip(item.phrases, item.unique, strict=True)) == {"Dog": False, " dog ": False, "cat": True}
    for epoch in range(8):  # also where the other dog was not drawn
        one = ready(spine_sample(regions=regions), regions=1, epoch=epoch)
        assert one.unique == (one.phrases[0] == "cat",)


def test_a_caption_is_drawn_among_several(spine_sample):
    sample = spine_sample(captions=["one", "", "two", "three"])
    assert {ready(sample, epoch=e).caption for e in range(40)} == {"one", "two", "three"}


def test_equal_phrases_become_one_row(spine_sample):
    first = ready(spine_sample("a", regions=[((0, 0, 9, 9), "Red  Cat"), ((9, 9, 20, 20), "dog")]))
    second = ready(spine_sample("b", regions=[((0, 0, 9, 9), "red cat")], caption=""))
    made = batch(first, second)
    assert made.boxes_mask.tolist() == [[True, True, False, False], [True, False, False, False]]
    assert made.phrase_of_region.tolist() == [0, 1, 0]
    assert made.phrase_text_id.tolist() == [text_id("red cat"), text_id("dog")]
    assert len(made.phrase_ids) == 2
    assert made.caption_image.tolist() == [0]
    assert made.skipped == {"no_caption": 1}
    assert made.keys == ("a", "b")
    assert not made.boxes[~made.boxes_mask].any()


def test_a_batch_equals_its_samples_one_by_one(spine_sample):
    items = [
        ready(spine_sample("a", (40, 30), REGIONS[:3], "a caption")),
        ready(spine_sample("b", (30, 40), [], "", seed=1)),
        ready(spine_sample("c", (25, 25), REGIONS[1:2], "another, longer caption", seed=2)),
    ]
    whole, regions, captions = batch(*items), 0, 0
    for row, item in enumerate(items):
        alone = batch(item)
        count = int(alone.boxes_mask.sum())
        assert torch.equal(whole.pixel_values[row], alone.pixel_values[0])
        assert torch.equal(whole.boxes[row], alone.boxes[0])
        assert torch.equal(whole.boxes_mask[row], alone.boxes_mask[0])
        assert torch.equal(whole.unique_in_image[regions : regions + count], alone.unique_in_image)
        rows = whole.phrase_of_region[regions : regions + count]
        assert torch.equal(whole.phrase_text_id[rows], alone.phrase_text_id[alone.phrase_of_region])
        if len(alone.caption_ids):
            length = int(alone.caption_attention.sum())
            assert torch.equal(whole.caption_ids[captions, :length], alone.caption_ids[0, :length])
        regions, captions = regions + count, captions + len(alone.caption_ids)


def test_an_empty_batch_has_the_right_shapes():
    made = batch()
    assert made.pixel_values.shape == (0, 3, 32, 32)
    assert made.boxes.shape == (0, 4, 4)
    assert made.images_with_regions == 0
    assert tokenise(clip_tokenizer(), [])[0].shape == (0, 1)


def test_regions_left_out_are_counted(spine_sample):
    regions = [
        ((0, 0, 10, 10), "fine"),
        ((float("nan"), 0, 10, 10), "nan"),
        ((5, 5, 5, 9), "no area"),
        ((50, 50, 60, 60), "outside"),
        ((30, 20, 60, 60), "over the border"),
        ((0, 0, 9, 9), "  "),
    ]
    made = batch(ready(spine_sample(size=(40, 30), regions=regions), regions=9), regions=9)
    expected = {"nan_box": 1, "empty_box": 1, "box_outside": 1, "box_cut_at_border": 1, "empty_phrase": 1}
    assert made.skipped == expected
    assert int(made.boxes_mask.sum()) == 2


def test_broken_images_are_refused_with_a_reason(spine_sample):
    good = spine_sample(kind="JPEG")
    for image, reason in ((good.image[: len(good.image) // 2], "broken_image"), (b"none", "broken_image")):
        broken = type(good)(good.key, image, "jpg", 40, 30, "c", ())
        with pytest.raises(DataError, match="cannot be decoded") as caught:
            ready(broken)
        assert caught.value.reason == reason
    with pytest.raises(DataError, match="expected 20 x 30 pixels, got") as caught:
        ready(type(good)(good.key, good.image, "jpg", 20, 30, "c", ()))
    assert caught.value.reason == "other_size"


@pytest.mark.parametrize(
    ("meta", "message"),
    [
        ({"regions": None}, "regions"),
        ({"regions": {"box": [0, 0, 1, 1]}}, "regions"),
        ({"width": 10.5, "regions": [{"box": [0, 0, 1, 1], "phrase": "a"}]}, "width"),
        ({"width": "wide", "regions": [{"box": [0, 0, 1, 1], "phrase": "a"}]}, "width"),
        ({"width": None, "regions": [{"box": [0, 0, 1, 1], "phrase": "a"}]}, "width"),
        ({"captions": None}, "caption"),
        ({"captions": [None, 3]}, "caption"),
        ({"captions": ["\ud800"]}, "caption"),
        ({"regions": [{"box": [0, 0, 1, 1], "phrase": "\ud800"}]}, "phrase"),
        ({"regions": [{"box": [0, 0, 10**400, 1], "phrase": "a"}]}, "box"),
    ],
)
def test_one_malformed_json_does_not_end_a_run(meta, message, spine_sample):
    """Whatever stands in one KEY.json, the sample or the region is left out and counted."""
    told = ""
    try:
        skipped = batch(ready(spine_sample(meta=meta))).skipped
    except DataError as error:
        skipped, told = {error.reason: 1}, str(error)
    assert sum(skipped.values()) == 1
    assert message in told or told == ""


def test_a_crowd_is_no_region(spine_sample):
    crowd = {"box": [0, 0, 9, 9], "phrase": "a", "crowd": True}
    sample = spine_sample(meta={"regions": [crowd, {"box": [5, 5, 9, 9], "phrase": "b"}]})
    item = ready(sample)
    assert item.phrases == ("b",)
    assert item.dropped == {"crowd": 1}
