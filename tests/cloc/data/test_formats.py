"""Readers of the official layouts: tiny files of our own, and the sample photos where they are."""

import json
import os
import pickle
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from cloc.formats import read_coco, read_lvis, read_refcoco, refcoco_splits

REPOSITORY = Path(__file__).resolve().parents[3]
PHOTOS = Path(os.environ.get("CLOC_SAMPLE_DATA", REPOSITORY.parent / "shared/data"))
photos = pytest.mark.skipif(not PHOTOS.is_dir(), reason="sample photos are not here (set CLOC_SAMPLE_DATA)")


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def annotation(number, box, image_id=7, category_id=2, **more):
    return {"id": number, "image_id": image_id, "category_id": category_id, "bbox": box, **more}


def instances(*annotations, **image):
    return {
        "images": [{"id": 7, "file_name": "000000000007.jpg", "width": 100, "height": 50, **image}],
        "annotations": list(annotations),
        "categories": [{"id": 2, "name": "cup"}, {"id": 5, "name": "dog"}],
    }


def test_coco_boxes_become_xyxy_and_crowds_are_marked(tmp_path):
    content = instances(
        annotation(1, [10, 20, 30, 5.5], iscrowd=0), annotation(2, [0, 0, 100, 50], category_id=5, iscrowd=1)
    )
    found = read_coco(write(tmp_path / "i.json", content), tmp_path / "photos")
    (image,) = found.images
    assert image.boxes_xyxy.tolist() == [[10, 20, 40, 25.5], [0, 0, 100, 50]]
    assert image.boxes_xyxy.dtype == np.float64
    assert image.category_ids.tolist() == [2, 5]
    assert image.annotation_ids.tolist() == [1, 2]
    assert image.crowd.tolist() == [False, True]
    assert image.path == tmp_path / "photos/000000000007.jpg"
    assert (found.rendered, found.dropped, found.categories[5].name) == (False, Counter(), "dog")


def test_what_cannot_be_used_is_counted_by_reason(tmp_path):
    content = instances(
        annotation(1, [10, 10, 5, 5]),
        annotation(2, [float("nan"), 10, 5, 5]),
        annotation(3, [10, 10, 0, 5]),
        annotation(4, [200, 10, 5, 5]),
        annotation(5, [90, 40, 20, 20]),
        annotation(6, [1, 2, 3]),
        annotation(7, [1, 1, 2, 2], image_id=8),
        annotation(8, [1, 1, 2, 2], category_id=99),
        annotation(1, [1, 1, 2, 2]),  # another box under an id that is taken stays
        annotation(1, [10, 10, 5, 5]),  # the same box once more
        annotation(9, [0.1, 0.1, 0.4, 0.5]),
        "text",
        annotation(10, ["1", "2", "3", "4"], image_id="7", category_id=2.0, iscrowd="0"),
    )
    found = read_coco(write(tmp_path / "i.json", content), tmp_path)
    assert found.images[0].boxes_xyxy.tolist() == [
        [10, 10, 15, 15], [90, 40, 100, 50], [1, 1, 3, 3], [1, 2, 4, 6],
    ]  # fmt: skip
    assert found.images[0].annotation_ids.tolist() == [1, 5, -9, 10]
    assert not found.images[0].crowd.any()
    assert found.dropped == Counter(
        nan_box=1, empty_box=1, box_outside=1, box_cut_at_border=1, bad_box=1, unknown_image=1, unknown_category=1,
        duplicate_id=1, box_of_0_to_1=1, bad_annotation=1,
    )  # fmt: skip


def test_an_image_without_annotations_stays(tmp_path):
    found = read_coco(write(tmp_path / "i.json", instances()), tmp_path)
    assert found.images[0].boxes_xyxy.shape == (0, 4)
    assert found.images[0].crowd.shape == (0,)


