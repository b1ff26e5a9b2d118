"""Which photo an entry means: one rule for every reader of a benchmark, that of the converters."""

import json

import pytest

from benchmarks.tasks import ferret_bench, pope
from cloc.formats.coco import read_coco
from cloc.formats.fgovd import read_fgovd
from cloc.formats.karpathy import read_karpathy
from cloc.formats.lvis import read_lvis
from cloc.formats.refcoco import read_refcoco
from cloc.formats.reflvis import read_reflvis


def lines(path, *entries):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries), encoding="utf-8")
    return path


def instances(names, field="file_name"):
    sized = {"width": 40, "height": 30}
    listed = [{"id": number, field: name, **sized} for number, name in enumerate(names, start=1)]
    return {"images": listed, "annotations": [], "categories": [{"id": 1, "name": "cup"}]}


def by_coco(root, photos, names):
    return [image.path for image in read_coco(lines(root / "i.json", instances(names)), photos).images]


def by_lvis(root, photos, names):
    content = instances(names)
    for image in content["images"]:
        image["coco_url"] = ""
    return [image.path for image in read_lvis(lines(root / "l.json", content), [photos]).images]


def by_karpathy(root, photos, names):
    images = [
        {"filename": name, "split": "test", "imgid": number, "sentences": [{"raw": "a cup"}]}
        for number, name in enumerate(names)
    ]
    return [one.path for one in read_karpathy(lines(root / "k.json", {"images": images}), photos, "test", "k").images]


def by_fgovd(root, photos, names):
    entry = {"bbox": [1, 1, 9, 9], "pos_expression": ["a"], "neg_expression": ["b"], "width": 40, "height": 30}
    told = [{**entry, "img_path": name, "image_id": n, "sent_id": n} for n, name in enumerate(names)]
    return [choice.path for choice in read_fgovd(lines(root / "h.jsonl", *told), photos).choices]


def by_reflvis(root, photos, names):
    entry = {"width": 40, "height": 30, "name": "cup", "synonyms": [], "neg_class": "dog"}
    told = [{**entry, "image_path": name, "bbox_norm": [0, 0, 0.5, 0.5], "sample_point": [9, 9]} for name in names]
    return [question.path for question in read_reflvis(lines(root / "r.jsonl", *told), photos).questions]


def by_pope(root, photos, names):
    told = [{"question_id": n, "image": name, "text": "?", "label": "yes"} for n, name in enumerate(names)]
    found = pope._read(lines(root / "p.jsonl", *told), (photos,))
    return [found.photos[name] for name in names]


def by_ferret(root, photos, names):
    told = [{"question_id": n, "image": name, "category": "c", "text": "?"} for n, name in enumerate(names)]
    for kind in ("question", "answer"):
        lines(root / f"part_{kind}.jsonl", *told)
    lines(root / "part_context.jsonl", *told)
    found = ferret_bench._read(root, "part", photos)
    return [found.photos[name] for name in names]


def by_refcoco(root, photos, names):
    content = instances(names)
    refs = []
    for image in content["images"]:
        number = image["id"]
        box = {"id": number, "image_id": number, "category_id": 1, "bbox": [1, 1, 9, 9]}
        content["annotations"].append(box)
        sentences = [{"sent_id": number, "sent": "cup"}]
        refs.append({"ref_id": number, "ann_id": number, "image_id": number, "split": "val", "sentences": sentences})
    place = root / "refcoco/refcoco"
    lines(place / "instances.json", content)
    (place / "refs(unc).json").write_text(json.dumps(refs), encoding="utf-8")
    return [image.path for image in read_refcoco(root / "refcoco", "refcoco", "val").images.values()]


def by_refcoco_lines(root, photos, names):
    entry = {"expression": "cup", "bbox": [1, 1, 9, 9], "width": 40, "height": 30}
    told = [{**entry, "img_path": name, "image_id": n, "sent_id": n} for n, name in enumerate(names)]
    lines(root / "refcoco/annotations_only/REC_refcoco_unc_val.jsonl", *told)
    return [image.path for image in read_refcoco(root / "refcoco", "refcoco", "val").images.values()]


READERS = [by_coco, by_lvis, by_karpathy, by_fgovd, by_reflvis, by_pope, by_ferret, by_refcoco, by_refcoco_lines]
readers = pytest.mark.parametrize("reader", READERS)


