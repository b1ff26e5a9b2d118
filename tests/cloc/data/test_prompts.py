"""What a region is asked with in training: a pure draw, and masks that are read or counted."""

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask

from cloc.data.collate import collate, prepare
from cloc.data.prompts import PromptSampler, draw_prompts
from cloc.formats.segmentation import decode_rle
from cloc.images import Placement
from cloc.masks import mask_extents, place_mask
from cloc.structures import DataError
from cloc.tokenizer import clip_tokenizer

ALL = PromptSampler(("box", "point", "mask"), (4, 4))


def mask_of(width, height, x0, y0, x1, y1):
    mask = np.zeros((height, width), dtype=bool)
    mask[y0:y1, x0:x1] = True
    return mask


def packed(mask):
    told = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": list(told["size"]), "counts": told["counts"].decode()}


def runs(mask):
    """The same, written as run lengths down the columns."""
    flat, counts, value = mask.T.flatten(), [0], False
    for pixel in flat:
        if pixel != value:
            counts.append(0)
            value = pixel
        counts[-1] += 1
    return {"size": list(mask.shape), "counts": counts}


@pytest.fixture
def masked_sample(spine_sample):
    """Six regions of a 40 x 30 image: the even ones with a mask in the left half of their box, the odd ones without."""

    def make(key="a", count=6):
        entries = []
        for i in range(count):
            box = [4 * i, 2 * i, 4 * i + 8, 2 * i + 10]
            left = packed(mask_of(40, 30, box[0], box[1], box[0] + 4, box[3]))
            entries.append({"box": box, "phrase": f"thing {i}", **({"mask": left} if i % 2 == 0 else {})})
        return spine_sample(key, size=(40, 30), meta={"regions": entries})

    return make


@pytest.mark.parametrize("share", [0.02, 0.5, 0.99])
@pytest.mark.parametrize("size", [(5, 7), (64, 3), (500, 300)])
def test_compressed_and_plain_runs_are_one_mask(size, share):
    mask = np.random.default_rng(0).random(size[::-1]) < share
    mask[0, 0] = mask[-1, -1] = True
    if size[0] == 500:
        mask[:, 100:300] = False  # a long run
    assert np.array_equal(decode_rle(packed(mask), *size), mask)
    assert np.array_equal(decode_rle(runs(mask), *size), mask)


@pytest.mark.parametrize(
    "told",
    [
        None,
        "text",
        {"size": [7, 5]},
        {"size": 7, "counts": "a"},
        {"size": [5, 7], "counts": packed(mask_of(7, 5, 0, 0, 1, 1))["counts"]},
        {"size": [7, 5], "counts": [30]},
        {"size": [7, 5], "counts": [-1, 36]},
        {"size": [7, 5], "counts": [35]},
        {"size": [7, 5], "counts": "PPPPPPPPPPPPPPPPPP"},
        {"size": [7, 5], "counts": "\u00e9"},
        {"size": [7, 5], "counts": ""},
        {"size": [7, 5], "counts": "~~~~~~~~~~~~~~~~~~~~"},
    ],
)
def test_malformed_masks_have_a_reason(told):
    with pytest.raises(DataError, match="mask") as caught:
        decode_rle(told, 5, 7)
    assert caught.value.reason == "bad_mask"


def test_prompts_show_what_they_say(masked_sample):
    sample, seen, outside = masked_sample(), set(), 0
    for epoch in range(30):
        drawn, counts = draw_prompts(sample, range(6), ALL, 32, 0, epoch)
        assert counts == {"no_mask": 3}
        for row, region in enumerate(sample.regions):
            kind, place, (x0, y0, x1, y1) = int(drawn.kinds[row]), drawn.coords[row], region.box
            seen.add((row, kind))
            box = Placement(40, 30).to_canvas([region.box])[0]
            if kind == 0:
                np.testing.assert_allclose(place, box, atol=1e-6)
            elif kind == 1:
                assert place[0] == place[2]
                x, y = place[0] * 40, place[1] * 40 - 5
                assert x0 < x < (x0 + 4 if row % 2 == 0 else x1)
                assert y0 < y < y1
            else:
                raster = place_mask(mask_of(40, 30, x0, y0, x0 + 4, y1), 32)
                np.testing.assert_allclose(
                    drawn.patch_coverage[row], raster.reshape(4, 8, 4, 8).mean(axis=(1, 3)), atol=1e-6
                )
                np.testing.assert_allclose(place, mask_extents(torch.from_numpy(raster)))
            outside += kind != 2 and drawn.patch_coverage[row].any()
    assert seen == {(row, kind) for row in range(6) for kind in range(3) if kind != 2 or row % 2 == 0}
    assert outside == 0


def test_the_draw_depends_on_seed_epoch_key_and_region_only(masked_sample):
    sample = masked_sample()
    kinds = [draw_prompts(sample, range(6), ALL, 32, 0, e)[0].kinds.tolist() for e in range(12)]
    torch.manual_seed(99)
    one = [draw_prompts(sample, [4], ALL, 32, 0, e)[0].kinds.tolist() for e in range(12)]
    assert one == [[k[4]] for k in kinds]
    assert kinds != [draw_prompts(sample, range(6), ALL, 32, 1, e)[0].kinds.tolist() for e in range(12)]
    other = masked_sample("b")
    assert kinds != [draw_prompts(other, range(6), ALL, 32, 0, e)[0].kinds.tolist() for e in range(12)]


def test_boxes_phrases_and_their_draw_stay_as_without_prompts(masked_sample):
    sample = masked_sample()
    plain, asked = (prepare(sample, 32, 3, 0, 5, prompts) for prompts in (None, ALL))
    assert plain.phrases == asked.phrases
    assert np.array_equal(plain.boxes, asked.boxes)
    assert plain.prompts is None
    assert not plain.dropped
    assert set(asked.dropped) <= {"no_mask"}


def test_prompts_of_a_ragged_batch(masked_sample, spine_sample):
    items = [prepare(s, 32, 4, 0, 0, ALL) for s in (masked_sample(), spine_sample("n"), masked_sample("c", count=1))]
    made = collate(items, clip_tokenizer(), 32, 4, None, ALL)
    assert made.boxes_mask.sum(dim=1).tolist() == [4, 0, 1]
    assert made.prompt_patch_coverage.shape == (3, 4, 4, 4)
    for row, item in enumerate(items):
        count = len(item.boxes)
        assert made.prompt_kinds[row, :count].tolist() == item.prompts.kinds.tolist()
        np.testing.assert_array_equal(made.prompt_coords[row, :count], item.prompts.coords)
        np.testing.assert_array_equal(made.prompt_patch_coverage[row, :count], item.prompts.patch_coverage)
        assert not made.prompt_patch_coverage[row, count:].any()
    empty = collate([], clip_tokenizer(), 32, 4, None, ALL)
    assert empty.prompt_kinds.shape == (0, 4)
    assert collate([], clip_tokenizer(), 32, 4).prompt_kinds is None


def test_a_mask_that_cannot_be_read_is_counted_and_its_region_kept(spine_sample):
    region = {"box": [0, 0, 9, 9], "phrase": "a", "mask": {"size": [9, 9], "counts": [81]}}
    item = prepare(spine_sample(size=(40, 30), meta={"regions": [region]}), 32, 4, 0, 0, ALL)
    assert item.prompts.kinds[0] in (0, 1)
    only = PromptSampler(("mask",), (4, 4))
    item = prepare(spine_sample(size=(40, 30), meta={"regions": [region]}), 32, 4, 0, 0, only)
    assert item.dropped == {"bad_mask": 1}
    assert item.prompts.kinds.tolist() == [0]
