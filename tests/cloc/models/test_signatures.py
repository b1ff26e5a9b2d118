"""The calls that a user of transformers expects: what the processor gives goes into the model, an encoding into all."""

import pytest
import torch
from transformers import AutoModel, AutoProcessor

import cloc

TEXTS = ["a cat", "a red ring", "two dogs"]
BOXES = [[(0, 0, 20, 30), (10, 10, 50, 40)], [(5, 5, 25, 55)]]


@pytest.fixture
def loaded(spine_export):
    """The model and the processor of a tiny export."""
    folder = spine_export()
    return AutoModel.from_pretrained(folder).eval(), AutoProcessor.from_pretrained(folder)


@pytest.fixture
def images(spine_picture):
    return [spine_picture(50, 40), spine_picture(30, 60, seed=1)]


@torch.no_grad()
def test_what_the_processor_gives_goes_into_the_model(loaded, images):
    model, processor = loaded
    inputs = processor(images=images, text=TEXTS, boxes=BOXES)
    found = model(**inputs)
    image = model.get_image_features(inputs.pixel_values)
    text = model.get_text_features(inputs.input_ids, inputs.attention_mask)
    regions = model.get_region_features(inputs.pixel_values, inputs.boxes, inputs.boxes_mask)
    assert torch.equal(found.image_embeds, image)
    assert torch.equal(found.text_embeds, text)
    assert torch.equal(found.region_embeds, regions)
    assert found.logits_per_region.shape == (2, 2, 3)
    scales = model.scales()
    torch.testing.assert_close(found.logits_per_image, scales[0] * image @ text.T)
    torch.testing.assert_close(found.logits_per_region, scales[1] * regions @ text.T)
    assert list(model(**processor(text=TEXTS))) == ["text_embeds"]
    assert list(model(**processor(images=images))) == ["image_embeds", "encoding"]
    assert list(found)[:4] == ["logits_per_image", "logits_per_text", "text_embeds", "image_embeds"]
    with pytest.raises(ValueError, match="expected pixel_values, input_ids or both, got neither"):
        model()


@torch.no_grad()
def test_an_encoding_serves_every_question(loaded, images, monkeypatch):
    model, processor = loaded
    inputs = processor(images=images, text=TEXTS, boxes=BOXES)
    texts = model.get_text_features(inputs.input_ids, inputs.attention_mask)
    asked = {"boxes": inputs.boxes, "boxes_mask": inputs.boxes_mask}
    by_pixels = [
        model.get_region_features(inputs.pixel_values, **asked),
        model.ground(inputs.pixel_values, texts),
        model.get_similarity_map(inputs.pixel_values, texts, cells=8),
    ]
    encoding = model.encode_image(inputs.pixel_values)
    monkeypatch.setattr(model.vision.tower, "forward", lambda *args, **kwargs: pytest.fail("the tower ran again"))
    by_encoding = [
        model.get_region_features(encoding=encoding, **asked),
        model.ground(encoding=encoding, text_embeds=texts),
        model.get_similarity_map(encoding=encoding, text_embeds=texts, cells=8),
    ]
    assert all(torch.equal(one, other) for one, other in zip(by_pixels, by_encoding, strict=True))
    for call in (lambda: model.get_region_features(**asked), lambda: model.ground(text_embeds=texts)):
        with pytest.raises(ValueError, match=r"pixel_values or as the encoding.*pass exactly one"):
            call()


@torch.no_grad()
def test_ground_takes_tokens_or_embeddings_and_says_which(loaded, images):
    model, processor = loaded
    inputs = processor(images=images, text=TEXTS)
    pixels, ids = inputs.pixel_values, {"input_ids": inputs.input_ids, "attention_mask": inputs.attention_mask}
    texts = model.get_text_features(**ids)
    boxes = model.ground(pixels, **ids)
    assert boxes.shape == (2, 3, 4)
    assert torch.equal(boxes, model.ground(pixels, texts))
    assert torch.equal(boxes, model.ground(pixels, texts.expand(2, 3, -1)))
    with pytest.raises(ValueError, match=r"expected text_embeds.*got \(3, \d+\) of torch.int64; .* input_ids="):
        model.ground(pixels, inputs.input_ids)
    with pytest.raises(ValueError, match=r"either as input_ids .* or as text_embeds .*; pass exactly one"):
        model.ground(pixels)


