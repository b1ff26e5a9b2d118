import json

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from cloc.data.concepts import ConceptDictionary
from cloc.detect.__main__ import main
from cloc.detect.detecting import Ids, draw, newest_detector, parse_classes, sentences
from cloc.export import CARD


@pytest.fixture
def export(detector_model, detector_processor, tmp_path, monkeypatch):
    """A finished export of an untrained tiny detector in `runs/`, which is where the command starts."""
    monkeypatch.chdir(tmp_path)

    def make(name="tiny", objective="detclip", time="2026-01-01", **changes):
        folder = tmp_path / "runs" / name / "export"
        detector_model(**changes).save_pretrained(folder)
        detector_processor().save_pretrained(folder)
        (folder / CARD).write_text(json.dumps({"schema": 1, "time": time, "objective": objective}))
        return folder

    return make


@pytest.mark.parametrize("text", ["cat, dog,a red  ball", " cat ,, dog,\n a red ball , ", "cat,dog,a red ball,"])
def test_a_class_list_with_commas_and_blanks(text):
    assert parse_classes(text) == ["cat", "dog", "a red ball"]


def test_class_lists_that_are_refused():
    with pytest.raises(ValueError, match="'red cat' stands there more than once"):
        parse_classes("red cat, dog, Red  Cat")
    with pytest.raises(ValueError, match="expected names with commas between them"):
        parse_classes(" , ,")


def test_pictures_and_coco_files(export, spine_picture, tmp_path, capsys):
    export()
    for folder, size in (("one", (60, 40)), ("two", (30, 50))):
        (tmp_path / folder).mkdir()
        spine_picture(*size).save(tmp_path / folder / "same.jpg")
    (tmp_path / "bad.jpg").write_bytes(b"no image")
    code = main(["one/same.jpg", "bad.jpg", "two/same.jpg", "gone.png", "--classes", "cat, dog", "--score", "0.05",
                 "--limit", "7"])  # fmt: skip
    told = capsys.readouterr()
    assert code == 0
    assert "left out: bad.jpg: image cannot be decoded" in told.err
    assert "left out: gone.png: cannot be read" in told.err
    assert "on 2 images, 2 left out: runs/detect-1" in told.out
    out = tmp_path / "runs" / "detect-1"
    assert Image.open(out / "0001-same.png").size == (60, 40)
    assert Image.open(out / "0002-same.png").size == (30, 50)
    truth = COCO(str(out / "images_and_categories.json"))
    results = truth.loadRes(str(out / "detections.json"))
    assert [c["name"] for c in truth.loadCats([1, 2])] == ["cat", "dog"]
    found = results.loadAnns(results.getAnnIds(imgIds=[1]))
    assert 0 < len(found) <= 7
    for one in found:
        x, y, w, h = one["bbox"]
        assert min(x, y, w, h) >= 0
        assert x + w <= 60.02
        assert y + h <= 40.02
        assert one["score"] >= 0.05


def test_definitions_are_read_by_an_export_that_was_trained_on_them(export, spine_picture, tmp_path, capsys):
    (tmp_path / "known.json").write_text(json.dumps([{"name": "elephant", "def": "an animal"}, {"name": "cup"}]))
    file = tmp_path / "known.json"
    assert sentences(["Elephant", "elephants", "cup", "sky"], True, file) == [
        "elephant, an animal", "elephants, an animal", "cup", "sky",
    ]  # fmt: skip
    assert sentences(["Fire_Truck"], True, None) == ["fire truck"]
    trained = ConceptDictionary({"truck": "it carries things"})
    assert sentences(["Fire_Truck"], True, None, trained) == ["fire truck, it carries things"]
    assert sentences(["elephant"], True, file, trained) == ["elephant, an animal"]
    assert sentences(["truck"], False, None, trained) == ["truck"]
    with pytest.raises(ValueError, match="trained on bare names; leave the definitions out"):
        sentences(["cat"], False, file)
    export(definitions=True)
    spine_picture(60, 40).save(tmp_path / "a.jpg")
    told = []
    for more in ([], ["--definitions", "known.json"]):
        assert main(["a.jpg", "--classes", "elephant", "--score", "0", "--out", f"out{len(more)}", *more]) == 0
        told.append("asked by name" in capsys.readouterr().err)
    assert told == [True, False]
    scores = [json.loads((tmp_path / f"out{n}" / "detections.json").read_text())[0]["score"] for n in (0, 2)]
    assert scores[0] != scores[1]


def test_answers_never_go_where_others_lie(export, spine_picture, tmp_path, capsys):
    export()
    spine_picture(60, 40).save(tmp_path / "a.jpg")
    (tmp_path / "out").mkdir()
    assert main(["a.jpg", ".", "--classes", "cat", "--out", "out"]) == 0  # the folder holds the same photo
    told = capsys.readouterr()
    assert (told.err, "on 1 images, 0 left out" in told.out) == ("", True)
    before = sorted(file.name for file in (tmp_path / "out").iterdir())
    for place in ("out", "a.jpg"):
        assert main(["a.jpg", "--classes", "dog", "--out", place]) == 2
        assert f"error: --out {place}: is there and not empty; name a new folder" in capsys.readouterr().err
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == before


