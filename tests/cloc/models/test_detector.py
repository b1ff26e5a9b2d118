import math

import pytest
import torch
from torch.nn import functional as F

from cloc.models.detector.anchors import MAX_LOG_RATIO, decode, encode, make_anchors
from cloc.models.detector.atss import AtssDetector, init_weights
from cloc.models.detector.deformable import DeformableConv
from cloc.models.detector.head import AtssHead
from cloc.models.detector.pyramid import Pyramid

SWIN = ((4, 8), (8, 16), (16, 32), (32, 64))


def maps_of(spec, width, height, images=2):
    return [torch.randn(images, c, math.ceil(height / s), math.ceil(width / s)) for s, c in spec]


@pytest.mark.parametrize(
    ("spec", "strides"),
    [
        (SWIN, (8, 16, 32, 64, 128)),
        (SWIN, (4, 8, 16, 32)),
        (SWIN, (8, 16)),  # the coarser stages reach these through the top-down path
        (SWIN, (2, 4, 8)),
        (((16, 32),), (4, 8, 16, 32, 64)),
        (((14, 32),), (7, 14, 28)),
        (((8, 32),), (16, 32)),  # starts coarser than the tower
    ],
)
def test_levels_have_their_strides_and_every_weight_is_used(spec, strides):
    width, height = 7 * spec[-1][0], 5 * spec[-1][0]
    pyramid = Pyramid(spec, strides, width=8)
    levels = pyramid(maps_of(spec, width, height))
    assert [tuple(level.shape) for level in levels] == [
        (2, 8, math.ceil(height / s), math.ceil(width / s)) for s in strides
    ]
    sum(level.square().sum() for level in levels).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in pyramid.parameters())


def test_top_down_carries_coarse_maps_to_fine_levels_of_a_swin_only():
    for spec, reached in ((SWIN, True), (((8, 16),), False)):
        pyramid = Pyramid(spec, (8, 16, 32), width=8)
        maps = [m.requires_grad_() for m in maps_of(spec, 64, 64)]
        pyramid(maps)[0].sum().backward()
        assert (maps[-1].grad is not None and maps[-1].shape[-1] == 2) == reached


@pytest.mark.parametrize(
    ("strides", "message"),
    [((8, 24), "each to be twice the one before"), ((), "each to be twice"), ((12, 24), r"do not meet the tower's")],
)
def test_strides_that_do_not_fit_are_named(strides, message):
    with pytest.raises(ValueError, match=message):
        Pyramid(SWIN, strides, width=8)


def test_anchors_by_hand():
    found = make_anchors([(1, 2), (1, 1)], [8, 16], scale=2, canvas=(16, 8))
    pixels = found * torch.tensor([16.0, 8, 16, 8])
    assert pixels.tolist() == [[-4, -4, 12, 12], [4, -4, 20, 12], [-8, -8, 24, 24]]


def test_decode_is_the_inverse_of_encode():
    anchors = make_anchors([(3, 4), (2, 2)], [8, 16], 4, (32, 24)).double()
    generator = torch.Generator().manual_seed(0)
    low = torch.rand(16, 2, generator=generator, dtype=torch.float64)
    boxes = torch.cat([low, low + 0.05 + torch.rand(16, 2, generator=generator, dtype=torch.float64)], dim=1)
    torch.testing.assert_close(decode(encode(boxes, anchors)[None], anchors)[0], boxes)
    torch.testing.assert_close(decode(torch.zeros(1, 16, 4).double(), anchors)[0], anchors)


def test_decode_by_hand_and_within_its_clamp():
    anchor = torch.tensor([[0.0, 0.0, 8.0, 8.0]])
    moved = decode(torch.tensor([[[10.0, 0.0, 5 * math.log(2), 0.0]]]), anchor)
    assert moved[0, 0].tolist() == pytest.approx([4.0, 0.0, 20.0, 8.0])
    wild = decode(torch.tensor([[[0.0, 0.0, 1e6, -1e6]]]), anchor)
    width, height = (wild[0, 0, 2:] - wild[0, 0, :2]).tolist()
    assert width == pytest.approx(8 * math.exp(MAX_LOG_RATIO), rel=1e-4)
    assert height == pytest.approx(8 * math.exp(-MAX_LOG_RATIO), rel=1e-4)


