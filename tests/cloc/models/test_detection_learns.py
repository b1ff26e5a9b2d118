"""Targets, losses and decoding agree: a tiny detector that is trained on a few images finds their boxes again."""

import numpy as np
import pytest
import torch
from PIL import Image

from cloc.boxes import iou
from cloc.losses.detection import DetectionTerms, detection_objective
from cloc.structures import ConceptBatch

STEPS = 40
NAMES = ["red thing", "green thing", "blue thing"]
SCENES = (
    [((4, 4, 28, 24), 0), ((34, 30, 60, 58), 1)],
    [((10, 36, 30, 60), 2), ((36, 6, 58, 30), 0)],
    [((2, 20, 40, 50), 1)],
    [((20, 8, 36, 26), 2), ((30, 40, 62, 60), 2)],
)


def scene(things):
    pixels = np.full((64, 64, 3), 60, dtype=np.uint8)
    for (x0, y0, x1, y1), colour in things:
        pixels[y0:y1, x0:x1] = np.eye(3, dtype=np.uint8)[colour] * 220
    return Image.fromarray(pixels)


def batch_of(processor, tokens):
    boxes, mask = torch.zeros(len(SCENES), 2, 4), torch.zeros(len(SCENES), 2, dtype=torch.bool)
    for row, things in enumerate(SCENES):
        for place, (box, _) in enumerate(things):
            boxes[row, place], mask[row, place] = torch.tensor(box) / 64, True
    labels = torch.tensor([colour for things in SCENES for _, colour in things])
    none = torch.zeros(0, dtype=torch.int64)
    return ConceptBatch(
        kind="detection",
        pixel_values=processor.detection_images()([scene(things) for things in SCENES])["pixel_values"],
        extent=torch.ones(len(SCENES), 2),
        boxes=boxes,
        boxes_mask=mask,
        label_box=torch.arange(len(labels)),
        label_concept=labels,
        concept_ids=tokens["input_ids"],
        concept_attention=tokens["attention_mask"],
        concept_text_id=torch.arange(3),
        pair_image=none,
        pair_concept=none,
        caption_ids=none.view(0, 2),
        caption_attention=none.view(0, 2),
        caption_image=none,
    )


@pytest.mark.parametrize("tower", ["vit", "swin"])
def test_a_trained_detector_finds_the_boxes_again(detector_model, detector_processor, tower):
    model = detector_model(tower, width=32, strides=(4, 8, 16), num_convs=1)
    processor = detector_processor()
    processor.image_processor.detection_size = {"shortest_edge": 64, "longest_edge": 64}
    batch = batch_of(processor, processor(text=NAMES))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.0, fused=True)
    rates = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=STEPS)
    for _ in range(STEPS):
        outputs = model(batch.pixel_values, batch.concept_ids, batch.concept_attention, with_logits=False)
        terms = detection_objective(outputs, batch, 0, DetectionTerms()).terms
        optimizer.zero_grad()
        (terms["alignment"] + 2 * terms["giou"] + terms["centerness"]).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        rates.step()
    found = model.detect([scene(things) for things in SCENES], NAMES, processor)
    for things, answer in zip(SCENES, found, strict=True):
        best = slice(0, len(things))
        overlap = iou(answer["boxes"][best], [box for box, _ in things])
        assert overlap.max(axis=0).min() > 0.75
        told = answer["labels"][best][overlap.argmax(axis=0)]
        assert told.tolist() == [colour for _, colour in things]
        assert answer["scores"][best].min() > 0.3
