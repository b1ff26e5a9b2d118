"""The converter: photos go in unchanged, whatever is left out is counted, equal input gives equal bytes."""

import hashlib
import io
import json
import os
import re
from pathlib import Path

import pytest
from PIL import Image

from cloc.convert.__main__ import main
from cloc.convert.coco import convert_coco
from cloc.data.shards import ShardSet

REPOSITORY = Path(__file__).resolve().parents[3]
PHOTOS = Path(os.environ.get("CLOC_SAMPLE_DATA", REPOSITORY.parent / "shared/data"))


def picture(path, size=(30, 20), image_format="JPEG"):
    buffer = io.BytesIO()
    Image.new("RGB", size, (200, 30, 90)).save(buffer, image_format)
    path.write_bytes(buffer.getvalue())


@pytest.fixture
def coco(tmp_path):
    """Five images: two that are fine (the second without caption), one missing, one of another size, one a GIF."""
    folder = tmp_path / "photos"
    folder.mkdir()
    picture(folder / "9.jpg")
    picture(folder / "4.jpg", image_format="PNG")  # the content decides, not the name
    picture(folder / "6.jpg", size=(31, 20))
    picture(folder / "7.jpg", image_format="GIF")
    (folder / "8.jpg").write_bytes(b"no image")
    images = [{"id": n, "file_name": f"{n}.jpg", "width": 30, "height": 20} for n in (9, 4, 5, 6, 7, 8)]
    boxes = [(1, 9, [1, 2, 10, 5], 0), (2, 9, [0, 0, 30, 20], 1), (3, 4, [25, 5, 10, 5], 0), (4, 5, [1, 1, 5, 5], 0)]
    annotations = [
        {"id": i, "image_id": image, "category_id": 3, "bbox": box, "iscrowd": crowd} for i, image, box, crowd in boxes
    ]
    annotations.append({"id": 9, "image_id": 9, "category_id": 3, "bbox": [1, 1, 0, 5]})
    content = {"images": images, "annotations": annotations, "categories": [{"id": 3, "name": "tennis racket"}]}
    (tmp_path / "instances.json").write_text(json.dumps(content))
    captions = [{"id": n, "image_id": 9, "caption": text} for n, text in enumerate(["First.", "Second."])]
    (tmp_path / "captions.json").write_text(json.dumps({"annotations": captions}))
    return tmp_path


def convert(coco, out="out", **more):
    options = {"captions": coco / "captions.json", "progress": False, **more}
    return convert_coco(coco / "photos", coco / "instances.json", coco / out, **options)


def test_photos_boxes_and_captions_arrive_and_the_rest_is_counted(coco):
    card = convert(coco)
    shards = ShardSet.open(coco / "out")
    first, second = (shards.read_sample(0, i) for i in range(2))
    assert (first.key, second.key) == ("000000000004", "000000000009")
    assert first.image == (coco / "photos/4.jpg").read_bytes()
    assert second.image == (coco / "photos/9.jpg").read_bytes()
    assert (first.image_format, second.image_format) == ("png", "jpg")
    assert (first.caption, second.caption) == ("", "First.")
    assert second.extras["captions"] == ["First.", "Second."]
    assert [(region.box, region.phrase) for region in second.regions] == [((1, 2, 11, 7), "tennis racket")]
    assert first.regions[0].box == (25, 5, 30, 10)
    assert first.regions[0].extras["category_id"] == 3
    assert card["read"] == {"images": 6, "boxes": 4, "captions": 2}
    assert card["counts"] == {"samples": 2, "captions": 1, "regions": 2}
    assert card["dropped"] == {
        "box_cut_at_border": 1,
        "crowd": 1,
        "empty_box": 1,
        "image_missing": 1,
        "image_of_other_format": 1,
        "image_of_other_size": 1,
        "image_unreadable": 1,
        "region_of_dropped_image": 1,
    }