def test_captions_go_to_their_images(tmp_path):
    texts = [(7, "A cup\n on a table. "), (7, "Second."), (9, "Nobody's."), (7, " ")]
    captions = {"annotations": [{"id": i, "image_id": image, "caption": text} for i, (image, text) in enumerate(texts)]}
    found = read_coco(write(tmp_path / "i.json", instances()), tmp_path, write(tmp_path / "c.json", captions))
    assert found.images[0].captions == ("A cup on a table.", "Second.")
    assert found.dropped == Counter(caption_of_unknown_image=1, empty_caption=1)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "expected a COCO instances file, found no file"),
        ("{", "expected a COCO instances file, got text that is no JSON"),
        ({"images": []}, "with the lists images, annotations, categories; got images"),
        ([], "with the lists images, annotations, categories; got list"),
        (instances(width=0), r"images\[0\]: expected whole numbers id, width and height, got \(7, 0, 50\)"),
        (instances(file_name="../../secret.jpg"), r"images\[0\]: expected a file name inside the folder"),
        (instances(file_name="/secret.jpg"), r"images\[0\]: expected a file name inside the folder"),
        (instances(file_name=None), r"images\[0\]: expected a new id and a file_name"),
        ({**instances(), "categories": [{"id": 2}]}, r"categories\[0\]: expected an id and a name"),
        (
            {**instances(), "categories": [{"id": 2, "name": "a"}] * 2},
            r"categories\[1\]: expected different ids, got 2",
        ),
    ],
)
def test_files_that_are_no_instances_are_refused(tmp_path, content, message):
    path = tmp_path / "i.json" if content is None else write(tmp_path / "i.json", content)
    with pytest.raises(ValueError, match=message):
        read_coco(path, tmp_path)


def lvis_content(**image):
    content = instances(annotation(1, [1, 1, 5, 5]))
    content["images"] = [{"id": 7, "width": 100, "height": 50, **image}]
    content["categories"][0] |= {"frequency": "r", "def": "a small bowl", "synonyms": ["cup", "mug"]}
    return content


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        ({"coco_url": "http://x/train2017/000000000007.jpg"}, "train2017/000000000007.jpg"),
        ({"coco_url": "http://x/val2017/000000000007.jpg"}, "val2017/000000000007.jpg"),
        ({"file_name": "COCO_val2014_000000000008.jpg"}, "train2017/000000000008.jpg"),
        ({"file_name": "COCO_val2014_000000000009.jpg"}, "val2017/000000000009.jpg"),
    ],
)
def test_lvis_photos_are_found_by_number_in_the_folder_that_is_named(tmp_path, image, expected):
    for place in ("train2017/000000000007.jpg", "val2017/000000000007.jpg", "train2017/000000000008.jpg"):
        write(tmp_path / place, "photo")
    file = write(tmp_path / "l.json", lvis_content(**image, neg_category_ids=[5], not_exhaustive_category_ids=[2]))
    found = read_lvis(file, [tmp_path / "val2017", tmp_path / "train2017"])
    assert found.images[0].path == tmp_path / expected
    assert found.images[0].neg_category_ids == {5}
    assert found.images[0].not_exhaustive_category_ids == {2}
    cup = found.categories[2]
    assert (cup.frequency, cup.definition, cup.synonyms) == ("r", "a small bowl", ("cup", "mug"))


def test_lvis_without_a_photo_name_or_folder_is_refused(tmp_path):
    file = write(tmp_path / "l.json", lvis_content())
    with pytest.raises(ValueError, match=r"images\[0\]: expected coco_url \(v1\) or file_name \(v0.5\), got neither"):
        read_lvis(file, [tmp_path])
    with pytest.raises(ValueError, match="image_dirs: expected at least one folder"):
        read_lvis(file, [])


def refs(**change):
    sentences = [
        {"sent_id": 3, "sent": "left cup", "raw": "Left cup", "tokens": ["left", "cup"]},
        {"sent_id": 4, "sent": "cup", "raw": "cup", "tokens": ["cup"], "kind": "name"},
    ]
    ref = {"ref_id": 1, "ann_id": 11, "image_id": 7, "category_id": 2, "split": "val", "sentences": sentences}
    return [{**ref, **change}]


def refer_root(tmp_path, content, photo="COCO_train2014_000000000007.jpg"):
    root = tmp_path / "data/refcoco"
    write(root / "refcoco/instances.json", instances(annotation(11, [10, 20, 30, 5]), file_name=photo))
    if isinstance(content, bytes):
        (root / "refcoco/refs(unc).p").write_bytes(content)
    else:
        write(root / "refcoco/refs(unc).json", content)
    return root


