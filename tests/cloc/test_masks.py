import numpy as np
import pytest
import torch
from PIL import Image

from cloc import ClocProcessor
from cloc.images import Placement
from cloc.masks import as_mask, mask_extents, place_mask
from cloc.models.processing import image_processor
from cloc.tokenizer import clip_tokenizer


def blob(width, height, seed=0):
    """A rough patch of pixels, a third of the image."""
    coarse = np.random.default_rng(seed).random((5, 7))
    return np.asarray(Image.fromarray(coarse.astype(np.float32)).resize((width, height))) > 0.6


def plain(mask, size):
    """Every pixel cut into its share of every cell, one by one."""
    height, width = mask.shape
    side, (x, y) = max(width, height), Placement(width, height).offset
    found = np.zeros((size, size))
    for row, column in zip(*np.nonzero(mask), strict=True):
        for i in range(size):
            for j in range(size):
                high = min((i + 1) * side / size, row + y + 1) - max(i * side / size, row + y)
                wide = min((j + 1) * side / size, column + x + 1) - max(j * side / size, column + x)
                found[i, j] += max(high, 0) * max(wide, 0)
    return found * (size / side) ** 2


@pytest.mark.parametrize(("width", "height", "size"), [(9, 6, 4), (5, 8, 3), (4, 4, 10), (7, 7, 7)])
def test_each_cell_holds_its_share_of_the_mask(width, height, size):
    mask = np.random.default_rng(0).random((height, width)) > 0.5
    np.testing.assert_allclose(place_mask(mask, size), plain(mask, size), atol=1e-6)


def test_the_raster_of_patches_is_the_mean_of_the_raster_of_pixels():
    mask = blob(53, 40)
    fine = place_mask(mask, 32)
    np.testing.assert_allclose(fine.reshape(4, 8, 4, 8).mean(axis=(1, 3)), place_mask(mask, 4), atol=1e-6)


@pytest.mark.parametrize("size", [(40, 30), (30, 41), (33, 33)])
def test_the_extent_of_a_box_shaped_mask_is_the_box(size):
    mask = np.zeros(size[::-1], dtype=bool)
    mask[5:20, 3:18] = True
    side = max(size)
    found = mask_extents(torch.from_numpy(place_mask(mask, side)))  # a cell a pixel: no rounding
    np.testing.assert_allclose(found.numpy(), Placement(*size).to_canvas([[3, 5, 18, 20]])[0], atol=1e-6)
    coarse = mask_extents(torch.from_numpy(place_mask(mask, 14))).numpy()
    assert np.abs(coarse - found.numpy()).max() <= 1 / 14


def test_extents_of_none_and_of_many():
    cover = torch.zeros(2, 3, 4, 5)
    cover[1, 2, 3, 4] = 1e-3
    assert mask_extents(cover)[1, 2].tolist() == pytest.approx([0.8, 0.75, 1, 1])
    assert not mask_extents(cover)[0].any()
    assert mask_extents(cover[:0]).shape == (0, 3, 4)


@pytest.mark.parametrize(
    ("mask", "told"),
    [
        (np.ones((40, 30), dtype=bool), r"30 x 40 pixels \(height x width\), got shape \(40, 30\); it is turned"),
        (np.ones((20, 40), dtype=bool), "resize it to the image"),
        (np.full((30, 40), 0.7), "got float64; pass mask > 0.5"),
        (np.zeros((30, 40), dtype=np.uint8), "got an empty mask; leave it out"),
    ],
)
def test_masks_that_cannot_be_meant(mask, told):
    with pytest.raises(ValueError, match=told):
        as_mask(mask, 40, 30)


@pytest.fixture(scope="module")
def processor():
    return ClocProcessor(image_processor(32), clip_tokenizer())


def test_the_processor_places_ragged_points_and_masks(processor, spine_picture):
    images = [spine_picture(40, 30), spine_picture(20, 36)]
    masks = [[blob(40, 30), torch.from_numpy(blob(40, 30, 1))], [Image.fromarray(blob(20, 36))]]
    found = processor(images=images, points=[[(40, 0)], [(10, 18), (0, 0)]], masks=masks, boxes=[[], [(0, 0, 20, 36)]])
    assert found["points_mask"].tolist() == [[True, False], [True, True]]
    np.testing.assert_allclose(found["points"][0, 0], [1.0, 5 / 40])
    np.testing.assert_allclose(found["points"][1], [[0.5, 0.5], [8 / 36, 0.0]], atol=1e-6)
    assert found["boxes_mask"].tolist() == [[False], [True]]
    assert found["masks"].shape == (2, 2, 32, 32)
    assert found["masks_mask"].tolist() == [[True, True], [True, False]]
    np.testing.assert_allclose(found["masks"][1, 0], place_mask(blob(20, 36), 32))
    assert not found["masks"][1, 1].any()


def test_prompts_that_do_not_fit_their_image_are_named(processor, spine_picture):
    images = [spine_picture(40, 30)]
    with pytest.raises(ValueError, match=r"point 1 of image 0, \(41, 5\), lies outside its image of 40 x 30 pixels"):
        processor(images=images, points=[[(1, 1), (41, 5)]])
    with pytest.raises(ValueError, match=r"points of image 0: expected shape \(M, 2\), got \(1, 3\)"):
        processor(images=images, points=[[(1, 1, 1)]])
    with pytest.raises(ValueError, match=r"masks: mask 1 of image 0: expected a mask of its image's 30 x 40 pixels"):
        processor(images=images, masks=[[blob(40, 30), blob(30, 40)]])
    with pytest.raises(ValueError, match="masks: expected one list for each image, got 2 lists and 1 images"):
        processor(images=images, masks=[[], []])
