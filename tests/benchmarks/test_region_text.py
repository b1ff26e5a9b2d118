"""Tasks of boxes and texts beyond COCO's classes: `fgovd`, `reflvis`, `flickr30k_grounding`, `odinw`."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from benchmarks.data_roots import list_roots
from benchmarks.metrics.intervals import find_interval
from benchmarks.predictors.contract import LoadedModel
from benchmarks.predictors.detector import Found
from benchmarks.predictors.mllm import CONVENTIONS
from benchmarks.provenance import Provenance
from benchmarks.rows import Row
from benchmarks.runner import TaskRunner
from benchmarks.tasks.contract import Options
from benchmarks.tasks.fgovd import FgOvd
from benchmarks.tasks.flickr30k_grounding import Flickr30kGrounding
from benchmarks.tasks.odinw import SETS, Odinw, average_rows
from benchmarks.tasks.reflvis import RefLvis
from cloc.formats.flickr30k_grounding import read_entities
from cloc.formats.reflvis import read_reflvis, split_synonym

QUIET = Options(progress=False, photos_at_once=5)


def run(task, root, predictor):
    return [task.run(predictor, found.load(), found, QUIET) for found in task.find([root])]


def score(measured, split=None, metric=None):
    (one,) = [s for s in measured.scores if split in (None, s.split) and metric in (None, s.metric)]
    return one


def scenes(root):
    """(image id, box xyxy, class) of every annotation of the painted world."""
    content = json.loads((root / "coco" / "annotations" / "instances_val2017.json").read_text())
    for one in content["annotations"]:
        x, y, w, h = one["bbox"]
        yield one["image_id"], (x, y, x + w, y + h), one["category_id"] - 1


def write_lines(file, lines):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.fixture
def painted(root, tmp_path):
    """A root of one's own with the painted photos."""
    shutil.copytree(root / "coco", tmp_path / "coco")
    return tmp_path


def fgovd(painted, colours):
    lines = []
    for number, (image_id, (x0, y0, x1, y1), kind) in enumerate(scenes(painted)):
        told = [f"a thing of {name.replace('_', ' ')}" for name in colours.names]
        right = told.pop(kind)
        line = {
            "img_path": f"val2017/{image_id:012d}.jpg",
            "bbox": [x0, y0, x1 - x0, y1 - y0],
            "width": colours.size[0],
        }
        line |= {"height": colours.size[1], "image_id": image_id, "sent_id": number}
        lines.append({**line, "pos_expression": [right], "neg_expression": told})
    write_lines(painted / "region_text" / "fgovd" / "h_attributes.jsonl", lines)
    return lines


def test_fgovd_right_wrong_and_guessed(painted, colours):
    lines = fgovd(painted, colours)
    (perfect,) = run(FgOvd(), painted, colours.Reader())
    assert (score(perfect).split, score(perfect).tally.value(), score(perfect).chance) == ("hard", 1.0, 0.25)
    assert score(perfect).tally.num_examples == len(lines)
    (wrong,) = run(FgOvd(), painted, colours.Reader(shift=1))
    assert score(wrong).tally.value() == 0.0
    assert wrong.predictions[0]["chosen"] != wrong.predictions[0]["right"]
    guesses = [score(run(FgOvd(), painted, colours.Guesser(seed))[0]).tally for seed in range(10)]
    assert np.mean([tally.value() for tally in guesses]) == pytest.approx(0.25, abs=0.07)  # three deviations
    inside = [low <= 0.25 <= high for low, high in map(find_interval, guesses)]
    assert sum(inside) >= 7  # of ten intervals of 95 %, on twelve images each


def test_fgovd_counts_ties_by_their_share_and_names_bad_lines(painted, colours):
    lines = fgovd(painted, colours)

    class Blank(colours.Reader):
        def encode_texts(self, texts):
            return np.ones((len(texts), 4), dtype=np.float32)

    assert score(run(FgOvd(), painted, Blank())[0]).tally.value() == 0.25
    lines[0]["bbox"] = [5, 5, 0, 0]
    (painted / "coco" / "val2017" / f"{2:012d}.jpg").unlink()
    write_lines(painted / "region_text" / "fgovd" / "h_attributes.jsonl", lines)
    (measured,) = run(FgOvd(), painted, colours.Reader())
    assert score(measured).skipped == {"empty_box": 1, "photo missing": 3}
    del lines[1]["pos_expression"]
    write_lines(painted / "region_text" / "fgovd" / "h_attributes.jsonl", lines)
    with pytest.raises(ValueError, match=r"h_attributes.jsonl:2: .* with pos_expression"):
        run(FgOvd(), painted, colours.Reader())


