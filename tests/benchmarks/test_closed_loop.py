"""The closed loop: its plans, the quality of pseudo-boxes, the order of its steps, what goes on after a failure."""

import json
from pathlib import Path

import pytest
import yaml

from benchmarks.experiments.closed_loop import command
from benchmarks.experiments.closed_loop.loop import CLIP, LOOP, PSEUDO, TRUE, read_loop
from benchmarks.experiments.closed_loop.page import find_value
from benchmarks.experiments.closed_loop.pseudo_boxes import (
    BOXED,
    CAPTION_ONLY,
    Thing,
    count_right_boxes,
    groups_of,
    measure,
    measure_quality,
    spec_of,
)
from benchmarks.experiments.units import make_units
from cloc.data.shards import ShardSet
from cloc.data.shards.write import write_shards
from cloc.data_root import REPOSITORY
from cloc.scenes import WorldSpec, ensure_scenes, render_scene
from cloc.structures import Region


def region(box, phrase, score=0.5):
    return Region(tuple(map(float, box)), phrase, score)


def thing(box, name, caption_only=False, named=False):
    return Thing(tuple(map(float, box)), name, caption_only, named)


def test_each_object_is_found_once_by_the_most_confident_box_of_its_name():
    things = [thing((0, 0, 10, 10), "red ring"), thing((20, 0, 30, 10), "red ring"), thing((0, 20, 10, 30), "star")]
    regions = [
        region((0, 0, 10, 9), "a red ring", 0.4),
        region((0, 0, 10, 10), "red ring", 0.9),
        region((21, 0, 31, 10), "red ring", 0.3),
        region((0, 20, 10, 30), "red ring", 0.8),  # there is a star
        region((0, 26, 10, 36), "the star", 0.8),  # IoU 4/16
    ]
    assert count_right_boxes(regions, things) == {1: 0, 2: 1}
    assert count_right_boxes([], things) == count_right_boxes(regions, []) == {}


def test_precision_counts_junk_and_recall_what_the_caption_named():
    groups = {"red ring": BOXED, "star": CAPTION_ONLY}
    scenes = [
        (
            [
                region((0, 0, 10, 10), "red ring"),
                region((0, 0, 9, 9), "some other things"),
                region((50, 50, 60, 60), "star"),
            ],
            [thing((0, 0, 10, 10), "red ring", named=True), thing((20, 0, 30, 10), "red ring")],
        ),
        ([region((5, 5, 15, 15), "star")], [thing((5, 5, 15, 15), "star", True, True)]),
        ([], [thing((5, 5, 15, 15), "star", True, False)]),
    ]
    found = measure_quality(scenes, groups).to_json()
    assert found["counts"]["junk"] == 1
    assert found["shares"]["all"] == {"precision": 2 / 4, "recall": 2 / 4, "recall_named": 2 / 2}
    assert found["shares"][BOXED] == {"precision": 1.0, "recall": 1 / 2, "recall_named": 1.0}
    assert found["shares"][CAPTION_ONLY] == {"precision": 1 / 2, "recall": 1 / 2, "recall_named": 1.0}
    assert measure_quality([], groups).to_json()["shares"]["all"] == {
        "precision": None,
        "recall": None,
        "recall_named": None,
    }
    json.dumps(found)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    out = tmp_path_factory.mktemp("loop") / "world"
    ensure_scenes(
        out, WorldSpec(train=12, val=1, refcoco=1, size=48, shard_size=5, single=0), workers=1, progress=False
    )
    return out


def test_true_boxes_are_all_right_and_shifted_ones_are_none(world, tmp_path):
    spec = spec_of(world)
    assert spec == WorldSpec(train=12, val=1, refcoco=1, size=48, shard_size=5, single=0)
    shards = ShardSet.open(world / "train")
    samples = [shards.read_sample(n, i) for n, count in enumerate(shards.counts) for i in range(count)]
    for name, shift in (("true", 0.0), ("shifted", 40.0)):
        moved = []
        for sample in samples:
            scene = render_scene(spec, sample.extras["source"]["index"], "train")
            boxes = [[v + shift for v in one.box_xyxy] for one in scene.objects]
            regions = tuple(region(box, one.name) for box, one in zip(boxes, scene.objects, strict=True))
            moved.append(type(sample)(sample.key, sample.image, "jpg", 99, 99, sample.caption, regions, sample.extras))
        write_shards(moved, tmp_path / name, {"name": name, "kind": "regions", "made": {}})
    whole = measure(tmp_path / "true", world, progress=False)
    assert whole.precision() == whole.recall() == whole.recall(named=True) == 1.0
    assert whole.junk == 0
    assert 0.3 < sum(whole.named.values()) / sum(whole.things.values()) < 0.9  # captions name at least half the kinds
    assert measure(tmp_path / "shifted", world, progress=False).recall() < 0.2
    assert set(groups_of(spec).values()) == {BOXED, CAPTION_ONLY}