@pytest.fixture
def photos(tmp_path):
    """Four photos; the folder has the name and the place in which RefCOCO's are looked for."""
    folder = tmp_path / "refcoco/images/mscoco/images/train2014"
    for name in ("cam1/1.jpg", "cam2/1.jpg", "cam2/only.jpg", "flat.jpg"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name, encoding="utf-8")
    return folder


def inside(folder, paths):
    return [path.relative_to(folder).as_posix() for path in paths]


@readers
@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["cam1/1.jpg", "cam2/1.jpg"], ["cam1/1.jpg", "cam2/1.jpg"]),
        (["cam2\\1.jpg", ".\\cam1\\1.jpg"], ["cam2/1.jpg", "cam1/1.jpg"]),
        (["./cam2//1.jpg", "./flat.jpg"], ["cam2/1.jpg", "flat.jpg"]),
        (["train2014/cam2/1.jpg", "train2014/flat.jpg"], ["cam2/1.jpg", "flat.jpg"]),
        (["only.jpg"], ["cam2/only.jpg"]),
        (["data/train2014/flat.jpg"], ["flat.jpg"]),
        (["FLAT.JPG"], ["FLAT.JPG"]),
        (["flat.jpeg"], ["flat.jpg"]),
        (["cam1/1.jpg", "cam3/only.jpg"], ["cam1/1.jpg", "cam3/only.jpg"]),
        (["nowhere/2.jpg"], ["nowhere/2.jpg"]),
    ],
)
def test_a_photo_is_found_by_its_whole_name(tmp_path, photos, reader, names, expected):
    assert inside(photos, reader(tmp_path, photos, names)) == expected


@readers
@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["1.jpg"], "2 photos have this name"),
        (["only.jpg", "cam3/only.jpg"], "could both only be"),
        (["a/../../1.jpg"], "inside the folder"),
    ],
)
def test_a_name_that_means_no_one_photo_is_refused(tmp_path, photos, reader, names, message):
    if reader in (by_reflvis, by_refcoco, by_refcoco_lines) and "inside" in message:
        message = "2 photos have this name"  # their files are known to begin their names anywhere
    with pytest.raises(ValueError, match=message) as refused:
        reader(tmp_path, photos, names)
    assert ".json" in str(refused.value)


@readers
def test_a_folder_that_is_not_there_holds_no_photo(tmp_path, reader):
    (path,) = reader(tmp_path, tmp_path / "refcoco/images/mscoco/images/train2014", ["sub/1.jpg"])
    assert path == tmp_path / "refcoco/images/mscoco/images/train2014/sub/1.jpg"


@pytest.mark.parametrize("root", ["/mnt/data/", "C:\\data\\", "../../", "coco/../"])
@pytest.mark.parametrize("reader", [by_reflvis, by_refcoco, by_refcoco_lines])
def test_names_of_another_machine_are_found_by_their_end(tmp_path, photos, reader, root):
    assert inside(photos, reader(tmp_path, photos, [f"{root}train2014/cam2/1.jpg"])) == ["cam2/1.jpg"]