@pytest.mark.photos
def test_fgovds_published_lines_are_read(sample_data, colours):
    found = run(FgOvd(), sample_data, colours.Guesser())
    assert {m.scores[0].split: m.scores[0].tally.num_examples for m in found} == {
        "hard": 74, "medium": 64, "easy": 24, "trivial": 74,
    }  # fmt: skip
    assert found[0].scores[0].chance == pytest.approx(1 / 11, abs=0.02)


def reflvis(painted, colours):
    width, height = colours.size
    lines = []
    for number, (image_id, (x0, y0, x1, y1), kind) in enumerate(scenes(painted)):
        line = {"id": number, "image_path": f"data/coco/val2017/{image_id:012d}.jpg", "width": width, "height": height}
        line |= {"name": colours.names[kind], "synonyms": [], "neg_class": colours.names[(kind + 1) % 4]}
        line |= {"bbox_norm": [x0 / width, y0 / height, x1 / width, y1 / height], "bbox": [x0, y0, x1 - x0, y1 - y0]}
        line |= {"sample_point": [(x0 + x1) / 2, (y0 + y1) / 2], "free_shape_bbox_raw": [x0, y0, x1, y1]}
        lines.append(line)
    write_lines(painted / "reflvis" / "lvis_eval.jsonl", lines)
    return lines


class Talker:
    """An MLLM that answers with the colour at the place it is told, or denies that."""

    kind, name, box_format = "mllm", "talker", CONVENTIONS["pixels"]

    def __init__(self, colours, wording="It is a {right}."):
        self.reader, self.names, self.wording, self.asked = colours.Reader(), colours.names, wording, []

    def answer(self, images, questions):
        self.asked += questions
        answers = []
        for image, question in zip(images, questions, strict=True):
            box = np.array([[float(v) for v in question.split("[")[1].split("]")[0].split(",")]])
            kind = int(self.reader.encode_regions([image], [box])[0].argmax())
            right, wrong = (self.names[k % 4].replace("_", " ") for k in (kind, kind + 1))
            answers.append(self.wording.format(right=right, wrong=wrong))
        return answers


def test_reflvis_by_region(painted, colours):
    lines = reflvis(painted, colours)
    (perfect,) = run(RefLvis(), painted, colours.Reader())
    for form in ("box", "free-form"):
        assert score(perfect, f"val/{form}").tally.value() == 1.0
    assert score(perfect, "val/point").tally.value() > 0.9  # the window reaches over the edge of thin ones
    assert score(perfect, "val/box").tally.num_examples == len(lines)
    (wrong,) = run(RefLvis(), painted, colours.Reader(shift=1))
    assert score(wrong, "val/box").tally.value() == 0.0
    (guessed,) = run(RefLvis(), painted, colours.Guesser())
    low, high = find_interval(score(guessed, "val/box").tally)
    assert low <= 0.5 <= high


def test_reflvis_in_words(painted, colours):
    reflvis(painted, colours)
    talker = Talker(colours)
    (perfect,) = run(RefLvis(), painted, talker)
    assert score(perfect, "val/box").tally.value() == 1.0
    assert score(perfect, "val/box").protocol == "question-in-words/negation-rule/pixels-image"
    first = [line for line in perfect.predictions if line["form"] == "box" and line["id"] < 2]
    for line in first:  # the right class stands first in even questions
        right = line["text"].removeprefix("It is a ").rstrip(".")
        assert line["question"].endswith("?")
        assert (line["question"].index(f"a {right}") < line["question"].index(" or ")) == (line["id"] % 2 == 0)
    (denied,) = run(RefLvis(), painted, Talker(colours, "It is not a {right}, it is a {wrong}."))
    assert score(denied, "val/box").tally.value() == 0.0


