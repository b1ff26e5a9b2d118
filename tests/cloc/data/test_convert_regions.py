"""Visual Genome, FineHARD and LLaVA: small files in the official layouts, counted by hand."""

import io
import json

import pyarrow
import pytest
from PIL import Image
from pyarrow import parquet

from cloc.convert.__main__ import main
from cloc.convert.finehard import convert_finehard
from cloc.convert.llava import convert_llava
from cloc.convert.visual_genome import convert_visual_genome
from cloc.data.shards import ShardSet
from cloc.formats.llava import find_spoken_box, read_conversation


def photo(path, size=(40, 30)):
    path.parent.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    Image.new("RGB", size, (90, 20, 130)).save(buffer, "JPEG")
    path.write_bytes(buffer.getvalue())


def samples(folder):
    shards = ShardSet.open(folder)
    return [shards.read_sample(shard, i) for shard, count in enumerate(shards.counts) for i in range(count)]


@pytest.fixture
def genome(tmp_path):
    photo(tmp_path / "VG_100K/2.jpg")
    photo(tmp_path / "VG_100K_2/1.jpg", (20, 50))
    url = "https://cs.stanford.edu/people/rak248/"
    data = [
        {"image_id": 1, "width": 20, "height": 50, "url": f"{url}VG_100K_2/1.jpg", "coco_id": None, "flickr_id": None},
        {"image_id": 2, "width": 40, "height": 30, "url": f"{url}VG_100K/2.jpg", "coco_id": 77, "flickr_id": 5},
        {"image_id": 3, "width": 40, "height": 30, "url": f"{url}VG_100K/3.jpg", "coco_id": None},
        {"image_id": 3, "width": 0, "height": 30, "url": ""},
    ]

    def region(number, image, phrase, box=(1, 2, 5, 6)):
        x, y, width, height = box
        told = {"region_id": number, "image_id": image, "phrase": phrase}
        return told | {"x": x, "y": y, "width": width, "height": height}

    regions = [
        {"id": 2, "regions": [region(5, 2, " a  red cup "), region(6, 2, "over", (30, 20, 30, 30))]},
        {"id": 1, "regions": [region(7, 1, "tree"), region(8, 1, " "), region(9, 1, "out", (60, 0, 5, 5))]},
        {"id": 3, "regions": [region(10, 3, "lost")]},
        {"id": 4, "regions": [region(11, 4, "nowhere")]},
    ]
    objects = [
        {"image_id": 1, "objects": [{"object_id": 1, "names": ["tree", "oak"], "x": 0, "y": 0, "w": 3, "h": 4}]},
        {"image_id": 2, "objects": [{"object_id": 2, "names": [], "x": 0, "y": 0, "w": 3, "h": 4}]},
    ]
    files = {"image_data.json": data, "region_descriptions.json": regions, "objects.json": objects}
    for name, content in files.items():
        (tmp_path / name).write_text(json.dumps(content))
    return tmp_path


def test_visual_genome_descriptions_arrive_with_coco_numbers(genome):
    card = convert_visual_genome(genome, [genome / "VG_100K", genome / "VG_100K_2"], genome / "out", progress=False)
    first, second = samples(genome / "out")
    assert [(r.phrase, r.box) for r in first.regions] == [("tree", (1, 2, 6, 8))]
    assert [(r.phrase, r.box) for r in second.regions] == [("a red cup", (1, 2, 6, 8)), ("over", (30, 20, 40, 30))]
    assert second.regions[0].extras["region_id"] == 5
    assert second.extras["source"] == {"dataset": "visual_genome", "file_name": "VG_100K/2.jpg", "coco_id": 77}
    assert "coco_id" not in first.extras["source"]
    assert card["read"] == {"images": 3, "regions": 4}
    assert card["dropped"] == {
        "bad_image_data": 1,
        "box_cut_at_border": 1,
        "box_outside": 1,
        "empty_phrase": 1,
        "image_missing": 1,
        "region_of_dropped_image": 1,
        "row_of_unknown_image": 1,
    }


def test_visual_genome_objects_take_their_first_name(genome, capsys):
    given = ["visual_genome", "--root", str(genome), "--images", str(genome), "--regions", "objects"]
    assert main([*given, "--out", str(genome / "out")]) == 0
    found = [region.phrase for sample in samples(genome / "out") for region in sample.regions]
    assert found == ["tree"]
    assert "1 empty_phrase" in capsys.readouterr().out
    (genome / "objects.json").unlink()
    assert main([*given, "--out", str(genome / "no")]) == 2
    assert "objects.json: expected an annotation file, found no file" in capsys.readouterr().err


def fine_row(path="grit-20m/data-12m/coyo_image_4/00033/1.jpg", **changes):
    cup = {"bbox": [0.1, 0.2, 0.5, 0.6, 0.9], "short_expr": "a cup", "long_expr": "a red cup on a table"}
    cup |= {"flag_short_neg": 1, "short_expr_negs": {"0": "a jug", "1": " "}}
    wide = {"bbox": [0.5, 0.5, 1.2, 1.0], "short_expr": "a door", "long_expr": "a door", "flag_short_neg": 0}
    row = {"f_path": path, "caption": "A long\ncaption.", "short_caption": "Short.", "bbox_info": [cup, wide]}
    return row | changes