def deformable_plain(features, weight, shifts, modulation):
    """One place, one kernel cell at a time: bilinear reading with zeros outside."""
    batch, _, rows, columns = features.shape
    out = features.new_zeros(batch, len(weight), rows, columns)

    def read(image, y, x):
        value, y0, x0 = 0.0, math.floor(float(y.detach())), math.floor(float(x.detach()))
        for yy, wy in ((y0, 1 - (y - y0)), (y0 + 1, y - y0)):
            for xx, wx in ((x0, 1 - (x - x0)), (x0 + 1, x - x0)):
                if 0 <= yy < rows and 0 <= xx < columns:
                    value = value + wy * wx * features[image, :, yy, xx]
        return value

    planes = []
    for image in range(batch):
        cells = []
        for r in range(rows):
            for c in range(columns):
                total = 0.0
                for k in range(9):
                    dy, dx = shifts[image, 2 * k, r, c], shifts[image, 2 * k + 1, r, c]
                    seen = read(image, r - 1 + k // 3 + dy, c - 1 + k % 3 + dx)
                    total = total + modulation[image, k, r, c] * (
                        weight[:, :, k // 3, k % 3] @ (seen + 0 * weight[0, :, 0, 0])
                    )
                cells.append(total)
        planes.append(torch.stack(cells, dim=1).view(-1, rows, columns))
    return torch.stack(planes) if planes else out


@pytest.mark.parametrize(("rows", "columns"), [(4, 5), (1, 1), (2, 3)])
def test_deformable_conv_is_the_plain_loop(rows, columns):
    torch.manual_seed(0)
    module = DeformableConv(3).double()
    torch.nn.init.normal_(module.offset.weight, std=0.3)
    torch.nn.init.normal_(module.offset.bias, std=0.3)
    features = torch.randn(2, 3, rows, columns, dtype=torch.float64, requires_grad=True)
    guide = torch.randn(2, 3, rows, columns, dtype=torch.float64, requires_grad=True)
    told = module.offset(guide)
    plain = deformable_plain(features, module.conv.weight, told[:, :18], 2 * told[:, 18:].sigmoid())
    found = module(features, guide)
    torch.testing.assert_close(found, plain, rtol=1e-10, atol=1e-10)
    leaves = [features, guide, *module.parameters()]
    seed = torch.randn_like(found)
    for one, other in zip(
        torch.autograd.grad((found * seed).sum(), leaves),
        torch.autograd.grad((plain * seed).sum(), leaves),
        strict=True,
    ):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


def test_a_silent_guide_makes_it_a_plain_convolution():
    module = DeformableConv(4)
    torch.nn.init.zeros_(module.offset.weight)
    torch.nn.init.zeros_(module.offset.bias)
    features = torch.randn(2, 4, 6, 5)
    torch.testing.assert_close(
        module(features, torch.randn(2, 4, 6, 5)), F.conv2d(features, module.conv.weight, padding=1)
    )


def test_bf16_works_as_it_does_in_training():
    head = AtssHead(8, 6, 2, 1, deformable=True, objectness=True)
    levels = [torch.randn(1, 8, 4, 4), torch.randn(1, 8, 2, 2)]
    with torch.autocast("cpu", torch.bfloat16):
        answers = head(levels)
    assert [a.dtype for a in answers] == [torch.float32] * 4
    head.bfloat16()([level.bfloat16() for level in levels])


def test_head_shapes_levels_and_sharing():
    torch.manual_seed(0)
    head = AtssHead(8, 6, 2, 2, deformable=True)
    level = torch.randn(3, 8, 4, 4)
    classes, deltas, centerness, objectness = head([level, level])
    assert objectness is None
    assert (classes.shape, deltas.shape, centerness.shape) == ((3, 32, 6), (3, 32, 4), (3, 32))
    torch.testing.assert_close(classes[:, :16], classes[:, 16:])  # one head for all levels
    with torch.no_grad():
        head.delta_scale[1] = 3.0
    _, scaled, _, _ = head([level, level])
    torch.testing.assert_close(scaled[:, 16:], 3 * deltas[:, 16:])
    torch.testing.assert_close(scaled[:, :16], deltas[:, :16])


def detector(**changes):
    settings = {
        "spec": ((8, 16),), "embed_dim": 32, "width": 16, "strides": (8, 16), "num_convs": 1, "anchor_scale": 4.0,
        "deformable": True, "normalize": False, "log_scale": None, "prior": 0.01,
    }  # fmt: skip
    torch.manual_seed(0)
    module = AtssDetector(**{**settings, **changes})
    for part in reversed(list(module.modules())):  # children before parents
        init_weights(part)
    return module


def test_a_fresh_detector_says_the_prior_with_unit_deviation():
    module = detector()
    found = module([torch.randn(4, 16, 12, 12)], (96, 96))
    scale, bias = module.get_scale_and_bias()
    logits = scale * found.class_features @ torch.randn(64, 32).T + bias
    assert float(bias.detach().sigmoid()) == pytest.approx(0.01)
    assert 0.6 < float(logits.detach().std()) < 1.5
    assert found.level_sizes.tolist() == [144, 36]
    torch.testing.assert_close(found.pred_boxes.mean(dim=0), found.anchors, atol=0.05, rtol=0.0)
    assert [tuple(p.shape) for n, p in module.named_parameters() if n.startswith("logit")] == [(1,), (1,)]


def test_cosine_has_unit_features_and_its_own_scale():
    module = detector(normalize=True)
    found = module([torch.randn(1, 16, 4, 4)], (32, 32))
    torch.testing.assert_close(found.class_features.norm(dim=-1), torch.ones(1, 20))
    assert float(module.get_scale_and_bias()[0]) == pytest.approx(10)
    assert float(detector(log_scale=0.5).get_scale_and_bias()[0]) == pytest.approx(math.exp(0.5))


@pytest.mark.parametrize(("kind", "first"), [("foreground", 0.01), ("iou", 0.5)])
def test_a_class_agnostic_score_is_beside_the_rest_and_changes_nothing_of_it(kind, first):
    without, module = detector(), detector(objectness=kind)
    added = set(module.state_dict()) - set(without.state_dict())
    assert added == {"head.objectness.weight", "head.objectness.bias"}
    assert float(module.head.objectness.weight.detach().std()) == pytest.approx(0.01, rel=0.3)
    module.load_state_dict(without.state_dict(), strict=False)
    maps = [torch.randn(2, 16, 6, 6)]
    found, expected = module(maps, (48, 48)), without(maps, (48, 48))
    assert expected.objectness is None
    assert found.objectness.shape == found.centerness.shape
    torch.testing.assert_close(found.objectness.sigmoid().mean(), torch.tensor(first), atol=0.02, rtol=0.02)
    for name in ("class_features", "pred_boxes", "centerness"):
        torch.testing.assert_close(getattr(found, name), getattr(expected, name))


def test_an_impossible_prior_is_refused():
    with pytest.raises(ValueError, match="detector prior: expected a probability"):
        detector(prior=1.0)
