import math

import pytest
import torch
from transformers import AutoModel, CLIPVisionModel, SiglipVisionModel

import cloc
from cloc import factory
from cloc.data.collate import collate, prepare
from cloc.losses.objectives import RegionTerms, make_objective, total

INPUTS = (
    "pixel_values", "caption_ids", "caption_attention", "boxes", "boxes_mask",
    "phrase_ids", "phrase_attention", "phrase_of_region", "unique_in_image",
)  # fmt: skip
WEIGHTS = {"image_text": 1.0, "region_text": 1.0, "grounding": 1.0}


@pytest.fixture
def batch_of(spine_config, spine_sample):
    """Makes a batch from (caption, regions) pairs."""

    def make(*entries):
        config = spine_config()
        samples = [spine_sample(f"k{i}", (40, 30), r, c, seed=i) for i, (c, r) in enumerate(entries)]
        prepared = [prepare(sample, 32, 3, seed=0, epoch=0) for sample in samples]
        return collate(prepared, factory.make_tokenizer(config), 32, 3)

    return make


RICH = (
    ("a red cat and a dog", [((2, 3, 20, 20), "red cat"), ((10, 5, 39, 29), "dog")]),
    ("", []),
    ("two dogs", [((0, 0, 9, 9), "dog"), ((20, 10, 30, 25), "dog"), ((5, 5, 8, 9), "leash")]),
)


def run(model, batch):
    return model(**{name: getattr(batch, name) for name in INPUTS})


def backward(model, batch, objective="cloc"):
    report = make_objective(objective, RegionTerms())(run(model, batch), batch, 0)
    model.zero_grad()
    total(report, WEIGHTS).backward()
    return report


def test_training_forward_equals_the_public_calls(spine_model, batch_of):
    model, batch = spine_model().eval(), batch_of(*RICH)
    with torch.no_grad():
        outputs = run(model, batch)
        regions = model.get_region_features(batch.pixel_values, batch.boxes, batch.boxes_mask)
        texts = model.get_text_features(batch.phrase_ids, batch.phrase_attention)
        padded = torch.zeros(*batch.boxes_mask.shape, texts.shape[-1])
        padded[batch.boxes_mask] = texts[batch.phrase_of_region]
        grounded = model.ground(batch.pixel_values, padded)
        images = model.get_image_features(batch.pixel_values)
    torch.testing.assert_close(outputs.region_embeds, regions[batch.boxes_mask])
    torch.testing.assert_close(outputs.phrase_embeds, texts)
    torch.testing.assert_close(outputs.grounded_boxes, grounded[batch.boxes_mask][batch.unique_in_image])
    torch.testing.assert_close(outputs.image_embeds, images)
    for embeds in (outputs.image_embeds, outputs.caption_embeds, outputs.region_embeds, outputs.phrase_embeds):
        torch.testing.assert_close(embeds.norm(dim=-1), torch.ones(len(embeds)))


def test_masked_regions_change_nothing(spine_model, batch_of):
    model, batch = spine_model().eval(), batch_of(*RICH)
    with torch.no_grad():
        before = run(model, batch)
        batch.boxes[~batch.boxes_mask] = 0.37
        after = run(model, batch)
        features = model.get_region_features(batch.pixel_values, batch.boxes, batch.boxes_mask)
    assert torch.equal(before.region_embeds, after.region_embeds)
    assert torch.equal(before.grounded_boxes, after.grounded_boxes)
    assert not features[~batch.boxes_mask].any()


def test_boxes_do_not_see_each_other_and_may_be_none(spine_model, batch_of):
    model, batch = spine_model().eval(), batch_of(*RICH)
    with torch.no_grad():
        together = model.get_region_features(batch.pixel_values, batch.boxes)
        alone = model.get_region_features(batch.pixel_values, batch.boxes[:, 1:2])
        nothing = model.get_region_features(batch.pixel_values, batch.boxes[:, :0])
    torch.testing.assert_close(alone[:, 0], together[:, 1], rtol=1e-5, atol=1e-6)
    assert nothing.shape == (3, 0, 16)


@pytest.mark.parametrize(
    "entries",
    [
        RICH,
        (("a cat", []), ("a dog", [])),
        (("", []), ("", [])),
        (("", [((1, 1, 9, 9), "cat"), ((2, 2, 8, 8), "cat")]),),
        (),
    ],
    ids=["rich", "no regions", "neither captions nor regions", "no caption, no unique phrase", "no image"],
)
def test_every_parameter_gets_a_gradient(entries, spine_model, batch_of):
    model = spine_model()
    report = backward(model, batch_of(*entries))
    missing = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert missing == []
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())
    assert all(torch.isfinite(term) for term in report.terms.values())


def test_an_image_without_regions_leaves_the_prompter_at_rest(spine_model, batch_of):
    model = spine_model()
    backward(model, batch_of(("a cat", []), ("a dog", [])))
    assert not any(p.grad.any() for p in model.vision.prompter.parameters())
    assert any(p.grad.any() for p in model.vision.tower.parameters())


def test_clip_gives_a_gradient_to_all_it_has(spine_model, batch_of):
    model = spine_model(objective="clip")
    backward(model, batch_of(*RICH), "clip")
    assert [n for n, p in model.named_parameters() if p.grad is None] == []


