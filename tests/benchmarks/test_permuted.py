"""An encoder that has learned everything, on labels that were permuted: every accuracy lies at its analytic chance.

The labels are permuted in the files, so that readers, tasks and figures are those of a real run. Two ways:

- Examples carry each other's labels. Class c is then right as often as the encoder says c at all. The mean over all K
  classes is 1/K, whatever the encoder prefers; over some classes it is the encoder's share of their names over their
  number. A trained encoder says caption-only names seldom, so their class mean lies below 1/K, and that is no fault.
- Classes carry each other's names. An example of which the encoder says p is right under those permutations that give
  p to its class: under exactly one of the K cyclic shifts. So the mean over the K shifts is 1/K, for top-1 and class
  mean, for every group of classes and for every encoder: exactly, with no interval.
"""

from __future__ import annotations

import json

import numpy as np
import pytest

from benchmarks.metrics.intervals import find_interval
from benchmarks.tasks.contract import Options
from benchmarks.tasks.lvis import Lvis
from benchmarks.tasks.refcoco import RefCoco
from benchmarks.tasks.region_recognition import RegionRecognition
from benchmarks.tasks.region_retrieval import RegionRetrieval

IMAGES = 120
QUIET = Options(progress=False)


@pytest.fixture(scope="module")
def permuted(colours, tmp_path_factory):
    """A root of many images whose boxes carry each other's classes, and whose expressions mean each other's objects."""
    root = colours.write(tmp_path_factory.mktemp("permuted"), images=IMAGES)
    rng = np.random.default_rng(0)
    order = rng.permutation(3 * IMAGES)
    for file in ("coco/annotations/instances_val2017.json", "lvis/lvis_v1_val.json"):
        content = json.loads((root / file).read_text())
        kinds = [one["category_id"] for one in content["annotations"]]
        for one, place in zip(content["annotations"], order, strict=True):
            one["category_id"] = kinds[place]
        (root / file).write_text(json.dumps(content))
    file = root / "refcoco" / "refcoco" / "refs(unc).json"
    refs = json.loads(file.read_text())
    for first in range(0, len(refs), 3):  # the three objects of an image
        meant = [refs[first + place]["ann_id"] for place in rng.permutation(3)]
        for ref, ann_id in zip(refs[first : first + 3], meant, strict=True):
            ref["ann_id"] = ann_id
    file.write_text(json.dumps(refs))
    return root


def scores(task, root, predictor):
    (found,) = task.find([root])
    return task.run(predictor, found.load(), found, QUIET).scores


@pytest.mark.parametrize(
    ("task", "wanted"),
    [
        (RegionRecognition(), ("top1", "class_mean")),
        (Lvis(), ("top1", "class_mean")),
        (RefCoco("refcoco"), ("acc@0.5",)),
    ],
    ids=["region_recognition", "lvis", "refcoco"],
)
def test_accuracies_lie_at_chance(permuted, colours, task, wanted):
    for score in scores(task, permuted, colours.Reader()):
        if score.metric in wanted and score.tally is not None and score.split in ("val", "val/all"):
            low, high = find_interval(score.tally)
            assert low <= score.chance <= high, (score.protocol, score.metric)
            assert score.tally.num_examples >= 3 * IMAGES


def test_the_same_encoder_is_right_on_the_labels_as_they_were(root, colours):
    told = {score.metric: score.tally.value() for score in scores(RegionRecognition(), root, colours.Reader())}
    assert told["top1"] == 1.0


class Biased:
    """Says only names that had boxes: what is not red is green."""

    name = "biased"
    cannot_ground = None

    def __init__(self, reader):
        self.reader, self.encode_texts = reader, reader.encode_texts

    def encode_regions(self, images, boxes_xyxy):
        found = self.reader.encode_regions(images, boxes_xyxy)
        return [np.eye(4, dtype=np.float32)[np.minimum(one.argmax(axis=1), 1)] for one in found]


@pytest.mark.parametrize("task", [RegionRecognition(), Lvis()], ids=lambda task: task.name)
@pytest.mark.parametrize("biased", [False, True])
def test_the_mean_over_all_shifts_of_the_names_is_chance_in_every_group(tmp_path, colours, task, biased):
    root = colours.write(tmp_path, images=9, caption_only=colours.names[2:])
    reader = Biased(colours.Reader()) if biased else colours.Reader()
    files = [root / file for file in ("coco/annotations/instances_val2017.json", "lvis/lvis_v1_val.json")]
    found = {}
    for shift in range(len(colours.names)):
        for file in files:
            content = json.loads(file.read_text())
            for place, category in enumerate(content["categories"]):
                category["name"] = colours.names[(place + shift) % len(colours.names)]
            file.write_text(json.dumps(content))
        for score in scores(task, root, reader):
            if score.tally is not None and score.metric in ("top1", "class_mean"):
                found.setdefault((score.split, score.protocol), []).append(score.tally.value())
                assert score.chance == 0.25
    assert any("caption-only" in split or split.endswith("/c") for split, _ in found)
    for key, values in found.items():
        assert len(values) == 4
        assert np.mean(values) == pytest.approx(0.25, abs=1e-12), key
        assert max(values) > 0.25, key  # the shifts differ: not every one of them lies at chance


def test_retrieval_lies_at_chance(permuted, colours):
    """Of the way back there are but four different questions, and vectors without noise tie: it is left out."""
    by_protocol = {(s.protocol, s.metric): s for s in scores(RegionRetrieval(), permuted, colours.Reader())}
    score = by_protocol["one-per-text-and-image/merged/region-to-text", "recall@1"]
    low, high = find_interval(score.tally)
    assert low <= score.chance <= high
