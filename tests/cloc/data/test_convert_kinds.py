"""Kinds of faults against every converter with boxes: another frame, numbers as texts, missing ids, lost boxes."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from cloc.convert.__main__ import main
from cloc.data.shards import ShardSet

W, H, IMAGES, BOXES = 64, 48, 4, 6
LOW = np.random.default_rng(0).integers(1, 25, (IMAGES * BOXES, 2))
SIDES = np.random.default_rng(1).integers(6, 20, (IMAGES * BOXES, 2))
FRAMES = {
    "xywh": np.concatenate([LOW, SIDES], axis=1),
    "xyxy": np.concatenate([LOW, LOW + SIDES], axis=1),
}
FRAMES |= {f"{name} of 0 to 1": boxes / [W, H, W, H] for name, boxes in FRAMES.items()}


def boxes_of(frame, image):
    return FRAMES[frame][image * BOXES : (image + 1) * BOXES].tolist()


def images(**more):
    return [{"id": i, "file_name": f"{i}.jpg", "width": W, "height": H, **more} for i in range(IMAGES)]


def annotations(frame, **more):
    listed = [(i, box) for i in range(IMAGES) for box in boxes_of(frame, i)]
    return [{"id": n, "image_id": i, "category_id": 1, "bbox": box, **more} for n, (i, box) in enumerate(listed)]


def coco(frame, **change):
    content = {
        "images": images(),
        "annotations": annotations(frame, **change),
        "categories": [{"id": 1, "name": "cup"}],
    }
    return {"file.json": content}


def lvis(frame, **change):
    content = coco(frame, **change)
    content["file.json"]["categories"][0]["frequency"] = "f"
    return content


def goldg(frame, **change):
    content = {"images": images(caption="a cup"), "annotations": annotations(frame, tokens_positive=[[2, 5]], **change)}
    return {"file.json": content}


def odvg(frame, **change):
    rows = [
        {"filename": f"{i}.jpg", "width": W, "height": H, **change}
        | {"detection": {"instances": [{"bbox": b, "label": 1, "category": "cup"} for b in boxes_of(frame, i)]}}
        for i in range(IMAGES)
    ]
    return {"file.jsonl": rows}


def grit(frame, **change):
    rows = [
        {"key": str(i), "caption": "a cup", "width": W, "height": H, **change}
        | {"noun_chunks": [[2, 5, *box, 0.9] for box in boxes_of(frame, i)], "ref_exps": []}
        for i in range(IMAGES)
    ]
    return {"file.jsonl": rows}


def finehard(frame, **change):
    rows = [
        {"f_path": f"{i}.jpg", "caption": "a cup", **change}
        | {"bbox_info": [{"bbox": [*box, 0.9], "short_expr": "a cup"} for box in boxes_of(frame, i)]}
        for i in range(IMAGES)
    ]
    return {"file.json": rows}


def llava(frame, **change):
    def turns(box):
        told = ", ".join(f"{value:.4f}" for value in box)
        return [{"from": "human", "value": f"What is in [{told}]?"}, {"from": "gpt", "value": "a cup"}]

    rows = [
        {"image": f"{i}.jpg", "conversations": [turn for box in boxes_of(frame, i) for turn in turns(box)], **change}
        for i in range(IMAGES)
    ]
    return {"file.json": rows}


def genome(frame, **change):
    def region(box):
        return dict(zip(("x", "y", "width", "height"), box, strict=True)) | {"phrase": "a cup"} | change

    rows = [{"id": i + 1, "regions": [region(box) for box in boxes_of(frame, i)]} for i in range(IMAGES)]
    data = [{"image_id": i + 1, "width": W, "height": H, "url": f"http://x/{i}.jpg"} for i in range(IMAGES)]
    return {"image_data.json": data, "region_descriptions.json": rows}


def refcoco(frame, **change):
    content = {
        "images": images(),
        "annotations": annotations(frame, **change),
        "categories": [{"id": 1, "name": "cup"}],
    }
    refs = [
        {"ref_id": one["id"], "ann_id": one["id"], "image_id": one["image_id"], "split": "train"}
        | {"sentences": [{"sent": "left cup", "sent_id": one["id"]}]}
        for one in annotations(frame)
    ]
    return {"refcoco/instances.json": content, "refcoco/refs(unc).json": refs}


def entities(frame, **change):
    files = {"train.txt": "\n".join(map(str, range(IMAGES)))}
    for i in range(IMAGES):
        marks = " ".join(f"[/EN#{n + 1}/people cup {n}]" for n in range(BOXES))
        names = ("xmin", "ymin", "xmax", "ymax")
        told = [zip(names, box, strict=True) for box in boxes_of(frame, i)]
        objects = [
            f"<object><name>{n + 1}</name><bndbox>{''.join(f'<{k}>{v + 1}</{k}>' for k, v in one)}</bndbox></object>"
            for n, one in enumerate(told)
        ]
        size = f"<size><width>{W}</width><height>{H}</height></size>"
        files |= {f"Sentences/{i}.txt": marks, f"Annotations/{i}.xml": f"<a>{size}{''.join(objects)}</a>"}
    return files


FORMATS = {
    "coco": (coco, "xywh", ["--instances", "file.json"]),
    "lvis": (lvis, "xywh", ["--annotations", "file.json"]),
    "objects365": (coco, "xywh", ["--annotations", "file.json"]),
    "goldg": (goldg, "xywh", ["--annotations", "file.json"]),
    "visual_genome": (genome, "xywh", ["--root", "."]),
    "refcoco": (refcoco, "xywh", ["--root", ".", "--dataset", "refcoco"]),
    "odvg": (odvg, "xyxy", ["--annotations", "file.jsonl"]),
    "flickr30k_entities": (entities, "xyxy", ["--root", "."]),
    "grit": (grit, "xyxy of 0 to 1", ["--rows", "file.jsonl"]),
    "finehard": (finehard, "xyxy of 0 to 1", ["--rows", "file.json"]),
    "llava": (llava, "xyxy of 0 to 1", ["--conversations", "file.json", "--coordinates", "unit"]),
}


@pytest.fixture
def convert(tmp_path, monkeypatch):
    """Writes files, converts them in process, and gives (exit code, card or None)."""
    (tmp_path / "photos").mkdir()
    buffer = io.BytesIO()
    Image.new("RGB", (W, H)).save(buffer, "JPEG")
    for i in range(IMAGES):
        (tmp_path / f"photos/{i}.jpg").write_bytes(buffer.getvalue())
    monkeypatch.chdir(tmp_path)

    def run(name, files, *more, out="out"):
        for file, content in files.items():
            path = tmp_path / file
            path.parent.mkdir(parents=True, exist_ok=True)
            lines = file.endswith(".jsonl")
            text = "\n".join(map(json.dumps, content)) if lines else json.dumps(content)
            path.write_text(content if isinstance(content, str) else text)
        arguments = [*FORMATS[name][2], "--images", "photos", "--out", out, "--workers", "1", *more]
        code = main([name, *arguments])
        return code, json.loads((tmp_path / out / "dataset.json").read_text()) if code == 0 else None

    return run


@pytest.mark.parametrize("name", FORMATS)
def test_the_promised_frame_is_converted_whole(convert, name):
    make, frame, _ = FORMATS[name]
    code, card = convert(name, make(frame))
    assert code == 0
    assert card["counts"]["regions"] == IMAGES * BOXES
    assert card["dropped"] == {}


@pytest.mark.parametrize(("name", "frame"), [(n, f) for n, row in FORMATS.items() for f in FRAMES if f != row[1]])
def test_boxes_in_another_frame_are_refused(convert, name, frame, capsys):
    if name == "llava" and frame == "xywh":
        pytest.skip("numbers above 1 are seen either way")
    code, _ = convert(name, FORMATS[name][0](frame))
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert code == 2
    assert "expected bbox as" in last or "were left out as" in last
    assert "Traceback" not in last


@pytest.mark.parametrize(
    ("change", "ids"),
    [
        ({"id": None}, False),
        ({"id": "a-1"}, False),
        ({"id": 0}, True),  # unique in nothing
        ({"image_id": 0.0}, None),
        ({"iscrowd": "0"}, None),
        ({"category_id": "1"}, None),
        ({"category_id": 1.0}, None),
        ({"id": 1 << 70}, False),
        ({"id": True}, False),
    ],
)
@pytest.mark.parametrize("name", ["coco", "lvis", "objects365", "goldg"])
def test_boxes_stay_however_their_numbers_are_written(convert, name, change, ids):
    make, frame, _ = FORMATS[name]
    files = make(frame)
    for one in files["file.json"]["annotations"]:
        one.update(change if "image_id" not in change else {"image_id": float(one["image_id"])})
    code, card = convert(name, files)
    assert (code, card["counts"]["regions"], card["dropped"]) == (0, IMAGES * BOXES, {})
    shards = ShardSet.open("out")
    own = [r.extras.get("annotation_id") for i in range(IMAGES) for r in shards.read_sample(0, i).regions]
    if ids is None:
        assert own == list(range(IMAGES * BOXES))


def test_numbers_as_texts_are_numbers_everywhere(convert):
    def texts(value):
        if isinstance(value, dict):
            return {name: texts(one) for name, one in value.items()}
        if isinstance(value, list):
            return [texts(one) for one in value]
        return str(value) if isinstance(value, (int, float)) else value

    for name in ("coco", "odvg", "grit", "visual_genome"):
        make, frame, _ = FORMATS[name]
        files = {file: texts(content) for file, content in make(frame).items()}
        code, card = convert(name, files, out=f"out-{name}")
        assert (code, card["counts"]["regions"], card["dropped"]) == (0, IMAGES * BOXES, {}), name


@pytest.mark.parametrize("lost", [1, 4, 6, IMAGES * BOXES])
def test_more_than_a_tenth_lost_for_one_reason_ends_with_that_line(convert, lost, capsys):
    files = coco("xywh")
    for one in files["file.json"]["annotations"][:lost]:
        one["category_id"] = 99
    code, card = convert("coco", files)
    told = capsys.readouterr()
    if lost < 5:
        assert (code, card["counts"]["regions"]) == (0, IMAGES * BOXES - lost)
        noted = (
            told.out.strip().splitlines()[-1].startswith(f"note: {lost} of 24 boxes were left out as unknown_category")
        )
        assert noted is (lost > 2)
        return
    assert code == 2
    last = told.err.strip().splitlines()[-1]
    assert f"{lost} of 24 boxes were left out as unknown_category (category_id is none of the list categories)" in last
    assert "--allow-losses" in last
    code, card = convert("coco", files, "--allow-losses")
    assert (code, card["dropped"]) == (0, {"unknown_category": lost})


def test_photos_that_are_not_there_end_nothing_and_the_first_path_is_told(convert, capsys):
    files = coco("xywh")
    for one in files["file.json"]["images"][1:]:
        one["file_name"] = f"sub\\{one['file_name']}x"
    assert convert("coco", files)[0] == 0
    for one in files["file.json"]["images"]:
        one["file_name"] = "sub\\1.jpgx"
    assert convert("coco", files, out="none")[0] == 2
    assert "photos/sub/1.jpgx: no such file" in capsys.readouterr().err


def test_an_image_id_of_two_photos_is_neithers(convert):
    files = coco("xywh")
    files["file.json"]["images"] += [{"id": 0, "file_name": "1.jpg", "width": W, "height": H}, dict(images()[1])]
    code, card = convert("coco", files, "--allow-losses")
    assert (code, card["counts"]["samples"]) == (0, IMAGES - 1)
    assert card["dropped"] == {"duplicate_image_id": 3, "unknown_image": BOXES}


def test_a_category_id_of_two_names_is_neithers(convert):
    files = coco("xywh")
    files["file.json"]["categories"] += [{"id": 2, "name": "a"}, {"id": 2, "name": "b"}, {"id": 1, "name": "cup"}, 7]
    code, card = convert("coco", files)
    assert [one["name"] for one in card["categories"]] == ["cup"]
    assert (code, card["dropped"]) == (0, {"bad_category": 1, "duplicate_category_id": 2})


def of_images(**annotation):
    return {"file.json": {"images": images(), "annotations": [{"image_id": 1, **annotation}]}}


@pytest.mark.parametrize(
    ("name", "files", "said"),
    [
        ("coco", of_images(caption="a"), "a COCO captions file: python -m cloc.convert coco --captions"),
        ("coco", {"file.json": goldg("xywh")["file.json"]["images"]}, "with the lists images"),
        ("lvis", {"file.json": finehard("xyxy")["file.json"]}, "finehard --rows"),
        ("objects365", {"file.json": llava("xyxy")["file.json"]}, "llava --conversations"),
        ("goldg", of_images(segments_info=[]), "panoptic"),
        ("visual_genome", {**genome("xywh"), "image_data.json": coco("xywh")["file.json"]}, "coco --instances"),
    ],
)
def test_a_file_of_another_layout_is_told_which_converter_takes_it(convert, name, files, said, capsys):
    assert convert(name, files)[0] == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(("name", "frame"), [(n, row[1]) for n, row in FORMATS.items() if row[1] in ("xywh", "xyxy")])
def test_a_part_in_another_frame_is_told_with_its_share(convert, name, frame, capsys, monkeypatch):
    """A quarter of the boxes in corners for widths: too few to refuse the file, too many for silence."""
    odd = FRAMES[frame].copy()
    odd[::4] = [20, 10, W + 20, 30] if frame == "xyxy" else [30, 20, 50, 40]
    monkeypatch.setitem(FRAMES, frame, odd)
    code, card = convert(name, FORMATS[name][0](frame))
    assert code == 0
    assert card["dropped"]["box_beyond_its_image"] == IMAGES * BOXES // 4
    said = capsys.readouterr().out.splitlines()
    assert any(line.startswith("note: about 6 of 24 boxes (25%) end outside their image") for line in said)


@pytest.mark.parametrize(("name", "again"), [("coco", 1), ("lvis", 1), ("objects365", 1), ("goldg", 0)])
def test_a_photo_under_two_ids_is_told(convert, name, again, capsys):
    """MDETR's files name a photo once for each of its captions; in the others its boxes are torn apart."""
    content = FORMATS[name][0](FORMATS[name][1])
    content["file.json"]["images"][1]["file_name"] = ".\\0.jpg"
    code, card = convert(name, content)
    assert (code, card["dropped"].get("file_name_again", 0)) == (0, again)
    assert ("name a photo that another image names too" in capsys.readouterr().out) == bool(again)


def test_llavas_boxes_of_the_photo_are_refused_as_boxes_of_the_padded_one(convert, capsys):
    arguments = FORMATS["llava"][0](FORMATS["llava"][1])
    code, card = convert("llava", arguments, "--coordinates", "square")
    assert (code, card) == (2, None)
    assert "reach into the padding" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["coco", "lvis", "objects365"])
def test_a_set_without_one_box_is_told(convert, name, capsys):
    content = FORMATS[name][0](FORMATS[name][1])
    content["file.json"]["annotations"] = []
    code, card = convert(name, content)
    assert (code, card["counts"]["regions"]) == (0, 0)
    assert "note: not one box is in this set" in capsys.readouterr().out
