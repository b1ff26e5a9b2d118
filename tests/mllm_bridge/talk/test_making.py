"""Conversations made from annotation files: seeded, split by photo, with boxes as text that reads back."""

import json

import pytest
from PIL import Image

from cloc.box_text import BoxTextFormat
from mllm_bridge.conversations.__main__ import main as make
from mllm_bridge.conversations.reading import read_conversations

SIZE = (80, 40)
SENTENCE = "[/EN#1/people A tall man] holds [/EN#2/other a ball] near [/EN#3/scene the sea] ."
XML = """<annotation><filename>{number}.jpg</filename><size><width>80</width><height>40</height><depth>3</depth></size>
<object><name>1</name><bndbox><xmin>11</xmin><ymin>6</ymin><xmax>41</xmax><ymax>36</ymax></bndbox></object>
<object><name>2</name><bndbox><xmin>51</xmin><ymin>6</ymin><xmax>61</xmax><ymax>16</ymax></bndbox></object>
<object><name>3</name><scene>1</scene><nobndbox>1</nobndbox></object></annotation>"""


@pytest.fixture
def coco(tmp_path):
    """Forty photos of a cat and two dogs; the last photo is not there."""
    images, annotations, captions = [], [], []
    (tmp_path / "photos").mkdir()
    for number in range(40):
        name = f"{number:03d}.jpg"
        if number < 39:
            Image.new("RGB", SIZE, (number, 0, 0)).save(tmp_path / "photos" / name)
        images.append({"id": number, "file_name": name, "width": SIZE[0], "height": SIZE[1]})
        for category, box in ((1, [10, 5, 30, 30]), (2, [50, 5, 10, 10]), (2, [60, 20, 15, 15])):
            told = {"image_id": number, "category_id": category, "bbox": box, "area": 9, "iscrowd": 0}
            annotations.append({"id": len(annotations) + 1, **told})
        captions.append({"id": number, "image_id": number, "caption": f"A cat and two dogs, {number}."})
    categories = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
    instances = {"images": images, "annotations": annotations, "categories": categories}
    (tmp_path / "instances.json").write_text(json.dumps(instances))
    (tmp_path / "captions.json").write_text(json.dumps({"images": images, "annotations": captions}))
    return ["coco", "--instances", str(tmp_path / "instances.json"), "--captions", str(tmp_path / "captions.json"),
            "--images", str(tmp_path / "photos"), "--held-out", "0.25"]  # fmt: skip


def read(folder, name, images):
    return read_conversations(folder / f"{name}.json", images).conversations


def test_coco(coco, tmp_path, capsys):
    out = tmp_path / "talk"
    assert make([*coco, "--out", str(out), "--scale", "thousand"]) == 0
    told = capsys.readouterr().out
    assert "missing_image 1" in told
    assert "places.scale=thousand places.padded=true" in told
    photos, places = tmp_path / "photos", BoxTextFormat("thousand", True)
    train, val = read(out, "conversations", photos), read(out, "conversations_val", photos)
    seen, aside = {one.images[0].name for one in train}, {one.images[0].name for one in val}
    assert not seen & aside
    assert len(seen | aside) == 39
    assert 3 <= len(aside) <= 20
    assert all(len(one.turns) == 2 for one in val)
    for one in (*train, *val):
        for kind, question, answer in zip(one.extras["kinds"], one.turns[::2], one.turns[1::2], strict=True):
            if kind == "grounding":  # the dogs are two, so nobody asks where the dog is
                assert "the cat" in question.text
                (box,) = places.read(answer.text, SIZE).boxes_xyxy
                assert box == pytest.approx((10, 5, 40, 35), abs=0.1)
            elif kind == "referring":
                (box,) = places.read(question.text, SIZE).boxes_xyxy
                assert answer.text == ("cat" if box[0] < 20 else "dog")
            else:
                assert answer.text == f"A cat and two dogs, {int(one.images[0].stem)}."
    twin = read(out, "conversations_regions", photos)
    assert [len(one.turns) for one in twin] == [len(one.turns) for one in train]
    assert {place.box for one in twin for place in one.regions} == {
        (10.0, 5.0, 40.0, 35.0),
        (50.0, 5.0, 60.0, 15.0),
        (60.0, 20.0, 75.0, 35.0),
    }


def test_a_seed_gives_the_same_files_and_another_one_others(coco, tmp_path):
    for name, seed in (("one", "3"), ("two", "3"), ("three", "4")):
        assert make([*coco, "--out", str(tmp_path / name), "--seed", seed]) == 0
    one, two, three = ((tmp_path / name / "conversations.json").read_text() for name in ("one", "two", "three"))
    assert one == two
    assert one != three


def entities(tmp_path):
    for name in ("Sentences", "Annotations", "photos"):
        (tmp_path / name).mkdir()
    for number in range(1, 9):
        (tmp_path / "Sentences" / f"{number}.txt").write_text(f"{SENTENCE}\n{SENTENCE.replace('tall', 'young')}\n")
        (tmp_path / "Annotations" / f"{number}.xml").write_text(XML.format(number=number))
        Image.new("RGB", SIZE).save(tmp_path / "photos" / f"{number}.jpg")
    (tmp_path / "train.txt").write_text("\n".join(map(str, range(1, 9))))


def test_entities(tmp_path, capsys):
    entities(tmp_path)
    out = tmp_path / "talk"
    asked = ["entities", "--root", str(tmp_path), "--images", str(tmp_path / "photos"), "--held-out", "0"]
    assert make([*asked, "--out", str(out), "--scale", "pixels"]) == 0
    found = read(out, "conversations", tmp_path / "photos")
    assert len(found) == 8
    kinds = [kind for one in found for kind in one.extras["kinds"]]
    assert {kind: kinds.count(kind) for kind in set(kinds)} == {"caption": 8, "referring": 16, "grounding": 24}
    texts = [turn.text for one in found for turn in one.turns]
    assert any("a young man" in text for text in texts)
    assert not any("the sea" in text for text in texts if "holds" not in text)  # has no box
    assert "[10, 5, 40, 35]" in " ".join(texts)
    assert json.loads((out / "card.json").read_text())["coordinates"]["padded"] is False


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (["--images", "gone"], "there is no such folder"),
        (["--instances", "gone.json"], "gone.json"),
        (["--rounds", "0"], "at least 1"),
        (["--held-out", "1"], "below 1"),
        (["--held-out", "nan"], "below 1"),
        (["--scale", "pixels", "--frame", "padded"], "set padded to false"),
        (["--seed", "-1"], "--seed"),
    ],
)
def test_mistakes_are_one_line(coco, tmp_path, capsys, changes, said):
    assert make([*coco, "--out", str(tmp_path / "out"), *changes]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line
    assert not (tmp_path / "out").exists()


@pytest.mark.photos
def test_the_sample_data(sample_data, tmp_path):
    coco = sample_data / "coco"
    told = ["coco", "--instances", str(coco / "annotations" / "instances_val2017.json")]
    told += ["--captions", str(coco / "annotations" / "captions_val2017.json"), "--images", str(coco / "val2017")]
    assert make([*told, "--out", str(tmp_path / "coco")]) == 0
    assert len(read(tmp_path / "coco", "conversations", coco / "val2017")) > 50
    flickr = sample_data / "flickr30k"
    told = ["entities", "--root", str(flickr), "--split", "val", "--images", str(flickr / "flickr30k-images")]
    assert make([*told, "--out", str(tmp_path / "flickr")]) == 0
    assert len(read(tmp_path / "flickr", "conversations", flickr / "flickr30k-images")) > 50