def test_nothing_readable_is_a_mistake_of_code_2(export, tmp_path, capsys):
    export()
    assert main(["gone.png", "--classes", "cat"]) == 2
    assert "error: not one image could be read (gone.png: cannot be read" in capsys.readouterr().err
    assert not (tmp_path / "runs" / "detect-1").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--classes", "cat, cat"], "more than once"),
        (["--classes", "cat", "--score", "3"], "--score and --limit: expected 0 to 1"),
        (["--classes", "cat", "--model", "elsewhere"], "elsewhere: no export"),
        (["--classes", "cat"], "no finished export with a detector; train one with objective=detclip"),
        (
            ["--classes", "cat", "--model", "encoder"],
            "--model encoder: an export of objective cloc, which has no detector",
        ),
    ],
)
def test_mistakes_are_one_line_and_code_2(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "encoder").mkdir()
    (tmp_path / "encoder" / CARD).write_text(json.dumps({"schema": 1, "objective": "cloc"}))
    assert main(["a.png", *arguments]) == 2
    told = capsys.readouterr().err
    assert told.startswith("error: ")
    assert message in told
    assert told.count("\n") == 1


def test_the_newest_export_with_a_detector_is_taken(export, tmp_path):
    export("a", "detclip", "2026-01-02")
    newest = export("b", "joint", "2026-01-03")
    export("c", "cloc", "2026-01-04")
    assert newest_detector(tmp_path / "runs") == newest


def test_a_box_is_drawn_where_it_is():
    black = Image.new("RGB", (100, 80))
    found = {"boxes": np.array([[20.0, 30.0, 60.0, 70.0]]), "scores": np.array([0.9]), "labels": np.array([0])}
    drawn = np.asarray(draw(black, found, ["cat"])).max(axis=2)
    assert drawn[69:72, 30:55].max() > 100
    assert drawn[45:60, 30:55].max() == 0
    assert drawn[75:, :].max() == 0
    assert not np.asarray(black).any()


def test_names_stay_on_the_picture_and_above_the_boxes():
    grey = Image.new("RGB", (200, 80), (90, 90, 90))
    boxes = np.array([[150.0, 1.0, 180.0, 25.0], [185.0, 30.0, 200.0, 70.0]])
    found = {"boxes": boxes, "scores": np.array([0.9, 0.8]), "labels": np.array([1, 0])}
    together = np.asarray(draw(grey, found, ["a long name", "b"]))
    alone = np.asarray(draw(grey, {key: value[1:] for key, value in found.items()}, ["a long name", "b"]))
    changed = (alone[:28] != 90).any(axis=2).nonzero()
    assert changed[1].min() < 150  # moved to the left: the whole name fits
    np.testing.assert_array_equal(together[21:27, 140:185], alone[21:27, 140:185])  # not even the better box


def test_a_cut_export_is_one_line(export, spine_picture, tmp_path, capsys):
    weights = export() / "model.safetensors"
    spine_picture(60, 40).save(tmp_path / "a.jpg")
    weights.write_bytes(weights.read_bytes()[:-100])
    assert main(["a.jpg", "--classes", "cat"]) == 2
    told = capsys.readouterr().err
    assert told.startswith("error: runs/tiny/export: weights or processor cannot be read (")
    assert told.count("\n") == 1


def coco_file(path, images, categories=((7, "cat"), (90, "Red_Dog")), **more):
    kinds = [{"id": number, "name": name} for number, name in categories]
    path.write_text(json.dumps({"images": images, "categories": kinds, "annotations": [], **more}))
    return path


