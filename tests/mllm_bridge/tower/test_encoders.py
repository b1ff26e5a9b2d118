import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import CLIPConfig, CLIPModel, CLIPVisionModel

from mllm_bridge.encoder import find_encoder, load_encoder


def test_cloc_is_a_reserved_word_even_where_a_folder_has_that_name(runs, tmp_path, monkeypatch):
    (tmp_path / "cloc").mkdir()
    monkeypatch.chdir(tmp_path)
    assert find_encoder("cloc", runs) == runs / "small" / "export" / "clip_vision_model"


def test_no_export_names_the_command_that_makes_one(tmp_path):
    with pytest.raises(ValueError, match=r"no finished export .*deepspeed cloc/pretrain.py"):
        find_encoder("cloc", tmp_path)


def test_export_folder_gives_its_plain_tower_and_its_card(runs):
    encoder = load_encoder(runs / "small" / "export", runs)
    assert encoder.folder.name == "clip_vision_model"
    assert encoder.card["objective"] == "cloc"


def test_folder_that_is_no_export(tmp_path, runs):
    (tmp_path / "notes.txt").write_text("nothing")
    with pytest.raises(
        ValueError, match=r"encoder: .* holds no config.json \(it holds: notes.txt\); pass a finished export"
    ):
        load_encoder(tmp_path, runs)


def test_run_folder_is_told_apart_from_its_export(runs):
    with pytest.raises(ValueError, match=r"this is a run, its export lies in .*small/export: pass that"):
        load_encoder(runs / "small", runs)


def test_export_without_a_plain_tower(tmp_path, runs):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "cloc"}))
    with pytest.raises(ValueError, match=r"is an export without a plain tower \(expected clip_vision_model or"):
        load_encoder(tmp_path, runs)


def test_tower_that_is_not_the_one_in_the_card(tmp_path, runs, save_clip):
    export = Path(shutil.copytree(runs / "small" / "export", tmp_path / "export"))
    shutil.rmtree(export / "clip_vision_model")
    save_clip(export / "clip_vision_model", seed=9)
    with pytest.raises(ValueError, match=r"is not the file that export.json lists \(sha256 differs\)"):
        load_encoder(export, runs)


def test_unknown_type_lists_the_known(tmp_path, runs):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "resnet"}))
    with pytest.raises(ValueError, match=r"is of type 'resnet'; towers that go in: clip_vision_model, clip, siglip"):
        load_encoder(tmp_path, runs)


def test_missing_processor_is_never_guessed(tmp_path, runs, clip_folder):
    folder = Path(shutil.copytree(clip_folder, tmp_path / "tower"))
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(
        ValueError, match=r"holds no preprocessor_config.json; mean, deviation and geometry are never guessed"
    ):
        load_encoder(folder, runs)


@pytest.mark.parametrize(
    ("edit", "message"), [("drop", r"missing \['.*post_layernorm"), ("add", r"unexpected \['.*stray")]
)
def test_every_key_is_accounted_for(tmp_path, runs, clip_folder, edit, message):
    folder = Path(shutil.copytree(clip_folder, tmp_path / "tower"))
    tensors = load_file(folder / "model.safetensors")
    if edit == "drop":
        del tensors["vision_model.post_layernorm.weight"]
    else:
        tensors["vision_model.stray.weight"] = torch.zeros(2)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=message):
        load_encoder(folder, runs)


def test_plain_export_loads_in_transformers_without_a_key_left_over(clip_folder):
    assert all(key.startswith("vision_model.") for key in load_file(clip_folder / "model.safetensors"))
    _, info = CLIPVisionModel.from_pretrained(clip_folder, output_loading_info=True)
    assert not any(info.values())


def test_two_tower_checkpoint_leaves_its_text_part_behind(tmp_path, runs, clip_folder):
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = CLIPConfig(
        text_config={**sizes, "vocab_size": 64, "eos_token_id": 63, "bos_token_id": 62},
        vision_config={**sizes, "image_size": 48, "patch_size": 16},
        projection_dim=16,
    )
    CLIPModel(config).save_pretrained(tmp_path)
    shutil.copy(clip_folder / "preprocessor_config.json", tmp_path)
    encoder = load_encoder(tmp_path, runs)
    assert encoder.facts.width == 16
    assert {key.split(".")[0] for key in encoder.left_behind} == {
        "text_model",
        "text_projection",
        "visual_projection",
        "logit_scale",
    }


def test_pickled_weights_are_never_loaded(tmp_path, runs, clip_folder):
    folder = Path(shutil.copytree(clip_folder, tmp_path / "tower"))
    (folder / "model.safetensors").unlink()
    torch.save({"x": torch.zeros(1)}, folder / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"encoder: the tower in .* cannot be loaded"):
        load_encoder(folder, runs)


def test_tower_that_is_not_loaded_as_it_lies_on_disk(clip_folder, runs, monkeypatch):
    load = CLIPVisionModel.from_pretrained

    def careless(*given, **options):
        tower, info = load(*given, **options)
        torch.nn.init.zeros_(tower.get_parameter("post_layernorm.weight"))
        return tower, info

    monkeypatch.setattr(CLIPVisionModel, "from_pretrained", careless)
    with pytest.raises(ValueError, match=r"1 tensors are not as in the file, the first is post_layernorm.weight"):
        load_encoder(clip_folder, runs)
