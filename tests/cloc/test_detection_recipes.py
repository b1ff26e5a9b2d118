"""The detection recipes: the paper's numbers, the sizes of their names, small copies that train."""

import json
import math
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from transformers import AutoModel, AutoProcessor

import cloc
from cloc import factory, pretrain
from cloc.config import load_config
from cloc.data.concepts import RECIPE, ConceptDictionary
from cloc.data.loader import Source
from cloc.factory import concepts
from cloc.scenes import WorldSpec, ensure_scenes
from cloc.text import concept_sentence
from cloc.train import engine

SIZES = {
    "detclipv2_swin_t": 27.5,
    "detclipv2_swin_l": 195.2,
    "detclipv2_vit_b16": 85.8,
    "joint_swin_t": 27.5,
    "joint_vit_b16": 85.8,
    "detclipv2_finetune_lvis": 27.5,
    "detclipv2_finetune_odinw": 27.5,
}


FRESH = ["model.vision.source=null", "model.text.source=null"]
"""The shapes of a recipe without the weights of the hub that it starts from."""


@pytest.mark.parametrize("name", SIZES)
def test_a_recipe_has_the_tower_of_its_name(name):
    config = load_config(f"configs/{name}.yaml", FRESH)
    with torch.device("meta"):
        model = factory.make_model(config, factory.make_tokenizer(config))[0]
    assert sum(p.numel() for p in model.vision.tower.parameters()) / 1e6 == pytest.approx(SIZES[name], rel=0.005)
    assert model.has_prompter == name.startswith("joint")
    assert model.config.detector_config.strides == [8, 16, 32, 64, 128]
    assert model.config.detector_config.definitions == config.model.detector.definitions
    assert factory.export_detection_size(config) == (800, 1333)


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


@pytest.mark.parametrize(
    ("name", "batch", "image_rate", "text_rate", "warmup", "names"),
    [
        ("detclipv2_swin_l", 256, 4e-4, 4e-5, 1000, None),  # Table 9
        ("detclipv2_finetune_lvis", 64, 4e-5, 4e-6, 1000, 150),  # Table 10
        ("detclipv2_finetune_odinw", 32, 4e-5, 4e-7, 500, None),  # Table 11
    ],
)
def test_the_papers_other_rates(name, batch, image_rate, text_rate, warmup, names):
    config = load_config(f"configs/{name}.yaml")
    optim = config.optim
    assert (config.data[0].batch_size, config.data[0].concepts) == (batch, names)
    assert (optim.lr, optim.lr * optim.text_lr_scale) == pytest.approx((image_rate, text_rate))
    assert (optim.weight_decay, optim.warmup_steps, config.model.vision.drop_path) == (0.05, warmup, 0.2)
    assert config.data[0].image_size[-1] == (800, 1333)


@pytest.mark.parametrize("size", ["tiny", "large"])
def test_the_swins_start_from_imagenet_and_their_texts_from_clip(size):
    config = load_config(f"configs/detclipv2_swin_{size[0]}.yaml")
    assert config.model.vision.source.startswith(f"microsoft/swin-{size}-patch4-window7-224")
    assert config.model.vision.drop_path == 0.2
    assert config.model.text.source == "openai/clip-vit-base-patch16"


def test_a_run_sees_as_many_samples_as_its_kinds_have_in_their_own_batches():
    config = load_config("configs/detclipv2_swin_t.yaml")
    held = {"detection": 660_000, "grounding": 770_000, "pairs": 13_000_000}  # Table 1
    sources = [Source(SimpleNamespace(num_samples=held[one.kind]), one.batch_size) for one in config.data]
    assert factory.num_samples(config, sources) == pytest.approx(12 * sum(held.values()), rel=0.01)  # 12 epochs
    twice = load_config("configs/detclipv2_swin_t.yaml", ["train.accumulation=2"])
    assert factory.num_samples(twice, sources) == 2 * factory.num_samples(config, sources)


