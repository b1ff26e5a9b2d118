import json
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageTextToText, AutoProcessor, CLIPVisionModel

from cloc.towers.probe import make_probe_images
from mllm_bridge import hosts
from mllm_bridge.encoder import load_encoder
from mllm_bridge.hosts.fitting import fit
from mllm_bridge.swap.checks import VerifyError
from mllm_bridge.swap.command import swap
from mllm_bridge.swap.plan import make_plan, open_host
from mllm_bridge.weights.stored import combine_hashes
from mllm_bridge.weights.tensorfile import read_header


def _inputs(folder):
    processor = AutoProcessor.from_pretrained(folder)
    return processor(images=make_probe_images()["2:1"], text=f"{processor.image_token}\nhello", return_tensors="pt")


@torch.no_grad()
def _logits(folder):
    model = AutoModelForImageTextToText.from_pretrained(folder).eval()
    return model(**_inputs(folder).to("cpu", model.dtype)).logits


def test_result_says_what_it_is(swapped_once, encoder):
    config = json.loads((swapped_once / "config.json").read_text())
    assert config["vision_config"]["hidden_size"] == 48
    assert (config["image_seq_length"], config["vision_feature_select_strategy"]) == (36, "default")
    report = json.loads((swapped_once / "swap_report.json").read_text())
    assert report["tower_after"]["sha256"] == combine_hashes(encoder.hashes)
    assert report["tower_before"]["sha256"] != report["tower_after"]["sha256"]
    assert report["projector"] == {"kept": False, "width_before": 32, "width_after": 48, "seed": 0}
    changes = {(change["where"], change["name"]): (change["before"], change["after"]) for change in report["changes"]}
    assert changes[("config", "image_seq_length")] == (16, 36)
    assert changes[("image processor", "do_pad")] == (None, True)
    assert all(check["passed"] for check in report["checks"])
    card = (swapped_once / "README.md").read_text()
    assert "until it is trained" in card
    assert "| config | `image_seq_length` | 16 | 36 |" in card


def test_result_equals_a_swap_made_by_hand_in_memory(swapped_once, host_folder, clip_folder):
    """The plain twin: load the host, put the tower in as a module, and take the projector from the result."""
    model = AutoModelForImageTextToText.from_pretrained(host_folder).eval()
    model.model.vision_tower = CLIPVisionModel.from_pretrained(clip_folder).eval()
    model.model.multi_modal_projector.linear_1 = torch.nn.Linear(48, 32)
    prefix = "multi_modal_projector."
    stored = load_file(swapped_once / "model.safetensors")
    fresh = {key.removeprefix(prefix): value for key, value in stored.items() if key.startswith(prefix)}
    model.model.multi_modal_projector.load_state_dict(fresh)
    with torch.no_grad():
        by_hand = model(**_inputs(swapped_once)).logits
    assert torch.equal(by_hand, _logits(swapped_once))


def test_tokenizer_and_chat_template_are_the_hosts_own(swapped_once, host_folder):
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        assert (swapped_once / name).read_bytes() == (host_folder / name).read_bytes()


def test_other_files_of_the_host_come_along_and_stale_ones_do_not(tmp_path, host_folder, clip_folder, edit_json):
    host = Path(shutil.copytree(host_folder, tmp_path / "host"))
    edit_json(host / "generation_config.json", temperature=0.5, do_sample=False)
    for name in ("LICENSE", "README.md", "swap_report.json", "weights.bin"):
        (host / name).write_text("the host's own")
    swap(host, clip_folder, tmp_path / "out", device="cpu")
    assert (tmp_path / "out" / "LICENSE").read_text() == "the host's own"
    assert json.loads((tmp_path / "out" / "generation_config.json").read_text())["temperature"] == 0.5
    assert "another vision tower" in (tmp_path / "out" / "README.md").read_text()
    assert json.loads((tmp_path / "out" / "swap_report.json").read_text())["schema"] == 1
    assert not (tmp_path / "out" / "weights.bin").exists()


