import json
import re
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch.nn import functional as F
from transformers import BatchFeature, CLIPConfig, Kosmos2Config, LlavaConfig, Owlv2Config

from benchmarks.predictors import loaded_models
from benchmarks.predictors.clip_regions import crop_box
from benchmarks.predictors.detector import ClocDetector
from benchmarks.predictors.encoder import load_export, name_export
from benchmarks.predictors.hf_detectors import OwlDetector
from benchmarks.predictors.hf_encoders import HfCrop
from benchmarks.predictors.kosmos import Kosmos
from benchmarks.predictors.loaded_models import load_model, make_readouts
from benchmarks.predictors.mllm import TransformersMllm
from cloc import ClocConfig
from cloc.export.reference import make_reference

WHOLE = np.array([[0.0, 0.0, 40.0, 40.0]])


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 256, (h, w, 3), dtype=np.uint8)) for h, w in ((40, 40), (20, 40), (33, 10))]


@pytest.fixture(scope="module")
def boxes():
    return [np.array([[0, 0, 40, 40], [4.0, 6.5, 21.0, 39.0]]), np.zeros((0, 4)), np.array([[1.0, 2.0, 9.0, 30.0]])]


@pytest.fixture(scope="module")
def readings(exports):
    found = [*make_readouts(load_export(exports["cloc"])), *make_readouts(load_export(exports["clip"]))]
    return {reading.name: reading for reading in found}


@pytest.mark.parametrize("pickled", [False, True], ids=["cut", "pickled"])
def test_an_export_whose_weights_cannot_be_read_is_refused(pickled, exports, tmp_path):
    folder = shutil.copytree(exports["cloc"], tmp_path / "export")
    file = folder / "model.safetensors"
    if pickled:
        torch.save(load_file(file), folder / "pytorch_model.bin")
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:500])
    with pytest.raises(ValueError, match=r"export: weights or processor cannot be read \(.*\); copy the whole folder"):
        load_export(folder)


def test_a_prompter_is_read_one_way_and_a_clip_encoder_three_ways(readings):
    assert list(readings) == ["prompter", "clip-roialign", "clip-value", "clip-crop"]
    assert [name for name, reading in readings.items() if reading.cannot_ground is None] == ["prompter"]


@pytest.mark.parametrize("name", ["prompter", "clip-roialign", "clip-value", "clip-crop"])
def test_regions_are_unit_vectors_and_do_not_depend_on_the_batch(name, readings, images, boxes):
    reading = readings[name]
    together = reading.encode_regions(images, boxes)
    assert [rows.shape for rows in together] == [(2, 12), (0, 12), (1, 12)]
    assert np.linalg.norm(np.concatenate(together), axis=1) == pytest.approx(np.ones(3), abs=1e-5)
    for image, some, rows in zip(images, boxes, together, strict=True):
        assert reading.encode_regions([image], [some])[0] == pytest.approx(rows, abs=1e-5)
    assert not np.allclose(together[0][0], together[0][1], atol=1e-3)


def test_texts_are_encoded_as_they_are(readings):
    reading = readings["clip-crop"]
    rows = reading.encode_texts(["red circle", "a photo of a red circle", "red circle"])
    assert rows.shape == (3, 12)
    assert np.array_equal(rows[0], rows[2])
    assert not np.allclose(rows[0], rows[1], atol=1e-3)
    assert reading.encode_texts([]).shape == (0, 12)


def test_images_are_encoded_whole(readings, images):
    reading = readings["clip-crop"]
    rows = reading.encode_images(images)
    assert rows.shape == (3, 12)
    assert reading.encode_regions(images[:1], [WHOLE])[0] == pytest.approx(rows[:1], abs=1e-5)
    assert reading.encode_images([]).shape == (0, 12)


def test_prompter_reads_what_the_model_gives(readings, images):
    reading = readings["prompter"]
    pixels = reading.processor(images=images[:1])["pixel_values"]
    with torch.inference_mode():
        expected = reading.model.get_region_features(pixels, torch.tensor([[[0.0, 0.0, 1.0, 1.0]]]))
    assert reading.encode_regions(images[:1], [WHOLE])[0] == pytest.approx(expected[0].numpy(), abs=1e-6)


