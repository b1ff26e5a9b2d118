import logging

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoModelForZeroShotObjectDetection, AutoProcessor, pipeline

import cloc
from cloc.models.modeling import ClocModel
from cloc.structures import DetectionOutputs

NAMES = ["cat", "dog", "a red ball"]


@pytest.fixture
def saved(detector_model, detector_processor, tmp_path):
    """A tiny detector, its processor and the folder that holds both."""
    model, processor = detector_model().eval(), detector_processor()
    model.save_pretrained(tmp_path / "export")
    processor.save_pretrained(tmp_path / "export")
    return model, processor, tmp_path / "export"


def test_one_folder_is_detector_encoder_and_tower(saved, caplog):
    model, _, folder = saved
    state = model.state_dict()
    with caplog.at_level(logging.WARNING):
        for loader, kind in (
            (AutoModelForZeroShotObjectDetection, cloc.ClocForObjectDetection),
            (AutoModel, ClocModel),
            (cloc.ClocVisionModel, cloc.ClocVisionModel),
        ):
            loaded = loader.from_pretrained(folder)
            assert type(loaded) is kind
            inside = "vision." if kind is cloc.ClocVisionModel else ""
            for name, value in loaded.state_dict().items():
                assert torch.equal(value, state[inside + name]), name
    assert not [record for record in caplog.records if "UNEXPECTED" in record.message or "MISSING" in record.message]


def test_an_encoder_without_detector_says_so(detector_config):
    config = detector_config()
    config.detector_config = None
    with pytest.raises(ValueError, match="no detector_config: the folder is an encoder without a detector"):
        cloc.ClocForObjectDetection(config)


def test_detect_is_forward_and_post_processing(saved, spine_picture):
    model, processor, _ = saved
    image = spine_picture(50, 40)
    found = model.detect([image], NAMES, processor, limit=20, threshold=0.0)[0]
    with torch.no_grad():
        outputs = model(**processor.detection_images()(image), **processor(text=NAMES))
    assert isinstance(outputs, DetectionOutputs)
    named = processor.post_process_grounded_object_detection(outputs, 0.0, [(40, 50)], NAMES, limit=20)[0]
    nested = processor.post_process_grounded_object_detection(outputs, 0.0, [(40, 50)], [NAMES], limit=20)[0]
    assert nested["text_labels"] == named["text_labels"]
    np.testing.assert_allclose(found["boxes"], named["boxes"].numpy(), atol=1e-3)
    np.testing.assert_allclose(found["scores"], named["scores"].numpy(), atol=1e-6)
    assert named["text_labels"] == [NAMES[row] for row in found["labels"]]
    assert found["boxes"].dtype == np.float64
    assert found["labels"].dtype == np.int64
    assert (np.diff(found["scores"]) <= 0).all()
    assert found["boxes"].min() >= 0
    assert (found["boxes"].max(axis=0) <= [50, 40, 50, 40]).all()


@pytest.mark.parametrize("size", [(1, 1), (10_000, 3), (3, 10_000), (97, 31)])
@pytest.mark.parametrize("tower", ["vit", "swin"])
def test_images_of_any_size(detector_model, detector_processor, spine_picture, size, tower):
    model, processor = detector_model(tower), detector_processor()
    found = model.detect([spine_picture(*size)], NAMES, processor, threshold=0.0)[0]
    assert 0 < len(found["scores"]) <= 300
    assert (found["boxes"] <= [*size, *size]).all()
    assert np.isfinite(found["boxes"]).all()


def test_no_image_no_concept(saved, spine_picture):
    model, processor, _ = saved
    assert model.detect([], NAMES, processor) == []
    found = model.detect([spine_picture(20, 20)], [], processor)[0]
    assert found["boxes"].shape == (0, 4)


def test_concepts_are_embedded_once_until_the_weights_change(saved, spine_picture, monkeypatch):
    model, processor, _ = saved
    calls, embed = [], model.embed_concepts
    monkeypatch.setattr(model, "embed_concepts", lambda *tokens: calls.append(len(tokens[0])) or embed(*tokens))
    images = [spine_picture(30, 20, seed) for seed in range(3)]
    first = model.detect(images, NAMES, processor, threshold=0.0)
    model.detect(images[:1], NAMES, processor)
    assert calls == [3]
    model.detect(images[:1], NAMES[:2], processor)
    assert calls == [3, 2]
    optimizer = torch.optim.AdamW(model.text_projection.parameters(), lr=0.5)
    model.text_projection.weight.grad = torch.ones_like(model.text_projection.weight)
    optimizer.step()
    second = model.detect(images, NAMES, processor, threshold=0.0)
    assert calls == [3, 2, 3]
    assert not np.allclose(first[0]["scores"], second[0]["scores"])


def test_many_concepts_in_pieces_are_as_at_once(saved, monkeypatch):
    model, processor, _ = saved
    names = [f"thing number {n}" for n in range(9)]
    tokens = processor(text=names)
    with torch.no_grad():
        at_once = model.embed_concepts(tokens["input_ids"], tokens["attention_mask"])
    monkeypatch.setattr("cloc.models.detection.TEXT_ROWS", 4)
    torch.testing.assert_close(model.embed_concept_names(names, processor), at_once)


