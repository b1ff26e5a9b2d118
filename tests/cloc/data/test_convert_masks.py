"""Masks of COCO's annotation files, as shards hold them: what pycocotools draws."""

import json

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from cloc.convert.__main__ import main
from cloc.convert.coco import convert_coco
from cloc.data.shards import ShardSet
from cloc.formats.segmentation import decode_rle, mask_to_rle, to_rle
from cloc.structures import DataError

WIDTH, HEIGHT = 40, 30
POLYGON = [[2.0, 3.0, 20.5, 4.0, 18.0, 22.0], [25.0, 5.0, 35.0, 5.0, 35.0, 15.0, 25.0, 15.0]]
RUNS = {"size": [HEIGHT, WIDTH], "counts": [100, 200, 900]}


@pytest.fixture
def coco(tmp_path):
    """Two photos, five objects: two polygons, runs, none, a line, a crowd."""
    (tmp_path / "photos").mkdir()
    for name in ("1.jpg", "2.jpg"):
        Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / "photos" / name)
    outlines = [POLYGON, RUNS, None, [[1, 1, 5, 5]], RUNS]
    annotations = [
        {
            "id": i + 1,
            "image_id": 1 + i % 2,
            "category_id": 1,
            "bbox": [1, 2, 20, 20],
            "iscrowd": int(i == 4),
            "area": 9,
        }
        | ({} if outline is None else {"segmentation": outline})
        for i, outline in enumerate(outlines)
    ]
    images = [{"id": i, "file_name": f"{i}.jpg", "width": WIDTH, "height": HEIGHT} for i in (1, 2)]
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "cat"}]}
    (tmp_path / "instances.json").write_text(json.dumps(content))
    return tmp_path


def regions_of(folder):
    shards = ShardSet.open(folder)
    return {r.extras["annotation_id"]: r for i in range(2) for r in shards.read_sample(0, i).regions}


def test_masks_are_what_pycocotools_draws(coco, capsys):
    folder, out = str(coco / "photos"), str(coco / "out")
    call = ["coco", "--images", folder, "--instances", str(coco / "instances.json"), "--masks", "--out", out]
    assert main(call) == 0
    assert "1 bad_mask, 1 crowd, 1 mask_missing" in capsys.readouterr().out
    regions, official = regions_of(coco / "out"), COCO(str(coco / "instances.json"))
    assert set(regions) == {1, 2, 3, 4}
    for number in (1, 2):
        mask = decode_rle(regions[number].extras["mask"], WIDTH, HEIGHT)
        assert (mask == official.annToMask(official.anns[number]).astype(bool)).all()
        assert 0 < mask.sum() < WIDTH * HEIGHT
        told = {**regions[number].extras["mask"]}
        assert (coco_mask.decode({**told, "counts": told["counts"].encode()}) == mask).all()
    assert "mask" not in regions[3].extras
    assert "mask" not in regions[4].extras
    assert json.loads((coco / "out" / "dataset.json").read_text())["made"]["masks"] is True


def test_without_the_flag_nothing_changes(coco):
    card = convert_coco(coco / "photos", coco / "instances.json", coco / "plain", progress=False)
    assert "masks" not in card["made"]
    assert "mask_missing" not in card["dropped"]
    assert all("mask" not in region.extras for region in regions_of(coco / "plain").values())


@pytest.mark.parametrize("counts", [[100, 200, 900], [0, 1200], [1199, 1]])
def test_runs_and_their_text_are_one_mask(counts):
    told = to_rle({"size": [HEIGHT, WIDTH], "counts": counts}, WIDTH, HEIGHT)
    assert to_rle(told, WIDTH, HEIGHT) == told
    assert (decode_rle(told, WIDTH, HEIGHT) == decode_rle({**told, "counts": counts}, WIDTH, HEIGHT)).all()
    assert mask_to_rle(decode_rle(told, WIDTH, HEIGHT)) == told


def test_outlines_beyond_the_border_are_drawn_as_the_official_tool_draws_them():
    polygon = [[-5.0, -5.0, 60.0, -5.0, 60.0, 12.0, -5.0, 12.0]]
    official = coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(polygon, HEIGHT, WIDTH)))
    assert (decode_rle(to_rle(polygon, WIDTH, HEIGHT), WIDTH, HEIGHT) == official.astype(bool)).all()
    assert official.sum() == 12 * WIDTH


@pytest.mark.parametrize(
    "bad",
    [
        [[1, 2, 3, 4]], [[1, 2, 3, 4, 5]], [[0, 0, 1e9, 0, 0, 1e9]], [[0, 0, float("nan"), 0, 0, 5]], ["abcdef"], 7,
        [POLYGON[0], None], {"counts": [1200]}, {"size": [WIDTH, HEIGHT], "counts": [1200]},
        {"size": [HEIGHT, WIDTH], "counts": [1201]}, {"size": [HEIGHT, WIDTH], "counts": [-1, 1201]},
        {"size": [HEIGHT, WIDTH], "counts": None},
    ],
)  # fmt: skip
def test_what_cannot_be_drawn_is_refused(bad):
    with pytest.raises(DataError) as told:
        to_rle(bad, WIDTH, HEIGHT)
    assert told.value.reason == "bad_mask"


@pytest.mark.parametrize("none", [None, [], {}])
def test_no_outline_is_told_apart(none):
    with pytest.raises(DataError) as told:
        to_rle(none, WIDTH, HEIGHT)
    assert told.value.reason == "mask_missing"


def test_masks_of_pixels():
    mask = np.random.default_rng(0).random((HEIGHT, WIDTH)) > 0.7
    assert (decode_rle(mask_to_rle(mask), WIDTH, HEIGHT) == mask).all()
