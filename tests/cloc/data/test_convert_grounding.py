"""Objects365, GoldG and Flickr30k Entities: small files in the official layouts, counted by hand."""

import io
import json

import pytest
from PIL import Image

from cloc.convert.__main__ import main
from cloc.convert.flickr30k_entities import convert_flickr30k_entities
from cloc.convert.goldg import convert_goldg
from cloc.convert.objects365 import convert_objects365
from cloc.data.shards import ShardSet
from cloc.formats.flickr30k_entities import parse_sentence
from cloc.formats.rows import join_phrase


def photo(path, size=(40, 30)):
    path.parent.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    Image.new("RGB", size, (90, 200, 30)).save(buffer, "JPEG")
    path.write_bytes(buffer.getvalue())
    return buffer.getvalue()


def samples(folder):
    shards = ShardSet.open(folder)
    return [shards.read_sample(shard, i) for shard, count in enumerate(shards.counts) for i in range(count)]


@pytest.fixture
def objects365(tmp_path):
    photo(tmp_path / "train/patch8/objects365_v1_00000007.jpg")
    photo(tmp_path / "train/patch16/objects365_v2_00000009.jpg", (20, 20))
    images = [
        {"id": 9, "file_name": "images/v2/patch16/objects365_v2_00000009.jpg", "width": 20, "height": 20},
        {"id": 7, "file_name": "images/v1/patch8/objects365_v1_00000007.jpg", "width": 40, "height": 30},
        {"id": 8, "file_name": "images/v1/patch8/objects365_v1_00000008.jpg", "width": 40, "height": 30},
    ]
    boxes = [(1, 7, 1, 0), (2, 9, 2, 0), (3, 7, 2, 1), (4, 8, 1, 0), (5, 7, 2, 0)]
    annotations = [
        {"id": i, "image_id": image, "category_id": c, "iscrowd": crowd, "isfake": 0, "bbox": [1.5, 2, 10, 10]}
        for i, image, c, crowd in boxes
    ]
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "Person"}]}
    content["categories"].append({"id": 2, "name": "Sailboat Chiar"})
    (tmp_path / "zhiyuan_objv2_train.json").write_text(json.dumps(content))
    return tmp_path


def test_objects365_photos_are_found_in_patches_and_names_are_corrected(objects365):
    (objects365 / "names.csv").write_text("1,Person,Person\n2,Sailboat Chiar,Sailboat Chair\n")
    file, names = objects365 / "zhiyuan_objv2_train.json", objects365 / "names.csv"
    card = convert_objects365(objects365 / "train", file, objects365 / "out", names, progress=False)
    first, second = samples(objects365 / "out")
    assert (first.key, second.key) == ("000000000007", "000000000009")
    assert [(r.box, r.phrase) for r in first.regions] == [
        ((1.5, 2, 11.5, 12), "Person"),
        ((1.5, 2, 11.5, 12), "Sailboat Chair"),
    ]
    assert second.extras["source"]["file_name"] == "objects365_v2_00000009.jpg"
    assert card["kind"] == "detection"
    assert [c["name"] for c in card["categories"]] == ["Person", "Sailboat Chair"]
    assert card["read"] == {"images": 3, "boxes": 5, "captions": 0}
    assert card["dropped"] == {"crowd": 1, "image_missing": 1, "region_of_dropped_image": 1}


def test_a_list_of_names_of_another_set_is_refused(objects365):
    (objects365 / "names.csv").write_text("1,Person,Person\n2,Chair,Chair\n")
    with pytest.raises(ValueError, match=r"names.csv:2: expected id, name and corrected name .* got '2,Chair,Chair'"):
        convert_objects365(
            objects365 / "train",
            objects365 / "zhiyuan_objv2_train.json",
            objects365 / "out",
            objects365 / "names.csv",
            progress=False,
        )
    assert not (objects365 / "out").exists()


@pytest.fixture
def goldg(tmp_path):
    photo(tmp_path / "gqa/2332870.jpg")
    images = [
        {"id": 0, "file_name": "2332870.jpg", "width": 40, "height": 30, "caption": " a red car by an old red barn"},
        {"id": 1, "file_name": "2332870.jpg", "width": 40, "height": 30, "caption": "a tree"},
        {"id": 2, "file_name": "../2332870.jpg", "width": 40, "height": 30, "caption": "a tree"},
    ]
    images = [image | {"dataset_name": "mixed", "original_img_id": 2332870} for image in images]
    spans = [(10, 0, [[1, 10]]), (11, 0, [[1, 2], [3, 6], [14, 16]]), (12, 0, [[3, 6], [7, 10]])]
    spans += [(13, 1, [[0, 99]]), (14, 1, [[2, 6]]), (15, 1, []), (16, 2, [[2, 6]])]
    annotations = [
        {"id": i, "image_id": image, "category_id": 1, "iscrowd": 0, "bbox": [5, 5, 50, 10], "tokens_positive": told}
        for i, image, told in spans
    ]
    content = {"info": [], "licenses": [], "images": images, "annotations": annotations, "categories": []}
    (tmp_path / "final_mixed_train_no_coco.json").write_text(json.dumps(content))
    return tmp_path