def test_synonyms_and_points(tmp_path):
    assert split_synonym("bow_(weapon)") == ["bow", "weapon"]
    assert split_synonym("fire_engine") == ["fire engine"]
    line = {"image_path": "x/1.jpg", "width": 100, "height": 50, "name": "bow_tie", "synonyms": ["bow_(tie)"]}
    line |= {"neg_class": "cat", "bbox_norm": [0.1, 0.2, 0.5, 0.8], "sample_point": [2, 20]}
    write_lines(tmp_path / "f.jsonl", [line, {**line, "sample_point": [500, 20]}])
    dataset = read_reflvis(tmp_path / "f.jsonl", tmp_path)
    one = dataset.questions[0]
    assert one.words == ("bow tie", "bow", "tie")
    assert one.boxes_xyxy == {"box": (10, 10, 50, 40), "point": (0, 15, 8, 26)}
    assert dataset.dropped == {"point: box_outside": 1}
    (tmp_path / "f.jsonl").write_text("{}\n")
    with pytest.raises(ValueError, match=r"f.jsonl:1: .* with image_path, width"):
        read_reflvis(tmp_path / "f.jsonl", tmp_path)


XML = """<annotation><size><width>{w}</width><height>{h}</height><depth>3</depth></size>{objects}
<object><name>99</name><nobndbox>1</nobndbox><scene>1</scene></object></annotation>"""
OBJECT = "<object>{names}<bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox></object>"


def flickr(painted, colours):
    """Every painted photo with one sentence of its three colours, and a phrase that stands for two boxes."""
    folder = painted / "flickr30k"
    for name in ("Annotations", "Sentences", "flickr30k-images"):
        (folder / name).mkdir(parents=True)
    by_image = {}
    for image_id, box, kind in scenes(painted):
        by_image.setdefault(image_id, []).append((box, kind))
    for image_id, things in by_image.items():
        shutil.copy(
            painted / "coco" / "val2017" / f"{image_id:012d}.jpg", folder / "flickr30k-images" / f"{image_id}.jpg"
        )
        objects = "".join(
            OBJECT.format(*box, names=f"<name>{n}</name>" + ("<name>7</name>" if n < 2 else ""))
            for n, (box, _) in enumerate(things)
        )
        text = XML.format(w=colours.size[0], h=colours.size[1], objects=objects)
        (folder / "Annotations" / f"{image_id}.xml").write_text(text)
        named = [f"[/EN#{n}/other the {colours.names[kind]} one]" for n, (_, kind) in enumerate(things)]
        both = f"[/EN#7/other/people {colours.names[things[0][1]]} things]"
        told = f"{named[0]} and {named[1]} .\n{named[2]} beside {both} in [/EN#99/scene a field] .\n"
        (folder / "Sentences" / f"{image_id}.txt").write_text(told)
    (folder / "test.txt").write_text("\n".join(map(str, by_image)))
    return folder


def test_flickr_phrases_are_grounded_under_both_counts(painted, colours):
    flickr(painted, colours)
    (measured,) = run(Flickr30kGrounding(), painted, colours.Reader())
    merged, any_of = measured.scores
    assert merged.protocol == "phrase-box/merged-box/xyxy-pixels"
    assert merged.tally.num_examples == any_of.tally.num_examples == 12 * 4
    assert any_of.tally.value() == 1.0
    assert merged.tally.value() == 0.75  # one of two boxes is not the box around both
    assert merged.skipped == {"phrase_without_box": 12}


def test_flickr_needs_a_reading_that_grounds(painted, colours):
    flickr(painted, colours)

    class Blind(colours.Reader):
        cannot_ground = "it has no box head"

    (measured,) = run(Flickr30kGrounding(), painted, Blind())
    assert {s.reason for s in measured.scores} == {"it has no box head"}


def test_flickr_files_that_are_broken_are_named(painted, colours):
    folder = flickr(painted, colours)
    (folder / "Annotations" / "1.xml").write_text("<annotation>")
    with pytest.raises(ValueError, match=r"1.xml: expected an annotation of Flickr30k Entities"):
        read_entities(folder, folder, "test")
    (folder / "Annotations" / "1.xml").unlink()
    with pytest.raises(ValueError, match=r"1.xml: expected a file of Flickr30k Entities, found none"):
        read_entities(folder, folder, "test")