def test_finehard_keeps_both_captions_and_hard_negatives(tmp_path):
    photo(tmp_path / "photos/coyo_image_4/00033/1.jpg")
    bad = fine_row(bbox_info=[{"bbox": [0.1]}, {"bbox": [0.5, 0.5, 0.4, 0.6], "short_expr": "thin"}])
    rows = [fine_row(), fine_row("coyo_image_4/none.jpg"), {"caption": "no path"}, 7, bad]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    card = convert_finehard(tmp_path / "photos", [tmp_path / "rows.json"], tmp_path / "out", progress=False)
    first, last = samples(tmp_path / "out")
    assert first.caption == "A long caption."
    assert first.extras["captions"] == ["A long caption.", "Short."]
    cup, door = first.regions
    assert cup.box == pytest.approx((4, 6, 20, 18))
    assert (cup.phrase, cup.score, cup.extras) == ("a cup", 0.9, {"negatives": ["a jug"]})
    assert door.box == pytest.approx((20, 15, 40, 30))
    assert (door.score, door.extras) == (None, {})
    assert (last.key, last.regions) == ("000000003", ())
    assert card["read"] == {"rows": 4, "boxes": 6}
    assert card["dropped"] == {
        "bad_region": 1,
        "bad_row": 2,
        "box_cut_at_border": 1,
        "empty_box": 1,
        "image_missing": 1,
        "region_of_dropped_image": 2,
    }


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_finehard_as_lines_and_as_a_table_gives_the_same(tmp_path, ending):
    photo(tmp_path / "photos/coyo_image_4/00033/1.jpg")
    row = fine_row(bbox_info=json.dumps(fine_row()["bbox_info"]))
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n")
    parquet.write_table(pyarrow.Table.from_pylist([row]), tmp_path / "rows.parquet")
    (tmp_path / "rows.json").write_text(json.dumps([fine_row()]))
    found = []
    for name in ("rows.json", f"rows.{ending}"):
        out = tmp_path / f"out-{name}"
        convert_finehard(tmp_path / "photos", [tmp_path / name], out, "both", progress=False)
        found.append((out / "000000.tar").read_bytes())
    assert found[0] == found[1]
    assert [r.phrase for r in samples(out)[0].regions] == ["a cup", "a red cup on a table", "a door", "a door"]


def talk(*values, image="coco/1.jpg", **more):
    turns = [{"from": ("human", "gpt")[i % 2], "value": value} for i, value in enumerate(values)]
    return {"id": "x", "conversations": turns} | ({"image": image} if image else {}) | more


REGION = "<image>\nPlease provide a short description for this region: [0.25, 0.25, 0.5, 0.75]."
SENTENCE = "Please provide the bounding box coordinate of the region this sentence describes: a tall tree."


@pytest.mark.parametrize(
    ("question", "answer", "found"),
    [
        (REGION, "A red cup.", ((0.25, 0.25, 0.5, 0.75), "A red cup.")),
        (SENTENCE, "[0.1, 0.2, 0.3, 0.4]", ((0.1, 0.2, 0.3, 0.4), "a tall tree")),
        ("Is [0.1, 0.2, 0.3, 0.4] a cup?", "Yes", None),  # the box is not the end of the question
        ("What is this?", "A cup at [0.1, 0.2, 0.3, 0.4]", None),
        ("Are they equal: [0.1, 0.2, 0.3, 0.4], [0, 0, 1, 1]", "No", None),
        ("What is here?", "A cup", None),
    ],
)
def test_rounds_that_speak_of_one_box(question, answer, found):
    assert find_spoken_box(question, answer) == found


def test_llava_boxes_of_the_padded_square_come_back_to_the_photo(tmp_path):
    photo(tmp_path / "images/coco/1.jpg", (40, 20))  # padded: 10 rows above and below
    rows = [
        talk(REGION, "A red cup.", SENTENCE, "[0.0, 0.25, 1.0, 0.75]"),
        talk("<image>\nDescribe this.", "A photo of a red cup."),
        talk("<image>\nHow many cups?", "Two."),
        talk("Hello", "Hello there, how are you?", image=None),
        talk("<image>", "a b c d", image=["1.jpg", "2.jpg"]),
        {"id": 1, "image": "coco/1.jpg", "conversations": ["?"]},
    ]
    (tmp_path / "llava.json").write_text(json.dumps(rows))
    card = convert_llava([tmp_path / "images"], tmp_path / "llava.json", tmp_path / "out", progress=False)
    first, second = samples(tmp_path / "out")
    assert [(r.box, r.phrase) for r in first.regions] == [
        ((10, 0, 20, 20), "A red cup."),
        ((0, 0, 40, 20), "a tall tree"),
    ]
    assert (first.caption, second.caption, second.regions) == ("", "A photo of a red cup.", ())
    assert first.extras["conversations"] == rows[0]["conversations"]
    assert card["read"] == {"conversations": 6, "regions": 2}
    assert card["dropped"] == {"bad_row": 1, "no_caption_no_region": 1, "no_image": 1, "several_images": 1}
    convert_llava([tmp_path / "images"], tmp_path / "llava.json", tmp_path / "unit", "unit", progress=False)
    assert samples(tmp_path / "unit")[0].regions[0].box == (10, 5, 20, 15)


def test_llava_text_is_kept_in_any_script():
    found = read_conversation(talk("<image>\nWas ist das?", "Eine grüne Tür mit Glas", image=["a.jpg"]))
    assert (found.image, found.caption) == ("a.jpg", "Eine grüne Tür mit Glas")