def test_goldg_gives_a_sample_a_caption_with_spans(goldg):
    card = convert_goldg([goldg / "gqa"], goldg / "final_mixed_train_no_coco.json", goldg / "out", progress=False)
    first, second = samples(goldg / "out")
    assert (first.caption, first.key, second.key) == ("a red car by an old red barn", "000000000000", "000000000001")
    assert [(r.phrase, r.extras.get("span")) for r in first.regions] == [
        ("a red car", [0, 9]),
        ("a red an", None),  # two pieces: `a red` and `an`
        ("red car", [2, 9]),  # the blank between makes it one
    ]
    assert first.regions[0].box == (5, 5, 40, 15)
    assert [region.phrase for region in second.regions] == ["tree"]
    assert first.extras["source"]["original_img_id"] == 2332870
    assert (card["kind"], card["read"]) == ("grounding", {"captions": 3, "boxes": 7})
    dropped = {"bad_file_name": 1, "bad_span": 2, "box_cut_at_border": 7, "region_of_dropped_image": 1}
    assert card["dropped"] == dropped


@pytest.mark.parametrize(
    ("pieces", "wanted"),
    [
        ([[0, 3]], ("the", [0, 3])),
        ([[4, 7], [0, 3]], ("the cat", [0, 7])),  # in any order
        ([[0, 3], [8, 11]], ("the sat", None)),
        ([[0, 3], [2, 7]], ("the cat", [0, 7])),  # they overlap
        ([[3, 3]], (None, None)),
        ([[-1, 3]], (None, None)),
        ([[8, 12]], (None, None)),
        ([["0", 3]], (None, None)),
        ([], (None, None)),
        (None, (None, None)),
    ],
)
def test_pieces_of_a_caption(pieces, wanted):
    assert join_phrase("the cat sat", pieces) == wanted


XML = """<annotation><filename>{0}.jpg</filename><size><width>40</width><height>30</height><depth>3</depth></size>
<object><name>11</name><name>12</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>21</xmax><ymax>11</ymax></bndbox></object>
<object><name>11</name><bndbox><xmin>5</xmin><ymin>6</ymin><xmax>9</xmax><ymax>9</ymax></bndbox></object>
<object><name>13</name><scene>1</scene><nobndbox>0</nobndbox></object></annotation>"""


@pytest.fixture
def entities(tmp_path):
    (tmp_path / "Sentences").mkdir()
    (tmp_path / "Annotations").mkdir()
    said = "[/EN#11/people Two men] in [/EN#12/clothing/other red hats] walk down [/EN#13/scene a street] .\n"
    for number in ("100", "101", "102", "103", "104"):
        (tmp_path / f"Sentences/{number}.txt").write_text(said + "No one [/EN#0/notvisual there] .\n")
        (tmp_path / f"Annotations/{number}.xml").write_text(XML.format(number))
        photo(tmp_path / f"photos/{number}.jpg")
    bomb = '<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b "bb"><!ENTITY c "&b;&b;">]><annotation>&c;</annotation>'
    (tmp_path / "Annotations/102.xml").write_text(bomb)
    (tmp_path / "Annotations/103.xml").unlink()
    (tmp_path / "Annotations/104.xml").write_text(XML.format(104)[:150])
    (tmp_path / "train.txt").write_text("101\n100\n102\n103\n104\n")
    (tmp_path / "test.txt").write_text("100\n")
    return tmp_path


def test_flickr30k_entities_gives_a_region_a_phrase_and_box(entities):
    card = convert_flickr30k_entities(entities, entities / "photos", entities / "out", progress=False)
    first, second, *others = samples(entities / "out")
    assert [sample.key for sample in (first, second, *others)] == ["101_0", "101_1", "100_0", "100_1"]
    assert first.caption == "Two men in red hats walk down a street ."
    assert [(r.phrase, r.box, r.extras["span"], r.extras["entity_id"]) for r in first.regions] == [
        ("Two men", (0, 0, 20, 10), [0, 7], 11),
        ("Two men", (4, 5, 8, 8), [0, 7], 11),
        ("red hats", (0, 0, 20, 10), [11, 19], 12),
    ]
    assert all(first.caption[slice(*r.extras["span"])] == r.phrase for r in first.regions)
    assert (second.caption, second.regions) == ("No one there .", ())
    assert card["read"] == {"photos": 5, "captions": 4, "phrases": 8}
    assert card["counts"] == {"samples": 4, "captions": 4, "regions": 6}
    assert card["dropped"] == {"annotation_missing": 1, "bad_annotation": 2, "phrase_without_box": 4}
    assert card["name"] == "flickr30k_entities"


def test_the_test_split_needs_leave(entities, capsys):
    given = ["flickr30k_entities", "--root", str(entities), "--images", str(entities / "photos"), "--split", "test"]
    assert main([*given, "--out", str(entities / "out")]) == 2
    assert "flickr30k_entities test is an evaluation split" in capsys.readouterr().err
    assert main([*given, "--out", str(entities / "out"), "--allow-evaluation-split"]) == 0
    assert [sample.key for sample in samples(entities / "out")] == ["100_0", "100_1"]
    assert main([*given[:-1], "val", "--out", str(entities / "no"), "--allow-evaluation-split"]) == 2
    assert "val.txt: expected the list of the split's photos, found no file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "text", "phrases"),
    [
        ("A [/EN#1/people man] .", "A man .", ["man"]),
        ("[/EN#1/people  A  man ]sits.", "A man sits.", ["A man"]),
        ("no mark ] at [ all", "no mark ] at [ all", []),
        ("[/EN#1/other ] empty", "empty", []),
        ("", "", []),
    ],
)
def test_marked_sentences(line, text, phrases):
    caption, mentions = parse_sentence(line)
    assert [caption[m.start : m.end] for m in mentions] == phrases
    assert caption == text
