import numpy as np
import pytest
import torch
from transformers import AutoProcessor, LlavaImageProcessor

import cloc
from cloc.images import Placement


@pytest.fixture
def processor(spine_export):
    return AutoProcessor.from_pretrained(spine_export())


def test_it_comes_back_from_an_export(processor):
    assert type(processor) is cloc.ClocProcessor
    assert isinstance(processor.image_processor, LlavaImageProcessor)
    assert processor.tokenizer.model_max_length == 16


def test_boxes_go_in_and_come_out(processor, spine_picture):
    sizes = [(90, 60), (31, 64), (40, 40)]
    boxes_xyxy = [np.array([[1.0, 2.0, 50.0, 60.0], [80, 10, 90, 20]]), np.zeros((0, 4)), np.array([[0.0, 0, 40, 40]])]
    inputs = processor(images=[spine_picture(*size) for size in sizes], boxes=boxes_xyxy)
    assert inputs["pixel_values"].shape == (3, 3, 32, 32)
    assert inputs["boxes"].shape == (3, 2, 4)
    assert inputs["boxes"].dtype == torch.float32
    assert inputs["boxes_mask"].tolist() == [[True, True], [False, False], [True, False]]
    np.testing.assert_allclose(inputs["boxes"][0], Placement(90, 60).to_canvas(boxes_xyxy[0]), atol=1e-6)
    back = processor.post_process_boxes(inputs["boxes"], [(height, width) for width, height in sizes])
    np.testing.assert_allclose(back[0], boxes_xyxy[0], atol=1e-3)
    np.testing.assert_allclose(back[2][:1], boxes_xyxy[2], atol=1e-3)


def test_one_image_and_one_text(processor, spine_picture):
    inputs = processor(images=spine_picture(40, 30), text="a red cat", boxes=[[[0, 0, 4, 4]]])
    assert inputs["input_ids"].shape == inputs["attention_mask"].shape == (1, 5)
    assert inputs["boxes_mask"].tolist() == [[True]]


def test_texts_are_padded_to_the_longest_and_cut(processor):
    inputs = processor(text=["cat", "a very " * 40 + "long text"])
    assert inputs["input_ids"].shape == (2, 16)
    assert inputs["input_ids"][1, -1] == processor.tokenizer.eos_token_id
    assert inputs["attention_mask"].sum(dim=1).tolist() == [3, 16]


def test_padding_does_not_change_a_text(processor, spine_model):
    model = spine_model().eval()
    with torch.no_grad():
        alone = model.get_text_features(**processor(text=["red cat"]))
        padded = model.get_text_features(**processor(text=["red cat", "a much longer text about a dog"]))
    torch.testing.assert_close(alone[0], padded[0], rtol=1e-5, atol=1e-6)


def test_wrong_calls_are_refused(processor, spine_picture):
    with pytest.raises(ValueError, match="expected images, text or both, got neither"):
        processor()
    with pytest.raises(ValueError, match="got 2 lists and 1 images"):
        processor(images=[spine_picture(8, 8)], boxes=[[], []])
    with pytest.raises(ValueError, match="no images"):
        processor(text="a", boxes=[[]])
    with pytest.raises(ValueError, match=r"expected shape \(K, 4\)"):
        processor(images=[spine_picture(8, 8)], boxes=[[1, 2, 3, 4]])
    with pytest.raises(ValueError, match="for each of 2 images, got 1"):
        processor.post_process_boxes(torch.zeros(2, 1, 4), [(3, 3)])
