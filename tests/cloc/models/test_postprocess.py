import math

import pytest
import torch

from cloc.models.detector.postprocess import nms_within, select_detections


def iou(a, b):
    w, h = max(0.0, min(a[2], b[2]) - max(a[0], b[0])), max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    return w * h / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - w * h)


def cut(box, extent):
    return [max(0.0, box[0]), max(0.0, box[1]), min(box[2], extent[0]), min(box[3], extent[1])]


def plain(logits, boxes, centerness, sizes, limit, threshold, overlap, per_level, extent=(1.0, 1.0)):
    """Every (anchor, concept) pair in one list."""
    boxes = [cut(box, extent) for box in boxes]

    def share(value):
        return 1 / (1 + math.exp(-value))

    pairs, start = [], 0
    for size in sizes:
        level = [
            (math.sqrt(share(logits[k][c]) * share(centerness[k])), k, c)
            for k in range(start, start + size)
            for c in range(len(logits[k]))
        ]
        pairs += [pair for pair in sorted(level, reverse=True)[:per_level] if pair[0] > threshold]
        start += size
    kept = []
    for pair in sorted(pairs, reverse=True):
        if boxes[pair[1]][0] >= boxes[pair[1]][2] or boxes[pair[1]][1] >= boxes[pair[1]][3]:
            continue
        if not any(pair[2] == other[2] and iou(boxes[pair[1]], boxes[other[1]]) > overlap for other in kept):
            kept.append(pair)
    return kept[:limit] if limit else kept


def inputs(anchors, concepts, seed=0):
    generator = torch.Generator().manual_seed(seed)
    low = torch.rand(anchors, 2, generator=generator) * 1.4 - 0.4
    boxes = torch.cat([low, low + 0.1 + torch.rand(anchors, 2, generator=generator) * 0.3], dim=1)
    return torch.randn(anchors, concepts, generator=generator) * 2, boxes, torch.randn(anchors, generator=generator)


@pytest.mark.parametrize(("limit", "threshold", "per_level"), [(300, 0.05, 1000), (7, 0.3, 15), (0, 0.6, 40)])
@pytest.mark.parametrize(("concepts", "extent"), [(1, (1.0, 1.0)), (6, (1.0, 1.0)), (6, (0.7, 0.4))])
def test_agrees_with_the_plain_loop(concepts, extent, limit, threshold, per_level, monkeypatch):
    monkeypatch.setattr("cloc.models.detector.postprocess.MAX_ENTRIES", 50)  # so that chunks are many
    logits, boxes, centerness = inputs(90, concepts)
    found = select_detections(
        logits.__getitem__, concepts, boxes, centerness, [60, 25, 5],
        limit=limit, threshold=threshold, iou_threshold=0.4, per_level=per_level, extent=extent,
    )  # fmt: skip
    expected = plain(
        logits.tolist(), boxes.tolist(), centerness.tolist(), [60, 25, 5], limit, threshold, 0.4, per_level, extent
    )
    assert len(expected) > 2
    assert found[1].tolist() == pytest.approx([score for score, _, _ in expected], abs=1e-6)
    assert found[2].tolist() == [label for _, _, label in expected]
    torch.testing.assert_close(found[0], torch.tensor([cut(boxes[k].tolist(), extent) for _, k, _ in expected]))


def test_what_differs_beyond_the_border_only_is_one_detection():
    boxes = torch.tensor([[0.0, 0.0, 0.5, 0.5], [-3.0, -3.0, 0.5, 0.5], [0.0, 0.0, 0.9, 0.9], [0.6, 0.0, 0.9, 0.5]])
    settings = {"threshold": 0.0, "limit": 0, "extent": (0.5, 0.5)}
    logits = torch.tensor([[1.0], [2.0], [3.0], [9.0]])
    found = select_detections(logits.__getitem__, 1, boxes, torch.zeros(4), [4], **settings)
    assert found[0].tolist() == [[0.0, 0.0, 0.5, 0.5]]
    settings["extent"] = (1.0, 1.0)
    assert len(select_detections(logits.__getitem__, 1, boxes, torch.zeros(4), [4], **settings)[1]) == 3


def test_no_concepts_and_nothing_above_the_threshold():
    logits, boxes, centerness = inputs(10, 3)
    for concepts, threshold in ((0, 0.0), (3, 0.999)):
        found = select_detections(
            logits[:, :concepts].__getitem__, concepts, boxes, centerness, [10], threshold=threshold
        )
        assert [tuple(part.shape) for part in found] == [(0, 4), (0,), (0,)]


def test_boxes_of_different_concepts_never_suppress_each_other_however_many_there_are():
    box = torch.tensor([[0.1, 0.1, 0.5, 0.5]]).expand(20_000, 4)
    kept = nms_within(box, torch.linspace(1, 0.1, 20_000), torch.arange(20_000), 0.6)
    assert torch.equal(kept, torch.arange(20_000))
    near = torch.tensor([[0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 1.0, 0.61], [0.0, 0.0, 1.0, 0.59]])
    assert nms_within(near, torch.tensor([0.9, 0.8, 0.7]), torch.tensor([19_999] * 3), 0.6).tolist() == [0, 2]