def test_siglip_tower_without_cls_is_read_in_full(tmp_path, host_folder, siglip_folder):
    swap(host_folder, siglip_folder, tmp_path / "out", device="cpu")
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    processor = json.loads((tmp_path / "out" / "processor_config.json").read_text())
    assert config["vision_feature_select_strategy"] == processor["vision_feature_select_strategy"] == "full"
    assert processor["num_additional_image_tokens"] == 0
    assert processor["image_processor"]["image_processor_type"] == "SiglipImageProcessor"
    assert config["image_seq_length"] == 36


def test_newest_export_goes_in_and_its_card_is_recorded(tmp_path, runs, host_folder):
    said = []
    report = swap(host_folder, "cloc", tmp_path / "out", runs=runs, device="cpu", log=said.append)
    assert report.export["objective"] == "cloc"
    assert json.loads((tmp_path / "out" / "swap_report.json").read_text())["export"]["objective"] == "cloc"
    assert any("small/export/clip_vision_model (objective cloc" in line for line in said)


def test_bare_swap_makes_its_own_host_and_numbers_its_results(tmp_path, runs):
    shutil.copytree(runs, tmp_path / "runs")
    first = swap(runs=tmp_path / "runs", device="cpu")
    second = swap(runs=tmp_path / "runs", device="cpu")
    assert (first.out.name, second.out.name) == ("swap-1", "swap-2")
    assert first.tower_after == second.tower_after
    same = "model.safetensors"
    assert (first.out / same).read_bytes() == (second.out / same).read_bytes()


@pytest.fixture
def same_tower(tmp_path, host_folder) -> Path:
    """The host's own tower, taken out into a folder."""
    model = AutoModelForImageTextToText.from_pretrained(host_folder)
    model.model.vision_tower.save_pretrained(tmp_path / "same")
    AutoProcessor.from_pretrained(host_folder).image_processor.save_pretrained(tmp_path / "same")
    return tmp_path / "same"


def test_identical_tower_with_the_projector_kept_changes_nothing(tmp_path, host_folder, same_tower):
    report = swap(host_folder, same_tower, tmp_path / "out", keep_projector=True, device="cpu")
    assert torch.equal(_logits(host_folder), _logits(tmp_path / "out"))
    assert report.tower_before["sha256"] == report.tower_after["sha256"]
    assert "The projector was kept" in report.training


def test_one_altered_tower_weight_changes_the_logits(tmp_path, host_folder, same_tower):
    tensors = load_file(same_tower / "model.safetensors")
    next(value for key, value in tensors.items() if key.endswith("position_embedding.weight")).view(-1)[100] += 0.1
    save_file(tensors, same_tower / "model.safetensors", metadata={"format": "pt"})
    swap(host_folder, same_tower, tmp_path / "out", keep_projector=True, device="cpu")
    assert not torch.equal(_logits(host_folder), _logits(tmp_path / "out"))


