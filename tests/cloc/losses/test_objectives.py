import pytest
import torch
from torch.nn import functional as F

from cloc.losses.contrastive import contrast_plain
from cloc.losses.objectives import RegionTerms, make_objective, total
from cloc.losses.pairs import Form
from cloc.losses.sigmoid import sigmoid_contrast_plain
from cloc.structures import Batch, Outputs

SETTINGS = RegionTerms(filter_threshold=0.9, filter_warmup=5)
MASK = torch.tensor([[True, True], [False, False], [True, False]])
TERMS = {"image_text", "region_text", "grounding"}


def unit(*shape, seed):
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def batch_and_outputs(mask=MASK, phrases=2):
    """Three images, two captions, three regions with two different phrases; the second image has neither."""
    regions = int(mask.sum())
    of_region = torch.arange(regions) % max(phrases, 1)
    boxes = torch.rand(*mask.shape, 4, generator=torch.Generator().manual_seed(3)) * mask[..., None]
    unique = torch.arange(regions) != 1
    batch = Batch(
        pixel_values=torch.zeros(3, 3, 8, 8),
        caption_ids=torch.zeros(2, 4, dtype=torch.int64),
        caption_attention=torch.ones(2, 4, dtype=torch.int64),
        caption_image=torch.tensor([0, 2]),
        boxes=boxes,
        boxes_mask=mask,
        phrase_ids=torch.zeros(phrases, 4, dtype=torch.int64),
        phrase_attention=torch.ones(phrases, 4, dtype=torch.int64),
        phrase_of_region=of_region,
        phrase_text_id=torch.arange(phrases) + 40,
        unique_in_image=unique,
    )
    outputs = Outputs(
        image_embeds=unit(3, 6, seed=0),
        caption_embeds=unit(2, 6, seed=1),
        region_embeds=unit(regions, 6, seed=2),
        phrase_embeds=unit(phrases, 6, seed=4),
        grounded_boxes=torch.rand(int(unique.sum()), 4, generator=torch.Generator().manual_seed(5)),
        logit_scale=torch.tensor(7.0),
        region_logit_scale=torch.tensor(11.0),
    )
    return batch, outputs


def test_cloc_is_made_of_its_three_terms():
    batch, outputs = batch_and_outputs()
    report = make_objective("cloc", SETTINGS)(outputs, batch, step=0)
    images = contrast_plain(outputs.image_embeds[[0, 2]], outputs.caption_embeds, torch.tensor(7.0))
    texts = outputs.phrase_embeds[batch.phrase_of_region]
    regions = contrast_plain(outputs.region_embeds, texts, torch.tensor(11.0), batch.phrase_of_region)
    annotated = torch.stack([batch.boxes[0, 0], batch.boxes[2, 0]])
    assert set(report.terms) == TERMS
    torch.testing.assert_close(report.terms["image_text"], images)
    torch.testing.assert_close(report.terms["region_text"], regions)
    torch.testing.assert_close(report.terms["grounding"], (outputs.grounded_boxes - annotated).square().mean())
    expected = {"images": 3, "images_with_regions": 2, "captions": 2, "regions": 3, "grounded": 2}
    assert dict(report.counts) == expected
    assert set(report.gauges) == {"image_text_accuracy", "region_text_accuracy", "filtered_negatives"}


def test_the_cosine_filter_waits_for_its_warmup_and_equal_strings_do_not():
    batch, outputs = batch_and_outputs()
    outputs.phrase_embeds = F.normalize(torch.tensor([[1.0, 0.0], [1.0, 0.1]]), dim=-1)
    outputs.region_embeds = F.normalize(torch.randn(3, 2, generator=torch.Generator().manual_seed(0)), dim=-1)
    objective = make_objective("cloc", SETTINGS)
    before, after = objective(outputs, batch, step=4), objective(outputs, batch, step=5)
    assert float(before.gauges["filtered_negatives"]) == pytest.approx(2 / 6)  # regions 0 and 2 share a phrase
    assert float(after.gauges["filtered_negatives"]) == 1.0  # all phrases are closer than 0.9


@pytest.mark.parametrize("form", [Form(kind, chunk) for kind in ("softmax", "sigmoid") for chunk in ("none", 2)])
def test_equal_strings_are_negatives_where_no_filter_is_asked(form):
    batch, outputs = batch_and_outputs()  # regions 0 and 2 share a phrase, whose cosine is 1 or rounds above it
    outputs.region_logit_bias = outputs.logit_bias = torch.tensor(-2.0)
    texts = outputs.phrase_embeds[batch.phrase_of_region]
    for same, ids in ((True, batch.phrase_of_region), (False, None)):
        settings = RegionTerms(filter_threshold=1.0, filter_same_text=same, form=form)
        report = make_objective("cloc", settings)(outputs, batch, step=9)
        plain = {
            "softmax": lambda ids: contrast_plain(outputs.region_embeds, texts, torch.tensor(11.0), ids),
            "sigmoid": lambda ids: sigmoid_contrast_plain(
                outputs.region_embeds, texts, torch.tensor(11.0), torch.tensor(-2.0), ids
            ),
        }[form.kind]
        torch.testing.assert_close(report.terms["region_text"], plain(ids))
        assert float(report.gauges["filtered_negatives"]) == pytest.approx(2 / 6 if same else 0.0)


def test_a_threshold_of_one_is_no_test_even_where_a_cosine_rounds_above_it():
    batch, outputs = batch_and_outputs()
    outputs.phrase_embeds = torch.tensor([[1.0, 1e-3], [1.0, 2e-3]])  # cosines of 1.000001 and more
    outputs.region_embeds = unit(3, 2, seed=0)
    settings = RegionTerms(filter_threshold=1.0, filter_same_text=False)
    report = make_objective("cloc", settings)(outputs, batch, step=0)
    assert float(report.gauges["filtered_negatives"]) == 0.0


def test_clip_has_one_term_and_reads_no_region():
    batch, outputs = batch_and_outputs()
    outputs.region_embeds = outputs.phrase_embeds = outputs.grounded_boxes = outputs.region_logit_scale = None
    report = make_objective("clip", SETTINGS)(outputs, batch, step=0)
    assert set(report.terms) == {"image_text"}
    assert report.counts["captions"] == 2


def test_lambda_is_the_share_of_images_with_regions():
    batch, outputs = batch_and_outputs()
    report = make_objective("cloc", SETTINGS)(outputs, batch, step=0)
    weights = {"image_text": 2.0, "region_text": 3.0, "grounding": 5.0}
    terms = report.terms
    expected = 2 * terms["image_text"] + 2 / 3 * (3 * terms["region_text"] + 5 * terms["grounding"])
    torch.testing.assert_close(total(report, weights), expected)


def test_no_region_anywhere_gives_finite_zeros():
    batch, outputs = batch_and_outputs(torch.zeros(3, 2, dtype=torch.bool), phrases=0)
    report = make_objective("cloc", SETTINGS)(outputs, batch, step=9)
    assert float(report.terms["region_text"]) == 0.0
    assert float(report.terms["grounding"]) == 0.0
    assert torch.isfinite(total(report, dict.fromkeys(TERMS, 1.0)))
    assert report.counts["regions"] == 0


def test_an_unknown_objective_is_refused():
    with pytest.raises(ValueError, match="expected clip or cloc, got 'joint'"):
        make_objective("joint", SETTINGS)
