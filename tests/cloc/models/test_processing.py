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
        processor(images=[spine_picture(8, 8)], boxes=[[1, 2, 3]])
    with pytest.raises(ValueError, match="for each of 2 images, got 1"):
        processor.post_process_boxes(torch.zeros(2, 1, 4), [(3, 3)])


def test_images_of_pillow_numpy_and_torch_are_one(processor, spine_picture):
    picture = spine_picture(50, 40)
    array = np.asarray(picture)
    expected = processor(images=picture)["pixel_values"]
    planes = torch.from_numpy(array.copy()).permute(2, 0, 1)
    for other in (
        array,
        [array],
        array[None],
        planes,
        planes[None],
        planes / 255,
        (planes / 255).double(),
        array / 255,
    ):
        assert torch.equal(processor(images=other)["pixel_values"], expected)
    both = processor(images=[picture, planes], boxes=[torch.tensor([[0.0, 0, 50, 40]]), np.array([[5, 5, 45, 35]])])
    assert both["pixel_values"].shape == (2, 3, 32, 32)
    assert both["boxes_mask"].all()
    for wrong in (array[..., :2], array - 300.0, array * 1.001, "photo.jpg"):
        with pytest.raises(ValueError, match=r"images: expected images of Pillow, or arrays or tensors \(H, W, 3\)"):
            processor(images=wrong)


def test_the_prompts_of_one_image_need_no_list_around_them(processor, spine_picture):
    picture, boxes = spine_picture(50, 40), [(0, 0, 20, 30), (10, 10, 50, 40)]
    points, mask = [(3, 4), (20, 30)], np.zeros((40, 50), dtype=bool)
    mask[:9, :9] = True
    nested = processor(images=picture, boxes=[boxes], points=[points], masks=[[mask]])
    for own in (list, np.array, torch.tensor):
        alone = processor(images=[picture], boxes=own(boxes), points=own(points), masks=[mask])
        assert all(torch.equal(alone[name], value) for name, value in nested.items())
    assert processor(images=picture, boxes=[[]])["boxes"].shape == (1, 0, 4)
    with pytest.raises(ValueError, match="boxes: expected one list for each image, got 2 lists and 3 images"):
        processor(images=[picture] * 3, boxes=boxes)


@pytest.mark.parametrize(
    ("box", "message"),
    [
        ((20, 10, 5, 30), r"box 1 of image 0, \(20, 10, 5, 30\), .* or has no area; .* x0 < x1 and y0 < y1"),
        ((20, 10, 20, 30), "or has no area"),
        ((10, 10, 60, 20), r"lies outside its image of 50 x 40 pixels; expected x0, y0, x1, y1 in pixels"),
        ((-3, 0, 20, 20), "lies outside its image"),
        ((float("nan"), 0, 20, 20), "lies outside its image"),
    ],
)
def test_boxes_that_are_none_of_their_image_are_refused(box, message, processor, spine_picture):
    with pytest.raises(ValueError, match=message):
        processor(images=spine_picture(50, 40), boxes=[(0, 0, 20, 30), box])
    rounded = processor(images=spine_picture(50, 40), boxes=[(-0.5, 0, 50.7, 40)])
    assert rounded["boxes_mask"].all()


def test_boxes_in_shares_of_the_image_are_refused(processor, spine_picture):
    with pytest.raises(ValueError, match=r"pixels of the original image, got values of at most 0.9, as if in \[0, 1\]"):
        processor(images=[spine_picture(50, 40)] * 2, boxes=[[(0.1, 0.1, 0.5, 0.9)], []])
    small = processor(images=[spine_picture(50, 40)] * 2, boxes=[[(0, 0, 1, 1)], [(0, 0, 9, 9)]])
    assert small["boxes_mask"].all()


def test_texts_are_padded_and_cut_as_asked(processor):
    texts = ["cat", "a very " * 40 + "long text"]
    assert processor(text=texts, max_length=8)["input_ids"].shape == (2, 8)
    assert processor(text="cat", padding="max_length")["input_ids"].shape == (1, 16)
    assert processor(text="cat", padding="max_length", max_length=7)["input_ids"].shape == (1, 7)
    assert processor(text=texts[1], padding=False, truncation=False)["input_ids"].shape[1] > 16


def test_deprecated_image_sizes(processor):
    boxes = torch.tensor([[[0.0, 0.0, 1.0, 1.0]]])
    with pytest.warns(FutureWarning, match=r"post_process_boxes\(image_sizes=...\) is deprecated.*use target_sizes="):
        old = processor.post_process_boxes(boxes, image_sizes=[(30, 40)])
    np.testing.assert_array_equal(old, processor.post_process_boxes(boxes, target_sizes=torch.tensor([[30, 40]])))
