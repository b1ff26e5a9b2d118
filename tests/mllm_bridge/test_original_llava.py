"""The folder that the original LLaVA code base takes as `--vision_tower`: a CLIP folder as transformers 4 wrote it."""

import json
import os

import pytest
from safetensors import safe_open
from transformers import CLIPImageProcessor, CLIPVisionModel

OUTSIDE_THE_LAYERS = {
    "embeddings.class_embedding",
    "embeddings.patch_embedding.weight",
    "embeddings.position_embedding.weight",
    "pre_layrnorm.weight",  # the spelling of the class
    "pre_layrnorm.bias",
    "post_layernorm.weight",
    "post_layernorm.bias",
}
OF_A_LAYER = {
    f"{part}.{kind}"
    for part in (
        "layer_norm1",
        "layer_norm2",
        "mlp.fc1",
        "mlp.fc2",
        "self_attn.q_proj",
        "self_attn.k_proj",
        "self_attn.v_proj",
        "self_attn.out_proj",
    )
    for kind in ("weight", "bias")
}


@pytest.fixture
def folder(spine_export):
    return spine_export() / "clip_vision_model"


def test_keys_are_those_of_transformers_4(folder):
    layers = json.loads((folder / "config.json").read_text())["num_hidden_layers"]
    expected = {f"vision_model.{name}" for name in OUTSIDE_THE_LAYERS} | {
        f"vision_model.encoder.layers.{layer}.{name}" for layer in range(layers) for name in OF_A_LAYER
    }
    with safe_open(folder / "model.safetensors", framework="pt") as opened:
        assert set(opened.keys()) == expected
        assert opened.metadata()["format"] == "pt"  # transformers 4 refuses a file that does not say so


def test_it_is_a_folder_with_what_the_code_base_reads(folder):
    """Its builder takes an existing path, its tower `CLIPVisionModel` and `CLIPImageProcessor`."""
    assert os.path.exists(folder)
    config = json.loads((folder / "config.json").read_text())
    assert config["model_type"] == "clip_vision_model"
    tower, info = CLIPVisionModel.from_pretrained(folder, output_loading_info=True)
    assert not any(info.values())
    processor = CLIPImageProcessor.from_pretrained(folder)
    assert processor.crop_size["height"] == tower.config.image_size == config["image_size"]
    assert len(processor.image_mean) == 3