def test_a_long_concept_is_cut_as_the_tokenizer_cuts_it(saved):
    model, processor, _ = saved
    names = ["a dog", "a very long story of a dog that walked to the far away sea and came back"]
    long = processor(text=names)
    assert long["input_ids"].shape[1] > 8
    short = processor.tokenizer(names, padding=True, truncation=True, max_length=8, return_tensors="pt")
    with torch.no_grad():
        found = model.embed_concepts(long["input_ids"], long["attention_mask"])
        torch.testing.assert_close(found, model.embed_concepts(short["input_ids"], short["attention_mask"]))
        alone = processor(text=names[1:])
        torch.testing.assert_close(found[1:], model.embed_concepts(alone["input_ids"]))


@pytest.mark.parametrize("normalize", [False, True])
def test_logits_are_scaled_similarities(detector_model, concept_batch, normalize):
    model, batch = detector_model(normalize=normalize), concept_batch()
    outputs = model(batch.pixel_values, batch.concept_ids, batch.concept_attention)
    for image in range(2):
        similarity = outputs.class_features[image] @ outputs.text_embeds.T
        torch.testing.assert_close(outputs.logits[image], similarity * outputs.logit_scale + outputs.logit_bias)
    if normalize:
        torch.testing.assert_close(outputs.text_embeds.norm(dim=1), torch.ones(5))
    given = model(batch.pixel_values, text_embeds=outputs.text_embeds)
    torch.testing.assert_close(given.logits, outputs.logits)
    assert model(batch.pixel_values, text_embeds=outputs.text_embeds, with_logits=False).logits is None
    with pytest.raises(ValueError, match="pass exactly one"):
        model(batch.pixel_values)