def test_grounding_reaches_the_text_tower(spine_model, batch_of):
    model, batch = spine_model(), batch_of(*RICH)
    report = make_objective("cloc", RegionTerms())(run(model, batch), batch, 0)
    report.terms["grounding"].backward()
    reached = {n for n, p in model.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert any(name.startswith("text.") for name in reached)
    assert {"text_projection.weight", "vision.prompter.phrase_in.weight", "vision.box_head.layers.0.weight"} <= reached
    assert any(name.startswith("vision.tower.") for name in reached)


def test_clip_has_no_prompter_and_says_so(spine_model):
    model = spine_model(objective="clip")
    assert not model.has_prompter
    assert not any("prompter" in name or "box_head" in name for name in model.state_dict())
    with pytest.raises(ValueError, match=r"no Prompter \(objective clip\).*objective=cloc"):
        model.get_region_features(torch.zeros(1, 3, 32, 32), torch.rand(1, 2, 4))
    with pytest.raises(ValueError, match="no Prompter"):
        model.ground(torch.zeros(1, 3, 32, 32), torch.rand(1, 2, 16))


def test_share_temperature(spine_model):
    shared, own = spine_model(model__share_temperature=True), spine_model()
    assert shared.region_logit_scale is None
    with torch.no_grad():
        shared.logit_scale.fill_(1.0)
    assert float(shared.scales()[0]) == float(shared.scales()[1]) == pytest.approx(math.e)
    with torch.no_grad():
        own.logit_scale.fill_(9.0)
    assert float(own.scales()[0]) == pytest.approx(100.0)
    assert float(own.scales()[1]) == pytest.approx(14.29, abs=0.01)


@pytest.mark.parametrize("changes", [{}, {"objective": "clip"}, {"model__prompter": {"pool": "all"}}])
def test_save_and_load_give_equal_outputs(changes, spine_model, tmp_path):
    model = spine_model(**changes).eval()
    model.save_pretrained(tmp_path / "m")
    again, told = AutoModel.from_pretrained(tmp_path / "m", output_loading_info=True)
    assert type(again) is cloc.ClocModel
    assert not told["missing_keys"]
    assert not told["unexpected_keys"]
    pixels, boxes = torch.randn(2, 3, 32, 32), torch.tensor([[[0.1, 0.2, 0.6, 0.9]], [[0.0, 0.0, 1.0, 1.0]]])
    ids = torch.tensor([[49406, 320, 49407]])
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in model.state_dict().items())

    def features(m):
        texts = m.get_text_features(ids)
        found = [texts, m.get_image_features(pixels)]
        if m.has_prompter:
            found += [m.get_region_features(pixels, boxes), m.ground(pixels, texts.expand(2, 1, -1))]
        return found

    with torch.no_grad():
        torch.testing.assert_close(features(again), features(model), rtol=1e-6, atol=1e-7)


def test_the_image_side_loads_alone(spine_model, tmp_path):
    model = spine_model().eval()
    model.save_pretrained(tmp_path / "m")
    vision, told = cloc.ClocVisionModel.from_pretrained(tmp_path / "m", output_loading_info=True)
    assert not told["missing_keys"]
    assert not told["unexpected_keys"]
    pixels, boxes = torch.randn(1, 3, 32, 32), torch.rand(1, 3, 4)
    with torch.no_grad():
        assert torch.equal(vision.get_region_features(pixels, boxes), model.get_region_features(pixels, boxes))


@pytest.mark.parametrize(("style", "kind"), [("clip", CLIPVisionModel), ("siglip", SiglipVisionModel)])
def test_the_tower_loads_without_our_code(style, kind, spine_export):
    folder = spine_export(model__vision__style=style)
    model = AutoModel.from_pretrained(folder)
    (plain,) = [path.parent for path in folder.glob("*_vision_model/config.json")]
    tower, told = kind.from_pretrained(plain, output_loading_info=True)
    assert not told["missing_keys"]
    assert not told["unexpected_keys"]
    pixels = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        ours, theirs = (t(pixels, output_hidden_states=True) for t in (model.vision.tower, tower))
    assert torch.equal(ours.pooler_output, theirs.pooler_output)
    assert torch.equal(ours.hidden_states[-1], theirs.hidden_states[-1])


def test_siglip_tokens_are_read_before_the_final_norm(spine_model):
    model = spine_model(model__vision__style="siglip").eval()
    pixels = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        encoded, before = model.vision(pixels), model.vision.tower(pixels, output_hidden_states=True)
        for parameter in model.vision.tower.post_layernorm.parameters():
            parameter.mul_(3.0)
        after = model.vision(pixels)
    assert encoded.last_hidden_state.shape == (2, 16, 32)
    assert torch.equal(encoded.last_hidden_state, before.hidden_states[-1])
    assert torch.equal(encoded.last_hidden_state, after.last_hidden_state)
    assert not torch.allclose(encoded.image_embeds, after.image_embeds)


def test_clip_tokens_leave_cls_out_and_are_not_normed(spine_model):
    model = spine_model().eval()
    pixels = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        encoded, tower = model.vision(pixels), model.vision.tower(pixels, output_hidden_states=True)
    assert torch.equal(encoded.last_hidden_state, tower.hidden_states[-1][:, 1:])
    assert torch.equal(encoded.pooler_output, tower.pooler_output)


def test_a_canvas_that_does_not_divide_into_patches_is_refused(spine_model):
    with pytest.raises(ValueError, match="image_size 36 is not a multiple of patch_size 8; use 32"):
        spine_model(model__vision__image_size=36)
