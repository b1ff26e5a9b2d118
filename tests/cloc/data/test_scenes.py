"""The embedded world: what scenes promise."""

import math
from collections import Counter

import numpy as np
import pytest

from cloc import disk, jobs
from cloc.boxes import area, iou
from cloc.formats import read_refcoco
from cloc.scenes import WorldSpec, ensure_scenes, list_categories, render_scene
from cloc.scenes.captions import add_article
from cloc.scenes.drawing import cut_out, find_visible_pixels, measure_extents
from cloc.scenes.layout import Placed
from cloc.scenes.sprites import make_coloured_shapes
from cloc.scenes.training import classify_frequency, make_training_sample

SPEC = WorldSpec()


def scenes(split, count, size=64):
    return (render_scene(SPEC, index, split, size) for index in range(count))


def test_a_scene_is_a_pure_function_of_seed_split_and_index():
    first, again = render_scene(SPEC, 7, "val"), render_scene(SPEC, 7, "val")
    assert first.image.tobytes() == again.image.tobytes()
    assert (first.objects, first.caption, first.expressions) == (again.objects, again.caption, again.expressions)
    others = [render_scene(SPEC, 7, "train"), render_scene(SPEC, 8, "val"), render_scene(WorldSpec(seed=1), 7, "val")]
    assert all(first.image.tobytes() != other.image.tobytes() for other in others)
    more = render_scene(WorldSpec(train=3, val=9), 7, "val")
    assert more.image.tobytes() == first.image.tobytes()


def test_counts_sides_overlap_and_twins_keep_the_rules():
    size, counts, twins, everything = 256, Counter(), 0, 200
    for scene in scenes("train", everything, size):
        counts[len(scene.objects)] += 1
        twins += max(Counter(thing.name for thing in scene.objects).values()) > 1
        boxes_xyxy = np.array([thing.box_xyxy for thing in scene.objects])
        sides = (boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]).max(axis=1) / size
        # a covered corner or an edge between two pixels changes a side by a little
        assert sides.min() > 0.15 - 0.02
        assert sides.max() < 0.60 + 0.01
        assert boxes_xyxy.min() >= 0
        assert boxes_xyxy.max() <= size
        overlap = iou(boxes_xyxy, boxes_xyxy) - np.eye(len(boxes_xyxy))
        assert overlap.max() < 0.05 + 0.01
        low = np.maximum(boxes_xyxy[:, None, :2], boxes_xyxy[None, :, :2])
        high = np.minimum(boxes_xyxy[:, None, 2:], boxes_xyxy[None, :, 2:])
        shared = np.clip(high - low, 0, None).prod(axis=2) * (1 - np.eye(len(boxes_xyxy)))
        assert (shared / area(boxes_xyxy)[:, None]).max() < 0.10 + 0.02
    assert set(counts) == {2, 3, 4, 5}
    assert twins >= 0.30 * everything


def test_boxes_are_tight_around_what_can_be_seen():
    checked = 0
    for scene in scenes("val", 40, 224):
        pixels = np.asarray(scene.image).astype(int)
        coloured = pixels.max(axis=2) - pixels.min(axis=2) > 75  # the background is muted
        boxes_xyxy = np.array([thing.box_xyxy for thing in scene.objects]).astype(int)
        for number, (x0, y0, x1, y1) in enumerate(boxes_xyxy):
            wide = np.array([[x0 - 4, y0 - 4, x1 + 4, y1 + 4]])
            if iou(wide, np.delete(boxes_xyxy, number, axis=0)).any():
                continue  # another object's pixels lie near
            if scene.objects[number].name.split()[0] in ("white", "black"):
                continue  # their pixels are no more coloured than the background
            left, top = max(x0 - 4, 0), max(y0 - 4, 0)
            rows, columns = np.nonzero(coloured[top : y1 + 4, left : x1 + 4])
            seen = (left + columns.min(), top + rows.min(), left + columns.max() + 1, top + rows.max() + 1)
            assert np.abs(np.array(seen) - (x0, y0, x1, y1)).max() <= 1
            drawn = scene.objects[number].area
            assert abs(len(rows) - drawn) <= 0.1 * drawn
            checked += 1
    assert checked > 40