def test_refcoco_pickle_and_json_give_the_same_expressions(tmp_path):
    plain = refer_root(tmp_path / "a", refs())
    pickled = refer_root(tmp_path / "b", pickle.dumps(refs(), protocol=2))
    for root in (plain, pickled):
        found = read_refcoco(root, "refcoco", "val")
        first, second = found.expressions
        assert (first.text, first.sent_id, first.ref_id, first.image_id, first.annotation_id) == (
            "left cup",
            3,
            1,
            7,
            11,
        )
        assert first.box_xyxy == (10, 20, 40, 25)
        assert (first.kind, second.kind) == (None, "name")
        assert found.images[7].path == root / "images/mscoco/images/train2014/COCO_train2014_000000000007.jpg"
        assert found.images[7].category_ids.tolist() == [2]
    assert refcoco_splits(plain, "refcoco") == ("val",)


def test_photos_of_refcoco_may_lie_in_cocos_folder(tmp_path):
    root = refer_root(tmp_path, refs())
    photo = write(root.parent / "coco/train2014/COCO_train2014_000000000007.jpg", "photo")
    assert read_refcoco(root, "refcoco", "val").images[7].path == photo


class Evil:
    def __reduce__(self):
        return os.system, ("echo broken into > broken_into",)


def test_a_pickle_with_code_in_it_is_refused_by_name_and_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    root = refer_root(tmp_path, pickle.dumps([*refs(), Evil()]))
    with pytest.raises(
        ValueError, match=r"refs\(unc\).p: .*refused: it asks for (posix|os).system. Nothing in it was run"
    ):
        read_refcoco(root, "refcoco", "val")
    assert not (tmp_path / "broken_into").exists()


@pytest.mark.parametrize("content", [b"", b"\x80\x02]q", b"no pickle", b"\x80\x02K\x01."])
def test_a_broken_pickle_is_refused(tmp_path, content):
    with pytest.raises(ValueError, match=r"refs\(unc\).p: expected the refer toolkit's list of refs"):
        read_refcoco(refer_root(tmp_path, content), "refcoco", "val")


def test_expressions_of_what_is_not_there_are_counted(tmp_path):
    lost = [*refs(), *refs(image_id=99), *refs(ann_id=99)]
    lost[0]["sentences"][1]["sent"] = " "
    found = read_refcoco(refer_root(tmp_path, lost), "refcoco", "val")
    assert [expression.text for expression in found.expressions] == ["left cup"]
    assert found.dropped == Counter(
        expression_of_unknown_image=2, expression_of_unknown_annotation=2, empty_expression=1
    )


def test_unknown_data_sets_and_splits_are_refused(tmp_path):
    root = refer_root(tmp_path, refs())
    with pytest.raises(ValueError, match="refcoco: expected one of the splits val, got 'testA'"):
        read_refcoco(root, "refcoco", "testA")
    with pytest.raises(
        ValueError, match=r"refcoco\+: expected .*instances.json, or .*REC_refcoco\+_\*.jsonl; found neither"
    ):
        read_refcoco(root, "refcoco+", "val")


def rec_line(**change):
    row = {
        "img_path": "COCO_train2014_000000000007.jpg",
        "expression": "left cup",
        "bbox": [1, 2, 50, 30],
        "height": 50,
    }
    return json.dumps(row | {"width": 100, "image_id": 7, "sent_id": 3, "split": "validation"} | change)


def test_jsonl_boxes_are_xyxy_already(tmp_path):
    lines = [rec_line(), rec_line(bbox=[5, 5, 5, 9]), rec_line(expression=""), rec_line(bbox=[90, 2, 110, 30])]
    write(tmp_path / "annotations_only/REC_refcocog_umd_val.jsonl", "\n".join(lines) + "\n")
    found = read_refcoco(tmp_path, "refcocog", "val")
    assert [expression.box_xyxy for expression in found.expressions] == [(1, 2, 50, 30), (90, 2, 100, 30)]
    assert found.expressions[0].split == "val"
    assert found.expressions[0].annotation_id is None
    assert found.images[7].boxes_xyxy.shape == (0, 4)
    assert found.dropped == Counter(empty_box=1, empty_expression=1, box_cut_at_border=1)
    write(tmp_path / "annotations_only/REC_refcocog_umd_test.jsonl", "{}\n")
    with pytest.raises(ValueError, match=r"REC_refcocog_umd_test.jsonl:1: expected img_path, expression"):
        read_refcoco(tmp_path, "refcocog", "test")