def test_ground_gives_one_box_a_phrase_inside_the_image(readings, images):
    found = readings["prompter"].ground(images, [["red", "blue"], ["blue"], []])
    assert [boxes.shape for boxes in found] == [(2, 4), (1, 4), (0, 4)]
    assert (found[1] >= 0).all()
    assert (found[1][:, [1, 3]] <= 20).all()  # that image is 20 pixels high
    alone = readings["prompter"].ground(images[:1], [["blue"]])
    assert alone[0][0] == pytest.approx(found[0][1], abs=1e-3)


def test_clip_readings_refuse_to_ground(readings, images):
    with pytest.raises(ValueError, match="clip-value: a CLIP-only encoder has no phrase prompt"):
        readings["clip-value"].ground(images, [["red"]] * 3)


def test_roialign_of_the_whole_image_is_the_mean_of_its_projected_tokens(readings, images):
    reading = readings["clip-roialign"]
    vision = reading.model.vision
    pixels = reading.processor(images=images[:1])["pixel_values"]
    with torch.inference_mode():
        tokens = vision.tower(pixel_values=pixels).last_hidden_state[:, 1:]
        dense = vision.visual_projection(vision.tower.post_layernorm(tokens))
    expected = F.normalize(dense.mean(dim=1), dim=-1).numpy()
    assert reading.encode_regions(images[:1], [WHOLE])[0] == pytest.approx(expected, abs=1e-5)
    # the box of one cell reads that patch alone: the second of the first row
    cell = reading.encode_regions(images[:1], [np.array([[25.0, 5.0, 35.0, 15.0]])])[0]
    inside = np.array([[20.0, 0.0, 40.0, 20.0]])
    assert reading.encode_regions(images[:1], [inside])[0] == pytest.approx(cell, abs=1e-5)
    assert cell == pytest.approx(F.normalize(dense[:, 1], dim=-1).numpy(), abs=1e-5)


def test_value_reading_is_what_attention_to_oneself_would_give(readings, images):
    """With an attention that looks at its own token only, the layer adds exactly the value path to its input."""
    reading = readings["clip-value"]
    tower = reading.model.vision.tower
    layer, pixels = tower.encoder.layers[-1], reading.processor(images=images[:1])["pixel_values"]
    with torch.inference_mode():
        entering = tower(pixel_values=pixels, output_hidden_states=True).hidden_states[-2]
        only_self = torch.full((5, 5), float("-inf")).fill_diagonal_(0.0)[None, None]
        attended, _ = layer.self_attn(layer.layer_norm1(entering), attention_mask=only_self)
        expected = tower.post_layernorm(attended[:, 1:])
        found = reading.tokens(pixels)
    assert found.numpy() == pytest.approx(expected.numpy(), abs=1e-5)


def test_crop_reading_encodes_the_cut_out_image(readings, images):
    reading = readings["clip-crop"]
    crop = images[0].crop((4, 6, 21, 39))
    with torch.inference_mode():
        expected = reading.model.get_image_features(reading.processor(images=[crop])["pixel_values"]).numpy()
    assert reading.encode_regions(images[:1], [np.array([[4.2, 6.5, 20.9, 38.1]])])[0] == pytest.approx(
        expected, abs=1e-5
    )


@pytest.mark.parametrize(
    ("box", "size"),
    [
        ([4.0, 4.0, 8.0, 10.0], (4, 6)),  # whole pixels
        ([4.5, 4.5, 4.6, 4.6], (1, 1)),  # less than a pixel
        ([39.9, 39.9, 40.0, 40.0], (1, 1)),  # the last pixel
        ([40.0, 40.0, 40.0, 40.0], (1, 1)),  # on the border
        ([-3.0, -3.0, 60.0, 60.0], (40, 40)),  # beyond it
    ],
)
def test_cut_out(images, box, size):
    assert crop_box(images[0], np.array(box)).size == size


