"""Boxes, points and masks in one batch: each embedding is its own, and the fast path is the plain one."""

import pytest
import torch
from transformers import AutoModel

from cloc.models.prompter import Prompter
from cloc.structures import PROMPT_KINDS

D, E, GRID = 16, 8, (3, 3)
ALL = ["box", "point", "mask"]
CLOSE = {"rtol": 1e-9, "atol": 1e-11}


def prompter(pool="prompt", prompts=ALL):
    torch.manual_seed(0)
    made = Prompter(D, E, pool=pool, prompts=prompts).double()
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return made


def mixed(images=2, count=6, seed=0):
    """Kinds in turn, places and coverage of noise; the last row of the last image covers nothing."""
    generator = torch.Generator().manual_seed(seed)
    kinds = torch.arange(images * count).view(images, count) % 3
    low = torch.rand(images, count, 2, generator=generator, dtype=torch.float64) / 2
    places = torch.cat([low, low + 0.3], dim=-1)
    cover = torch.rand(images, count, *GRID, generator=generator, dtype=torch.float64) * (kinds == 2)[..., None, None]
    cover[-1:, -1:] = 0
    return kinds, places, cover


def image_of(made, images=2, seed=1, grad=False):
    tokens = torch.randn(images, 9, D, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    tokens.requires_grad_(grad)
    return tokens, made.prepare_image(tokens, GRID)


@pytest.mark.parametrize("images", [2, 0])
@pytest.mark.parametrize("pool", ["prompt", "all"])
def test_values_and_gradients_are_those_of_the_plain_sequence(pool, images):
    found = []
    for name in ("forward", "forward_plain"):
        made = prompter(pool)
        tokens, image = image_of(made, images, grad=True)
        prompts, real = made.embed_prompts(*mixed(images), image)
        pooled = getattr(made, name)(prompts, image, real)
        pooled.square().sum().backward()
        found.append([pooled.detach(), tokens.grad, made.point_type.grad, made.mask_type.grad, made.q_proj.weight.grad])
    torch.testing.assert_close(found[0], found[1], **CLOSE)
    assert images == 0 or all(part.abs().sum() > 0 for part in found[0])


@pytest.mark.parametrize("kind", range(3), ids=PROMPT_KINDS)
def test_a_mixed_batch_answers_as_each_kind_alone(kind):
    made = prompter()
    _, image = image_of(made)
    kinds, places, cover = mixed()
    prompts, real = made.embed_prompts(kinds, places, cover, image)
    together = made(prompts, image, real)
    for row, m in (kinds == kind).nonzero().tolist():
        one = type(image)(*(None if part is None else part[row : row + 1] for part in image))
        place = places[row : row + 1, m : m + 1]
        if kind == 0:
            alone = made(made.embed_boxes(place), one)
        else:
            tokens, _ = made.embed_prompts(kinds[row : row + 1, m : m + 1], place, cover[row : row + 1, m : m + 1], one)
            alone = made(tokens[:, :, [0] if kind == 1 else [0, 1, 2]], one)
        torch.testing.assert_close(together[row, m], alone[0, 0], **CLOSE)


def test_the_plain_mean_of_the_tokens_under_a_mask():
    made = prompter()
    _, image = image_of(made, images=1)
    cover = torch.zeros(1, 1, *GRID, dtype=torch.float64)
    cover[0, 0, 1, 2], cover[0, 0, 2, 0] = 1.0, 0.5
    tokens, real = made.embed_prompts(torch.tensor([[2]]), torch.zeros(1, 1, 4, dtype=torch.float64), cover, image)
    expected = (image.tokens[0, 5] + 0.5 * image.tokens[0, 6]) / 1.5 + made.mask_type
    torch.testing.assert_close(tokens[0, 0, 2], expected, **CLOSE)
    assert real.tolist() == [[[True, True, True]]]


def test_what_points_and_masks_need_exists_only_where_they_are_asked_for(spine_model):
    assert prompter(prompts=["box"]).point_type is None
    assert prompter(prompts=["box", "point"]).mask_type is None
    plain, more = (set(spine_model(**c).state_dict()) for c in ({}, {"model__prompter__prompts": ALL}))
    assert more - plain == {"vision.prompter.point_type", "vision.prompter.mask_type"}
    assert not plain - more


def test_an_export_of_before_loads_unchanged(spine_model, tmp_path):
    """Its config knows no kinds of prompts, and its weights none of their parameters."""
    import json

    model = spine_model().eval()
    model.save_pretrained(tmp_path)
    told = json.loads((tmp_path / "config.json").read_text())
    assert told["vision_config"].pop("prompter_prompts") == ["box"]
    (tmp_path / "config.json").write_text(json.dumps(told))
    again, report = AutoModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    pixels, boxes = torch.randn(1, 3, 32, 32), torch.tensor([[[0.1, 0.2, 0.6, 0.9]]])
    with torch.no_grad():
        assert torch.equal(again.get_region_features(pixels, boxes), model.get_region_features(pixels, boxes))


@pytest.fixture
def all_kinds(spine_model):
    """A tiny model of all kinds, and ragged prompts for two images."""
    model = spine_model(model__prompter__prompts=ALL).eval()
    masks = torch.zeros(2, 2, 32, 32)
    masks[0, 0, 4:20, 8:24], masks[0, 1, :5, :5], masks[1, 0, 10:, 3:9] = 1, 1, 1
    low = torch.rand(2, 3, 2) / 2
    asked = {
        "boxes": torch.cat([low, low + 0.3], dim=-1),
        "boxes_mask": torch.tensor([[True] * 3, [False] * 3]),
        "points": torch.rand(2, 2, 2),
        "points_mask": torch.tensor([[True, False], [True, True]]),
        "masks": masks,
        "masks_mask": torch.tensor([[True, True], [True, False]]),
    }
    return model, torch.randn(2, 3, 32, 32), asked


def test_an_embedding_does_not_depend_on_what_else_is_asked(all_kinds):
    model, pixels, asked = all_kinds
    with torch.no_grad():
        together = model.get_region_features(pixels, **asked)
        assert together.shape == (2, 7, 16)
        start = 0
        for name in ("boxes", "points", "masks"):
            real = asked[f"{name}_mask"]
            for m in range(real.shape[1]):
                one = model.get_region_features(pixels, **{name: asked[name][:, m : m + 1]})
                torch.testing.assert_close(together[:, start + m][real[:, m]], one[:, 0][real[:, m]])
                assert not together[:, start + m][~real[:, m]].any()
            start += real.shape[1]


def test_a_mask_on_the_canvas_or_on_the_patches_is_one_mask_but_for_its_extent(all_kinds):
    model, pixels, _ = all_kinds
    fine = torch.zeros(2, 1, 32, 32)
    fine[:, 0, 8:24, 16:32] = 1  # along the borders of patches of 8 pixels
    with torch.no_grad():
        one = model.get_region_features(pixels, masks=fine)
        coarse = model.get_region_features(pixels, masks=torch.nn.functional.avg_pool2d(fine, 8))
    torch.testing.assert_close(one, coarse)


def test_kinds_that_were_not_trained_are_refused(spine_model):
    pixels = torch.zeros(1, 3, 32, 32)
    with pytest.raises(ValueError, match=r"answers the prompts box; .* train with model.prompter.prompts=\[box,point"):
        spine_model().get_region_features(pixels, points=torch.zeros(1, 1, 2))
    model = spine_model(model__prompter__prompts=ALL)
    with pytest.raises(ValueError, match=r"divides into 4 x 4 patches, got 30 x 32"):
        model.get_region_features(pixels, masks=torch.zeros(1, 1, 30, 32))
    with pytest.raises(ValueError, match=r"points: expected \(B, M, 2\), got \(1, 2\)"):
        model.get_region_features(pixels, points=torch.zeros(1, 2))
    with pytest.raises(ValueError, match=r"equally many images, got \[1, 2\]"):
        model.get_region_features(pixels, torch.zeros(1, 1, 4), points=torch.zeros(2, 1, 2))
    with pytest.raises(ValueError, match="expected boxes, points or masks, got none"):
        model.get_region_features(pixels)


@pytest.mark.parametrize(
    ("prompter", "told"),
    [
        ({"prompts": ["point"]}, "expected box and"),
        ({"prompts": ["box", "box"]}, "each once"),
        ({"prompts": ["box", "point"], "kind": "roi_align"}, "pools under boxes"),
    ],
)
def test_configs_that_cannot_be_meant(prompter, told, spine_config):
    with pytest.raises(ValueError, match=told):
        spine_config(model__prompter=prompter, loss__grounding=0)
