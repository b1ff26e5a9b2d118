"""Masks of rendered scenes: the pixels that show an object, in its region where the world has masks."""

import numpy as np
import pytest

from cloc.data.prompts import PromptSampler, draw_prompts
from cloc.data.shards import ShardSet
from cloc.formats.segmentation import decode_rle
from cloc.scenes import WorldSpec, render_scene
from cloc.scenes.__main__ import main
from cloc.scenes.detection_samples import make_detection_sample, make_grounding_sample
from cloc.scenes.training import make_numbered_sample

SIZE = 64
SPEC = WorldSpec(size=SIZE, max_covered=0.5, max_iou=0.4, detection=1, grounding=1, masks=True)


def test_a_mask_has_the_box_and_area_of_its_object_and_no_pixel_of_another():
    for index in range(20):
        objects = render_scene(SPEC, index, "train").objects
        masks = [thing.mask(SIZE) for thing in objects]
        for thing, mask in zip(objects, masks, strict=True):
            rows, columns = np.nonzero(mask)
            box = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
            assert box == thing.box_xyxy
            assert mask.shape == (SIZE, SIZE)
            assert mask.sum() == thing.area
        assert np.sum(masks, axis=0).max() == 1


def test_masks_change_nothing_else():
    plain = WorldSpec(**{**{k: getattr(SPEC, k) for k in ("size", "max_covered", "max_iou", "detection", "grounding")}})
    assert "masks" not in plain.made()
    for sample in (make_numbered_sample, make_detection_sample, make_grounding_sample):
        with_masks, without = sample(SPEC, 3), sample(plain, 3)
        assert with_masks.image == without.image
        assert [region.box for region in with_masks.regions] == [region.box for region in without.regions]
        assert all("mask" in region.extras for region in with_masks.regions)
        assert not any("mask" in region.extras for region in without.regions)
        for one, other in zip(with_masks.regions, without.regions, strict=True):
            assert {**one.extras, "mask": 0} == {**other.extras, "mask": 0}


@pytest.fixture(scope="module")
def shard(tmp_path_factory):
    out = tmp_path_factory.mktemp("masks") / "world"
    flags = ["--train", "4", "--val", "1", "--refcoco", "1", "--single", "0", "--size", "48", "--masks"]
    assert main(["--out", str(out), "--workers", "1", *flags]) == 0
    return ShardSet.open(out / "train")


def test_the_loader_reads_the_masks_of_a_world_made_by_the_command(shard):
    sample = shard.read_sample(0, 0)
    scene = render_scene(WorldSpec(train=4, size=48, masks=True), 0, "train")
    boxes = {thing.box_xyxy: thing.mask(48) for thing in scene.objects}
    assert len(sample.regions) >= 2
    for region in sample.regions:
        assert (decode_rle(region.extras["mask"], 48, 48) == boxes[region.box]).all()
    drawn, counts = draw_prompts(sample, range(len(sample.regions)), PromptSampler(("mask",), (6, 6)), 48, 0, 0)
    assert counts["no_mask"] == counts["bad_mask"] == 0
    assert (drawn.patch_coverage.reshape(len(drawn.patch_coverage), -1).sum(1) > 0).all()
