"""The folders of detection data: what each sample promises, the cards, the shuffled captions, the command."""

import json
from collections import Counter
from dataclasses import fields, replace

import pytest
from PIL import Image

from cloc.data.shards import ShardSet
from cloc.formats import read_lvis
from cloc.scenes import WorldSpec, ensure_scenes, list_categories, read_world, render_scene
from cloc.scenes.__main__ import FLAGS, main
from cloc.scenes.build import WORLD_CARD
from cloc.scenes.categories import words_of
from cloc.scenes.detection_samples import (
    make_detection_sample,
    make_grounding_sample,
    make_pairs_sample,
    render_boxed_scene,
)
from cloc.scenes.world import make_preset

SPEC = WorldSpec(
    train=0, detection=30, grounding=30, pairs=30, val=4, refcoco=4, size=48, shard_size=20, min_objects=1,
    names="coined", num_categories=32, caption_only=8, caption_only_words="disjoint", shuffle_captions=True,
)  # fmt: skip
HELD_OUT = {category.name for category in list_categories(SPEC) if category.caption_only}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    out = tmp_path_factory.mktemp("wing") / "world"
    assert ensure_scenes(out, SPEC, workers=1, progress=False) == out
    return out


def samples_of(folder):
    shards = ShardSet.open(folder)
    return [shards.read_sample(shard, place) for shard, count in enumerate(shards.counts) for place in range(count)]


def test_detection_labels_every_boxed_object_and_says_nothing_else():
    for index in range(60):
        sample, scene = make_detection_sample(SPEC, index), render_boxed_scene(SPEC, index, "detection")
        assert sample.caption == ""
        boxed = [thing for thing in scene.objects if not thing.category.caption_only]
        assert boxed
        assert [(r.box, r.phrase, r.extras) for r in sample.regions] == [
            (t.box_xyxy, t.name, {"category_id": t.category_id}) for t in boxed
        ]


def test_caption_only_objects_stand_in_detection_scenes_unless_told_otherwise():
    def shown(spec, split):
        things = [thing for index in range(60) for thing in render_scene(spec, index, split).objects]
        return sum(thing.category.caption_only for thing in things) / len(things)

    without = replace(SPEC, caption_only_in_detection=False)
    assert 0.15 < shown(SPEC, "detection") < 0.40
    assert shown(without, "detection") == shown(without, "grounding") == 0.0
    assert shown(without, "pairs") == shown(SPEC, "pairs") > 0.15
    assert shown(without, "val") > 0.15


def test_grounding_spans_are_the_phrases_and_each_phrase_has_all_its_boxes():
    kinds = Counter()
    for index in range(150):
        sample, scene = make_grounding_sample(SPEC, index), render_boxed_scene(SPEC, index, "grounding")
        assert sample.regions
        assert not words_of(sample.caption) & HELD_OUT
        meant = {}
        for region in sample.regions:
            start, end = region.extras["span"]
            assert sample.caption[start:end] == region.phrase
            assert not sample.caption[end : end + 1].isalpha()
            meant.setdefault((start, end), set()).add(region.box)
        for (start, end), boxes in meant.items():
            phrase = sample.caption[start:end]
            named = {thing.box_xyxy for thing in scene.objects if thing.name == phrase}
            told = [e for e in scene.expressions if e.text == phrase and e.kind == "relational"]
            assert boxes == (named or {scene.objects[e.object_index].box_xyxy for e in told})
            kinds["name" if named else "relational", len(boxes)] += 1
        boxed = {thing.name for thing in scene.objects if not thing.category.caption_only}
        assert len(meant) >= 1
        assert len(meant) <= len(boxed)
    assert kinds["name", 1] > 100
    assert kinds["name", 2] > 5
    assert kinds["relational", 1] > 5


def test_pairs_have_no_region_and_their_captions_name_both_kinds_of_categories():
    told = Counter()
    for index in range(150):
        sample = make_pairs_sample(SPEC, index)
        assert sample.regions == ()
        words = words_of(sample.caption)
        named = [c for c in list_categories(SPEC) if c.name in words]
        assert {c.name for c in named} <= {thing.name for thing in render_scene(SPEC, index, "pairs").objects}
        told.update(c.caption_only for c in named)
    assert told[True] > 30
    assert told[False] > 90


def test_splits_are_different_scenes():
    images = {render_scene(SPEC, 0, split).image.tobytes() for split in ("detection", "grounding", "pairs", "val")}
    assert len(images) == 4


def test_a_world_where_nearly_everything_is_caption_only_still_gives_boxes():
    spec = replace(SPEC, caption_only=31, max_objects=1)
    assert len(make_detection_sample(spec, 0).regions) == 1
    assert render_boxed_scene(spec, 0, "detection").index != 0
    assert make_detection_sample(spec, 0).extras["source"]["index"] == render_boxed_scene(spec, 0, "detection").index


