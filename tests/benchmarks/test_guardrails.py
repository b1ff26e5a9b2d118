"""`zeroshot` and `retrieval`: whole images, on sets made here in the official layouts."""

from __future__ import annotations

import io
import json
import tarfile

import numpy as np
import pytest
from PIL import Image

from benchmarks.metrics.intervals import find_interval
from benchmarks.tasks.class_images import read_classes
from benchmarks.tasks.contract import Options
from benchmarks.tasks.retrieval import Retrieval, find_chance, find_right, score_hits
from benchmarks.tasks.zeroshot import ZeroShot
from cloc.formats.karpathy import read_karpathy

QUIET = Options(progress=False, photos_at_once=4)


def painted(colours, kind):
    return Image.new("RGB", (12, 12), colours.values[colours.names[kind]])


def class_folders(root, colours, each=3, **more):
    """`zeroshot/colours/test`: folders in sorted order, named by the colour."""
    for kind, name in enumerate(colours.names):
        folder = root / "zeroshot" / "colours" / "test" / name
        folder.mkdir(parents=True)
        for number in range(each):
            painted(colours, kind).save(folder / f"{number}.png")
    for name, text in more.items():
        (root / "zeroshot" / "colours" / f"{name}.txt").write_text(text)
    return root


def run(task, root, predictor, options=QUIET):
    (found,) = task.find([root])
    return task.run(predictor, found.load(), found, options)


def values(measured):
    return {(s.protocol, s.metric): s.tally.value() if s.tally else None for s in measured.scores}


def test_class_folders_are_read_and_named_by_their_folders(tmp_path, colours):
    root = class_folders(tmp_path, colours)
    measured = run(ZeroShot(), root, colours.Reader())
    protocol = "folder-names/no-template"
    assert values(measured) == {
        (f"{protocol}/top1", "top1"): 1.0,
        (f"{protocol}/top5", "top5"): 1.0,
        (f"{protocol}/class-mean", "class_mean"): 1.0,
    }
    assert measured.scores[0].chance == 0.25
    assert len(measured.predictions) == 12
    assert measured.examples.right.all()
    wrong = values(run(ZeroShot(), root, colours.Reader(shift=1)))
    assert wrong[f"{protocol}/top1", "top1"] == 0.0


def test_templates_are_averaged_and_the_protocol_counts_them(tmp_path, colours):
    names = "\n".join(name.replace("_", " ") for name in sorted(colours.names))
    root = class_folders(
        tmp_path, colours, classnames=names, zeroshot_classification_templates="a {c} photo.\nthe {c}, twice: {c}\n"
    )
    asked = []

    class Listening(colours.Reader):
        def encode_texts(self, texts):
            asked.extend(texts)
            return super().encode_texts(texts)

    measured = run(ZeroShot(), root, Listening())
    assert values(measured)["own-names/2-templates/top1", "top1"] == 1.0
    assert asked[:2] == ["a blue photo.", "the blue, twice: blue"]


