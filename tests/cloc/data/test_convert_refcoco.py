"""RefCOCO as training data: a region an expression, evaluation splits refused, every loss counted."""

import io
import json
import os
from pathlib import Path

import pytest
from PIL import Image

from cloc.convert.__main__ import main
from cloc.convert.refcoco import convert_refcoco
from cloc.data.shards import ShardSet
from cloc.formats import read_refcoco

REPOSITORY = Path(__file__).resolve().parents[3]
PHOTOS = Path(os.environ.get("CLOC_SAMPLE_DATA", REPOSITORY.parent / "shared/data"))


def jpeg(size):
    buffer = io.BytesIO()
    Image.new("RGB", size, (10, 130, 90)).save(buffer, "JPEG")
    return buffer.getvalue()


@pytest.fixture
def root(tmp_path):
    """Refer layout: image 7 with two referents in train and one in val, image 8 whose photo is missing."""
    root = tmp_path / "data/refcoco"
    (root / "refcoco").mkdir(parents=True)
    photos = root / "images/mscoco/images/train2014"
    photos.mkdir(parents=True)
    (photos / "seven.jpg").write_bytes(jpeg((100, 50)))
    images = [
        {"id": n, "file_name": f"{name}.jpg", "width": 100, "height": 50} for n, name in ((8, "eight"), (7, "seven"))
    ]
    boxes = [(11, 7, [10, 20, 30, 5]), (12, 7, [0, 0, 20, 20]), (13, 8, [1, 1, 5, 5])]
    content = {
        "images": images,
        "annotations": [{"id": i, "image_id": image, "category_id": 2, "bbox": box} for i, image, box in boxes],
        "categories": [{"id": 2, "name": "cup"}],
    }
    (root / "refcoco/instances.json").write_text(json.dumps(content))
    said = [(1, 11, 7, "train", ["left cup", " "]), (2, 12, 7, "train", ["corner"]), (3, 13, 8, "train", ["lost"])]
    said.append((4, 12, 7, "val", ["secret"]))
    refs = [
        {
            "ref_id": ref,
            "ann_id": annotation,
            "image_id": image,
            "split": split,
            "sentences": [{"sent_id": 10 * ref + i, "sent": text} for i, text in enumerate(texts)],
        }
        for ref, annotation, image, split, texts in said
    ]
    (root / "refcoco/refs(unc).json").write_text(json.dumps(refs))
    return root


def samples(folder):
    shards = ShardSet.open(folder)
    return [shards.read_sample(shard, i) for shard, count in enumerate(shards.counts) for i in range(count)]


def test_each_expression_is_a_region_and_the_rest_is_counted(root, tmp_path):
    card = convert_refcoco(root, "refcoco", tmp_path / "out", progress=False)
    (sample,) = samples(tmp_path / "out")
    assert sample.key == "000000000007"
    assert sample.image == (root / "images/mscoco/images/train2014/seven.jpg").read_bytes()
    assert sample.caption == ""
    assert [(region.box, region.phrase) for region in sample.regions] == [
        ((10, 20, 40, 25), "left cup"),
        ((0, 0, 20, 20), "corner"),
    ]
    assert sample.regions[1].extras == {"sent_id": 20, "ref_id": 2, "annotation_id": 12}
    assert (card["kind"], card["name"]) == ("regions", "refcoco-train")
    assert card["counts"] == {"samples": 1, "captions": 0, "regions": 2}
    assert card["dropped"] == {"empty_expression": 1, "image_missing": 1, "region_of_dropped_image": 1}


def test_evaluation_splits_are_refused_unless_allowed(root, tmp_path, capsys):
    given = ["refcoco", "--root", str(root), "--split", "val", "--out", str(tmp_path / "out")]
    assert main(given) == 2
    assert "refcoco val is an evaluation split: an encoder trained on it has seen" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert main([*given, "--allow-evaluation-split"]) == 0
    assert [region.phrase for region in samples(tmp_path / "out")[0].regions] == ["secret"]


def test_photos_may_lie_elsewhere_and_no_photo_at_all_is_an_error(root, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    with pytest.raises(
        ValueError, match=r"refs\(unc\).json: expected at least one usable image, found none \(1 empty_"
    ):
        convert_refcoco(root, "refcoco", tmp_path / "out", images=elsewhere, progress=False)
    assert not list(tmp_path.glob("*out*"))
    (elsewhere / "eight.jpg").write_bytes(jpeg((100, 50)))
    convert_refcoco(root, "refcoco", tmp_path / "out", images=elsewhere, progress=False)
    assert [sample.key for sample in samples(tmp_path / "out")] == ["000000000008"]
    with pytest.raises(ValueError, match="nowhere: expected the folder of the photos, found no folder"):
        convert_refcoco(root, "refcoco", tmp_path / "b", images=tmp_path / "nowhere", progress=False)


def test_twice_gives_the_same_bytes(root, tmp_path):
    for out in ("a", "b"):
        convert_refcoco(root, "refcoco", tmp_path / out, progress=False)
    for name in ("000000.tar", "dataset.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


@pytest.mark.photos
@pytest.mark.skipif(not PHOTOS.is_dir(), reason="sample photos are not here (set CLOC_SAMPLE_DATA)")
@pytest.mark.parametrize(
    ("dataset", "split", "expressions"),
    [("refcoco", "val", 10813), ("refcoco", "testA", 5657), ("refcoco", "testB", 5083), ("refcocog", "val", 4894)],
)
def test_no_expression_of_the_jsonl_files_is_lost_uncounted(tmp_path, dataset, split, expressions):
    root = tmp_path / "refcoco"
    root.mkdir()
    (root / "annotations_only").symlink_to(PHOTOS / "refcoco/annotations_only")
    found = read_refcoco(root, dataset, split)
    assert len(found.expressions) == expressions
    card = convert_refcoco(
        root,
        dataset,
        tmp_path / "out",
        split,
        PHOTOS / "refcoco/images/mscoco/images/train2014",
        allow_evaluation_split=True,
        progress=False,
    )
    assert card["counts"]["regions"] + card["dropped"]["region_of_dropped_image"] == expressions
    assert card["counts"]["samples"] + card["dropped"]["image_missing"] == len(found.images)
    boxes = {expression.sent_id: expression.box_xyxy for expression in found.expressions}
    for sample in samples(tmp_path / "out"):
        assert sample.regions
        assert all(region.box == boxes[region.extras["sent_id"]] for region in sample.regions)