def test_twice_gives_the_same_bytes(coco):
    first, second = convert(coco, "a", shard_size=1), convert(coco, "b", shard_size=1)
    assert first == second
    for shard in first["shards"]:
        for out in ("a", "b"):
            assert hashlib.sha256((coco / out / shard["file"]).read_bytes()).hexdigest() == shard["sha256"]
    assert (coco / "a/dataset.json").read_bytes() == (coco / "b/dataset.json").read_bytes()


def test_a_second_run_leaves_equal_shards_alone_and_refuses_others(coco):
    card = convert(coco)
    before = (coco / "out/000000.tar").stat().st_mtime_ns
    assert convert(coco) == card
    assert (coco / "out/000000.tar").stat().st_mtime_ns == before
    with pytest.raises(ValueError, match=r"made with other parameters \(different: captions\)"):
        convert(coco, captions=None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": "nowhere"}, "nowhere: expected the folder of the photos, found no folder; check --images"),
        ({"instances": "nothing.json"}, "nothing.json: expected an annotation file, found no file"),
        ({"captions": "nothing.json"}, "nothing.json: expected an annotation file, found no file"),
        ({"images": "empty"}, r"expected at least one usable image, found none \(.*, 6 image_missing, 3 region_of"),
        ({"instances": "captions.json"}, "expected a COCO instances file with the lists"),
    ],
)
def test_the_command_names_a_mistake_and_makes_nothing(coco, capsys, change, message):
    (coco / "empty").mkdir()
    given = {"images": "photos", "instances": "instances.json", "captions": "captions.json"} | change
    flags = [part for name, value in given.items() for part in (f"--{name}", str(coco / value))]
    assert main(["coco", *flags, "--out", str(coco / "out")]) == 2
    assert re.search(message, capsys.readouterr().err)
    assert not (coco / "out").exists()


def test_the_command_prints_what_was_read_kept_and_dropped(coco, capsys):
    flags = ["--images", str(coco / "photos"), "--instances", str(coco / "instances.json"), "--out", str(coco / "out")]
    assert main(["coco", *flags]) == 0
    told = capsys.readouterr().out
    assert "read:    6 images, 4 boxes, 0 captions" in told
    assert "kept:    2 samples, 0 captions, 2 regions (2 samples without a caption)" in told
    assert "1 crowd" in told
    assert "1 image_missing" in told
    assert main(["coco", *flags]) == 0
    assert "already there, made from the same files" in capsys.readouterr().out


@pytest.mark.photos
def test_a_limit_takes_the_first_of_the_file_and_is_no_part_of_another_set(coco):
    card = convert(coco, limit=1)
    assert card["counts"]["samples"] + sum(n for why, n in card["dropped"].items() if why.startswith("image")) == 1
    assert card["made"]["limit"] == 1
    with pytest.raises(ValueError, match="--limit: expected at least 1, got 0"):
        convert(coco, "none", limit=0)
    with pytest.raises(ValueError, match="out"):
        convert(coco)  # the whole set does not pass for the limited one


@pytest.mark.skipif(not PHOTOS.is_dir(), reason="sample photos are not here (set CLOC_SAMPLE_DATA)")
def test_no_sample_photo_and_no_box_is_lost_uncounted(tmp_path):
    folder = PHOTOS / "coco/annotations"
    card = convert_coco(
        PHOTOS / "coco/train2017",
        folder / "instances_train2017.json",
        tmp_path / "out",
        folder / "captions_train2017.json",
        shard_size=50,
        progress=False,
    )
    assert card["counts"] == {"samples": 130, "captions": 100, "regions": 1324}
    assert card["dropped"] == {"crowd": 15}
    shards, regions = ShardSet.open(tmp_path / "out"), 0
    for shard, count in enumerate(shards.counts):
        for i in range(count):
            sample = shards.read_sample(shard, i)
            assert not sample.dropped
            regions += len(sample.regions)
            photo = PHOTOS / "coco/train2017" / sample.extras["source"]["file_name"]
            assert sample.image == photo.read_bytes()
    assert regions == 1324
