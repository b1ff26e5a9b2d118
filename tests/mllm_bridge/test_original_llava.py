"""The folder that the original LLaVA code base takes as `--vision_tower`: a CLIP folder as transformers 4 wrote it."""

import json
import os

import pytest
import torch
from PIL import Image
from safetensors import safe_open
from transformers import CLIPImageProcessor, CLIPVisionModel, LlavaImageProcessor

from mllm_bridge.swap.command import swap

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


SHAPES = ((640, 426), (426, 640), (50, 50), (31, 97), (97, 31), (300, 4))


def prepared(folder, image):
    """(what a processor that pads makes of an image, what a CLIP processor makes) of one file."""
    pads, crops = LlavaImageProcessor.from_pretrained(folder), CLIPImageProcessor.from_pretrained(folder)
    return [torch.as_tensor(one(images=image, return_tensors="pt")["pixel_values"]) for one in (pads, crops)]


def all_give_a_square(folder, image):
    """Both processors give the tower a square, and the one that pads gives what training and older exports gave."""
    tower = CLIPVisionModel.from_pretrained(folder).eval()
    padded, cropped = prepared(folder, image)
    side = tower.config.image_size
    assert padded.shape == cropped.shape == (1, 3, side, side)
    before = LlavaImageProcessor.from_dict(
        {**LlavaImageProcessor.from_pretrained(folder).to_dict(), "do_center_crop": False}
    )
    assert padded.equal(before(images=image, return_tensors="pt")["pixel_values"])
    for pixels in (padded, cropped):
        assert tower(pixels).pooler_output.isfinite().all()
    # LLaVA's own code (process_images with image_aspect_ratio: pad): it pads by itself, then asks the CLIP processor.
    clip = CLIPImageProcessor.from_pretrained(folder)
    square = Image.new("RGB", (max(image.size),) * 2, tuple(int(value * 255) for value in clip.image_mean))
    square.paste(image, tuple((max(image.size) - value) // 2 for value in image.size))
    own = torch.as_tensor(clip(images=square, return_tensors="pt")["pixel_values"])
    assert (own - padded).abs().max() < 0.02  # less than a grey level, by the order of padding and converting


@pytest.mark.parametrize("size", SHAPES, ids=str)
def test_both_processors_take_every_shape(folder, spine_picture, size):
    all_give_a_square(folder, spine_picture(*size))


@pytest.mark.photos
def test_both_processors_take_real_photos(folder, sample_data):
    photos = sorted(path for path in (sample_data / "coco").rglob("*.jpg"))
    by_shape = {}
    for photo in photos[:200]:
        size = Image.open(photo).size
        by_shape.setdefault((size[0] > size[1]) - (size[0] < size[1]), photo)
    assert len(by_shape) >= 2
    for photo in by_shape.values():
        all_give_a_square(folder, Image.open(photo).convert("RGB"))


def test_a_swapped_host_and_an_older_export_are_written_so_too(folder, host_folder, tmp_path, edit_json):
    edit_json(folder / "preprocessor_config.json", do_center_crop=False)
    swap(host_folder, folder, tmp_path / "host", device="cpu")
    told = json.loads((tmp_path / "host" / "preprocessor_config.json").read_text())
    assert (told["do_pad"], told["do_center_crop"]) == (True, True)
    assert told["crop_size"]["height"] == told["size"]["shortest_edge"] == 32
