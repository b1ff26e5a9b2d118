import math

import pytest
import torch

from cloc.losses.localisation import compute_centerness, localisation


def giou(a, b):
    w, h = max(0.0, min(a[2], b[2]) - max(a[0], b[0])), max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - w * h
    hull = (max(a[2], b[2]) - min(a[0], b[0])) * (max(a[3], b[3]) - min(a[1], b[1]))
    return w * h / union - (hull - union) / hull


def centred(anchor, box):
    x, y = (anchor[0] + anchor[2]) / 2, (anchor[1] + anchor[3]) / 2
    left, right, top, bottom = x - box[0], box[2] - x, y - box[1], box[3] - y
    if min(left, right, top, bottom) <= 0:
        return 0.0
    return math.sqrt(min(left, right) / max(left, right) * min(top, bottom) / max(top, bottom))


def boxes(count, seed):
    generator = torch.Generator().manual_seed(seed)
    low = torch.rand(count, 2, generator=generator, dtype=torch.float64) * 50
    return torch.cat([low, low + 5 + torch.rand(count, 2, generator=generator, dtype=torch.float64) * 60], dim=1)


@pytest.mark.parametrize("count", [0, 1, 7, 500])
def test_agrees_with_the_plain_loop(count):
    predicted, anchors, truth = boxes(count, 1), boxes(count, 2), boxes(count, 3)
    logits = torch.linspace(-2, 2, count, dtype=torch.float64)
    forced = torch.arange(count) % 5 == 4
    found = localisation(predicted, logits, anchors, truth, forced, positives=count)
    targets = [1.0 if f else centred(a, t) for a, t, f in zip(anchors.tolist(), truth.tolist(), forced, strict=True)]
    losses = [1 - giou(p, t) for p, t in zip(predicted.tolist(), truth.tolist(), strict=True)]
    weighted = sum(w * v for w, v in zip(targets, losses, strict=True)) / max(sum(targets), 1e-12)
    share = torch.sigmoid(logits).tolist()
    entropy = [-t * math.log(s) - (1 - t) * math.log(1 - s) for t, s in zip(targets, share, strict=True)]
    assert float(found.giou) == pytest.approx(weighted, abs=1e-7)  # torchvision adds 1e-7 to each union
    assert float(found.centerness) == pytest.approx(sum(entropy) / max(count, 1), abs=1e-10)


def test_a_perfect_box_costs_nothing_and_a_far_one_almost_two():
    truth = torch.tensor([[10.0, 10.0, 30.0, 20.0]], dtype=torch.float64)
    still, none = torch.zeros(1, dtype=torch.float64), torch.zeros(1, dtype=torch.bool)
    perfect = localisation(truth, still, truth, truth, none, 1)
    assert float(perfect.giou) == pytest.approx(0.0, abs=1e-8)
    assert float(perfect.mean_iou) == pytest.approx(1.0)
    assert float(perfect.centerness) == pytest.approx(math.log(2))
    far = localisation(truth + 1e4, still, truth, truth, none, 1)
    assert float(far.giou) == pytest.approx(2.0, abs=1e-3)


def test_centerness_by_hand():
    box = torch.tensor([[0.0, 0.0, 8.0, 4.0]]).expand(4, 4)
    centres = torch.tensor([[4.0, 2.0], [2.0, 2.0], [2.0, 1.0], [9.0, 2.0]])
    found = compute_centerness(torch.cat([centres - 1, centres + 1], dim=1), box)
    assert found.tolist() == pytest.approx([1.0, math.sqrt(1 / 3), 1 / 3, 0.0])


def test_gradient_reaches_boxes_and_centerness():
    truth, anchors = boxes(6, 1), boxes(6, 1)
    predicted = (truth + 1).requires_grad_()
    logits = torch.zeros(6, dtype=torch.float64, requires_grad=True)
    found = localisation(predicted, logits, anchors, truth, torch.zeros(6, dtype=torch.bool), 6)
    assert torch.autograd.grad(found.giou, predicted)[0].abs().min() > 0
    assert torch.autograd.grad(found.centerness, logits)[0].abs().min() > 0
