"""The streaming readers against their plain twins: json.load, read_coco and read_lvis."""

import json
from collections import Counter

import numpy as np
import pytest

from cloc.formats import json_stream
from cloc.formats.annotated_stream import AnnotatedStream, Grouped
from cloc.formats.coco import read_coco
from cloc.formats.json_stream import stream_json

VALUES = [
    {},
    [],
    [1, -2.5e3, 1.25, 0, "a,]}", '\\"ü\U0001f600', None, True, [], {}, [[1], {"a": [2]}]],
    {"info": {"a": [1, 2]}, "images": [{"id": 1}, {"id": 2}], "empty": [], "version": 1.5, "name": "x", "none": None},
    {"a": [1.5, 2.5, 123456.789], "b": -0.25},
]


def plain(value):
    """What `stream_json` gives, from the value that json.load gives."""
    if isinstance(value, list):
        return [("", entry) for entry in value]
    pairs = [(k, v) for k, v in value.items()]
    return [(k, e) for k, v in pairs for e in (v if isinstance(v, list) else [v])]


@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 1 << 20])
def test_the_stream_gives_what_json_gives(tmp_path, monkeypatch, value, indent, chunk):
    monkeypatch.setattr(json_stream, "_CHUNK", chunk)
    file = tmp_path / "a.json"
    file.write_text(json.dumps(value, indent=indent, ensure_ascii=bool(indent)) + "\n", encoding="utf-8")
    assert list(stream_json(file, "a file")) == plain(json.loads(file.read_text(encoding="utf-8")))


@pytest.mark.parametrize("cut", range(1, 60, 4))
def test_a_file_cut_in_the_middle_is_refused(tmp_path, cut):
    text = json.dumps({"images": [{"id": 1, "name": "ü"}, {"id": 2}], "categories": [1, 2, 3.5]}, ensure_ascii=False)
    file = tmp_path / "a.json"
    file.write_bytes(text.encode()[:-cut])
    with pytest.raises(ValueError, match=r"a.json: expected a file, got a file that is no JSON"):
        list(stream_json(file, "a file"))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "it begins with ''"),
        (b"7", "it begins with '7'"),
        (b'{"a": 1} x', "there is more behind its end"),
        (b'{"a" 1}', "expected one of :, got '1'"),
        (b'{"a": [1 2]}', "expected one of , ], got '2'"),
        (b"{a: 1}", "a name is missing"),
        (b'{"a": [nul]}', "an entry cannot be read"),
        ('["Grüße"]'.encode("latin-1"), "expected UTF-8"),
        (b'["' + b"[" * 10, "an entry cannot be read"),
    ],
)
def test_what_is_no_json_is_named(tmp_path, data, message):
    (tmp_path / "a.json").write_bytes(data)
    with pytest.raises(ValueError, match="no JSON") as error:
        list(stream_json(tmp_path / "a.json", "a file"))
    assert message in str(error.value)


def test_a_file_with_a_mark_and_none_at_all(tmp_path):
    (tmp_path / "a.json").write_bytes(b"\xef\xbb\xbf[1]")
    assert list(stream_json(tmp_path / "a.json", "a file")) == [("", 1)]
    with pytest.raises(ValueError, match=r"none.json: expected a file, found no file"):
        list(stream_json(tmp_path / "none.json", "a file"))