def coco_photos(split):
    folder = PHOTOS / "coco/annotations"
    return read_coco(folder / f"instances_{split}.json", PHOTOS / "coco" / split, folder / f"captions_{split}.json")


@photos
@pytest.mark.photos
@pytest.mark.parametrize(
    ("split", "images", "boxes", "crowds", "captions", "dropped"),
    [("train2017", 130, 1339, 15, 500, {}), ("val2017", 74, 724, 11, 370, {"caption_of_unknown_image": 55})],
)
def test_all_sample_photos_of_coco_are_read(split, images, boxes, crowds, captions, dropped):
    found = coco_photos(split)
    assert len(found.images) == images
    assert sum(len(image.boxes_xyxy) for image in found.images) == boxes
    assert sum(int(image.crowd.sum()) for image in found.images) == crowds
    assert sum(len(image.captions) for image in found.images) == captions
    assert found.dropped == dropped
    assert all(image.path.is_file() for image in found.images)


@photos
@pytest.mark.photos
@pytest.mark.parametrize(
    ("name", "images", "boxes", "here"),
    [
        ("lvis_val_100", 100, 977, 9),
        ("lvis_v0.5_val_mini", 9, 55, 9),
        ("lvis_v1_style_from_coco_val", 74, 713, 74),
    ],
)
def test_all_lvis_samples_are_read(name, images, boxes, here):
    found = read_lvis(PHOTOS / f"lvis/{name}.json", [PHOTOS / "coco/val2017", PHOTOS / "coco/train2017"])
    assert len(found.images) == images
    assert sum(len(image.boxes_xyxy) for image in found.images) == boxes
    assert sum(image.path.is_file() for image in found.images) == here
    assert not found.dropped


@photos
@pytest.mark.photos
@pytest.mark.parametrize(
    ("dataset", "counts"), [("refcoco", {"val": 15, "testA": 12, "testB": 14}), ("refcocog", {"val": 13, "test": 5})]
)
def test_all_refcoco_samples_are_read(dataset, counts):
    root = PHOTOS / "refcoco"
    assert set(refcoco_splits(root, dataset)) == set(counts)
    for split, count in counts.items():
        found = read_refcoco(root, dataset, split)
        assert len(found.expressions) == count
        assert not found.dropped
        assert all(image.path.is_file() for image in found.images.values())


@photos
@pytest.mark.photos
def test_the_published_refcoco_pickles_equal_their_json(tmp_path):
    for dataset, publisher in (("refcoco", "unc"), ("refcocog", "umd")):
        source, target = PHOTOS / "refcoco" / dataset, tmp_path / dataset
        target.mkdir()
        for name in ("instances.json", f"refs({publisher}).p"):
            (target / name).symlink_to((source / name).resolve())
        pickled, plain = (read_refcoco(root, dataset, "val") for root in (tmp_path, PHOTOS / "refcoco"))
        assert pickled.file.suffix == ".p"
        assert pickled.expressions == plain.expressions


@photos
@pytest.mark.photos
def test_the_whole_evaluation_splits_are_read(tmp_path):
    (tmp_path / "annotations_only").symlink_to((PHOTOS / "refcoco/annotations_only").resolve())
    assert refcoco_splits(tmp_path, "refcoco") == ("val", "testA", "testB")
    counts = {
        ("refcoco", "val"): 10813,
        ("refcoco", "testA"): 5657,
        ("refcoco", "testB"): 5083,
        ("refcocog", "val"): 4894,
    }
    for (dataset, split), count in counts.items():
        found = read_refcoco(tmp_path, dataset, split)
        assert len(found.expressions) == count
        assert not found.dropped
