import math

import pytest
import torch

from cloc.losses.localisation import objectness_loss

CLOSE = {"rtol": 1e-9, "atol": 1e-9}


def overlap(a, b):
    w, h = max(0.0, min(a[2], b[2]) - max(a[0], b[0])), max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    return w * h / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - w * h)


def plain(kind, logits, place, predicted, boxes, positives, alpha=0.25, gamma=2.0):
    """One place at a time."""
    total = logits.sum() * 0.0
    if kind == "foreground":
        wanted = set(place.tolist())
        for row, logit in enumerate(logits):
            true = row in wanted
            sure = torch.sigmoid(logit if true else -logit)
            total = total - (alpha if true else 1 - alpha) * (1 - sure) ** gamma * sure.log()
    else:
        for row, a, b in zip(place.tolist(), predicted.tolist(), boxes.tolist(), strict=True):
            share, target = torch.sigmoid(logits[row]), overlap(a, b)
            total = total - target * share.log() - (1 - target) * (1 - share).log()
    return total / max(positives, 1)


def boxes(count, seed):
    generator = torch.Generator().manual_seed(seed)
    low = torch.rand(count, 2, generator=generator, dtype=torch.float64) * 20
    return torch.cat([low, low + 5 + torch.rand(count, 2, generator=generator, dtype=torch.float64) * 60], dim=1)


@pytest.mark.parametrize("kind", ["foreground", "iou"])
@pytest.mark.parametrize(("places", "positives"), [(40, 7), (1, 1), (500, 500), (9, 0), (0, 0)])
def test_agrees_with_the_plain_loop(kind, places, positives):
    generator = torch.Generator().manual_seed(places)
    logits = (2 * torch.randn(places, generator=generator, dtype=torch.float64)).requires_grad_()
    place = torch.randperm(places, generator=generator)[:positives].sort().values
    predicted = boxes(positives, 1).requires_grad_()
    args = (kind, logits, place, predicted, boxes(positives, 2), positives + 3)
    found, expected = objectness_loss(*args), plain(*args)
    torch.testing.assert_close(found, expected, **CLOSE)
    one, other = torch.autograd.grad(found, logits)[0], torch.autograd.grad(expected, logits)[0]
    torch.testing.assert_close(one, other, **CLOSE)
    assert not objectness_loss(*args).grad_fn or torch.autograd.grad(
        objectness_loss(*args), predicted, allow_unused=True
    ) == (None,)


def test_by_hand():
    """Three places at even odds; the second answers for a box that its own box half covers."""
    still, place = torch.zeros(3), torch.tensor([1])
    half, whole = torch.tensor([[0.0, 0.0, 4.0, 2.0]]), torch.tensor([[0.0, 0.0, 4.0, 4.0]])
    foreground = objectness_loss("foreground", still, place, half, whole, 1)
    assert float(foreground) == pytest.approx((0.25 + 2 * 0.75) * 0.25 * math.log(2))
    sure = torch.tensor([0.0, math.log(3), 0.0])
    iou = objectness_loss("iou", sure, place, half, whole, 1)
    assert float(iou) == pytest.approx(-(math.log(0.75) + math.log(0.25)) / 2)
