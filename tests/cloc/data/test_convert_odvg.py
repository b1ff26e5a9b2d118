"""ODVG rows: detection and grounding, streamed, every loss counted."""

import io
import json

import pytest
from PIL import Image

from cloc.convert.__main__ import main
from cloc.convert.odvg import convert_odvg
from cloc.data.shards import ShardSet


def instance(box, label=3, category="cup"):
    return {"bbox": box, "label": label, "category": category}


def row(content, name="a/one.jpg", width=100):
    return {"filename": name, "height": 50, "width": width, **content}


def detection(*instances):
    return {"detection": {"instances": list(instances)}}


def grounding(caption, *regions):
    return {"grounding": {"caption": caption, "regions": list(regions)}}


@pytest.fixture
def photos(tmp_path):
    buffer = io.BytesIO()
    Image.new("RGB", (100, 50), (90, 10, 130)).save(buffer, "JPEG")
    (tmp_path / "photos/a").mkdir(parents=True)
    (tmp_path / "photos/a/one.jpg").write_bytes(buffer.getvalue())
    (tmp_path / "photos/broken.jpg").write_bytes(b"no image")
    return tmp_path


def convert(photos, rows, out="out"):
    lines = [line if isinstance(line, str) else json.dumps(line) for line in rows]
    (photos / "rows.jsonl").write_text("\n".join(lines))
    card = convert_odvg(photos / "photos", photos / "rows.jsonl", photos / out, progress=False)
    shards = ShardSet.open(photos / out)
    return card, [shards.read_sample(0, i) for i in range(shards.num_samples)]


def test_detection_rows_keep_labels_and_everything_lost_is_counted(photos):
    card, samples = convert(
        photos,
        [
            row(detection(instance([1, 2, 30, 40]), instance([90, 5, 120, 9], 1, "dog"), instance([5, 5, 5, 9]))),
            row(detection(instance([1, 1, 9, 9], 3, "mug"), instance([0, 0, 9]), instance("no"), {"label": 1})),
            row(
                detection(instance([float("nan"), 0, 9, 9]), instance([200, 0, 300, 9]), instance([0, 0, 9, 9], 1, ""))
            ),
            row(detection(instance([1, 1, 2, 2])), name="missing.jpg"),
            row(detection(instance([1, 1, 2, 2])), name="broken.jpg"),
            row(detection(instance([1, 1, 2, 2])) | grounding("a cup"), width=99),
            row(detection(), name="../../secret.jpg"),
            row(grounding("a cup")),
            row({}),
            '{"filename": "cut',
            '"text"',
            row(detection(instance([10**400, 0, 9, 9])), name="a/one.jpg"),
            '{"filename": "\\ud800.jpg", "width": 100, "height": 50, "detection": {"instances": []}}',
        ],
    )
    assert card["kind"] == "detection"
    assert card["categories"] == [{"id": 1, "name": "dog"}, {"id": 3, "name": "cup"}]
    assert [sample.key for sample in samples] == ["000000000", "000000001", "000000002", "000000007"]
    first = samples[0]
    assert first.image == (photos / "photos/a/one.jpg").read_bytes()
    assert [(r.box, r.phrase, r.extras["category_id"]) for r in first.regions] == [
        ((1, 2, 30, 40), "cup", 3),
        ((90, 5, 100, 9), "dog", 1),
    ]
    assert first.extras["source"] == {"dataset": "odvg", "file_name": "a/one.jpg"}
    assert card["counts"] == {"samples": 4, "captions": 0, "regions": 2}
    assert card["dropped"] == {
        "bad_box": 1,
        "bad_file_name": 1,
        "bad_region": 2,
        "bad_row": 4,
        "box_cut_at_border": 1,
        "box_outside": 1,
        "empty_box": 1,
        "empty_phrase": 1,
        "image_missing": 1,
        "image_of_other_size": 1,
        "image_unreadable": 1,
        "label_of_other_category": 1,
        "nan_box": 2,
        "region_of_dropped_image": 3,
        "row_of_other_kind": 1,
        "second_kind_of_row": 1,
    }


def test_grounding_rows_keep_captions_spans_and_phrases_with_several_boxes(photos):
    caption = "  two cups and a dog "
    card, samples = convert(
        photos,
        [
            row(
                grounding(
                    caption,
                    {"phrase": "two cups", "bbox": [[1, 2, 3, 4], [5, 6, 7, 8]], "tokens_positive": [[2, 10]]},
                    {"phrase": ["a", "dog"], "bbox": [9, 9, 20, 20], "tokens_positive": [[15, 16], [17, 20]]},
                )
            ),
            row(grounding("again")),
        ],
    )
    first, second = samples
    assert (card["kind"], "categories" in card) == ("grounding", False)
    assert (first.caption, second.caption) == ("two cups and a dog", "again")
    assert [(r.box, r.phrase, dict(r.extras)) for r in first.regions] == [
        ((1, 2, 3, 4), "two cups", {"span": [0, 8]}),
        ((5, 6, 7, 8), "two cups", {"span": [0, 8]}),
        ((9, 9, 20, 20), "a dog", {}),
    ]
    start, end = first.regions[0].extras["span"]
    assert first.caption[start:end] == "two cups"
    assert card["dropped"] == {}


def test_twice_gives_the_same_bytes(photos):
    rows = [row(detection(instance([1, 2, 30, 40]))), row(detection())]
    assert convert(photos, rows, "a")[0] == convert(photos, rows, "b")[0]
    assert (photos / "a/000000.tar").read_bytes() == (photos / "b/000000.tar").read_bytes()


def test_the_command_names_a_mistake_and_makes_nothing(photos, capsys):
    (photos / "rows.jsonl").write_text(json.dumps(row(detection(), name="missing.jpg")) + "\n{")
    given = ["odvg", "--images", str(photos / "photos"), "--out", str(photos / "out"), "--annotations"]
    assert main([*given, str(photos / "rows.jsonl")]) == 2
    told = capsys.readouterr().err
    assert "rows.jsonl: expected at least one usable image, found none (1 bad_row, 1 image_missing)" in told
    assert main([*given, str(photos / "nothing.jsonl")]) == 2
    assert "nothing.jsonl: expected an annotation file, found no file" in capsys.readouterr().err
    assert not list(photos.glob("*out*"))