def test_what_is_covered_does_not_count_as_visible():
    def square(x0, y0, x1, y1):
        corners = np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)])
        thing = Placed(0, corners, None, (x0, y0, x1, y1), np.eye(2), np.zeros(2))
        return cut_out(make_coloured_shapes()[0], thing, 100)

    seen = measure_extents(find_visible_pixels([square(0.1, 0.2, 0.5, 0.6), square(0.4, 0.1, 0.9, 0.7)]))
    assert seen == [((10, 20, 40, 60), 30 * 40), ((40, 10, 90, 70), 50 * 60)]


def test_sizes_agree_between_resolutions():
    for index in range(20):
        small, large = render_scene(SPEC, index, "val", 96), render_scene(SPEC, index, "val", 384)
        assert [thing.name for thing in small.objects] == [thing.name for thing in large.objects]
        for a, b in zip(small.objects, large.objects, strict=True):
            assert np.abs(np.array(a.box_xyxy) * 4 - b.box_xyxy).max() <= 8


def test_caption_only_categories_leave_every_colour_and_shape_with_boxes():
    known = list_categories()
    held_out = [category.name.split() for category in known if category.caption_only]
    boxed = [category.name.split() for category in known if not category.caption_only]
    assert len(known) == 32
    assert len(held_out) == 4
    for part in (0, 1):
        assert len({name[part] for name in held_out}) == 4
        assert {name[part] for name in boxed} == {category.name.split()[part] for category in known}


def test_training_regions_never_show_caption_only_categories_but_captions_name_them():
    held_out = {category.name for category in list_categories() if category.caption_only}
    in_captions, relational, eligible = set(), 0, 0
    for scene in scenes("train", 300, 48):
        sample = make_training_sample(SPEC, scene)
        texts = [region.phrase for region in sample.regions]
        assert not [text for text in texts for name in held_out if name in text]
        in_captions |= {name for name in held_out if name in scene.caption}
        plain = [region for region in sample.regions if "category_id" in region.extras]
        assert [region.phrase for region in plain] == [t.name for t in scene.objects if t.name not in held_out]
        relational += len(sample.regions) - len(plain)
        eligible += len(
            {
                e.object_index
                for e in scene.expressions
                if e.kind == "relational" and scene.objects[e.object_index].name not in held_out
            }
        )
    assert in_captions == held_out
    assert relational == pytest.approx(SPEC.expression_share * eligible, rel=0.3)


def test_captions_are_true_and_name_at_most_half_of_the_objects():
    templates = set()
    for scene in scenes("train", 200, 48):
        names = {thing.name for thing in scene.objects}
        told = [category.name for category in list_categories() if category.name in scene.caption]
        assert set(told) <= names
        assert 1 <= len(told) <= math.ceil(len(scene.objects) / 2)
        assert all(scene.caption.count(name) == 1 and add_article(name) in scene.caption for name in told)
        templates.add(scene.caption.split()[0])
    assert len(templates) >= 4


WORDS = {
    "left": (0, -1), "leftmost": (0, -1), "right": (0, 1), "rightmost": (0, 1), "upper": (1, -1), "topmost": (1, -1),
    "lower": (1, 1), "lowest": (1, 1), "larger": (2, 1), "largest": (2, 1), "smaller": (2, -1), "smallest": (2, -1),
}  # fmt: skip
RELATIONS = {"left of": (0, -1), "right of": (0, 1), "above": (1, -1), "below": (1, 1)}


def refer(text, names, boxes_xyxy):
    """Objects that a text can mean, read from its words alone: a list of indices."""

    def measure(index, axis):
        x0, y0, x1, y1 = boxes_xyxy[index]
        return ((x0 + x1) / 2, (y0 + y1) / 2, (x1 - x0) * (y1 - y0))[axis]

    def called(name):
        return [index for index, other in enumerate(names) if other == name]

    if text in names:
        return called(text)
    words = text.removeprefix("the ")
    for relation, (axis, sign) in RELATIONS.items():
        if f" {relation} the " in words:
            name, neighbour = words.split(f" {relation} the ")
            there = called(neighbour)
            assert len(there) == 1
            return [i for i in called(name) if sign * (measure(i, axis) - measure(there[0], axis)) > 0]
    word, name = words.split(" ", 1)
    axis, sign = WORDS[word]
    assert (len(called(name)) == 2) == (not word.endswith("most") and not word.endswith("est"))
    best = max(sign * measure(i, axis) for i in called(name))
    return [i for i in called(name) if sign * measure(i, axis) == best]