def test_shards_of_clip_benchmark_are_read(tmp_path, colours):
    folder = tmp_path / "zeroshot" / "vtab" / "test"
    folder.mkdir(parents=True)
    with tarfile.open(folder / "0.tar", "w") as tar:
        for number, kind in enumerate([0, 1, 2, 3, 2]):
            raw = io.BytesIO()
            painted(colours, kind).save(raw, "PNG")
            told = str(kind) if number < 4 else "no number"
            for ending, data in (("png", raw.getvalue()), ("cls", told.encode())):
                member = tarfile.TarInfo(f"s{number:04d}.{ending}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    (folder.parent / "classnames.txt").write_text("\n".join(colours.names))
    measured = run(ZeroShot(), tmp_path, colours.Reader())
    assert values(measured)["own-names/no-template/top1", "top1"] == 1.0
    assert measured.scores[0].skipped == {"no_class": 1}
    assert len(measured.examples.keys) == 0  # nothing to draw inside a tar


def test_names_and_templates_of_the_published_lists(sample_data, tmp_path, colours):
    folder = tmp_path / "zeroshot" / "imagenet1k" / "val"
    for number in range(1000):
        (folder / f"n{number:08d}").mkdir(parents=True)
    painted(colours, 0).save(folder / "n00000001" / "x.png")
    dataset = read_classes(tmp_path / "zeroshot" / "imagenet1k", "val", sample_data / "categories")
    assert (len(dataset.names), len(dataset.templates)) == (1000, 80)
    assert dataset.source == "clip-benchmark-names/80-templates"
    assert dataset.images[0].label == 1


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"classnames": "one\ntwo"}, "4 classes but 2 names"),
        ({"zeroshot_classification_templates": "a photo"}, "expected {c} in every template"),
    ],
)
def test_names_and_templates_that_do_not_fit_are_refused(tmp_path, colours, more, told):
    root = class_folders(tmp_path, colours, **more)
    with pytest.raises(ValueError, match=told):
        run(ZeroShot(), root, colours.Reader())


def test_a_broken_image_is_counted_and_a_limit_spreads_over_classes(tmp_path, colours):
    root = class_folders(tmp_path, colours)
    (root / "zeroshot" / "colours" / "test" / "blue" / "0.png").write_bytes(b"no image")
    measured = run(ZeroShot(), root, colours.Reader())
    assert measured.scores[0].skipped == {"photo unreadable": 1}
    assert measured.scores[0].tally.num_examples == 11
    limited = run(ZeroShot(), root, colours.Reader(), Options(limit=4, progress=False))
    assert {line["class"] for line in limited.predictions} == {0, 1, 2, 3}
    assert limited.scores[0].protocol.endswith("first-4-images")


def test_the_rendered_world_has_the_guardrail(spine_world, colours):
    (found,) = ZeroShot().find([spine_world, spine_world / "scenes"])
    measured = ZeroShot().run(colours.Guesser(), found.load(), found, QUIET)
    assert measured.dataset == "scenes-single"
    assert measured.rendered
    assert measured.scores[0].protocol == "own-names/no-template/top1"
    assert measured.scores[0].chance == 1 / 32
    assert measured.scores[0].tally.num_examples == 6


def coco_captions(root, colours, kinds):
    """COCO files of one-coloured photos; each has a caption of its own kind and one that is shared."""
    folder = root / "coco" / "annotations"
    folder.mkdir(parents=True)
    (root / "coco" / "val2017").mkdir()
    images, captions = [], []
    for number, kind in enumerate(kinds, start=1):
        painted(colours, kind).save(root / "coco" / "val2017" / f"{number:012d}.jpg", "PNG")
        images.append({"id": number, "file_name": f"{number:012d}.jpg", "width": 12, "height": 12})
        captions.append({"id": number, "image_id": number, "caption": f"the {colours.names[kind]} photo {number}"})
    head = {"images": images, "categories": [{"id": 1, "name": "x"}], "annotations": []}
    (folder / "instances_val2017.json").write_text(json.dumps(head))
    (folder / "captions_val2017.json").write_text(json.dumps({"images": images, "annotations": captions}))
    return root


def test_retrieval_finds_each_caption_and_each_image(tmp_path, colours):
    measured = run(Retrieval(), coco_captions(tmp_path, colours, [0, 1, 2, 3]), colours.Reader())
    assert set(values(measured).values()) == {1.0}
    assert len(measured.scores) == 12
    guess = {s.protocol: s.chance for s in measured.scores if s.metric == "recall@1"}
    assert guess == {
        "first-5/plain/image-to-text": 0.25,
        "first-5/merged/image-to-text": 0.25,
        "first-5/plain/text-to-image": 0.25,
        "first-5/merged/text-to-image": 0.25,
    }
    assert {line["image_id"]: line["nearest_captions"][0] for line in measured.predictions[:4]} == {
        k + 1: f"the {colours.names[k]} photo {k + 1}" for k in range(4)
    }


