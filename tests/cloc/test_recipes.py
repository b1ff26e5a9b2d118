"""The recipes: each has the size that its name promises, and a copy shrunk by overrides alone trains and comes back."""

import json

import pytest
import torch
from transformers import AutoModel, CLIPConfig, CLIPModel

from cloc import factory, pretrain
from cloc.config import load_config
from cloc.towers.tower import check_tower, encode, feature_spec, image_side

# Millions of parameters of the tower and of the text tower, as their makers count them.
SIZES = {
    "cloc_vit_b16": (85.8, 63.2),
    "cloc_vit_l14": (303.5, 123.1),
    "cloc_vit_h14": (630.8, 353.0),
    "cloc_swin_t": (27.5, 63.2),
    "cloc_swin_l": (195.2, 123.1),
}


@pytest.mark.parametrize("name", SIZES)
def test_a_recipe_has_the_size_of_its_name(name):
    config = load_config(f"configs/{name}.yaml")
    with torch.device("meta"):
        model, _ = factory.make_model(config, factory.make_tokenizer(config))
    tower, text = (sum(p.numel() for p in side.parameters()) / 1e6 for side in (model.vision.tower, model.text))
    assert (tower, text) == pytest.approx(SIZES[name], rel=0.005)
    check_tower(model.config.vision_config.tower)
    assert sum(p.numel() for p in model.vision.prompter.parameters()) / 1e6 < 0.3 * tower


@pytest.mark.parametrize("name", SIZES)
def test_a_recipe_keeps_the_papers_table(name):
    """CLOC Table A."""
    config = load_config(f"configs/{name}.yaml")
    assert (config.batch_size, config.steps, config.objective) == (32768, 439087, "cloc")
    optim = config.optim
    assert (optim.lr, optim.beta1, optim.beta2, optim.weight_decay) == (5e-4, 0.9, 0.98, 0.2)
    assert optim.warmup_steps == 2000
    assert (config.loss.regions_per_image, config.loss.filter_threshold, config.loss.filter_warmup) == (4, 0.9, 0)
    assert config.model.text.context == 77
    side = {"cloc_vit_b16": 224, "cloc_vit_l14": 336, "cloc_vit_h14": 336}.get(name)
    tower = factory.make_tower_config(config)
    assert side in (None, image_side(tower))
    if side is None:  # each window of a Swin is full, in every stage
        grids = [image_side(tower) // stride for stride, _ in feature_spec(tower)]
        assert all(grid % tower.window_size == 0 for grid in grids)


SMALL = [
    "run.workers=0",
    "run.device=cpu",
    "data.0.batch_size=6",
    "train.steps=3",
    "train.checkpoint_every=100",
    "optim.warmup_steps=1",
    "model.embed_dim=16",
]
TEXT = ["model.text.width=16", "model.text.layers=1", "model.text.heads=2", "model.text.context=16"]
VIT = ["model.vision.image_size=32", "model.vision.patch_size=8", "model.vision.width=32", "model.vision.layers=2"]
SWIN = ["model.vision.image_size=64", "model.vision.width=8", "model.vision.heads=1", "model.vision.window=2"]
SHRUNK = {
    "clip": ("cloc_vit_b16", [*TEXT, *VIT, "model.vision.heads=2"]),
    "siglip": ("cloc_vit_l14", [*TEXT, *VIT, "model.vision.heads=2", "model.vision.style=siglip"]),
    "swin": ("cloc_swin_t", [*TEXT, *SWIN, "model.vision.depths=[1,1,2,1]"]),
    "timm": (
        "cloc_vit_h14",
        [
            *TEXT,
            "model.vision.style=timm",
            "model.vision.timm=swin_tiny_patch4_window7_224",
            "model.vision.image_size=64",
            "model.vision.timm_args={embed_dim: 8, depths: [1, 1, 1, 1], num_heads: [1, 2, 2, 4], window_size: 2}",
        ],
    ),
    "continued": ("cloc_continue", ["model.text.context=16", "train.prompter_warmup_steps=1"]),
}


@pytest.fixture
def tiny_clip(tmp_path):
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = {**shape, "max_position_embeddings": 16, "vocab_size": 49408, "eos_token_id": 49407}
    model = CLIPModel(
        CLIPConfig(vision_config={**shape, "image_size": 32, "patch_size": 8}, text_config=text, projection_dim=16)
    )
    model.save_pretrained(tmp_path / "clip")
    return str(tmp_path / "clip")


@pytest.mark.multiprocess
@pytest.mark.parametrize("kind", SHRUNK)
def test_a_shrunk_copy_trains_and_comes_back(kind, spine_shards, spine_ranks, tiny_clip, tmp_path):
    recipe, overrides = SHRUNK[kind]
    overrides = [*SMALL, *overrides, f"data.0.path={spine_shards}", "run.name=small"]
    if kind == "continued":
        overrides += [f"model.vision.source={tiny_clip}", f"model.text.source={tiny_clip}"]
    command = ["--config", f"configs/{recipe}.yaml", "--runs", str(tmp_path / "runs"), *overrides]
    assert spine_ranks(1, lambda rank: pretrain.main(command)) == [0]
    run = tmp_path / "runs" / "small"
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert len(lines) == 3
    model = AutoModel.from_pretrained(run / "export").eval()
    tower = model.config.vision_config.tower
    side = image_side(tower)
    pixels = torch.randn(1, 3, side, side)
    boxes = torch.tensor([[[0.1, 0.1, 0.5, 0.5], [0.0, 0.2, 1.0, 1.0]]])
    alone = AutoModel.from_pretrained(run / "export" / tower.model_type).eval()
    with torch.no_grad():
        regions = model.get_region_features(pixels, boxes)
        torch.testing.assert_close(encode(alone, pixels)[1], encode(model.vision.tower, pixels)[1])
    assert regions.shape == (1, 2, 16)
    assert torch.isfinite(regions).all()
    config = load_config(str(run / "config.yaml"))
    fresh = factory.make_model(config, factory.make_tokenizer(config))[0].vision.tower.state_dict()
    moved = [name for name, value in model.vision.tower.state_dict().items() if not torch.equal(value, fresh[name])]
    assert len(moved) > 0.8 * len(fresh)
