"""Samples of the strangest sizes, without a box, without a caption or a noun in it, from bytes to gradient."""

import io

import pytest
import torch
from PIL import Image

from cloc.data.concept_batches import ConceptRecipe, collate_concepts, prepare_concepts
from cloc.data.concepts import ConceptDictionary
from cloc.losses.detection import DetectionTerms, detection_objective
from cloc.structures import Region, Sample
from cloc.tokenizer import clip_tokenizer

NAMES = ("cat", "dog", "emu")
COUNTS = {
    "detection": {"images": 4, "boxes": 2},
    "grounding": {"images": 4, "boxes": 2},
    "pairs": {"images": 4, "texts": 3},
}


def sample(key, width, height, box=None, caption=""):
    image = io.BytesIO()
    Image.new("RGB", (width, height), "red").save(image, "PNG")
    regions = () if box is None else (Region(box, "cat"),)
    return Sample(key, image.getvalue(), "png", width, height, caption, regions)


@pytest.mark.parametrize("kind", COUNTS)
def test_one_pixel_ten_thousand_pixels_and_no_box(detector_model, kind):
    samples = [
        sample("point", 1, 1, (0, 0, 1, 1), "a red cat"),
        sample("wide", 10_000, 3, (5000, 0, 5001, 1), "running quickly"),
        sample("high", 3, 10_000),
        sample("empty", 30, 20, None, "of the and"),
    ]
    recipe = ConceptRecipe(kind, ((96, 128),), False, 32, True, 3, False, 8)
    dictionary = ConceptDictionary(dict.fromkeys(NAMES, ""))
    prepared = [prepare_concepts(one, recipe, (96, 128), dictionary, NAMES, 0, 0) for one in samples]
    batch = collate_concepts(prepared, clip_tokenizer(), recipe, (96, 128))
    assert batch.pixel_values.shape == (4, 3, 128, 128)
    assert batch.boxes_mask.sum(dim=1).tolist() == ([0] * 4 if kind == "pairs" else [1, 1, 0, 0])
    assert batch.skipped == ({"no_caption": 1, "caption_without_noun_phrase": 2} if kind == "pairs" else {})
    model = detector_model("swin")
    outputs = model(batch.pixel_values, batch.concept_ids, batch.concept_attention, with_logits=False)
    report = detection_objective(outputs, batch, 0, DetectionTerms())
    assert {name: report.counts[name] for name in COUNTS[kind]} == COUNTS[kind]
    sum(report.terms.values()).backward()
    moved = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    assert all(torch.isfinite(gradient).all() for gradient in moved)
    assert sum(float(gradient.abs().sum()) for gradient in moved) > 0
