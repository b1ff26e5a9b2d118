"""An export answers as a CLIP does, in the words of transformers."""

import pytest
import torch
from transformers import AutoModelForZeroShotImageClassification, AutoProcessor, pipeline

import cloc

TEXTS = ["a cat", "a red ring", "two dogs"]


@pytest.mark.parametrize("changes", [{"objective": "clip"}, {"loss__form": "sigmoid"}], ids=["clip", "sigmoid"])
@torch.no_grad()
def test_an_export_answers_as_a_clip(changes, spine_export, spine_picture):
    folder = spine_export(**changes)
    model = AutoModelForZeroShotImageClassification.from_pretrained(folder).eval()
    assert type(model) is cloc.ClocForZeroShotImageClassification
    pictures = [spine_picture(50, 40), spine_picture(30, 60, seed=1)]
    inputs = AutoProcessor.from_pretrained(folder)(images=pictures, text=TEXTS, return_tensors="pt")
    found = model(**inputs)
    image = model.get_image_features(inputs["pixel_values"])
    text = model.get_text_features(inputs["input_ids"], inputs["attention_mask"])
    bias = 0 if model.logit_bias is None else model.logit_bias
    assert (model.logit_bias is None) == (changes.get("loss__form") is None)
    torch.testing.assert_close(found.logits_per_image, model.logit_scale.exp() * image @ text.T + bias)
    assert found.logits_per_image.shape == (2, 3)
    assert torch.equal(found.logits_per_text, found.logits_per_image.T)
    assert torch.equal(found.image_embeds, image)
    assert torch.equal(found.text_embeds, text)
    answers = pipeline("zero-shot-image-classification", model=str(folder), device="cpu")(
        pictures[0], candidate_labels=TEXTS, hypothesis_template="{}"
    )
    expected = dict(zip(TEXTS, found.logits_per_image[0].softmax(0).tolist(), strict=True))
    assert {one["label"]: one["score"] for one in answers} == pytest.approx(expected, abs=1e-5)
