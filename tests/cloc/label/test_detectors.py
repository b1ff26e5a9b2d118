"""Detectors of transformers: right pixels, right phrases; a ragged batch gives what each image gives alone."""

import json
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image

from cloc.label.detectors import OwlProposer, describe_detector, load_proposer

ROWS = (["red circle", "dog"], ["blue star"], ["cat", "ball", "grass"])


@pytest.fixture
def pictures(spine_picture):
    return [spine_picture(*size, seed=n) for n, size in enumerate([(60, 40), (33, 50), (48, 48)])]


@pytest.fixture(params=["tiny_owl", "tiny_grounding_dino", "tiny_mm_grounding_dino"])
def proposer(request):
    return load_proposer(str(request.getfixturevalue(request.param)), 96, 0.0)


def test_a_ragged_batch_is_what_each_image_gives_alone(proposer, pictures):
    """Images of one size for all: Grounding DINO's backbones see the padding of a batch."""
    pictures = [image.resize((48, 40)) for image in pictures]
    together = proposer.propose(pictures, ROWS)
    for image, row, found in zip(pictures, ROWS, together, strict=True):
        (alone,) = proposer.propose([image], [row])
        assert len(found.scores) > 0
        assert found.phrases.max() < len(row)
        order, other = np.argsort(-found.scores), np.argsort(-alone.scores)
        np.testing.assert_allclose(found.scores[order], alone.scores[other], rtol=1e-3, atol=1e-4)