def test_lvis_takes_photos_that_are_not_cocos(tmp_path):
    """TAO, CVAT and datumaro write LVIS's layout over photos of their own, whose numbers may be COCO's as well."""
    photos = [tmp_path / "val2017", tmp_path / "train2017"]
    for name in ("val2017/000000000007.jpg", "val2017/seq/a/000000000007.jpg", "train2017/seq/b/000000000007.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name, encoding="utf-8")
    content = instances(["seq/a/000000000007.jpg", "seq/b/000000000007.jpg", "000000000007.jpg"])
    content["images"][0]["coco_url"] = ""
    content["images"][1]["coco_url"] = "http://other.host/videos/b.mp4"
    content["images"][2]["coco_url"] = "http://images.cocodataset.org/val2017/000000000007.jpg"
    found = [image.path for image in read_lvis(lines(tmp_path / "l.json", content), photos).images]
    assert inside(tmp_path, found) == [
        "val2017/seq/a/000000000007.jpg", "train2017/seq/b/000000000007.jpg", "val2017/000000000007.jpg",
    ]  # fmt: skip


def test_an_expression_whose_annotation_has_no_usable_box_is_named(tmp_path, photos):
    by_refcoco(tmp_path, photos, ["flat.jpg", "cam1/1.jpg", "cam2/1.jpg"])
    file = tmp_path / "refcoco/refcoco/instances.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    content["annotations"][0]["bbox"] = [5, 5, 0, 9]
    content["annotations"][1]["id"] = 99
    file.write_text(json.dumps(content), encoding="utf-8")
    found = read_refcoco(tmp_path / "refcoco", "refcoco", "val")
    assert [expression.image_id for expression in found.expressions] == [3]
    assert found.dropped == {"empty_box": 1, "expression_of_unusable_box": 1, "expression_of_unknown_annotation": 1}


@pytest.mark.parametrize("scale", [1000, 480])
def test_boxes_of_ref_lvis_in_another_frame_are_refused(tmp_path, photos, scale):
    entry = {"image_path": "flat.jpg", "width": 640, "height": 480, "name": "cup", "synonyms": [], "neg_class": "dog"}
    told = [{**entry, "bbox_norm": [v * scale for v in (0.1, 0.2, 0.5, 0.9)], "sample_point": [99, 99]}] * 8
    with pytest.raises(ValueError, match="expected bbox as corners"):
        read_reflvis(lines(tmp_path / "r.jsonl", *told), photos)


@pytest.mark.parametrize("box", [[0.1, 0.2, 0.5, 0.9], [300, 200, 600, 400]])
def test_boxes_of_fg_ovd_in_another_frame_are_refused(tmp_path, photos, box):
    entry = {"img_path": "flat.jpg", "bbox": box, "pos_expression": ["a"], "neg_expression": ["b"]}
    told = [{**entry, "width": 640, "height": 480, "image_id": n, "sent_id": n} for n in range(8)]
    with pytest.raises(ValueError, match="expected bbox as x, y, width, height"):
        read_fgovd(lines(tmp_path / "h.jsonl", *told), photos)


@pytest.mark.parametrize(("width", "image", "question"), [("40", 7.0, "3"), (40.0, "7", 3.0)])
def test_whole_numbers_may_be_written_as_texts(tmp_path, photos, width, image, question):
    entry = {"img_path": "flat.jpg", "bbox": ["1", "1", 9, 9], "pos_expression": ["a"], "neg_expression": ["b"]}
    told = {**entry, "width": width, "height": 30, "image_id": image, "sent_id": "1"}
    (choice,) = read_fgovd(lines(tmp_path / "h.jsonl", told), photos).choices
    assert (choice.size, choice.image_id, choice.sent_id) == ((40, 30), 7, 1)
    asked = {"question_id": question, "image": "flat.jpg", "text": "?", "label": "no"}
    assert pope._read(lines(tmp_path / "p.jsonl", asked), (photos,)).lines[0]["question_id"] == 3


@pytest.mark.parametrize("change", [{"sample_point": [1]}, {"sample_point": ["a", None]}, {"bbox_norm": [0, 1]}])
def test_a_damaged_question_of_ref_lvis_is_named(tmp_path, photos, change):
    entry = {"image_path": "flat.jpg", "width": 640, "height": 480, "name": "cup", "synonyms": [], "neg_class": "dog"}
    entry |= {"bbox_norm": [0, 0, 1, 1], "sample_point": [9, 9], **change}
    with pytest.raises(ValueError, match=r"r.jsonl: question 0: expected bbox_norm of four numbers"):
        read_reflvis(lines(tmp_path / "r.jsonl", entry), photos)


@pytest.mark.parametrize("number", [{"cocoid": None, "imgid": "4"}, {"cocoid": "4"}, {"cocoid": 4.0, "imgid": 1}])
def test_karpathys_odd_entries_are_numbers_or_counted(tmp_path, photos, number):
    entry = {"filename": "flat.jpg", "split": "test", "sentences": ["a", {"raw": None}, {"raw": " a  cup "}], **number}
    images = [entry, {**entry, "sentences": {"raw": "a"}}]
    found = read_karpathy(lines(tmp_path / "k.json", {"images": images}), photos, "test", "k")
    assert [(image.image_id, image.captions) for image in found.images] == [(4, ("a cup",))]
    assert found.dropped == {"no_caption": 1}
