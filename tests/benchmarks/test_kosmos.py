"""Kosmos-2 as a rival: its prompt, its cells, and a tiny random build under the contract of an MLLM."""

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import (
    CLIPImageProcessor,
    Kosmos2Config,
    Kosmos2ForConditionalGeneration,
    Kosmos2Processor,
    XLMRobertaTokenizer,
)

from benchmarks.predictors.kosmos import GROUNDED, Cells
from benchmarks.predictors.loaded_models import load_model
from benchmarks.tasks.phrase_boxes import ask_boxes

WORDS = ("▁a", "▁the", "▁dog", "▁red", "▁ring", "▁Question", ":", "▁Answer", "▁", "?", "▁Is", "▁it")
NUM_RESERVED = 80  # ids after the unknown token that stand for the image's 64 embeddings


@pytest.fixture(scope="module")
def kosmos(tmp_path_factory):
    """A folder with a tiny model and a vocabulary of a few words."""
    folder = tmp_path_factory.mktemp("kosmos")
    pieces = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    pieces += [(f"reserved{number}", -20.0) for number in range(NUM_RESERVED)] + [(word, -2.0) for word in WORDS]
    tokenizer = XLMRobertaTokenizer(vocab=pieces)
    processor = Kosmos2Processor(
        CLIPImageProcessor(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16}), tokenizer
    )
    processor.save_pretrained(folder)
    text = {"vocab_size": len(processor.tokenizer), "embed_dim": 16, "layers": 1, "ffn_dim": 16, "attention_heads": 2}
    vision = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    torch.manual_seed(0)
    config = Kosmos2Config(text_config=text, vision_config={**vision, "image_size": 16, "patch_size": 8})
    Kosmos2ForConditionalGeneration(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def reading(kosmos):
    (found,) = load_model(kosmos, "cpu", 2).predictors
    return found


def test_a_folder_is_known_by_its_family(kosmos):
    side = load_model(kosmos, "cpu", 2)
    assert side.description == "kosmos-2, mllm, coordinates cells-32-image"
    assert side.predictors[0].question == GROUNDED
    assert load_model(kosmos, "cpu", 2, question="<grounding> {}").predictors[0].question == "<grounding> {}"
    with pytest.raises(ValueError, match="--coordinates 0-1: Kosmos-2 writes cells of its own"):
        load_model(kosmos, "cpu", 2, coordinates="0-1")


def test_answers_do_not_depend_on_the_batch_and_keep_their_tags(reading, monkeypatch):
    monkeypatch.setattr("benchmarks.predictors.kosmos.MAX_NEW_TOKENS", 12)
    rng = np.random.default_rng(0)
    images = [Image.fromarray(rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)) for _ in range(3)]
    asked = [GROUNDED.replace("{}", phrase) for phrase in ("a dog", "the red ring", "the dog")]
    together = reading.answer(images, asked)
    assert together == [reading.answer([image], [one])[0] for image, one in zip(images, asked, strict=True)]
    assert all(answer.startswith("<grounding>") for answer in together)
    assert "<phrase>" in together[0]
    (plain,) = reading.answer(images[:1], ["Is it a dog?"])
    assert "Question" not in plain.split("Answer:")[0]
    assert reading.answer([], []) == []


def test_cells_are_read_as_the_processor_does_and_written_back(reading):
    cells, size = Cells(reading.processor), (320, 640)
    text = "<grounding><phrase> a dog</phrase><object><patch_index_0033><patch_index_0330></object>"
    (box,) = cells.read(text, size).boxes_xyxy
    # centres of cells (1, 1) and (10, 10) of 32 a side
    assert box == pytest.approx((1.5 * 10, 1.5 * 20, 10.5 * 10, 10.5 * 20))
    assert cells.write(box, size) in text
    assert cells.write((0, 0, 320, 640), size) == "<object><patch_index_0000><patch_index_1023></object>"
    two = text.replace("</object>", "</delimiter_of_multi_objects/><patch_index_0000><patch_index_0033></object>")
    assert len(cells.read(two, size).boxes_xyxy) == 2
    assert cells.read("<grounding><phrase> a dog</phrase> is", size).failures == {"no_box": 1}


def test_phrases_without_cells_are_wrong_and_said(reading, monkeypatch):
    monkeypatch.setattr("benchmarks.predictors.kosmos.MAX_NEW_TOKENS", 4)
    images = [Image.new("RGB", (30, 20)), Image.new("RGB", (20, 20))]
    boxes, none = ask_boxes(reading, images, [["a dog", "it"], []])
    assert len(boxes) == 2
    assert none == []
    for one in boxes:
        assert one.failure in ("no_box", "empty_box") or np.isfinite(one.box_xyxy).all()
        assert one.answer_text.startswith("<grounding>")
