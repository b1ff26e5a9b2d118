"""The speed table: every part on a tiny world, side by side, with the rows that the table names."""

import pytest

from benchmarks.cli import main
from benchmarks.rows import read_rows
from benchmarks.speed import loader as loader_cost
from benchmarks.speed import measurements as speed
from benchmarks.speed import regions as region_cost
from benchmarks.speed import step as step_cost
from benchmarks.speed.timing import find_ratio, take_in_turn
from benchmarks.tasks.registry import find_tasks

TINY = (
    "model.embed_dim=16",
    "model.vision.width=32", "model.vision.layers=1", "model.vision.heads=2", "model.vision.image_size=32",
    "model.text.width=16", "model.text.layers=1", "model.text.heads=2",
)  # fmt: skip


def test_works_are_taken_in_turn_and_the_first_round_warms_up():
    order = []
    works = {name: lambda name=name: order.append(name) or len(order) for name in ("a", "b")}
    answers = take_in_turn(works, 2)
    assert order == ["a", "b", "b", "a", "a", "b"]
    assert answers == {"a": [4, 5], "b": [3, 6]}
    assert find_ratio([2.0, 9.0, 6.0], [1.0, 3.0, 3.0]) == 2.0


def test_the_step_stands_beside_both_others(monkeypatch):
    from open_clip.model import CLIP

    vision = {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16}
    text = {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
    monkeypatch.setattr(step_cost, "OVERRIDES", TINY)
    monkeypatch.setattr(step_cost, "IMAGES", {"cpu": 2, "cuda": 2})
    monkeypatch.setattr(step_cost, "REPEATS", {"cpu": 1, "cuda": 1})
    monkeypatch.setattr(step_cost, "open_clip_model", lambda: CLIP(16, vision, text, output_dict=True))
    scores = {score.metric: score for score in step_cost.measure_step("s")}
    for name in ("step_over_no_regions", "step_over_open_clip"):
        assert scores[name].value > 0
        assert scores[f"{name}_passes"].value > 0
    assert "batch-2/M-4/captions-40/phrases-2-to-8" in scores["step_over_no_regions"].protocol


def test_the_steps_are_what_the_table_asks_for(monkeypatch):
    from cloc.plan.batch_shapes import Shapes
    from cloc.plan.timed_step import Trial

    monkeypatch.setattr(step_cost, "OVERRIDES", TINY)
    config = step_cost.make_recipe("cloc", "cpu")
    assert config.loss.filter_threshold == 0.9
    assert config.loss.filter_warmup == 0
    trial = Trial.start(config, Shapes(2, 42, 4, 8, 10), [4, 10, 5, 5, 5, 5, 5, 5])
    assert trial.batch.phrase_attention.sum(dim=1).tolist() == [4, 10, 5, 5, 5, 5, 5, 5]
    assert ((trial.batch.phrase_ids == 49407).int().argmax(dim=1) == trial.batch.phrase_attention.sum(dim=1) - 1).all()
    assert trial.batch.boxes_mask.all()
    report, _ = trial.losses(trial.batch, 0)
    assert set(report.terms) == {"image_text", "region_text", "grounding"}
    plain = Trial.start(step_cost.make_recipe("clip", "cpu"), Shapes(2, 42, 0, 0, 10))
    assert set(plain.losses(plain.batch, 0)[0].terms) == {"image_text"}
    seconds = trial.step()
    assert 0 < seconds.passes < seconds.whole


def test_regions_beside_the_image_and_one_encoding_a_box(monkeypatch):
    tiny = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    monkeypatch.setattr(region_cost, "TOWER", {**tiny, "image_size": 32, "patch_size": 16})
    monkeypatch.setattr(region_cost, "EMBED", 8)
    monkeypatch.setattr(region_cost, "SCENE", 48)
    monkeypatch.setattr(region_cost, "REPEATS", 2)
    scores = {score.metric: score for score in region_cost.measure_regions("s")}
    assert set(scores) == {
        "regions_over_image_alone", "regions_over_image_alone_with_preprocessing", "encode_a_box_over_regions",
    }  # fmt: skip
    assert all(score.value > 0 for score in scores.values())
    assert scores["encode_a_box_over_regions"].num_examples == region_cost.ENCODE_REPEATS


def test_both_loaders_read_every_scene_once(monkeypatch, tmp_path):
    for name, value in {"SCENES": 12, "SCENE": 32, "SHARD": 6, "BATCH": 4, "SIZE": 16, "REPEATS": 1}.items():
        monkeypatch.setattr(loader_cost, name, value)
    shards = loader_cost.write_scenes(tmp_path / "train")
    assert list(loader_cost.iterate_ours(shards)) == list(loader_cost.iterate_theirs(shards)) == [4, 4, 4]
    scores = {score.metric: score.value for score in loader_cost.measure_loader("s")}
    assert scores["loader_over_open_clip"] > 0
    with pytest.raises(RuntimeError, match="our loader gave 8 images, the shards hold 12"):
        loader_cost.time_epoch("our", iter([4, 4]))


def test_a_part_is_asked_for_by_its_name(tmp_path, monkeypatch):
    assert [task.name for task in find_tasks(["speed_step", "speed"])] == ["speed_step", "speed"]
    assert find_tasks(["speed"])[0].parts == speed.PARTS
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    monkeypatch.setattr(speed, "SCENES", 2)
    assert main(["speed_rendering", "--out", str(tmp_path / "out")]) == 0
    rows = read_rows(tmp_path / "out" / "results.json")
    assert [row.metric for row in rows] == ["scenes_per_second"]
    assert rows[0].task == "speed_rendering"