def test_expressions_can_be_resolved_from_their_text_alone():
    kinds, words = Counter(), Counter()
    for scene in scenes("refcoco", 400, 96):
        names = [thing.name for thing in scene.objects]
        boxes_xyxy = [thing.box_xyxy for thing in scene.objects]
        for expression in scene.expressions:
            assert refer(expression.text, names, boxes_xyxy) == [expression.object_index], expression
            alone = names.count(names[expression.object_index]) == 1
            assert expression.kind == ("name" if alone else "relational")
            kinds[expression.kind] += 1
            words.update(expression.text.split())
    assert min(kinds.values()) > 200
    assert all(words[word] for word in ("left", "right", "upper", "lower", "larger", "smaller", "above", "below", "of"))


def test_refcoco_files_hold_unambiguous_expressions_and_split_off_the_caption_only_categories(tmp_path):
    out = tmp_path / "scenes"
    ensure_scenes(out, WorldSpec(train=10, val=2, refcoco=60, size=48), workers=1, progress=False)
    for split in ("val", "testA", "testB"):
        found = read_refcoco(out / "refcoco", "refcoco", split)
        assert found.rendered
        assert found.expressions
        assert not found.dropped
        known = {category.id: category for category in list_categories()}
        for expression in found.expressions:
            image = found.images[expression.image_id]
            assert image.path.is_file()
            names = [known[i].name for i in image.category_ids.tolist()]
            referent = refer(expression.text, names, image.boxes_xyxy.tolist())
            assert image.annotation_ids[referent].tolist() == [expression.annotation_id]
            assert known[image.category_ids[referent[0]]].caption_only == (split == "testB")
            assert expression.kind in ("name", "relational")


def test_places_in_expressions_are_clear_by_a_tenth_of_the_side():
    seen = 0
    for scene in scenes("refcoco", 300, 100):
        for expression in scene.expressions:
            words = expression.text.split()
            if expression.kind == "relational" and words[1] in ("left", "upper"):
                axis, own = (0, 1)[words[1] == "upper"], scene.objects[expression.object_index]
                rivals = [thing for thing in scene.objects if thing.name == own.name and thing is not own]
                for rival in rivals:
                    ahead = sum(rival.box_xyxy[axis::2]) / 2 - sum(own.box_xyxy[axis::2]) / 2
                    assert ahead >= 10
                    seen += 1
    assert seen > 30


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sprites": "emojis"}, r"sprites: expected one of the known ones \(shapes, emoji\), got 'emojis'"),
        ({"train": 0}, "train: expected at least 1 scene, got 0"),
        ({"size": 8}, "size: expected 32 to 2048 pixels, got 8"),
        ({"caption_only": 32}, "caption_only: expected 0 to 31"),
        ({"max_objects": 1}, "min_objects: expected 1 to max_objects"),
    ],
)
def test_impossible_worlds_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        WorldSpec(**change)


def test_unknown_split_and_objects_without_room_are_refused():
    with pytest.raises(ValueError, match=r"split: expected one of train, val, refcoco, .*, got 'test'"):
        render_scene(SPEC, 0, "test")
    crowded = WorldSpec(min_objects=8, max_objects=8, min_side=0.6, max_side=0.6)
    with pytest.raises(ValueError, match="do not fit with little overlap"):
        render_scene(crowded, 0, "train")


def test_a_tail_makes_some_categories_rare():
    tailed = WorldSpec(tail=1.0)
    counts = Counter(thing.name for i in range(300) for thing in render_scene(tailed, i, "train", 32).objects)
    ordered = [count for _, count in counts.most_common()]
    assert ordered[0] > 5 * ordered[-1]
    assert [classify_frequency(count) for count in (0, 10, 11, 100, 101)] == ["r", "r", "c", "c", "f"]


def test_a_world_is_rendered_by_one_process_and_a_stopped_one_leaves_nothing(tmp_path, monkeypatch):
    out, spec = tmp_path / "world", WorldSpec(train=4, val=1, refcoco=1, size=32)
    monkeypatch.setattr(disk, "ORPHANS_LAST", 0.0)
    with disk.locked(out, "unheard"), pytest.raises(ValueError, match="another process is rendering it"):
        ensure_scenes(out, spec, workers=1, progress=False)

    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(jobs, "write_shard", stop)
        with pytest.raises(KeyboardInterrupt):
            ensure_scenes(out, spec, workers=1, progress=False)
    assert list(out.iterdir()) == []
    ensure_scenes(out, spec, workers=1, progress=False)
    assert not (out / disk.LOCK).exists()