def _as_old_layout(host: Path, out: Path) -> Path:
    """The host in bf16 as another layout and in several files: `model.` in front and a `vision_model.` level."""
    shutil.copytree(host, out)
    tensors = load_file(out / "model.safetensors")
    (out / "model.safetensors").unlink()
    named = {}
    for key, value in tensors.items():
        key = key.replace("language_model.model.", "language_model.")
        named["model." + key.replace("vision_tower.", "vision_tower.vision_model.")] = value.to(torch.bfloat16)
    keys = sorted(named)
    files = {"model-1.safetensors": keys[: len(keys) // 2], "model-2.safetensors": keys[len(keys) // 2 :]}
    for name, part in files.items():
        save_file({key: named[key] for key in part}, out / name, metadata={"format": "pt"})
    index = {"metadata": {}, "weight_map": {key: name for name, part in files.items() for key in part}}
    (out / "model.safetensors.index.json").write_text(json.dumps(index))
    config = json.loads((out / "config.json").read_text())
    (out / "config.json").write_text(json.dumps({**config, "dtype": "bfloat16"}))
    return out


def test_layout_type_and_shards_of_the_host_are_kept(tmp_path, host_folder, clip_folder):
    host = _as_old_layout(host_folder, tmp_path / "old")
    swap(host, clip_folder, tmp_path / "out", device="cpu")
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
    tower = [key for key in index["weight_map"] if "vision_tower" in key]
    assert len(tower) == 71
    assert all(key.startswith("model.vision_tower.vision_model.") for key in tower)
    model = AutoModelForImageTextToText.from_pretrained(tmp_path / "out")
    assert {weight.dtype for weight in model.parameters()} == {torch.bfloat16}


LAYOUTS = {
    "vision_tower.vision_model.": ("", "vision_model."),
    "model.vision_tower.vision_model.": ("model.", "vision_model."),
    "vision_tower.": ("", ""),
    "model.vision_tower.": ("model.", ""),
}


@pytest.mark.parametrize("prefix", LAYOUTS)
def test_each_layout_is_read_and_the_level_is_written(
    tmp_path, host_folder, clip_folder, swin_folder, swapped_once, prefix
):
    """The same logits whatever the layout; a tower whose class knows the level has it, as in published checkpoints."""
    front, level = LAYOUTS[prefix]
    host = Path(shutil.copytree(host_folder, tmp_path / "host"))
    named = {}
    for key, value in load_file(host / "model.safetensors").items():
        key = key.replace("vision_tower.", f"vision_tower.{level}")
        named[front + (key.replace("language_model.model.", "language_model.") if front else key)] = value
    assert not any("lm_head" in key for key in named)  # tied to the embeddings
    save_file(named, host / "model.safetensors", metadata={"format": "pt"})
    swap(host, clip_folder, tmp_path / "out", device="cpu")
    keys = load_file(tmp_path / "out" / "model.safetensors").keys()
    assert sum(key.startswith(f"{front}vision_tower.vision_model.") for key in keys) == 71
    assert sum("vision_tower" in key for key in keys) == 71
    assert torch.equal(_logits(tmp_path / "out"), _logits(swapped_once))
    swap(host, swin_folder, tmp_path / "swin", device="cpu")
    keys = load_file(tmp_path / "swin" / "model.safetensors").keys()
    assert any(key.startswith(f"{front}vision_tower.encoder.layers.0.blocks.0.attention.self") for key in keys)


def test_several_layers_are_read_side_by_side(tmp_path, host_folder, clip_folder):
    report = swap(host_folder, clip_folder, tmp_path / "out", feature_layer=[-2, -4], device="cpu")
    assert report.projector["width_after"] == 96
    assert torch.isfinite(_logits(tmp_path / "out")).all()


def test_layer_that_the_tower_lacks(tmp_path, host_folder, clip_folder):
    with pytest.raises(
        ValueError, match=r"reads hidden state 5, the new tower has 5 .*choose one with --feature-layer"
    ):
        swap(host_folder, clip_folder, tmp_path / "out", feature_layer=5, device="cpu")


def test_projector_of_another_width_cannot_be_kept(tmp_path, host_folder, clip_folder):
    with pytest.raises(
        ValueError, match=r"projector takes features of width 32, the new tower gives 48; leave --keep-proj"
    ):
        swap(host_folder, clip_folder, tmp_path / "out", keep_projector=True, device="cpu")
    assert not (tmp_path / "out").exists()


def test_unknown_family_lists_the_known(tmp_path, host_folder, clip_folder, edit_json):
    host = Path(shutil.copytree(host_folder, tmp_path / "host"))
    edit_json(host / "config.json", model_type="unheard_of")
    with pytest.raises(
        ValueError, match=r"'unheard_of'; known families: aya_vision, .*llava.*does not know this type .*-hf"
    ):
        swap(host, clip_folder, tmp_path / "out", device="cpu")


def test_host_whose_tower_is_not_where_it_should_be(tmp_path, host_folder, clip_folder):
    host = Path(shutil.copytree(host_folder, tmp_path / "host"))
    tensors = load_file(host / "model.safetensors")
    moved = {key.replace("vision_tower.", "eyes."): value for key, value in tensors.items()}
    save_file(moved, host / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(
        ValueError, match=r"whose tower lies under model.vision_tower. or vision_tower., but none .*known fam"
    ):
        swap(host, clip_folder, tmp_path / "out", device="cpu")


def test_folder_in_use_is_refused_before_anything_is_loaded(tmp_path):
    (tmp_path / "kept").write_text("x")
    with pytest.raises(ValueError, match="nothing is overwritten"):
        swap("no/host", "no/encoder", tmp_path, device="cpu")


def test_device_that_is_not_there(tmp_path):
    with pytest.raises(ValueError, match=r"--device: 'nonsense' cannot be used here"):
        swap(out=tmp_path / "out", device="nonsense")


class _Careless(type(hosts.DEFAULT)):
    """A family that forgets the geometry of the encoder and miscounts."""

    mistake = ""

    def image_processor(self, own, current, facts, settings):
        right = super().image_processor(own, current, facts, settings)
        if self.mistake == "geometry":
            return type(right).from_dict({**right.to_dict(), "do_pad": False, "do_center_crop": True})
        return right

    def settings(self, config, facts, layer):
        right = super().settings(config, facts, layer)
        if self.mistake == "count":
            return replace(right, processor={**right.processor, "num_additional_image_tokens": 0})
        return right


@pytest.mark.parametrize(
    ("mistake", "message"),
    [("geometry", r"before writing.*pixels of the 2:1 picture"), ("count", r"before writing.*placeholders.*found 35")],
)
def test_a_wrong_description_is_caught_before_anything_is_written(
    tmp_path, host_folder, clip_folder, monkeypatch, mistake, message
):
    careless = _Careless()
    careless.mistake = mistake
    monkeypatch.setitem(hosts.FAMILIES, careless.model_type, careless)
    with pytest.raises(VerifyError, match=f"(?s){message}"):
        swap(host_folder, clip_folder, tmp_path / "out", device="cpu")
    assert list(tmp_path.iterdir()) == []


def test_a_failed_proof_leaves_nothing_behind(tmp_path, host_folder, clip_folder, monkeypatch):
    other = load_encoder(clip_folder, Path("runs"))
    spoilt = replace(other, hashes={**other.hashes, "post_layernorm.bias": "0"})
    monkeypatch.setattr("mllm_bridge.swap.command.load_encoder", lambda *_: spoilt)
    with pytest.raises(VerifyError, match="tower weights: 1 of 71"):
        swap(host_folder, clip_folder, tmp_path / "out", device="cpu")
    assert list(tmp_path.iterdir()) == []


def test_every_header_is_parsed_once(tmp_path, host_folder, clip_folder, monkeypatch):
    parsed = Counter()

    def count(file):
        parsed[file] += 1
        return read_header(file)

    monkeypatch.setattr("mllm_bridge.weights.stored.read_header", count)
    out = swap(host_folder, clip_folder, tmp_path / "out", device="cpu").out
    assert parsed[host_folder / "model.safetensors"] == parsed[clip_folder / "model.safetensors"] == 1
    assert list(parsed.values()) == [1, 1, 1]  # of the host, of the tower, and of the result before it got its name
    assert out == tmp_path / "out"


@pytest.mark.parametrize("family", ["llava", "llava_onevision"])
def test_planning_leaves_the_host_as_it_is(tiny_hosts, encoder, family):
    host = open_host(tiny_hosts(family))
    before, parts = host.processor.to_dict(), dict(vars(host.processor))
    plan = make_plan(host, fit(encoder, host.family), False, None)
    assert plan.changes
    assert host.processor.to_dict() == before
    assert vars(host.processor).keys() == parts.keys()
    assert all(vars(host.processor)[name] is part for name, part in parts.items())