@torch.no_grad()
def test_a_similarity_map_is_the_mean_of_the_boxes_over_a_place(loaded, images):
    model, processor = loaded
    inputs = processor(images=images[:1], text=TEXTS)
    texts = model.get_text_features(inputs.input_ids, inputs.attention_mask)
    found = model.get_similarity_map(inputs.pixel_values, texts, cells=8)
    starts = {2: range(7), 4: (0, 1, 2, 3, 4)}
    boxes = [(x, y, x + side, y + side) for side, own in starts.items() for y in own for x in own]
    canvas = torch.tensor(boxes)[None] / 8
    cosine = (model.get_region_features(inputs.pixel_values, canvas) @ texts.T)[0]
    over = [n for n, (x0, y0, x1, y1) in enumerate(boxes) if x0 <= 5 < x1 and y0 <= 2 < y1]
    torch.testing.assert_close(found[0, :, 2, 5], cosine[over].mean(dim=0))
    assert found.shape == (1, 3, 8, 8)


@torch.no_grad()
def test_deprecated_spellings_work_and_warn(loaded, images):
    model, processor = loaded
    inputs = processor(images=images, text=TEXTS, boxes=BOXES)
    asked = (inputs.input_ids, inputs.attention_mask)
    texts = model.get_text_features(*asked)
    with pytest.warns(FutureWarning, match=r"get_texts_features is deprecated.*use encode_text_groups"):
        (found,) = model.get_texts_features(asked)
    assert torch.equal(found, model.encode_text_groups(asked)[0])
    with pytest.warns(FutureWarning, match=r"ground\(phrases=...\) is deprecated.*use text_embeds="):
        boxes = model.ground(inputs.pixel_values, phrases=texts)
    assert torch.equal(boxes, model.ground(inputs.pixel_values, texts))
    with pytest.raises(TypeError, match="got text_embeds and phrases, which are one argument"):
        model.ground(inputs.pixel_values, phrases=texts, text_embeds=texts)
    batch = {
        "caption_ids": inputs.input_ids[:2], "caption_attention": inputs.attention_mask[:2], "boxes": inputs.boxes,
        "boxes_mask": inputs.boxes_mask, "phrase_ids": inputs.input_ids, "phrase_attention": inputs.attention_mask,
        "phrase_of_region": torch.arange(3), "unique_in_image": torch.ones(3, dtype=torch.bool),
    }  # fmt: skip
    with pytest.warns(FutureWarning, match=r"a training batch for ClocModel .* use cloc.ClocForPreTraining"):
        outputs = model(inputs.pixel_values, **batch)
    again = cloc.ClocForPreTraining(model.config).eval()
    again.load_state_dict(model.state_dict())
    assert torch.equal(outputs.region_embeds, again(inputs.pixel_values, **batch).region_embeds)


def test_what_was_trained_is_saved_as_the_class_that_users_load(spine_model, detector_config, tmp_path):
    made = spine_model(), cloc.ClocDetectorForPreTraining(detector_config())
    assert type(made[0]) is cloc.ClocForPreTraining
    for model, name in zip(made, ("ClocModel", "ClocForObjectDetection"), strict=True):
        model.save_pretrained(tmp_path / name)
        config = cloc.ClocConfig.from_pretrained(tmp_path / name)
        assert config.architectures == [name]
        plain = getattr(cloc, name)(config)
        assert list(plain.state_dict()) == list(model.state_dict())
