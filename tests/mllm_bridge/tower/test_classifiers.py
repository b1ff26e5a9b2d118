"""A tower from a classifier's file, as most Swins on the hub are: its names have a level more, and a head is there."""

import pytest
import torch
from transformers import (
    Dinov2Config,
    Dinov2ForImageClassification,
    SwinConfig,
    SwinForImageClassification,
    Swinv2Config,
    Swinv2ForImageClassification,
    ViTConfig,
    ViTImageProcessor,
    ViTModel,
)

from mllm_bridge.encoder import load_encoder
from mllm_bridge.swap.command import swap

STAGES = {"image_size": 64, "patch_size": 4, "embed_dim": 8, "depths": [1, 1], "num_heads": [1, 2], "window_size": 4}
PLAIN = {"image_size": 64, "patch_size": 16, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
PLAIN["intermediate_size"] = 32
MODELS = {
    "swin": lambda: SwinForImageClassification(SwinConfig(**STAGES)),
    "swinv2": lambda: Swinv2ForImageClassification(Swinv2Config(**STAGES)),
    "dinov2": lambda: Dinov2ForImageClassification(Dinov2Config(**PLAIN)),
    "vit": lambda: ViTModel(ViTConfig(**PLAIN)),
}


@pytest.mark.parametrize("kind", MODELS)
def test_a_classifiers_tower_goes_in(kind, tmp_path, host_folder):
    torch.manual_seed(0)
    MODELS[kind]().save_pretrained(tmp_path / "tower")
    ViTImageProcessor(size={"height": 64, "width": 64}).save_pretrained(tmp_path / "tower")
    encoder = load_encoder(tmp_path / "tower", tmp_path)
    assert not any(name.startswith(f"{kind}.") for name in encoder.stored)
    assert all(key.startswith("classifier.") for key in encoder.left_behind)
    assert bool(encoder.left_behind) == (kind != "vit")
    swap(host_folder, tmp_path / "tower", tmp_path / "out", device="cpu")  # it verifies the folder, to the last tensor
    assert (tmp_path / "out" / "swap_report.json").is_file()


def test_a_vit_without_its_pooler_is_refused_in_words(tmp_path):
    ViTModel(ViTConfig(**PLAIN), add_pooling_layer=False).save_pretrained(tmp_path)
    ViTImageProcessor(size={"height": 64, "width": 64}).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"does not hold just its tower: missing \['pooler\.dense\.bias'"):
        load_encoder(tmp_path, tmp_path)