def test_every_switch_of_the_config_reaches_the_losses():
    changed = {
        "nearest_when_none": True, "temperature": 0.3, "label_smoothing": 0.2, "num_proposals": 7, "proposal_nms": 0.4,
        "proposal_score": "centerness", "matching": "softmax", "matching_temperature": 0.7, "direction": "both",
    }  # fmt: skip
    weights = {"alignment": 3.0, "giou": 4.0, "centerness": 5.0, "objectness": 6.0, "word_region": 7.0}
    overrides = [f"loss.detection.{name}={value}" for name, value in (changed | weights).items()]
    config = load_config("configs/detclipv2_swin_t.yaml", [*overrides, "loss.image_text=8"])
    assert set(changed) | set(weights) == set(type(config.loss.detection).model_fields)
    terms = concepts.detection_terms(config)
    assert {name: getattr(terms, name) for name in changed} == changed
    assert concepts.detection_weights(config) == {**weights, "image_text": 8.0}
    shape = {"deformable": False, "num_convs": 2, "strides": [8, 16], "normalize": True}
    config = load_config("configs/detclipv2_swin_t.yaml", [f"model.detector.{k}={v}" for k, v in shape.items()])
    assert {name: getattr(concepts.detector_config(config), name) for name in shape} == shape


def test_recipes_that_read_definitions_name_a_dictionary_and_the_command_that_makes_it():
    for name in SIZES:
        config = load_config(f"configs/{name}.yaml")
        boxed = [entry for entry in config.data if entry.kind in ("detection", "grounding")]
        assert config.model.detector.definitions
        assert {entry.dictionary for entry in boxed} == {"data/dictionary.json"}
        told = " ".join(Path(f"configs/{name}.yaml").read_text().replace("#", " ").replace("\\", " ").split())
        assert RECIPE in told


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
        data += [f"data.{row}.dictionary=null"] if source.dictionary else []
    shape = SWIN if "swin" in recipe else VIT
    return pretrain.main(["--config", f"configs/{recipe}.yaml", "--runs", str(runs), *SMALL, *shape, *data, *changes])


@pytest.mark.parametrize(
    ("recipe", "score"), [("joint_swin_t", "similarity_batch"), ("detclipv2_vit_b16", "foreground")]
)
def test_a_small_copy_trains_exports_and_comes_back(recipe, score, world, tmp_path, spine_picture):
    assert start(recipe, world, tmp_path, f"loss.detection.proposal_score={score}") == 0
    folder = tmp_path / recipe / "export"
    steps = [json.loads(line) for line in (tmp_path / recipe / "metrics.jsonl").read_text().splitlines()]
    terms = {term for step in steps for term in step if term in ("alignment", "giou", "word_region", "region_text")}
    assert len(terms) >= 2
    model, processor = cloc.ClocForObjectDetection.from_pretrained(folder), AutoProcessor.from_pretrained(folder)
    (found,) = model.detect([spine_picture(50, 40)], ["cat", "dog"], processor, limit=7, threshold=0.0)
    assert 0 < len(found["scores"]) <= 7
    assert processor.image_processor.detection_size == {"shortest_edge": 48, "longest_edge": 64}
    told, known = json.loads((folder / "export.json").read_text())["concepts"], ConceptDictionary.of_export(folder)
    assert told == {
        "form": "name, definition", "file": "concept_dictionary.json", "entries": len(known), "sha256": known.sha256(),
    }  # fmt: skip
    first = json.loads((world / "detection" / "dataset.json").read_text())["categories"][0]
    assert known.sentence(first["name"]) == concept_sentence(first["name"], first["definition"])
    encoder = AutoModel.from_pretrained(folder)
    assert type(encoder) is cloc.ClocModel
    assert encoder.has_prompter == (recipe == "joint_swin_t")
    learnt = model.detector.head.objectness
    assert model.config.detector_config.objectness == ("none" if learnt is None else score)
    assert [("objectness" in step) == ("giou" in step and learnt is not None) for step in steps] == [True] * 4
    if score == "foreground":
        assert {"objectness", "word_region"} <= {term for step in steps for term in step}
        assert float(learnt.bias.detach()) != pytest.approx(math.log(0.01 / 0.99), abs=1e-9)