def hostile_coco(folder):
    rng = np.random.default_rng(3)
    images = [{"id": int(i), "file_name": f"{i}.jpg", "width": 100, "height": 80} for i in rng.permutation(30)]
    annotations = []
    for number in range(200):
        box = [round(float(value), 2) for value in rng.uniform(-4, 60, 4)]
        annotations.append(
            {"id": number, "image_id": int(rng.integers(0, 34)), "category_id": int(rng.integers(1, 5)), "bbox": box}
            | {"iscrowd": int(rng.integers(0, 2)), "segmentation": [[1, 2, 3]]}
        )
    annotations[50]["id"] = annotations[10]["id"]  # a second time, in another image
    annotations[51] = annotations[11] | {"id": str(annotations[11]["id"]), "image_id": str(annotations[11]["image_id"])}
    annotations[60] |= {"id": "x"}
    annotations[61] |= {"id": annotations[12]["id"], "image_id": annotations[12]["image_id"]}
    del annotations[62]["id"]
    annotations[63] |= {"bbox": [str(value) for value in annotations[63]["bbox"]], "iscrowd": "0"}
    annotations[64] = "text"
    annotations[70] |= {"bbox": [1, 2, 3]}
    annotations[80] |= {"image_id": None}
    del annotations[90]["category_id"]
    categories = [{"id": i, "name": f"thing {i}"} for i in (3, 1, 2)]
    content = {"annotations": annotations, "images": images, "categories": categories}  # not the usual order
    (folder / "instances.json").write_text(json.dumps(content))
    texts = [{"image_id": int(rng.integers(0, 34)), "caption": c} for c in ("a\n b", " ", "c", "d", "e")]
    (folder / "captions.json").write_text(json.dumps({"annotations": texts}))


def test_streamed_annotations_are_those_of_the_whole_file(tmp_path):
    hostile_coco(tmp_path)
    whole = read_coco(tmp_path / "instances.json", tmp_path, tmp_path / "captions.json")
    stream = AnnotatedStream(tmp_path / "instances.json", "a COCO file", tmp_path / "captions.json")
    found = list(stream)
    assert [image.entry["id"] for image in found] == list(range(30))
    by_id = {image.image_id: image for image in whole.images}
    for image in found:
        twin = by_id[image.entry["id"]]
        for field in ("boxes_xyxy", "category_ids", "annotation_ids", "crowd"):
            np.testing.assert_array_equal(image.annotations[field], getattr(twin, field))
        assert image.captions == twin.captions
    assert sum(len(image.annotations["crowd"]) for image in found) > 50
    assert +stream.dropped == +Counter(whole.dropped)
    assert set(whole.dropped) >= {"duplicate_id", "unknown_image", "unknown_category", "bad_box", "box_cut_at_border"}
    assert stream.categories == whole.categories


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"images": [{"id": 1, "width": 5, "height": 5}]}, r"images\[0\]: expected a new id and a file_name"),
        (
            {"images": [{"id": 1, "width": 5, "height": 5, "file_name": name} for name in "ab"]},
            "each of its images shares its id with another photo",
        ),
        ({"images": [{"id": "a", "width": 5, "height": 5}]}, r"images\[0\]: expected whole numbers id, width"),
        ({"images": [7]}, r"images\[0\]: expected whole numbers"),
        ({"annotations": [{"id": 1}]}, "expected a COCO file with the lists images, annotations; got no image"),
        (
            {"info": {}, "categories": []},
            "expected a COCO file with the lists images, annotations, categories; got info",
        ),
        ([{"id": 1}], "with the lists images, annotations, categories"),
    ],
)
def test_other_files_are_refused(tmp_path, content, message):
    (tmp_path / "a.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=message):
        AnnotatedStream(tmp_path / "a.json", "a COCO file")


def test_entries_come_sorted_by_image_and_in_their_order():
    grouped = Grouped()
    assert grouped.put_image(2, {"name": "b"})
    assert grouped.put_image(1, {"name": "a"})
    assert not grouped.put_image(2, {"name": "c"})
    for place, image in enumerate([2, 1, 2, 3, None, "x", 1 << 70, True, "2"]):
        grouped.put("row", image, {"place": place})
    assert list(grouped) == [
        ({"name": "a"}, {"row": [(2, {"place": 1})]}),
        ({"name": "b"}, {"row": [(1, {"place": 0}), (3, {"place": 2}), (9, {"place": 8})]}),
    ]
    assert (grouped.images, grouped.entries) == (2, {"row": 9})
    assert grouped.unknown("row") == 5
    assert grouped.image(1) == {"name": "a"}
    grouped.take_image(1)
    assert (grouped.images, grouped.image(1)) == (1, None)
    grouped.close()