def test_images_of_a_batch_do_not_see_each_other(detector_model, concept_batch):
    model, batch = detector_model().eval(), concept_batch(images=3)
    both = model(batch.pixel_values, batch.concept_ids)
    alone = model(batch.pixel_values[1:2], batch.concept_ids)
    torch.testing.assert_close(both.logits[1:2], alone.logits, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(both.pred_boxes[1:2], alone.pred_boxes, atol=1e-4, rtol=1e-4)


def test_captions_come_from_the_same_tower_run(detector_config, concept_batch):
    model, batch = cloc.ClocDetectorForPreTraining(detector_config()).eval(), concept_batch(size=(32, 32))
    runs = []
    model.vision.tower.register_forward_hook(lambda *answer: runs.append(1))
    outputs = model(batch.pixel_values, batch.concept_ids, caption_ids=batch.concept_ids[:2])
    assert len(runs) == 1
    torch.testing.assert_close(outputs.image_embeds, model.get_image_features(batch.pixel_values))
    torch.testing.assert_close(outputs.caption_embeds, model.get_text_features(batch.concept_ids[:2]))
    assert outputs.image_logit_scale == model.scales()[0]


def test_region_inputs_are_a_step_of_cloc(detector_config, concept_batch):
    model, batch = cloc.ClocDetectorForPreTraining(detector_config()).eval(), concept_batch(size=(32, 32))
    owner = batch.boxes_mask.nonzero()[:, 0]
    inputs = {
        "caption_ids": batch.concept_ids[:2],
        "caption_attention": batch.concept_attention[:2],
        "boxes": batch.boxes,
        "boxes_mask": batch.boxes_mask,
        "phrase_ids": batch.concept_ids,
        "phrase_attention": batch.concept_attention,
        "phrase_of_region": batch.label_concept,
        "unique_in_image": torch.ones(len(owner), dtype=torch.bool),
    }
    found = model(batch.pixel_values, region_inputs=inputs)
    plain = cloc.ClocForPreTraining.forward(model, batch.pixel_values, **inputs)
    assert type(found) is type(plain)
    torch.testing.assert_close(found.region_embeds, plain.region_embeds)


def test_processor_keeps_both_canvases(saved, spine_picture):
    _, _, folder = saved
    processor = AutoProcessor.from_pretrained(folder)
    image = spine_picture(50, 40)
    assert processor(images=image)["pixel_values"].shape == (1, 3, 32, 32)
    two = processor.detection_images()([image, spine_picture(30, 60)])["pixel_values"]
    assert two.shape == (2, 3, 128, 128)
    assert not two[0, :, 96:].any()  # the padding is the mean colour
    assert processor.detection_images().detection_divisor == 32


def test_what_lies_on_the_padding_alone_is_no_detection(saved):
    _, processor, _ = saved
    boxes = torch.tensor([[0.1, 0.1, 0.5, 0.5], [0.9, 0.1, 0.99, 0.5], [0.7, 0.7, 0.99, 0.99]])
    pixels, real = processor.detection_images().to_pixels(boxes, (128, 128), 40, 50)  # 96 x 120 pixels on the canvas
    assert real.tolist() == [True, False, True]
    np.testing.assert_allclose(pixels[1], [0.7 * 128 / 2.4, 0.7 * 128 / 2.4, 40.0, 50.0], atol=1e-4)


def test_detect_leaves_training_as_it_was(detector_model, detector_processor, spine_picture):
    model = detector_model().train()
    first = model.detect([spine_picture(20, 20)], NAMES, detector_processor(), threshold=0.0)
    assert model.training
    again = model.eval().detect([spine_picture(20, 20)], NAMES, detector_processor(), threshold=0.0)
    assert not model.training
    np.testing.assert_array_equal(first[0]["scores"], again[0]["scores"])


def test_the_wrong_processor_or_sizes_are_named(saved, spine_picture):
    model, processor, _ = saved
    from cloc.models.processing import image_processor

    plain = cloc.ClocProcessor(image_processor(32), processor.tokenizer)
    with pytest.raises(ValueError, match="no detection canvas: its export has no detector"):
        model.detect([spine_picture(9, 9)], NAMES, plain)
    outputs = model(**processor.detection_images()(spine_picture(9, 9)), **processor(text=NAMES))
    with pytest.raises(ValueError, match=r"target_sizes: expected one .* for each of 1 images, got 2"):
        processor.post_process_grounded_object_detection(outputs, 0.1, [(9, 9)] * 2)
    with pytest.raises(ValueError, match=r"text_labels: expected \[3\] names for the images, got \[1\]"):
        processor.post_process_grounded_object_detection(outputs, 0.1, [(9, 9)], ["cat"])
    outputs.logits = None
    with pytest.raises(ValueError, match="expected outputs with logits"):
        processor.post_process_grounded_object_detection(outputs, 0.1, [(9, 9)])
    with pytest.raises(ValueError, match="expected at least one image"):
        processor.detection_images()([])


def test_the_zero_shot_pipeline_of_transformers(saved, spine_picture):
    model, processor, folder = saved
    image = spine_picture(60, 40)
    found = pipeline("zero-shot-object-detection", model=str(folder), device="cpu")(
        image, candidate_labels=NAMES[:2], threshold=0.01
    )
    expected = model.detect([image], NAMES[:2], processor, limit=0, threshold=0.01)[0]
    assert len(found) == len(expected["scores"]) > 0
    assert [one["label"] for one in found[:5]] == [NAMES[row] for row in expected["labels"][:5]]
    assert [one["score"] for one in found] == pytest.approx(expected["scores"].tolist(), abs=1e-5)
    x0, y0, x1, y1 = expected["boxes"][0]
    assert [found[0]["box"][side] for side in ("xmin", "ymin", "xmax", "ymax")] == [int(v) for v in (x0, y0, x1, y1)]


def test_what_the_processor_gives_goes_into_the_detector(saved, spine_picture):
    model, processor, _ = saved
    images = [spine_picture(50, 40), spine_picture(30, 60)]
    inputs = processor(images=images, text=NAMES, canvas="detection")
    with torch.no_grad():
        outputs = model(**inputs)
    assert type(outputs) is DetectionOutputs
    found = processor.post_process_grounded_object_detection(outputs, 0.0, [(40, 50), (60, 30)], NAMES)
    assert [len(one["scores"]) for one in found] == [len(one["boxes"]) for one in found]
    assert torch.equal(inputs.pixel_values, processor.detection_images()(images).pixel_values)
    array = np.asarray(images[0])
    assert torch.equal(
        processor.detection_images()(array).pixel_values, processor.detection_images()(images[0]).pixel_values
    )
    one, other = model.detect(images[0], NAMES, processor), model.detect([array], NAMES, processor)
    np.testing.assert_array_equal(one[0]["boxes"], other[0]["boxes"])


def test_the_square_canvas_and_prompts_are_none_of_the_detectors(saved, spine_picture):
    model, processor, _ = saved
    with torch.no_grad():
        outputs = model(**processor(images=spine_picture(50, 40), text=NAMES))
    with pytest.raises(ValueError, match=r"on a canvas of 128 x 96 pixels, .* 32 x 32; .* canvas=\"detection\""):
        processor.post_process_grounded_object_detection(outputs, 0.0, [(40, 50)])
    with pytest.raises(ValueError, match=r"boxes: .* the detection canvas, on which the Prompter is not asked"):
        processor(images=spine_picture(50, 40), boxes=[[0, 0, 9, 9]], canvas="detection")
    with pytest.raises(ValueError, match="canvas: expected square or detection, got 'round'"):
        processor(images=spine_picture(50, 40), canvas="round")


def test_deprecated_score_threshold(saved, spine_picture):
    model, processor, _ = saved
    with pytest.warns(FutureWarning, match=r"detect\(score_threshold=...\) is deprecated.*use threshold="):
        old = model.detect([spine_picture(50, 40)], NAMES, processor, score_threshold=0.2)
    new = model.detect([spine_picture(50, 40)], NAMES, processor, threshold=0.2)
    np.testing.assert_array_equal(old[0]["scores"], new[0]["scores"])
