"""Tiny builds of the public detectors that ours is compared with."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import (
    BertConfig,
    BertTokenizerFast,
    CLIPTokenizerFast,
    GroundingDinoConfig,
    GroundingDinoForObjectDetection,
    GroundingDinoImageProcessor,
    GroundingDinoProcessor,
    MMGroundingDinoConfig,
    MMGroundingDinoForObjectDetection,
    Owlv2Config,
    Owlv2ForObjectDetection,
    Owlv2ImageProcessor,
    Owlv2Processor,
    SwinConfig,
)

from benchmarks.cli import main
from benchmarks.predictors.hf_detectors import (
    GroundedDetector,
    OwlDetector,
    choose_best_pairs,
    join_names,
    merge_found,
    split_names,
    weigh_tokens,
)
from cloc.tokenizer import load_tokenizer


def test_best_pairs_and_merging():
    scores = torch.tensor([[0.1, 0.9], [0.8, 0.2]])
    boxes = torch.arange(8.0).view(2, 4)
    one = choose_best_pairs(scores, boxes, first=5, limit=2)
    assert one.labels.tolist() == [6, 5]
    assert one.boxes_xyxy.tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]
    both = merge_found([one, choose_best_pairs(scores * 0.95, boxes, first=0, limit=2)], limit=3)
    assert both.labels.tolist() == [6, 1, 5]
    assert choose_best_pairs(torch.zeros(0, 3), torch.zeros(0, 4)).scores.shape == (0,)


@pytest.fixture(scope="module")
def owl(tmp_path_factory):
    """A folder with a tiny random OWLv2."""
    tokenizer = load_tokenizer("clip")
    torch.manual_seed(0)
    config = Owlv2Config(
        text_config={
            "vocab_size": len(tokenizer), "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1,
            "num_attention_heads": 2, "max_position_embeddings": 16, "eos_token_id": tokenizer.eos_token_id,
            "bos_token_id": tokenizer.bos_token_id, "pad_token_id": 0,
        },
        vision_config={
            "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
            "image_size": 32, "patch_size": 8,
        },
        projection_dim=16,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("owl")
    Owlv2ForObjectDetection(config).eval().save_pretrained(folder)
    words = CLIPTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer, model_max_length=16, pad_token="!")
    Owlv2Processor(Owlv2ImageProcessor(size={"height": 32, "width": 32}), words).save_pretrained(folder)
    return folder


def test_owl_keeps_names_and_gives_what_the_whole_model_gives(owl, spine_picture):
    detector = OwlDetector(str(owl), "cpu", 2)
    images = [Image.new("RGB", (40, 20), (200, 0, 0)), spine_picture(20, 20)]
    names = ["red square", "a blue ring", "fire opal"]
    found = detector.detect([*images, images[0]], names)
    again = detector.detect(images[1:], names)
    inputs = detector.processor(text=[names] * 2, images=images, return_tensors="pt", truncation=True)
    with torch.inference_mode():
        outputs = detector.model(**inputs)
    for row, image in enumerate(images):
        scores = outputs.logits[row].sigmoid()
        assert found[row].scores == pytest.approx(np.sort(scores.flatten().numpy())[::-1], abs=1e-5)
        best = (scores.amax(dim=1) > scores.max() - 1e-5).nonzero()[:, 0]  # several may be as good but for rounding
        cx, cy, w, h = (outputs.pred_boxes[row, best] * max(image.size)).unbind(dim=1)
        wanted = torch.stack([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2], dim=1).numpy()
        wanted = wanted.clip(0, [image.width, image.height] * 2)
        assert np.abs(wanted - found[row].boxes_xyxy[0]).max(axis=1).min() < 1e-3
    assert again[0].scores == pytest.approx(found[1].scores, abs=1e-5)
    assert detector.detect(images[:1], ["other"])[0].labels.max() == 0


WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", ".", "red", "green", "blue", "fire", "opal", "ring", "##s"]


def bert_words(folder):
    """A word-piece tokenizer of a dozen words."""
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    return BertTokenizerFast(vocab=str(folder / "vocab.txt"))


@pytest.fixture(scope="module", params=["grounding-dino", "mm-grounding-dino"])
def grounded(request, tmp_path_factory):
    """A folder with a tiny random Grounding DINO that reads 12 tokens at a time."""
    folder = tmp_path_factory.mktemp("dino")
    config_of, model_of = {
        "grounding-dino": (GroundingDinoConfig, GroundingDinoForObjectDetection),
        "mm-grounding-dino": (MMGroundingDinoConfig, MMGroundingDinoForObjectDetection),
    }[request.param]
    backbone = SwinConfig(
        image_size=32, patch_size=2, embed_dim=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 2], window_size=2,
        out_features=["stage2", "stage3", "stage4"],
    )  # fmt: skip
    text = BertConfig(
        vocab_size=len(WORDS), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
    )
    torch.manual_seed(0)
    config = config_of(
        backbone_config=backbone, text_config=text, d_model=32, encoder_layers=1, decoder_layers=2, num_queries=5,
        encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=16, decoder_ffn_dim=16, max_text_len=12,
    )  # fmt: skip
    model_of(config).eval().save_pretrained(folder)
    images = GroundingDinoImageProcessor(size={"height": 32, "width": 32}, do_pad=True)
    GroundingDinoProcessor(images, bert_words(folder)).save_pretrained(folder)
    return folder


def test_grounding_dino_asks_in_passes_and_averages_a_names_tokens(grounded, spine_picture):
    detector = GroundedDetector(str(grounded), "cpu", 2)
    images = [spine_picture(40, 24), Image.new("RGB", (24, 40), (200, 0, 0))]
    names = ["red", "Fire Opal", "green rings", "blue", "red ring"]
    chunks = split_names(names, detector.processor.tokenizer, 12)
    assert chunks == [["red", "Fire Opal", "green rings"], ["blue", "red ring"]]
    found = detector.detect(images, names)
    assert set(found[0].labels.tolist()) == {0, 1, 2, 3, 4}
    assert len(found[0].scores) == 5 * 5
    assert (np.diff(found[0].scores) <= 0).all()
    for one, image in zip(found, images, strict=True):
        assert (one.boxes_xyxy >= 0).all()
        assert (one.boxes_xyxy <= [image.width, image.height] * 2).all()
    text, _ = join_names(chunks[1])
    assert text == "blue. red ring."
    inputs = detector.processor(text=[text] * 2, images=images, return_tensors="pt")
    with torch.inference_mode():
        logits = detector.model(**inputs).logits[0]
    wanted = logits[:, [3, 4]].sigmoid().mean(dim=1)  # [CLS] blue . red ring .
    ours = np.sort(found[0].scores[found[0].labels == 4])
    assert ours == pytest.approx(np.sort(wanted.numpy()), abs=1e-5)


def test_token_weights_and_names_that_do_not_fit(tmp_path):
    tokenizer = bert_words(tmp_path)
    text, spans = join_names(["fire opal", "rings"])
    weights = weigh_tokens(text, spans, tokenizer)  # [CLS] fire opal . ring ##s . [SEP]
    assert weights.tolist() == [[0, 0.5, 0.5, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0.5, 0.5, 0, 0]]
    with pytest.raises(ValueError, match="has 4 tokens, the model reads 5; shorten it"):
        split_names(["red red red"], tokenizer, 5)


def test_a_rival_runs_from_the_command_line(owl, root, tmp_path, capsys):
    assert main(["coco", "--model", str(owl), "--data", str(root), "--out", str(tmp_path / "out"), "--limit", "3"]) == 0
    assert "owlv2, detector" in capsys.readouterr().out
    rows = json.loads((tmp_path / "out" / "results.json").read_text())["rows"]
    assert {row["predictor"] for row in rows} == {"owlv2"}
    assert all(row["protocol"].endswith("first-3-images") for row in rows)


def test_an_unknown_family_names_the_known_ones(tmp_path, capsys):
    (tmp_path / "bert").mkdir()
    BertConfig().save_pretrained(tmp_path / "bert")
    assert main(["coco", "--model", str(tmp_path / "bert"), "--data", str(tmp_path)]) == 2
    told = capsys.readouterr().err
    assert "no data for coco" in told or "its model_type is 'bert'" in told