def test_a_learnt_proposal_score_needs_data_that_train_it(detector_config, tmp_path):
    pairs = ["data=[{path: pairs, kind: pairs, batch_size: 4}]", "loss.detection.proposal_score=foreground"]
    recipe = "configs/detclipv2_swin_t.yaml"
    config = load_config(recipe, pairs[1:])
    assert concepts.detector_config(config).objectness == "foreground"
    message = "proposal_score foreground: a score that is learnt from data of kind detection"
    with pytest.raises(ValueError, match=message):
        concepts.detector_config(load_config(recipe, [pairs[1], "loss.detection.objectness=0"]))
    for kind in ("none", "iou", "foreground"):
        detector_config(objectness=kind).save_pretrained(tmp_path / kind)
        config = load_config(recipe, [*pairs, f"model.source={tmp_path / kind}"])
        if kind == "foreground":
            assert concepts.detector_config(config).objectness == kind
            continue
        with pytest.raises(ValueError, match=message):
            concepts.detector_config(config)
    with pytest.raises(ValueError, match=message):
        concepts.detector_config(load_config(recipe, pairs))


def test_a_killed_joint_run_goes_on_with_the_same_losses(world, tmp_path, monkeypatch):
    """Every kind its own cursor, resting branches with their own optimiser state."""
    assert start("joint_vit_b16", world, tmp_path / "whole") == 0
    save = engine.save

    def stop(stepper, plan, done):
        save(stepper, plan, done)
        raise KeyboardInterrupt

    monkeypatch.setattr(engine, "save", stop)
    assert start("joint_vit_b16", world, tmp_path / "killed") == 130
    monkeypatch.undo()
    assert start("joint_vit_b16", world, tmp_path / "killed", "--resume", "auto") == 0
    whole, killed = (losses(tmp_path / name / "joint_vit_b16") for name in ("whole", "killed"))
    assert whole == killed
    assert len(whole) == 4


def bare(world, tmp_path):
    """The world's detection data, whose card tells names alone."""
    shutil.copytree(world / "detection", tmp_path / "bare")
    card = json.loads((tmp_path / "bare" / "dataset.json").read_text())
    for category in card["categories"]:
        category["definition"] = ""
    (tmp_path / "bare" / "dataset.json").write_text(json.dumps(card))
    return tmp_path / "bare"


def test_definitions_that_training_would_not_see_are_refused_with_the_command(world, tmp_path, capsys):
    recipe = ("detclipv2_finetune_lvis", world, tmp_path)
    assert start(*recipe, f"data.0.path={bare(world, tmp_path)}") == 2
    told = capsys.readouterr().err
    assert "definitions true: none of the" in told
    assert "python -m cloc.convert.dictionary" in told
    assert start(*recipe, "data.0.dictionary=nowhere.json") == 2
    assert "nowhere.json: found no file; make one with `python -m cloc.convert.dictionary" in capsys.readouterr().err
    (tmp_path / "other.json").write_text('[{"name": "unicorn", "definition": "a horse with a horn"}]')
    assert start(*recipe, f"data.0.path={tmp_path / 'bare'}", f"data.0.dictionary={tmp_path / 'other.json'}") == 2
    assert "meets a definition (first:" in capsys.readouterr().err


def losses(run):
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return {line["step"]: line["loss"] for line in lines}


def test_deepspeed_is_refused_where_branches_rest(world, tmp_path, capsys):
    assert start("detclipv2_vit_b16", world, tmp_path, "train.deepspeed=configs/deepspeed/zero2.json") == 2
    assert "trains one kind of data a step" in capsys.readouterr().err