def test_the_ids_of_a_coco_file_are_kept(export, spine_picture, tmp_path, capsys):
    """Folders, Windows separators, equal base names, ids as texts, and the frame of the annotation."""
    export()
    for folder in ("photos/one", "photos/two"):
        (tmp_path / folder).mkdir(parents=True)
        spine_picture(60, 40).save(tmp_path / folder / "same.JPG", format="JPEG")
    spine_picture(30, 50).save(tmp_path / "photos" / "alone.png")
    spine_picture(30, 50).save(tmp_path / "photos" / "unknown.webp")
    (tmp_path / "photos" / "notes.txt").write_text("no image")
    entries = [
        {"id": "501", "file_name": "one\\same.jpg", "width": 60, "height": 40},
        {"id": 502, "file_name": "./two/same.jpg", "width": 60, "height": 40},
        {"id": 77, "file_name": "somewhere/else/alone.png", "width": 30, "height": 50},
    ]
    file = coco_file(tmp_path / "truth.json", entries)
    given = ["photos", "--annotations", str(file), "--out", "out", "--score", "0", "--limit", "3", "--device", "cpu"]
    assert main([*given, "--classes", "red dog"]) == 0
    told = capsys.readouterr()
    assert told.err == "warning: left out: photos/unknown.webp: is no image of " + f"{file}\n"
    assert "\n\n" not in told.out + told.err
    legend = json.loads((tmp_path / "out" / "images_and_categories.json").read_text())
    assert {one["file_name"]: one["id"] for one in legend["images"]} == {
        "photos/alone.png": 77, "photos/one/same.JPG": 501, "photos/two/same.JPG": 502,
    }  # fmt: skip
    assert legend["categories"] == [{"id": 90, "name": "red dog"}]
    found = json.loads((tmp_path / "out" / "detections.json").read_text())
    assert {one["image_id"] for one in found} == {77, 501, 502}
    assert {one["category_id"] for one in found} == {90}
    assert main([*given[:3], "--out", "all", "--score", "0", "--limit", "3"]) == 0  # all categories of the file
    legend = json.loads((tmp_path / "all" / "images_and_categories.json").read_text())
    assert legend["categories"] == [{"id": 7, "name": "cat"}, {"id": 90, "name": "Red_Dog"}]


@pytest.mark.parametrize(
    ("images", "categories", "message"),
    [
        ([{"id": 1, "file_name": "a.jpg"}], [(1, "dog")], "'cat' is no category of"),
        ([{"id": "x", "file_name": "a.jpg"}], [(1, "cat")], r"images[0]: expected a whole number id and a file_name"),
        ([{"id": 1, "file_name": "a.jpg"}, {"id": 2, "file_name": "./a.JPEG"}], [(1, "cat")], "stands there twice"),
        (
            [{"id": 1, "file_name": "a.jpg"}, {"id": 1, "file_name": "b.jpg"}],
            [(1, "cat")],
            "image id stands there twice",
        ),
        ([{"id": 1, "file_name": "a.jpg"}], [(1, "cat"), (1, "dog")], "id 1 stands there twice"),
        ([7], [(1, "cat")], "expected a whole number id"),
        ({}, [(1, "cat")], "expected the lists images and categories"),
        ([{"id": 1, "file_name": "b.jpg"}], [(1, "cat")], "a.jpg: is no image of"),
    ],
)
def test_odd_annotation_files_are_one_line(images, categories, message, export, spine_picture, tmp_path, capsys):
    export()
    spine_picture(60, 40).save(tmp_path / "a.jpg")
    file = coco_file(tmp_path / "truth.json", images, categories)
    assert main(["a.jpg", "--annotations", str(file), "--classes", "cat", "--out", "out"]) == 2
    told = capsys.readouterr().err
    assert message in told
    assert told.count("\n") == 1
    assert main(["a.jpg", "--out", "out"]) == 2
    assert "--classes: expected names" in capsys.readouterr().err
    assert main(["a.jpg", "--classes", "cat", "--device", "tpu9"]) == 2
    assert "--device" in capsys.readouterr().err


def test_more_boxes_come_out_where_more_reach_the_suppression(export, spine_picture, tmp_path):
    export()
    spine_picture(60, 40).save(tmp_path / "a.jpg")
    counts = []
    for number in ("1", "3", "40"):
        given = ["--classes", "cat, dog", "--score", "0", "--limit", "9999", "--boxes-a-level", number]
        assert main(["a.jpg", *given, "--out", f"out{number}"]) == 0
        counts.append(len(json.loads((tmp_path / f"out{number}" / "detections.json").read_text())))
    assert counts[0] < counts[1] < counts[2]
    assert counts[0] <= 5


@pytest.mark.parametrize(
    ("listed", "photos", "expected"),
    [
        (["cam1/1.jpg"], ["cam0/1.jpg", "cam1/1.jpg"], [None, 0]),
        (["cam1/1.jpg", "cam2/2.jpg"], ["cam1/1.jpg", "cam3/2.jpg"], [0, 1]),
        (["cam1/1.jpg"], ["cam0/1.jpg", "cam2/1.jpg"], [None, None]),
        (["a/1.jpg", "b/1.jpg"], ["1.jpg"], [None]),
        (["old\\1.JPG", "old\\2.jpeg"], ["new/1.jpg", "new/2.jpg"], [0, 1]),
        (["1.jpg"], ["sub/1.jpg"], [0]),
    ],
)
def test_which_image_of_the_file_a_photo_is(tmp_path, listed, photos, expected):
    file = tmp_path / "truth.json"
    images = [{"id": number, "file_name": name} for number, name in enumerate(listed)]
    file.write_text(json.dumps({"images": images, "categories": []}))
    found = Ids.read(file).images_of([tmp_path / name for name in photos])
    assert [found.get(tmp_path / name, (None, None))[0] for name in photos] == expected
