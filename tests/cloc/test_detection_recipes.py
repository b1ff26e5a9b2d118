"""The Detection wing's recipes: the paper's numbers, the sizes of their names, small copies that train."""

import json

import pytest
import torch
from transformers import AutoModel, AutoProcessor

import cloc
from cloc import build, engine, pretrain
from cloc.config import load_config
from cloc.data.scenes import WorldSpec, ensure_scenes

SIZES = {
    "detclipv2_swin_t": 27.5,
    "detclipv2_swin_l": 195.2,
    "detclipv2_vit_b16": 85.8,
    "joint_swin_t": 27.5,
    "joint_vit_b16": 85.8,
    "detclipv2_finetune_lvis": 27.5,
    "detclipv2_finetune_odinw": 27.5,
}


@pytest.mark.parametrize("name", SIZES)
def test_a_recipe_has_the_tower_of_its_name(name):
    config = load_config(f"configs/{name}.yaml")
    with torch.device("meta"):
        model = build.make_model(config, build.make_tokenizer(config))[0]
    assert sum(p.numel() for p in model.vision.tower.parameters()) / 1e6 == pytest.approx(SIZES[name], rel=0.005)
    assert model.has_prompter == name.startswith("joint")
    assert model.config.detector_config.strides == [8, 16, 32, 64, 128]
    assert model.config.detector_config.definitions == config.model.detector.definitions
    assert build.export_detection_size(config) == (800, 1333)


def test_the_papers_table():
    """DetCLIPv2 Table 9."""
    config = load_config("configs/detclipv2_swin_t.yaml")
    detection, grounding, pairs = config.data
    assert (detection.batch_size, grounding.batch_size, pairs.batch_size) == (128, 128, 6144)
    assert detection.image_size[-1] == (800, 1333)
    assert pairs.image_size == 320
    optim, loss = config.optim, config.loss.detection
    assert (optim.lr, optim.lr * optim.text_lr_scale) == pytest.approx((2.8e-4, 2.8e-5))
    assert (optim.beta1, optim.beta2, optim.weight_decay, optim.warmup_steps) == (0.9, 0.999, 0.05, 1000)
    assert (loss.alignment, loss.giou, loss.centerness, loss.word_region) == (1, 2, 1, 0.1)
    assert (loss.temperature, loss.label_smoothing, loss.num_proposals, loss.direction) == (
        0.5,
        0.1,
        100,
        "text_to_image",
    )
    assert config.model.detector.text_context == 16


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wing") / "world"
    spec = WorldSpec(train=12, detection=12, grounding=12, pairs=12, val=2, refcoco=2, size=48, shard_size=6)
    return ensure_scenes(folder, spec, workers=1, progress=False).parent


SMALL = [
    "run.workers=0", "run.device=cpu", "train.steps=4", "train.checkpoint_every=2",
    "train.activation_checkpointing=false",
    "run.precision=fp32", "optim.warmup_steps=1", "model.embed_dim=16", "model.text.width=16", "model.text.layers=1",
    "model.text.heads=2", "model.vision.image_size=64", "model.detector.width=16", "model.detector.num_convs=1",
    "model.detector.strides=[8,16,32]",
]  # fmt: skip
SWIN = ["model.vision.width=8", "model.vision.heads=1", "model.vision.window=2", "model.vision.depths=[1,1,1,1]"]
VIT = ["model.vision.patch_size=16", "model.vision.width=16", "model.vision.layers=1", "model.vision.heads=2"]


def start(recipe, world, runs, *changes):
    config = load_config(f"configs/{recipe}.yaml")
    folders = {"regions": "train"}
    data = []
    for row, source in enumerate(config.data):
        size = 32 if source.kind == "pairs" else "[[32,64],[48,64]]"
        path = world / folders.get(source.kind, source.kind)
        data += [f"data.{row}.path={path}", f"data.{row}.batch_size=3", f"data.{row}.weight=1"]
        data += [f"data.{row}.image_size={size}"] if source.kind != "regions" else []
    shape = SWIN if "swin" in recipe else VIT
    return pretrain.main(["--config", f"configs/{recipe}.yaml", "--runs", str(runs), *SMALL, *shape, *data, *changes])


@pytest.mark.parametrize("recipe", ["joint_swin_t", "detclipv2_vit_b16"])
def test_a_small_copy_trains_exports_and_comes_back(recipe, world, tmp_path, spine_picture):
    assert start(recipe, world, tmp_path) == 0
    folder = tmp_path / recipe / "export"
    steps = [json.loads(line) for line in (tmp_path / recipe / "metrics.jsonl").read_text().splitlines()]
    terms = {term for step in steps for term in step if term in ("alignment", "giou", "word_region", "region_text")}
    assert len(terms) >= 2
    model, processor = cloc.ClocForObjectDetection.from_pretrained(folder), AutoProcessor.from_pretrained(folder)
    (found,) = model.detect([spine_picture(50, 40)], ["cat", "dog"], processor, limit=7, score_threshold=0.0)
    assert 0 < len(found["scores"]) <= 7
    assert processor.image_processor.detection_size == {"shortest_edge": 48, "longest_edge": 64}
    encoder = AutoModel.from_pretrained(folder)
    assert type(encoder) is cloc.ClocModel
    assert encoder.has_prompter == (recipe == "joint_swin_t")


def test_a_killed_joint_run_goes_on_with_the_same_losses(world, tmp_path, monkeypatch):
    """Every kind its own cursor, resting branches with their own optimiser state."""
    assert start("joint_vit_b16", world, tmp_path / "whole") == 0
    save = engine.save

    def stop(stepper, plan, done):
        save(stepper, plan, done)
        raise KeyboardInterrupt

    monkeypatch.setattr(engine, "save", stop)
    with pytest.raises(KeyboardInterrupt):
        start("joint_vit_b16", world, tmp_path / "killed")
    monkeypatch.undo()
    assert start("joint_vit_b16", world, tmp_path / "killed", "--resume", "auto") == 0
    whole, killed = (losses(tmp_path / name / "joint_vit_b16") for name in ("whole", "killed"))
    assert whole == killed
    assert len(whole) == 4


def losses(run):
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return {line["step"]: line["loss"] for line in lines}


def test_deepspeed_is_refused_where_branches_rest(world, tmp_path, capsys):
    assert start("detclipv2_vit_b16", world, tmp_path, "train.deepspeed=configs/deepspeed/zero2.json") == 2
    assert "trains one kind of data a step" in capsys.readouterr().err
