import json
import re

import pytest
import torch
from safetensors import safe_open
from transformers import AutoModel, AutoProcessor

import cloc
from cloc import export
from cloc.export import reference
from cloc.export.reference import make_reference_picture


def card_at(folder, time, objective="cloc"):
    """A finished export's card, nothing else."""
    folder.mkdir(parents=True)
    (folder / "export.json").write_text(json.dumps({"schema": 1, "time": time, "objective": objective}))


def test_the_card_accounts_for_every_file(spine_export):
    folder = spine_export()
    card = export.read_card(folder)
    there = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()} - {"export.json", "README.md"}
    assert there == set(card["files"])
    assert all(export.hash_file(folder / name) == digest for name, digest in card["files"].items())
    assert card["model_sha256"] == card["files"]["model.safetensors"]
    assert (card["schema"], card["objective"], card["version"]) == (1, "cloc", cloc.__version__)
    assert re.fullmatch(r"[0-9a-f]{40}(-dirty)?|unknown", card["commit"])
    assert card["data"][0]["samples"] == 64
    wanted = {"config.json", "model.safetensors", "preprocessor_config.json", "tokenizer.json"}
    assert wanted | {f"clip_vision_model/{name}" for name in ("config.json", "model.safetensors")} <= there
    assert "clip_vision_model/preprocessor_config.json" in there


def test_the_plain_tower_carries_the_old_prefix_and_the_same_weights(spine_export):
    folder = spine_export()
    with safe_open(folder / "clip_vision_model" / "model.safetensors", "pt") as tower:
        keys = list(tower.keys())
        assert all(key.startswith("vision_model.") for key in keys)
        with safe_open(folder / "model.safetensors", "pt") as whole:
            for key in keys:
                ours = whole.get_tensor("vision.tower." + key.removeprefix("vision_model."))
                assert torch.equal(tower.get_tensor(key), ours)
            assert len(keys) == sum(key.startswith("vision.tower.") for key in whole.keys())


def test_an_export_loads_through_the_auto_classes(spine_export, spine_picture):
    folder = spine_export()
    model, processor = AutoModel.from_pretrained(folder), AutoProcessor.from_pretrained(folder)
    assert type(model) is cloc.ClocModel
    assert type(processor) is cloc.ClocProcessor
    assert model.config.objective == "cloc"
    inputs = processor(images=[spine_picture(50, 30)], boxes=[[(5, 5, 30, 25)]], text=["a red cat " * 20])
    assert inputs["input_ids"].shape == (1, 16)  # the text tower's context
    with torch.no_grad():
        regions = model.get_region_features(inputs["pixel_values"], inputs["boxes"], inputs["boxes_mask"])
        texts = model.get_text_features(inputs["input_ids"], inputs["attention_mask"])
    assert regions.shape == (1, 1, 16)
    assert texts.shape == (1, 16)


def test_the_model_card_says_what_it_was_made_from(spine_export):
    text = (spine_export() / "README.md").read_text()
    assert "objective `cloc`" in text
    assert "`scenes` (regions, 64 samples)" in text
    assert cloc.__version__ in text


def test_the_card_holds_the_reference_pictures_embedding(spine_export):
    folder = spine_export()
    told = export.read_card(folder)["reference"]
    model, processor = AutoModel.from_pretrained(folder).eval(), AutoProcessor.from_pretrained(folder)
    with torch.no_grad():
        pixels = processor(images=[make_reference_picture()])["pixel_values"]
        found = model.get_image_features(pixels)[0, : reference.COMPONENTS]
    assert told["image_embedding"] == pytest.approx(found.tolist(), abs=1e-5)
    assert told["versions"]["torch"] == torch.__version__.partition("+")[0] or "+" in told["versions"]["torch"]
    assert ", ".join(f"{value:.4f}" for value in told["image_embedding"][:4]) in (folder / "README.md").read_text()
    reference.check_reference({}, model, processor.image_processor, folder)  # as earlier versions wrote cards
    spoilt = {"reference": told | {"image_embedding": [value + 0.01 for value in told["image_embedding"]]}}
    with pytest.raises(ValueError, match=r"differs by 0\.01 from the one in export\.json"):
        reference.check_reference(spoilt, model, processor.image_processor, folder)


def test_export_json_comes_last(spine_export, spine_model, monkeypatch, tmp_path):
    def fail(*_):
        raise RuntimeError("killed here")

    monkeypatch.setattr(export, "make_model_card", fail)
    with pytest.raises(RuntimeError, match="killed here"):
        spine_export("dies")
    assert not list(tmp_path.rglob("export.json"))
    with pytest.raises(ValueError, match="no finished export"):
        export.find_newest_export(tmp_path / "runs")


def test_a_folder_that_is_no_export_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"no export \(export\.json is missing\); expected a folder such as runs/NAME"):
        export.read_card(tmp_path)
    (tmp_path / "export.json").write_text('{"schema": 2}')
    with pytest.raises(ValueError, match=r"export\.json: expected an object with schema 1"):
        export.read_card(tmp_path)


def test_the_newest_export_goes_by_the_time_in_its_card(tmp_path):
    card_at(tmp_path / "a" / "export", "2026-03-01T00:00:00+00:00")
    card_at(tmp_path / "b" / "export", "2026-01-01T00:00:00+00:00")
    card_at(tmp_path / "c" / "export", "2026-05-01T00:00:00+00:00", "clip")
    (tmp_path / "d" / "export").mkdir(parents=True)  # unfinished
    assert export.find_newest_export(tmp_path) == tmp_path / "a" / "export"
    assert export.find_newest_export(tmp_path, "clip") == tmp_path / "c" / "export"


def test_without_an_export_the_command_that_makes_one_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"make one with `deepspeed cloc/pretrain\.py objective=cloc`"):
        export.find_newest_export(tmp_path)
    card_at(tmp_path / "a" / "export", "2026-03-01T00:00:00+00:00", "clip")
    with pytest.raises(ValueError, match="no finished export with objective=cloc"):
        export.find_newest_export(tmp_path)
    with pytest.raises(ValueError, match="objective=detclip`"):
        export.find_newest_export(tmp_path, "detclip")


def test_an_unreadable_card_is_left_out_aloud(tmp_path, capsys):
    card_at(tmp_path / "a" / "export", "2026-03-01T00:00:00+00:00")
    for name, text in (("b", '{"schema": 7}'), ("c", '{"schema": 1, "time')):
        (tmp_path / name / "export").mkdir(parents=True)
        (tmp_path / name / "export" / "export.json").write_text(text)
    assert export.find_newest_export(tmp_path) == tmp_path / "a" / "export"
    told = capsys.readouterr().err
    assert told.count("warning: left out:") == 2
    for name in ("b", "c"):
        assert str(tmp_path / name / "export" / "export.json") in told


def test_free_names(tmp_path):
    assert export.find_next_free(tmp_path / "run") == tmp_path / "run"
    for name in ("run", "run-2", "bench-1", "bench-3"):
        (tmp_path / name).mkdir()
    assert export.find_next_free(tmp_path / "run") == tmp_path / "run-3"
    assert export.find_next_numbered(tmp_path, "bench") == tmp_path / "bench-2"
    assert export.find_next_numbered(tmp_path, "swap") == tmp_path / "swap-1"


def test_clip_is_exported_without_a_prompter(spine_export):
    folder = spine_export(objective="clip")
    model = AutoModel.from_pretrained(folder)
    assert not model.has_prompter
    assert export.read_card(folder)["objective"] == model.config.objective == "clip"