def test_owl_boxes_are_pixels_of_the_image_whose_longer_side_fills_the_square(tiny_owl, pictures):
    proposer = load_proposer(str(tiny_owl), 48, 0.0)
    (found,) = proposer.propose(pictures[:1], [["dog", "cat"]])
    tokens = proposer.processor(text=[["dog", "cat"]], images=None, return_tensors="pt")
    pixels = proposer.processor.image_processor(pictures[0], size={"height": 48, "width": 48}, return_tensors="pt")
    with torch.inference_mode():
        plain = proposer.model(**tokens, **pixels, interpolate_pos_encoding=True)
    centre, size = plain.pred_boxes[0, :, :2], plain.pred_boxes[0, :, 2:]
    corners = torch.cat([centre - size / 2, centre + size / 2], dim=1) * 60
    scores = plain.logits[0].sigmoid().numpy()
    np.testing.assert_allclose(found.boxes_xyxy, corners.numpy(), rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(found.scores, scores.max(axis=1), rtol=1e-5)
    np.testing.assert_allclose(found.scores, scores[np.arange(36), found.phrases], rtol=1e-5)
    assert len(found.scores) == 36  # the grid of 4 x 4 fitted to 6 x 6


def test_the_filling_of_short_rows_never_wins(tiny_owl, pictures, monkeypatch):
    """Even where the filling scores best of all."""
    proposer = load_proposer(str(tiny_owl), 32, 0.0)
    forward = proposer.model.forward

    def loving_the_filling(**inputs):
        outputs = forward(**inputs)
        outputs.logits[..., 1:] = 50.0
        return outputs

    monkeypatch.setattr(proposer.model, "forward", loving_the_filling)
    found = proposer.propose(pictures[:2], [["dog"], ["cat", "ball"]])
    assert set(found[0].phrases.tolist()) == {0}
    assert set(found[1].phrases.tolist()) == {1}


def test_a_phrase_of_grounding_dino_has_the_score_of_its_best_token(tiny_grounding_dino, pictures, monkeypatch):
    proposer = load_proposer(str(tiny_grounding_dino), 96, 0.1)
    forward = proposer.model.forward

    def told(**inputs):
        """[CLS] red circle . dog . [SEP]: `circle` high on box 0, `dog` on box 1, full stops on every box."""
        outputs = forward(**inputs)
        logits = torch.full_like(outputs.logits, -9.0)
        logits[0, 0, 2], logits[0, 1, 4], logits[0, :, [3, 5]] = 2.0, 1.0, 5.0
        outputs.logits = logits
        outputs.pred_boxes[:] = torch.tensor([0.5, 0.5, 0.5, 0.2])
        return outputs

    monkeypatch.setattr(proposer.model, "forward", told)
    (found,) = proposer.propose(pictures[:1], [["red circle", "dog"]])
    assert found.phrases.tolist() == [0, 1]
    np.testing.assert_allclose(found.scores, torch.tensor([2.0, 1.0]).sigmoid().numpy(), rtol=1e-6)
    np.testing.assert_allclose(found.boxes_xyxy, [[15, 16, 45, 24]] * 2, rtol=1e-6)


def test_facts_name_the_model_its_licence_and_the_grid(tiny_owl, tmp_path):
    facts = describe_detector(str(tiny_owl), 448)
    assert facts["type"] == "owlv2"
    assert facts["licence"] == "apache-2.0"
    assert facts["input"] == "448 x 448 pixels, position grid 4 x 4 interpolated (bicubic) to 56 x 56"
    assert len(facts["weights_sha256"]) == 64
    assert describe_detector(str(tiny_owl), 32)["input"] == "32 x 32 pixels, position grid 4 x 4 as trained"
    with pytest.raises(ValueError, match="--size 50: expected a multiple of the detector's patch of 8 pixels; take 48"):
        describe_detector(str(tiny_owl), 50)
    with pytest.raises(ValueError, match=r"--detector .*nothing: expected a transformers folder or a hub name"):
        describe_detector(str(tmp_path / "nothing"), 448)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(ValueError, match=r"expected a model of type owlv2, .*, got 'bert'"):
        describe_detector(str(tmp_path), 448)
    (tmp_path / "config.json").write_text((tiny_owl / "config.json").read_text())
    with pytest.raises(ValueError, match=r"expected weights in \*.safetensors, found none"):
        describe_detector(str(tmp_path), 448)


def test_grounding_dino_keeps_its_proportion(tiny_grounding_dino):
    facts = describe_detector(str(tiny_grounding_dino), 448)
    assert facts["input"] == "shorter side 448, longest at most 746 pixels"
    assert facts["licence"] == "not stated (no model card at hand)"


def test_an_encoder_without_a_detector_is_refused(spine_export):
    with pytest.raises(ValueError, match="expected an export with a detector, got an encoder alone"):
        describe_detector(str(spine_export()), 448)


def test_our_own_detector_proposes_each_images_own_phrases(detector_model, detector_processor, tmp_path, pictures):
    """It suppresses and limits nothing itself: `--nms 0` and `--max-boxes 0` mean what they say."""
    detector_model().save_pretrained(tmp_path)
    detector_processor().save_pretrained(tmp_path)
    assert describe_detector(str(tmp_path), 448)["input"] == "the export's own canvas (--size is not used)"
    proposer = load_proposer(str(tmp_path), 448, 0.0)
    together = proposer.propose(pictures, ROWS)
    for image, row, found in zip(pictures, ROWS, together, strict=True):
        ask = partial(proposer.model.detect, [image], row, proposer.processor, threshold=0.0)
        (plain,) = ask(limit=0, nms=1.0)
        np.testing.assert_array_equal(found.boxes_xyxy, plain["boxes"])
        np.testing.assert_array_equal(found.phrases, plain["labels"])
        assert len(found.scores) == len(plain["scores"]) > len(ask(limit=0)[0]["scores"])
    assert max(len(found.scores) for found in together) > 300


def test_owl_takes_an_image_of_one_pixel(tiny_owl):
    proposer = load_proposer(str(tiny_owl), 32, 0.0)
    assert isinstance(proposer, OwlProposer)
    (found,) = proposer.propose([Image.new("RGB", (1, 1))], [["dog"]])
    assert found.boxes_xyxy.shape == (16, 4)


@pytest.mark.parametrize("definitions", [False, True])
def test_an_export_that_reads_definitions_is_asked_by_phrase_with_a_warning(
    definitions, detector_config, tmp_path, capsys
):
    config = detector_config()
    config.detector_config.definitions = definitions
    config.save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    assert "own canvas" in describe_detector(str(tmp_path), 448)["input"]
    told = f"warning: {tmp_path} was trained on `name, definition`, it is asked by phrase alone\n"
    assert capsys.readouterr().err == (told if definitions else "")
