"""The files of a world of rendered scenes: shards, evaluation layouts, what is left alone, made again or refused."""

import hashlib
import json
from collections import Counter
from pathlib import Path

import pytest

from cloc.data.shards import ShardSet
from cloc.formats import read_coco, read_lvis
from cloc.scenes import WorldSpec, ensure_scenes, list_categories, render_scene
from cloc.scenes.__main__ import main
from cloc.scenes.training import make_training_sample

TINY = WorldSpec(train=50, val=6, refcoco=12, size=48, shard_size=20)


def digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    out = tmp_path_factory.mktemp("world") / "scenes"
    ensure_scenes(out, TINY, workers=1, progress=False)
    return out


def test_shards_hold_the_scenes_and_the_card_says_how_they_were_made(world):
    shards = ShardSet.open(world / "train")
    assert shards.counts == (20, 20, 10)
    sample, scene = shards.read_sample(1, 3), render_scene(TINY, 23, "train")
    assert sample.caption == scene.caption
    assert [region.box for region in sample.regions] == [r.box for r in make_training_sample(TINY, scene).regions]
    assert sample.dropped == Counter()
    card = shards.card
    assert card["rendered"] is True
    assert card["made"]["train"] == 50
    listed = {entry["name"]: entry for entry in card["categories"]}
    found = Counter(
        region.phrase
        for shard, count in enumerate(shards.counts)
        for i in range(count)
        for region in shards.read_sample(shard, i).regions
        if "category_id" in region.extras
    )
    assert {name: entry["instance_count"] for name, entry in listed.items() if entry["instance_count"]} == dict(found)
    assert card["counts"]["regions"] == sum(found.values()) + card["relational_regions"]


def test_evaluation_files_read_like_the_official_ones_and_hold_the_scenes(world):
    coco = read_coco(
        world / "coco/annotations/instances_val2017.json",
        world / "coco/val2017",
        world / "coco/annotations/captions_val2017.json",
    )
    lvis = read_lvis(world / "lvis/lvis_v1_val.json", [world / "coco/val2017"])
    assert coco.rendered
    assert lvis.rendered
    assert not coco.dropped + lvis.dropped
    for index, (image, other) in enumerate(zip(coco.images, lvis.images, strict=True)):
        scene = render_scene(TINY, index, "val")
        assert image.image_id == other.image_id == index + 1
        assert image.path == other.path
        assert image.path.is_file()
        assert image.captions == (scene.caption,)
        assert image.boxes_xyxy.tolist() == other.boxes_xyxy.tolist() == [list(t.box_xyxy) for t in scene.objects]
        assert image.category_ids.tolist() == [t.category_id for t in scene.objects]
        assert other.neg_category_ids
        assert not other.neg_category_ids & set(other.category_ids.tolist())
    caption_only = {i for i, category in lvis.categories.items() if category.caption_only}
    assert len(caption_only) == 4
    assert all(lvis.categories[i].frequency == "r" for i in caption_only)


def test_official_packages_load_the_evaluation_files(world):
    from lvis import LVIS
    from pycocotools.coco import COCO

    assert len(COCO(str(world / "coco/annotations/instances_val2017.json")).getImgIds()) == TINY.val
    assert len(LVIS(str(world / "lvis/lvis_v1_val.json")).get_img_ids()) == TINY.val


def test_pickle_and_json_refs_are_equal(world):
    from cloc.formats.plain_pickle import load_plain_pickle

    folder = world / "refcoco/refcoco"
    assert load_plain_pickle(folder / "refs(unc).p", "refs") == json.loads((folder / "refs(unc).json").read_text())


def test_files_do_not_depend_on_the_number_of_workers(world, tmp_path):
    ensure_scenes(tmp_path / "scenes", TINY, workers=3, progress=False)
    assert digests(tmp_path / "scenes") == digests(world)