def test_odinw_takes_test_before_valid_and_scores_as_coco(painted, colours):
    source = painted / "coco" / "annotations" / "instances_val2017.json"
    for split in ("test", "valid", "train"):
        folder = painted / "odinw" / "Aquarium" / "Aquarium Combined" / split
        shutil.copytree(painted / "coco" / "val2017", folder)
        shutil.copy(source, folder / "annotations_without_background.json")
    (painted / "odinw" / "pistols" / "export").mkdir(parents=True)
    shutil.copy(source, painted / "odinw" / "pistols" / "export" / "val_annotations_without_background.json")
    assert [(f.dataset, f.split) for f in Odinw().find([painted])] == [
        ("odinw-Aquarium", "test"),
        ("odinw-pistols", "val"),
    ]

    class Detector:
        kind, name, form = "detector", "painter", "name"

        def detect(self, images, names, limit=300):
            boxes = np.array(colours.places, dtype=float)
            kinds = [colours.Reader().encode_regions([image], [boxes])[0].argmax(axis=1) for image in images]
            return [Found(boxes, np.ones(len(boxes)), k) for k in kinds]

    found, missing = run(Odinw(), painted, Detector())
    assert score(found, "test", "AP").value == pytest.approx(1.0)
    assert found.scores[0].protocol == "coco-ap100/name"
    assert "none of the 12 photos can be used" in missing.scores[0].reason


def test_odinws_average_is_over_all_13_sets_or_none():
    """Rows as the sets give them; one set lacking, the average has no value and says which."""

    def row(name, value, metric="AP"):
        facts = {"model": "m", "predictor": "painter", "model_sha256": None, "commit": "c", "versions": {}}
        facts |= {"machine": "x", "seed": 0, "seconds": 1.0, "reason": None if value is not None else "no photo"}
        return Row(task="odinw", dataset=f"odinw-{name}", data="real", split="test", protocol="coco-ap100/name",
            metric=metric, value=value, num_examples=2, **facts)  # fmt: skip

    rows = [row(name, place / 12) for place, name in enumerate(SETS)]
    (mean,) = average_rows(rows)
    assert mean.value == pytest.approx(0.5)
    assert (mean.dataset, mean.split, mean.num_examples, mean.seconds) == ("odinw", "mean of 13 sets", 26, 13.0)
    two = average_rows([*rows, *(row(name, None if name == "pothole" else 1.0, "APl") for name in SETS)])
    assert [one.value for one in two] == [pytest.approx(0.5), None]
    assert two[1].reason == "the average is over all 13 sets; no figure of pothole"
    assert average_rows([]) == []


def test_a_run_of_odinw_ends_with_the_average(painted, colours, tmp_path):
    source = json.loads((painted / "coco" / "annotations" / "instances_val2017.json").read_text())
    source["images"] = source["images"][:2]
    kept = {image["id"] for image in source["images"]}
    source["annotations"] = [one for one in source["annotations"] if one["image_id"] in kept]
    for name in SETS:
        folder = painted / "odinw" / name / "test"
        folder.mkdir(parents=True)
        for image in source["images"]:
            shutil.copy(painted / "coco" / "val2017" / image["file_name"], folder)
        (folder / "annotations_without_background.json").write_text(json.dumps(source))

    class Detector:
        kind, name, form = "detector", "painter", "name"

        def detect(self, images, names, limit=300):
            boxes = np.array(colours.places, dtype=float)
            kinds = [colours.Reader().encode_regions([image], [boxes])[0].argmax(axis=1) for image in images]
            return [Found(boxes, np.ones(len(boxes)), k) for k in kinds]

    session = TaskRunner(list_roots(painted), [LoadedModel("m", None, [Detector()])], Provenance("abc", {}, "x", 0),
        Options(progress=False), tmp_path / "out")  # fmt: skip
    rows = [result.row for result in session.run([Odinw()])]
    (mean,) = [
        one for one in rows if one.dataset == "odinw" and (one.protocol, one.metric) == ("coco-ap100/name", "AP")
    ]
    assert mean.value == pytest.approx(1.0)
    assert mean.num_examples == 26
