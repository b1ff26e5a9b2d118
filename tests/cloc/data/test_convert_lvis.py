"""LVIS as detection data: category ids and the federated lists arrive, every loss is counted."""

import io
import json
import os
from pathlib import Path

import pytest
from PIL import Image

from cloc.convert.__main__ import main
from cloc.convert.lvis import convert_lvis
from cloc.data.shards import ShardSet

REPOSITORY = Path(__file__).resolve().parents[3]
PHOTOS = Path(os.environ.get("CLOC_SAMPLE_DATA", REPOSITORY.parent / "shared/data"))


@pytest.fixture
def lvis(tmp_path):
    """Photo 7 in one folder, 9 in the other, 8 nowhere."""
    buffer = io.BytesIO()
    Image.new("RGB", (100, 50), (90, 10, 130)).save(buffer, "JPEG")
    for place in ("train2017/000000000007.jpg", "val2017/000000000009.jpg"):
        (tmp_path / place).parent.mkdir()
        (tmp_path / place).write_bytes(buffer.getvalue())
    images = [
        {
            "id": n,
            "coco_url": f"http://x/{folder}/{n:012d}.jpg",
            "width": 100,
            "height": 50,
            "neg_category_ids": [5, 4],
            "not_exhaustive_category_ids": [2],
        }
        for n, folder in ((9, "val2017"), (8, "train2017"), (7, "train2017"))
    ]
    boxes = [(1, 7, [1, 2, 10, 5]), (2, 9, [90, 5, 20, 5]), (3, 8, [1, 1, 5, 5]), (4, 7, [1, 1, 0, 5])]
    content = {
        "images": images,
        "annotations": [{"id": i, "image_id": image, "category_id": 2, "bbox": box} for i, image, box in boxes],
        "categories": [
            {"id": 2, "name": "tea_cup", "frequency": "r", "def": "a cup for tea"},
            {"id": 4, "name": "dog", "frequency": "f", "def": "it barks"},
            {"id": 5, "name": "cow", "frequency": "c", "def": "it moos"},
        ],
    }
    (tmp_path / "lvis.json").write_text(json.dumps(content))
    return tmp_path


def convert(lvis, out="out"):
    folders = [lvis / "train2017", lvis / "val2017"]
    return convert_lvis(folders, lvis / "lvis.json", lvis / out, progress=False)


def test_ids_lists_and_definitions_arrive_and_the_rest_is_counted(lvis):
    card = convert(lvis)
    shards = ShardSet.open(lvis / "out")
    first, second = (shards.read_sample(0, i) for i in range(2))
    assert shards.kind == "detection"
    assert (first.key, second.key) == ("000000000007", "000000000009")
    assert first.image == (lvis / "train2017/000000000007.jpg").read_bytes()
    assert [(region.box, region.phrase) for region in first.regions] == [((1, 2, 11, 7), "tea cup")]
    assert first.regions[0].extras == {"category_id": 2, "annotation_id": 1}
    assert second.regions[0].box == (90, 5, 100, 10)
    assert first.extras["neg_category_ids"] == [4, 5]
    assert first.extras["not_exhaustive_category_ids"] == [2]
    assert card["categories"][0] == {
        "id": 2,
        "name": "tea_cup",
        "definition": "a cup for tea",
        "frequency": "r",
        "caption_only": False,
    }
    assert card["counts"] == {"samples": 2, "captions": 0, "regions": 2}
    assert card["dropped"] == {
        "box_cut_at_border": 1,
        "empty_box": 1,
        "image_missing": 1,
        "region_of_dropped_image": 1,
    }


def test_twice_gives_the_same_bytes(lvis):
    assert convert(lvis, "a") == convert(lvis, "b")
    assert (lvis / "a/000000.tar").read_bytes() == (lvis / "b/000000.tar").read_bytes()


def test_the_command_names_a_mistake_and_makes_nothing(lvis, capsys):
    (lvis / "empty").mkdir()
    given = ["lvis", "--annotations", str(lvis / "lvis.json"), "--out", str(lvis / "out"), "--images"]
    assert main([*given, str(lvis / "empty")]) == 2
    told = capsys.readouterr().err
    assert "empty, lvis.json: expected at least one usable image, found none (" in told
    assert "3 image_missing" in told
    assert main([*given, str(lvis / "val2017"), str(lvis / "nowhere")]) == 2
    assert "nowhere: expected the folder of the photos, found no folder" in capsys.readouterr().err
    assert not (lvis / "out").exists()
    assert main([*given, str(lvis / "val2017")]) == 0
    assert "kept:    1 samples, 0 captions, 1 regions" in capsys.readouterr().out


@pytest.mark.photos
@pytest.mark.skipif(not PHOTOS.is_dir(), reason="sample photos are not here (set CLOC_SAMPLE_DATA)")
@pytest.mark.parametrize(
    ("name", "images", "boxes", "here"),
    [("lvis_val_100", 100, 977, 9), ("lvis_v1_style_from_coco_val", 74, 713, 74)],
)
def test_no_box_of_the_samples_is_lost_uncounted(tmp_path, name, images, boxes, here):
    card = convert_lvis([PHOTOS / "coco/val2017"], PHOTOS / f"lvis/{name}.json", tmp_path / "out", progress=False)
    assert card["counts"]["samples"] == here
    assert here + card["dropped"].get("image_missing", 0) == images
    assert card["counts"]["regions"] + card["dropped"].get("region_of_dropped_image", 0) == boxes