def test_cards_name_kind_and_boxed_categories_only(world):
    card = json.loads((world / "detection/dataset.json").read_text())
    assert card["kind"] == "detection"
    assert card["counts"]["captions"] == 0
    boxed = [c for c in list_categories(SPEC) if not c.caption_only]
    assert [(e["id"], e["name"], e["definition"]) for e in card["categories"]] == [
        (c.id, c.name, c.definition) for c in boxed
    ]
    found = Counter(region.extras["category_id"] for s in samples_of(world / "detection") for region in s.regions)
    assert {e["id"]: e["instance_count"] for e in card["categories"] if e["instance_count"]} == dict(found)
    for kind in ("grounding", "pairs"):
        other = json.loads((world / kind / "dataset.json").read_text())
        assert other["kind"] == kind
        assert other["rendered"] is True
        assert "categories" not in other
    assert not (world / "train").exists()
    assert set(read_world(world)["counts"]) == {"detection", "grounding", "pairs", "coco", "refcoco", "zeroshot"}


def test_lvis_frequencies_come_from_the_detection_images(world):
    lvis = read_lvis(world / "lvis/lvis_v1_val.json", [world / "coco/val2017"])
    images = Counter()
    for sample in samples_of(world / "detection"):
        images.update({region.extras["category_id"] for region in sample.regions})
    for number, category in lvis.categories.items():
        assert category.frequency == ("r" if images[number] <= 10 else "c")
        assert category.caption_only == (category.name in HELD_OUT)
    entries = json.loads((world / "lvis/lvis_v1_val.json").read_text())["categories"]
    assert {e["id"]: e["image_count"] for e in entries if e["image_count"]} == dict(images)


def test_shuffled_captions_go_once_to_another_image(world):
    pairs, shuffled = samples_of(world / "pairs"), samples_of(world / "pairs-shuffled")
    by_key = {sample.key: sample for sample in pairs}
    assert [sample.image for sample in shuffled] == [sample.image for sample in pairs]
    assert sorted(sample.extras["caption_of"] for sample in shuffled) == sorted(by_key)
    for sample in shuffled:
        giver = sample.extras["caption_of"]
        assert giver != sample.key
        assert sample.caption == by_key[giver].caption


def test_an_interrupted_world_is_completed_and_another_one_refused(world):
    before = {path: path.read_bytes() for path in world.rglob("*") if path.is_file()}
    (world / WORLD_CARD).unlink()
    (world / "pairs-shuffled/dataset.json").rename(world / "kept.json")
    for path in (world / "pairs-shuffled").iterdir():
        path.unlink()
    (world / "pairs-shuffled").rmdir()
    (world / "kept.json").unlink()
    ensure_scenes(world, SPEC, workers=2, progress=False)
    assert {path: path.read_bytes() for path in world.rglob("*") if path.is_file()} == before
    with pytest.raises(ValueError, match=r"tint 22 there, 30 asked"):
        ensure_scenes(world, replace(SPEC, tint=30), progress=False)


def test_the_command_takes_every_field_and_changes_a_preset(tmp_path, capsys):
    told = [name for group in FLAGS.values() for name in group]
    assert sorted(told) == sorted(field.name for field in fields(WorldSpec))
    few = ["--train", "0", "--detection", "3", "--grounding", "2", "--pairs", "3", "--val", "2", "--refcoco", "2"]
    shapes = ["--sprites", "shapes", "--names", "coined", "--size", "48", "--workers", "1"]
    out = tmp_path / "w"
    assert main(["--preset", "detection", "--out", str(out), "--shuffle-captions", *few, *shapes]) == 0
    printed = capsys.readouterr().out
    assert "shapes with coined names" in printed
    assert "detection: 3 samples, 0 captions" in printed
    assert (out / "pairs-shuffled").is_dir()
    assert read_world(out)["made"]["caption_only"] == make_preset("detection").caption_only == 8
    assert (
        main(["--preset", "detection", "--out", str(out), *few, "--sprites", "shapes", "--names", "descriptive"]) == 2
    )
    assert "error: caption_only_words: expected 8 names" in capsys.readouterr().err


def test_a_contact_sheet_shows_scenes_without_making_a_world(tmp_path, capsys):
    file = tmp_path / "sheet.png"
    assert main(["--look", str(file), "--out", str(tmp_path / "w"), "--size", "48"]) == 0
    assert not (tmp_path / "w").exists()
    with Image.open(file) as sheet:
        colours = {colour for _, colour in sheet.convert("RGB").getcolors(1 << 24)}
    assert {(0, 150, 0), (220, 0, 0)} <= colours
    assert main(["--look", str(tmp_path / "sheet.jpg")]) == 2
    assert "error: --look: expected a file that ends in .png" in capsys.readouterr().err
    assert main(["--look", str(tmp_path / "x.png"), "--tail", "9"]) == 2
