"""RoI-Align in the Prompter's place agrees with a loop, and the model around it does without phrase prompts."""

import pytest
import torch

from cloc import ClocModel, factory
from cloc.config import parse_config
from cloc.data.collate import collate, prepare
from cloc.losses.objectives import RegionTerms, make_objective, total
from cloc.models.roi_align import RoiAlignPrompter

D, E, GRID = 8, 6, (3, 4)


def bilinear(grid, y, x):
    """(D,) value of a (D, rows, columns) map at a point, cells' centres at whole numbers, borders continued."""
    rows, columns = grid.shape[1:]
    if y < -1 or y > rows or x < -1 or x > columns:
        return grid[:, 0, 0] * 0
    y, x = min(max(y, 0.0), rows - 1.0), min(max(x, 0.0), columns - 1.0)
    top, left = min(int(y), rows - 1), min(int(x), columns - 1)
    down, right = min(top + 1, rows - 1), min(left + 1, columns - 1)
    dy, dx = y - top, x - left
    return (
        grid[:, top, left] * (1 - dy) * (1 - dx)
        + grid[:, top, right] * (1 - dy) * dx
        + grid[:, down, left] * dy * (1 - dx)
        + grid[:, down, right] * dy * dx
    )


def plain(grid, box):
    """The definition: the mean of bilinear samples, about one a cell, spread evenly over the box."""
    rows, columns = grid.shape[1:]
    x0, y0, x1, y1 = (float(v) * s - 0.5 for v, s in zip(box, (columns, rows, columns, rows), strict=True))
    down, across = (int(-(-side // 1)) for side in (y1 - y0, x1 - x0))
    points = [
        bilinear(grid, y0 + (i + 0.5) * (y1 - y0) / down, x0 + (j + 0.5) * (x1 - x0) / across)
        for i in range(down)
        for j in range(across)
    ]
    return torch.stack(points).mean(0) if points else grid[:, 0, 0] * 0


@pytest.fixture
def prompter():
    torch.manual_seed(0)
    return RoiAlignPrompter(D, E).double()


@pytest.mark.parametrize(("images", "count"), [(2, 3), (1, 1), (2, 0), (0, 2)])
def test_it_equals_a_loop_in_value_and_gradient(prompter, images, count):
    generator = torch.Generator().manual_seed(1)
    low = torch.rand(images, count, 2, generator=generator, dtype=torch.float64) * 0.6
    boxes = torch.cat([low, low + 0.05 + 0.35 * low.flip(-1)], dim=-1)
    if count > 2:
        boxes[0, 2] = torch.tensor([0.0, 0.0, 1.0, 1.0])
        boxes[1, 2] = 0.0  # a padded row
    raw = torch.randn(images, GRID[0] * GRID[1], D, generator=generator, dtype=torch.float64)
    found = []
    for way in ("fast", "loop"):
        tokens = raw.clone().requires_grad_()
        image = prompter.prepare_image(tokens, GRID)
        if way == "fast":
            pooled = prompter(prompter.embed_boxes(boxes), image)
        else:
            rows = [plain(image.map[b], boxes[b, m]) for b in range(images) for m in range(count)]
            pooled = torch.stack(rows).view(images, count, D) if rows else image.map.new_zeros(images, count, D)
        weights = torch.linspace(-1, 1, pooled.numel(), dtype=torch.float64).view_as(pooled)
        (gradient,) = torch.autograd.grad((pooled * weights).sum() + 0 * tokens.sum(), tokens)
        found.append((pooled.detach(), gradient))
    torch.testing.assert_close(found[0][0], found[1][0], rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(found[0][1], found[1][1], rtol=1e-10, atol=1e-12)


def test_a_box_over_one_patch_is_that_patch(prompter):
    image = prompter.prepare_image(torch.randn(1, 12, D, dtype=torch.float64), GRID)
    box = torch.tensor([[[0.25, 1 / 3, 0.5, 2 / 3]]], dtype=torch.float64)  # second row and column
    torch.testing.assert_close(prompter(prompter.embed_boxes(box), image)[0, 0], image.map[0, :, 1, 1])


def test_phrases_are_refused(prompter):
    with pytest.raises(ValueError, match=r"expected box prompts.*model\.prompter\.kind=attention"):
        prompter.embed_phrases(torch.zeros(1, 2, E))


def test_a_config_with_grounding_is_refused(spine_raw):
    raw = spine_raw(model__prompter={"kind": "roi_align"})
    with pytest.raises(ValueError, match=r"no phrase prompts.*set loss\.grounding=0"):
        parse_config(raw)
    assert parse_config({**raw, "objective": "clip"}).model.prompter.kind == "roi_align"


@pytest.fixture
def model(spine_config):
    config = spine_config(model__prompter={"kind": "roi_align"}, loss__grounding=0)
    return factory.make_model(config, factory.make_tokenizer(config))[0]


def test_the_model_trains_without_a_grounding_term(model, spine_config, spine_sample):
    entries = [[((2, 3, 20, 20), "red cat"), ((10, 5, 39, 29), "dog")], [], [((0, 0, 9, 9), "leash")]]
    samples = [spine_sample(f"k{i}", (40, 30), regions, "a cat") for i, regions in enumerate(entries)]
    batch = collate([prepare(s, 32, 3, 0, 0) for s in samples], factory.make_tokenizer(spine_config()), 32, 3)
    outputs = model(**factory.model_inputs(batch))
    assert outputs.grounded_boxes is None
    report = make_objective("cloc", RegionTerms())(outputs, batch, 0)
    assert set(report.terms) == {"image_text", "region_text"}
    total(report, {"image_text": 1.0, "region_text": 1.0, "grounding": 0.0}).backward()
    without = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert without == []
    regions = model.get_region_features(batch.pixel_values, batch.boxes, batch.boxes_mask)
    torch.testing.assert_close(regions[batch.boxes_mask], outputs.region_embeds)


def test_it_comes_back_from_a_folder_and_refuses_to_ground(model, tmp_path):
    model.save_pretrained(tmp_path)
    back = ClocModel.from_pretrained(tmp_path).eval()
    pixels, boxes = torch.randn(1, 3, 32, 32), torch.tensor([[[0.1, 0.2, 0.7, 0.9]]])
    with torch.no_grad():
        theirs, ours = (one.get_region_features(pixels, boxes) for one in (back, model.eval()))
    torch.testing.assert_close(theirs, ours)
    with pytest.raises(ValueError, match=r"expected box prompts"):
        back.ground(pixels, torch.zeros(1, 1, 16))