def test_a_world_that_is_there_is_left_alone_and_another_one_is_refused(world):
    before = {path: path.stat().st_mtime_ns for path in world.rglob("*")}
    assert ensure_scenes(world, TINY, workers=1, progress=False) == world / "train"
    assert {path: path.stat().st_mtime_ns for path in world.rglob("*")} == before
    with pytest.raises(ValueError, match=r"other parameters \(train 50 there, 60 asked\).*another --out"):
        ensure_scenes(world, WorldSpec(train=60, val=6, refcoco=12, size=48, shard_size=20), progress=False)
    assert {path: path.stat().st_mtime_ns for path in world.rglob("*")} == before


def test_an_interrupted_run_is_completed_to_the_same_files(world, tmp_path):
    out = tmp_path / "scenes"
    (out / ".train.part").mkdir(parents=True)
    (out / ".train.part/000000.tar").write_bytes(b"half")
    ensure_scenes(out, TINY, workers=1, progress=False)
    (out / "world.json").unlink()
    (out / "lvis/lvis_v1_val.json").write_text("{")
    ensure_scenes(out, TINY, workers=1, progress=False)
    assert digests(out) == digests(world)


def test_files_of_others_are_not_replaced(tmp_path):
    (tmp_path / "coco").mkdir()
    with pytest.raises(ValueError, match="already holds coco, which this program did not write"):
        ensure_scenes(tmp_path, TINY, progress=False)


def test_the_command_reports_what_it_made_and_names_a_mistake(tmp_path, capsys):
    flags = ["--out", str(tmp_path / "w"), "--train", "4", "--val", "2", "--refcoco", "2", "--size", "32"]
    assert main([*flags, "--workers", "1"]) == 0
    assert "train: 4 samples, 4 captions" in capsys.readouterr().out
    assert main([*flags, "--sprites", "cats"]) == 2
    assert "error: sprites: expected one of the known ones (shapes, emoji), got 'cats'" in capsys.readouterr().err
    assert main([*flags, "--seed", "5", "--workers", "1"]) == 2
    assert "seed 0 there, 5 asked" in capsys.readouterr().err


def test_single_objects_lie_in_class_folders_and_leave_the_rest_as_it_was(world, tmp_path):
    from cloc.scenes.evaluation import render_single_scene

    folder = world / "zeroshot" / "single"
    names = (folder / "classnames.txt").read_text().splitlines()
    assert names == [category.name for category in list_categories()]
    assert len([path for path in (folder / "test").iterdir() if path.is_dir()]) == len(names)
    files = sorted((folder / "test").rglob("*.jpg"))
    assert len(files) == TINY.val
    for index in range(20):
        scene = render_single_scene(TINY, index)
        assert len(scene.objects) == 1
    for path in files:
        scene = render_single_scene(TINY, int(path.stem) - 1)
        assert names[int(path.parent.name) - 1] == scene.objects[0].name
    assert json.loads((folder / "dataset.json").read_text())["rendered"] is True
    assert "single" not in WorldSpec().made()  # a world of before is the same world
    none = WorldSpec(train=50, val=6, refcoco=12, size=48, shard_size=20, single=0)
    ensure_scenes(tmp_path / "scenes", none, workers=1, progress=False)
    told = {name: digest for name, digest in digests(world).items() if not name.startswith("zeroshot/")}
    without = digests(tmp_path / "scenes")
    differing = {name for name in told.keys() | without.keys() if told.get(name) != without.get(name)}
    assert differing == {"world.json", "train/dataset.json"}  # they say what was asked for


def test_a_world_of_before_gets_its_single_objects(world, tmp_path):
    import shutil

    old = tmp_path / "scenes"
    shutil.copytree(world, old)
    shutil.rmtree(old / "zeroshot")
    card = json.loads((old / "world.json").read_text())
    del card["counts"]["zeroshot"]
    (old / "world.json").write_text(json.dumps(card))
    shards = {path: path.stat().st_mtime_ns for path in (old / "train").iterdir()}
    ensure_scenes(old, TINY, workers=1, progress=False)
    assert digests(old) == digests(world)
    assert {path: path.stat().st_mtime_ns for path in (old / "train").iterdir()} == shards
