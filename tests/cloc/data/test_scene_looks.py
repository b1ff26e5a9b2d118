"""The world's further fields: emoji, made-up names, textures, overlap, rotation, tail; and the first world stays."""

import hashlib
import json
import math
from collections import Counter

import numpy as np
import pytest

from cloc.boxes import iou
from cloc.scenes import WorldSpec, list_categories, render_scene, sprites
from cloc.scenes.categories import invent_words, words_of
from cloc.scenes.drawing import cut_out, find_visible_pixels, measure_extents
from cloc.scenes.layout import lay_out
from cloc.scenes.training import classify_frequencies, make_training_sample
from cloc.scenes.world import get_category_set, make_preset, make_scene_rng

needs_font = pytest.mark.skipif(
    sprites.find_font() is None, reason=f"the emoji font is not installed ({sprites.PACKAGE})"
)
DISJOINT = {"caption_only_words": "disjoint", "caption_only": 8, "num_categories": 32}


def test_the_first_world_is_the_same_to_the_last_bit():
    digest = hashlib.sha256()
    for split in ("train", "val", "refcoco"):
        for index in range(20):
            scene = render_scene(WorldSpec(), index, split)
            digest.update(scene.image.tobytes())
            sample = make_training_sample(WorldSpec(), scene)
            digest.update(json.dumps([sample.to_json(), scene.caption, [e.text for e in scene.expressions]]).encode())
    # as computed by the version that had none of the later fields
    assert digest.hexdigest() == "0dd956181219a986c9686673415f558141ffa081f6d6d567048f01f2f7865867"


def test_a_card_names_later_fields_only_where_they_matter():
    first = WorldSpec().made()
    assert list(first)[:4] == ["by", "renderer", "seed", "train"]
    assert list(first)[-2:] == ["tail", "quality"]
    assert WorldSpec(tint=10).made() == first | {"tint": 10}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"names": "odd"}, r"names: expected one of the known ones \(descriptive, coined\), got 'odd'"),
        ({"caption_only_words": "disjoint"}, "expected 4 names that share no word.*got 0.*give names=coined"),
        ({"num_categories": 33}, "num_categories: expected 2 to 32 shapes, or none for all, got 33"),
        ({"background": "photo"}, "background: expected one of plain, textured, got 'photo'"),
        ({"rotation": 200.0}, "rotation: expected 0 to 180 degrees"),
        ({"max_iou": 0.9}, "max_iou: expected 0 to 0.6, got 0.9"),
        ({"pairs": -1}, r"pairs: expected 0 \(none\) or more scenes, got -1"),
        ({"shuffle_captions": True}, "shuffle_captions: expected pairs=2 or more"),
        ({"coordinates": "miles"}, "coordinates: expected one of unit, thousand, bins, got 'miles'"),
    ],
)
def test_impossible_values_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        WorldSpec(**change)


def test_coined_words_are_different_and_share_at_most_a_syllable_in_place():
    words = invent_words(200)
    assert words[:32] == invent_words(32)
    parts = [{(place, word[2 * place : 2 * place + 2]) for place in range(3)} for word in words]
    assert max(len(a & b) for i, a in enumerate(parts) for b in parts[:i]) == 1
    with pytest.raises(ValueError, match="coined words: expected 0 to 4900, got 5000"):
        invent_words(5000)


@pytest.mark.parametrize(
    "change", [{"names": "coined"}, pytest.param({"sprites": "emoji"}, marks=needs_font)], ids=["coined", "emoji"]
)
def test_disjoint_caption_only_names_share_no_word_and_definitions_tell_no_more(change):
    known = list_categories(WorldSpec(**change, **DISJOINT))
    boxed = {word for c in known if not c.caption_only for word in words_of(c.name)}
    held_out = [c for c in known if c.caption_only]
    assert (len(known), len(held_out), len({c.name for c in known})) == (32, 8, 32)
    assert not any(words_of(c.name) & boxed for c in held_out)
    assert len({c.definition.replace(c.name, "") for c in known}) == 1


def test_a_coined_world_shows_what_the_described_one_shows():
    plain, coined = render_scene(WorldSpec(), 5, "val"), render_scene(WorldSpec(names="coined"), 5, "val")
    assert plain.image.tobytes() == coined.image.tobytes()
    assert [t.category_id for t in plain.objects] == [t.category_id for t in coined.objects]
    assert coined.objects[0].name in invent_words(32)


def test_textured_backgrounds_have_edges_and_captions_do_not_call_them_plain():
    def contrast(kind):
        spec = WorldSpec(background=kind, min_objects=1, max_objects=1, max_side=0.15)
        scenes = [render_scene(spec, index, "train", 128) for index in range(40)]
        pixels = np.stack([np.asarray(scene.image.convert("L").reduce(4), dtype=float) for scene in scenes])
        return np.abs(np.diff(pixels, axis=2)).mean(), " ".join(scene.caption for scene in scenes)

    (plain, told), (textured, other) = contrast("plain"), contrast("textured")
    assert textured > 2 * plain
    assert "on a plain background" in told
    assert "plain" not in other
    assert "on a patterned background" in other


