import numpy as np
import pytest

from cloc.boxes import area, as_boxes, clip_to_image, iou, paired_iou, xywh_to_xyxy, xyxy_to_xywh


def random_boxes(count, seed):
    corner = np.random.default_rng(seed).uniform(0, 50, (count, 2))
    return np.concatenate([corner, corner + np.random.default_rng(seed + 1).uniform(1, 30, (count, 2))], axis=1)


def test_formats_go_round():
    boxes_xyxy = random_boxes(20, 0)
    np.testing.assert_allclose(xywh_to_xyxy(xyxy_to_xywh(boxes_xyxy)), boxes_xyxy, atol=1e-12)
    assert xywh_to_xyxy([[10, 20, 3, 4]]).tolist() == [[10, 20, 13, 24]]


def test_iou_by_hand():
    boxes, others = [[0, 0, 2, 2], [0, 0, 1, 1]], [[1, 1, 3, 3], [0, 0, 2, 2], [5, 5, 6, 6]]
    np.testing.assert_allclose(iou(boxes, others), [[1 / 7, 1, 0], [0, 1 / 4, 0]])


def test_iou_does_not_change_when_image_and_boxes_are_flipped():
    a, b = random_boxes(6, 2), random_boxes(7, 4)

    def flip(boxes):
        return np.stack([100 - boxes[:, 2], boxes[:, 1], 100 - boxes[:, 0], boxes[:, 3]], axis=1)

    np.testing.assert_allclose(iou(flip(a), flip(b)), iou(a, b), atol=1e-12)


def test_paired_iou_is_the_diagonal():
    a, b = random_boxes(9, 6), random_boxes(9, 7)
    np.testing.assert_allclose(paired_iou(a, b), np.diag(iou(a, b)))


def test_empty_and_degenerate_boxes():
    assert as_boxes([]).shape == (0, 4)
    assert iou([], [[0, 0, 1, 1]]).shape == (0, 1)
    assert iou([[1, 1, 1, 1]], [[1, 1, 1, 1]]).tolist() == [[0.0]]
    assert area([[0, 0, -3, -2], [0, 0, 2, 3]]).tolist() == [0.0, 6.0]


def test_clip_to_image():
    assert clip_to_image([[-3, 2, 9, 30], [50, 50, 60, 60]], 8, 20).tolist() == [[0, 2, 8, 20], [8, 20, 8, 20]]


def test_wrong_shapes_are_refused():
    with pytest.raises(ValueError, match=r"expected shape \(K, 4\), got \(4,\).*one list of four numbers"):
        as_boxes([1, 2, 3, 4])
    with pytest.raises(ValueError, match="two arrays of one shape"):
        paired_iou([[0, 0, 1, 1]], [])