def test_a_run_may_be_named_instead_of_its_export(exports):
    loaded = load_export(exports["clip"].parent)
    assert (loaded.label, loaded.sha256, loaded.objective) == ("clip", "clip0", "clip")
    assert name_export(exports["clip"]) == "clip"


def test_no_export(tmp_path):
    with pytest.raises(ValueError, match=r"a folder with config\.json\), found none; train one with"):
        load_export(tmp_path)


def test_a_detector_of_this_kit_is_refused_by_a_name_on_the_hub(monkeypatch):
    config = {"model_type": "cloc", "architectures": [loaded_models.OUR_DETECTOR]}
    monkeypatch.setattr(loaded_models, "_config", lambda source: config)
    with pytest.raises(ValueError, match="expected an export of this kit"):
        load_model("someone/detector", "cpu", 1)


def test_an_unfinished_export_is_refused(tmp_path, exports):
    copy = shutil.copytree(exports["clip"], tmp_path / "export")
    (copy / "export.json").unlink()
    with pytest.raises(ValueError, match=r"export\.json is missing"):
        load_export(copy)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("has_prompter", True, "missing keys: "),  # the file holds no Prompter
        ("projection_dim", 6, "mismatched keys: "),
    ],
)
def test_weights_that_do_not_fill_the_model_are_refused(tmp_path, exports, name, value, message):
    copy = shutil.copytree(exports["clip"], tmp_path / "export")
    config = json.loads((copy / "config.json").read_text())
    config["vision_config"][name] = value
    (copy / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=f"do not fill the model exactly .{message}"):
        load_export(copy)


def test_an_export_that_gives_another_embedding_is_refused(tmp_path, exports):
    folder = shutil.copytree(exports["cloc"], tmp_path / "export")
    card = json.loads((folder / "export.json").read_text())
    card["reference"] = make_reference(folder, load_export(folder).processor.image_processor)
    (folder / "export.json").write_text(json.dumps(card))
    load_export(folder)
    for file in folder.glob("*processor*.json"):  # as where another library prepares the images
        file.write_text(re.sub(r'("image_mean": \[\s*)0\.\d+', r"\g<1>0.9", file.read_text()))
    with pytest.raises(ValueError, match=r"the reference picture's embedding differs by .* prepared in another way"):
        load_export(folder)


@pytest.mark.parametrize(("kind", "asked"), [("siglip", "a red cup"), ("siglip2", "a red cup"), ("clip", "a Red Cup")])
def test_siglip_is_asked_in_lower_case(kind, asked):
    """A SigLIP2 of fixed size says `siglip`, and the tokenizer beside it keeps capitals."""
    seen = []

    def processor(text, **_):
        seen.extend(text)
        return BatchFeature({"input_ids": torch.zeros(len(text), 2)})

    def features(input_ids):
        return torch.ones(len(input_ids), 3)

    reading = object.__new__(HfCrop)
    reading.is_clip, reading.device, reading.processor = kind == "clip", "cpu", processor
    text = SimpleNamespace(projection_size=3)
    config = SimpleNamespace(model_type=kind, projection_dim=3, text_config=text)
    reading.model = SimpleNamespace(config=config, get_text_features=features)
    assert reading.encode_texts(["a Red Cup"]).shape == (1, 3)
    assert seen == [asked]


@pytest.mark.parametrize(
    ("read", "config"),
    [
        (HfCrop, CLIPConfig),
        (OwlDetector, Owlv2Config),
        (Kosmos, Kosmos2Config),
        (TransformersMllm, LlavaConfig),
        (ClocDetector, ClocConfig),
    ],
)
def test_a_model_without_its_weights_is_named(read, config, tmp_path):
    config().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=rf"^{tmp_path}: weights or processor cannot be read \(.*no file named"):
        read(str(tmp_path), "cpu", 1)
    (tmp_path / "model.safetensors").write_bytes(b"cut")
    with pytest.raises(ValueError, match=rf"^{tmp_path}: weights or processor cannot be read \(.*header"):
        read(str(tmp_path), "cpu", 1)