def test_overlap_rotation_and_number_of_categories_follow_their_fields():
    spec = WorldSpec(max_iou=0.4, max_covered=0.6, rotation=90.0, num_categories=5, caption_only=1, min_objects=4)
    largest, seen = 0.0, Counter()
    for index in range(60):
        scene = render_scene(spec, index, "train", 128)
        boxes_xyxy = np.array([thing.box_xyxy for thing in scene.objects])
        largest = max(largest, (iou(boxes_xyxy, boxes_xyxy) - np.eye(len(boxes_xyxy))).max())
        seen.update(thing.category_id for thing in scene.objects)
        assert all(thing.area > 0 for thing in scene.objects)
    assert 0.2 < largest < 0.45
    assert sorted(seen) == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("rotation", [0.0, 12.0, 90.0])
def test_objects_are_turned_up_to_the_rotation(rotation):
    spec = WorldSpec(rotation=rotation)
    turns = [t.turn for i in range(60) for t in lay_out(spec, "train", make_scene_rng(spec, "train", i))]
    angles = [abs(math.degrees(math.atan2(turn[0, 1], turn[0, 0]))) for turn in turns]
    assert 0.9 * rotation <= max(angles) <= rotation


def test_the_shares_rule_ranks_boxed_categories_as_lvis_has_them():
    spec = WorldSpec(frequency_rule="shares", tail=1.0)
    images = {c.id: 50 * c.id for c in list_categories(spec)}
    classes = classify_frequencies(spec, images)
    boxed = sorted((images[c.id], c.id) for c in list_categories(spec) if not c.caption_only)
    assert "".join(classes[number] for _, number in boxed) == "r" * 8 + "c" * 11 + "f" * 9
    assert all(classes[c.id] == "r" for c in list_categories(spec) if c.caption_only)
    assert set(classify_frequencies(WorldSpec(), images).values()) == {"c", "f"}


def test_a_missing_font_is_named_with_its_package(monkeypatch):
    monkeypatch.setattr(sprites, "FONT_FILES", (sprites.Path("nowhere/NotoColorEmoji.ttf"),))
    for cached in (sprites._load_font, sprites.list_emoji_points, sprites.choose_emoji):
        monkeypatch.setattr(sprites, cached.__name__, cached.__wrapped__)
    with pytest.raises(ValueError, match=r"expected an emoji font at nowhere.*install the package fonts-noto-color"):
        sprites.choose_emoji(4)
    world = make_preset("detection")
    assert (world.sprites, world.names, world.caption_only_words) == ("shapes", "coined", "disjoint")


@needs_font
def test_emoji_are_single_pictures_named_by_unicode():
    points = sprites.list_emoji_points()
    names = [sprites.spoken_name(point) for point in points]
    assert len(points) > 1200
    assert {"dog face", "hot pepper", "grinning face", "red apple"} <= set(names)
    assert not any(word in " ".join(names) for word in ("squared", "regional indicator", "modifier", "clock face"))
    chosen = sprites.choose_emoji(32)
    assert len({sprite.name for sprite in chosen}) == 32
    assert all(len(sprite.name.split()) <= 2 for sprite in chosen)
    with pytest.raises(ValueError, match=r"num_categories: expected at most \d+ \(the emoji with short names\)"):
        sprites.choose_emoji(2000)


@needs_font
@pytest.mark.parametrize("size", [64, 128, 512])
def test_a_turned_emoji_lies_where_its_pixels_are_sent(size):
    spec = WorldSpec(sprites="emoji", num_categories=32, rotation=180.0)
    checked = 0
    for index in range(15):
        for thing in lay_out(spec, "val", make_scene_rng(spec, "val", index)):
            sprite = get_category_set(spec).sprites[thing.sprite]
            patch = cut_out(sprite, thing, size)
            rgba = np.asarray(sprite.picture).astype(float)
            rows, columns = np.nonzero(rgba[..., 3] >= 128)
            there = (np.stack([columns + 0.5, rows + 0.5], axis=1) @ thing.turn + thing.shift) * size
            ((box, area),) = measure_extents(find_visible_pixels([patch]))
            assert np.abs(np.concatenate([there.min(axis=0), there.max(axis=0)]) - box).max() <= 2
            unit = abs(np.linalg.det(thing.turn)) * size**2
            assert area == pytest.approx(len(rows) * unit, rel=0.12)
            colour = np.average(rgba[..., :3].reshape(-1, 3), axis=0, weights=rgba[..., 3].ravel())
            cover = np.asarray(patch.coverage, dtype=float).ravel()
            drawn = np.average(np.asarray(patch.ink).reshape(-1, 3), axis=0, weights=cover)
            assert np.abs(colour - drawn).max() < 12
            checked += 1
    assert checked > 30