def test_retrieval_by_hand():
    """Three images; the first two share the text of kind 0, the third has a text of its own."""
    owner, kind = np.array([0, 1, 2]), np.array([0, 0, 1])
    similarity = np.array([[0.9, 0.9, 0.1], [0.8, 0.8, 0.2], [0.95, 0.95, 0.3]])
    assert find_right(owner, kind, "merged").tolist() == [
        [True, True, False],
        [True, True, False],
        [False, False, True],
    ]
    assert score_hits(similarity, owner, kind, "image-to-text", "merged", 1).tolist() == [1, 1, 0]
    assert score_hits(similarity, owner, kind, "image-to-text", "plain", 1).tolist() == [0, 0, 0]  # ties count against
    assert score_hits(similarity, owner, kind, "text-to-image", "plain", 2).tolist() == [1, 0, 1]
    assert score_hits(similarity, owner, kind, "text-to-image", "merged", 2).tolist() == [1, 1, 1]
    assert find_chance(owner, kind, "image-to-text", "plain", 1) == pytest.approx(1 / 3)
    assert find_chance(owner, kind, "text-to-image", "merged", 1) == pytest.approx((2 / 3 + 2 / 3 + 1 / 3) / 3)


def test_guessing_lies_within_the_interval_of_chance(tmp_path, colours):
    root = coco_captions(tmp_path, colours, np.random.default_rng(0).integers(0, 4, 60).tolist())
    measured = run(Retrieval(), root, colours.Guesser())
    for score in measured.scores:
        low, high = find_interval(score.tally)
        assert low <= score.chance <= high, score.protocol


def test_karpathys_file_is_read(tmp_path, colours):
    folder = tmp_path / "coco" / "val2014"
    folder.mkdir(parents=True)
    (tmp_path / "coco" / "annotations").mkdir()
    entries = []
    for number, split in enumerate(["train", "test", "test", "val"]):
        name = f"COCO_val2014_{number:012d}.jpg"
        painted(colours, number).save(folder / name, "PNG")
        told = [{"raw": f"some {colours.names[number]}\n thing"}] * 6
        entries.append(
            {"filename": name, "filepath": "val2014", "split": split, "cocoid": 7 + number, "sentences": told}
        )
    file = tmp_path / "coco" / "annotations" / "dataset_coco.json"
    file.write_text(json.dumps({"images": entries, "dataset": "coco"}))
    measured = run(Retrieval(), tmp_path, colours.Reader())
    assert measured.dataset == "coco-karpathy"
    assert len(measured.predictions) == 2 + 2 * 5  # five captions an image, not six
    assert values(measured)["first-5/merged/image-to-text", "recall@1"] == 1.0
    with pytest.raises(ValueError, match="images of the split 'dev', found none"):
        read_karpathy(file, tmp_path, "dev", "x")
    entries[1]["filename"] = "../../secret.jpg"
    file.write_text(json.dumps({"images": entries}))
    with pytest.raises(ValueError, match="expected a file name inside"):
        read_karpathy(file, tmp_path, "test", "x")


def test_a_photo_without_caption_and_one_that_is_gone_are_counted(tmp_path, colours):
    root = coco_captions(tmp_path, colours, [0, 1, 2, 3])
    (root / "coco" / "val2017" / f"{1:012d}.jpg").unlink()
    file = root / "coco" / "annotations" / "captions_val2017.json"
    content = json.loads(file.read_text())
    content["annotations"] = content["annotations"][:3]
    file.write_text(json.dumps(content))
    measured = run(Retrieval(), root, colours.Reader())
    assert measured.scores[0].skipped == {"image_without_caption": 1, "photo missing": 1}
    assert measured.scores[0].tally.num_examples == 2