def test_the_loop_of_the_kit_fits_the_kit(tmp_path):
    loop = read_loop(LOOP)
    (detector,) = make_units(loop.detector_plan(), ["detector"], tmp_path)
    true, pseudo = make_units(loop.cloc_plan(Path("labelled")), [TRUE, PSEUDO], tmp_path)
    (clip,) = make_units(loop.clip_plan(), [CLIP], tmp_path)
    assert detector.steps == loop.detector.steps
    assert true.steps == pseudo.steps == clip.steps == 750
    assert f"data.0.path={loop.world.folder}/train" in true.overrides
    assert f"data.0.path={loop.world.folder}/train" in clip.overrides
    assert "data.0.path=labelled" in pseudo.overrides
    assert set(true.overrides) ^ set(pseudo.overrides) == {
        "data.0.path=labelled", f"data.0.path={loop.world.folder}/train", "run.name=true_labels-s0",
        "run.name=pseudo_labels-s0",
    }  # fmt: skip


def test_a_wrong_file_is_told(tmp_path):
    with pytest.raises(ValueError, match=r"none\.yaml: no such file; known: configs/closed_loop/self_training\.yaml"):
        read_loop(str(tmp_path / "none.yaml"))
    raw = yaml.safe_load((REPOSITORY / LOOP).read_text())
    (tmp_path / "wrong.yaml").write_text(yaml.safe_dump({**raw, "lables": {}}))
    with pytest.raises(ValueError, match=r"lables: unknown key; the nearest known one is 'labels'"):
        read_loop(str(tmp_path / "wrong.yaml"))
    assert command.main(["--config", str(tmp_path / "none.yaml")]) == 2
    assert command.main(["--scale", "7", "--out", str(tmp_path / "out")]) == 2
    assert not (tmp_path / "out").exists()


class Played:
    """Plays the processes: writes what the table needs."""

    def __init__(self, fails=()):
        self.fails, self.commands = set(fails), []

    def run(self, words, log, watch=lambda: None):
        self.commands.append(words)
        return int("cloc.label" in words and "label" in self.fails)

    def stop(self):
        """Nothing runs."""


def test_steps_follow_each_other_and_stop_at_a_failure(tmp_path, monkeypatch, capsys):
    done = []

    def ablate(words, launcher):
        done.append(Path(words[0]).stem)
        return int(done[-1] in launcher.fails)

    shares = {"precision": 0.5, "recall": 0.25, "recall_named": 0.75}
    monkeypatch.setattr(command.ablations, "main", ablate)
    monkeypatch.setattr(command, "find_last_words", lambda log: "no detector")
    monkeypatch.setattr(command.Runs, "compare", lambda self: {name: shares for name in ("all", BOXED, CAPTION_ONLY)})
    out = ["--out", str(tmp_path / "out")]
    assert command.main(out, Played(["detector"])) == 1
    assert done == ["detector"]
    assert command.main(out, Played(["label"])) == 1
    assert "failed: labelling: no detector" in capsys.readouterr().err
    played = Played()
    done.clear()
    assert command.main(out, played) == 0
    assert done == ["detector", "cloc", "clip"]
    (label,) = played.commands
    flags = dict(zip(label[3::2], label[4::2], strict=True))
    assert flags["--shards"] == "data/self_training/train"
    assert flags["--detector"] == str(tmp_path / "out/detector/runs/detector-s0/export")
    assert flags["--score"] == "0.3"
    told = (tmp_path / "out" / command.TABLE).read_text()
    assert "| CLOC, pseudo-labels | 0.500 | 0.750 | 0.250 | - | - |" in told
    assert "nothing about real photographs" in told


def test_of_several_readings_the_best_mean_counts():
    class Some:
        def values(self, arm, metric):
            return {"boxed-a": {0: 0.1, 1: 0.3}, "boxed-b": {0: 0.5, 1: 0.0}}.get(metric, {})

    assert find_value(Some(), CLIP, "boxed", ["a", "b", "c"]) == pytest.approx(0.25)
    assert find_value(Some(), CLIP, "caption-only", ["a"]) is None
