from dataclasses import replace

import pytest
import torch

from cloc import ClocDetectorForPreTraining
from cloc.losses import detection
from cloc.losses.alignment import focal_alignment_plain
from cloc.losses.detection import DetectionTerms, assign_batch, detection_objective, list_positive_pairs
from cloc.losses.detection import Positives as Found
from cloc.losses.word_region import word_region
from cloc.structures import BatchKnowledge

CLOSE = {"rtol": 1e-10, "atol": 1e-10}
TERMS = {"detection": ["alignment", "giou", "centerness"], "grounding": ["alignment"], "pairs": ["word_region"]}
UNTRAINED = ("vision.prompter", "vision.box_head", "vision.visual_projection", "vision.tower.post_layernorm")


def run(model, batch, settings=None):
    outputs = model(batch.pixel_values, batch.concept_ids, batch.concept_attention, with_logits=False)
    return detection_objective(outputs, batch, 0, settings or DetectionTerms())


LOCALISED = ("detector.head.deltas", "detector.head.delta_scale", "detector.head.centerness")
RESTS = {"detection": (), "grounding": LOCALISED, "pairs": (*LOCALISED, "detector.logit_bias")}


@pytest.mark.parametrize("kind", TERMS)
@pytest.mark.parametrize(("images", "boxes", "concepts"), [(2, 3, 5), (2, 0, 4), (2, 0, 0), (0, 3, 5), (0, 0, 0)])
def test_a_step_gives_a_gradient_to_what_its_kind_trains_and_to_nothing_else(
    detector_model, concept_batch, kind, images, boxes, concepts
):
    model = detector_model()
    report = run(model, concept_batch(kind, images, boxes, concepts))
    assert list(report.terms) == TERMS[kind]
    assert report.counts["images"] == images
    sum(report.terms.values()).backward()
    trained = 0
    for name, parameter in model.named_parameters():
        clip_only = name.endswith("logit_scale") and name != "detector.logit_scale"
        if clip_only or name.startswith((*UNTRAINED, *RESTS[kind])):
            assert parameter.grad is None, name
        else:
            assert torch.isfinite(parameter.grad).all(), name
            trained += 1
    assert trained > 30


def test_pairs_leave_the_padding_out(detector_model, concept_batch):
    batch = concept_batch("pairs", size=(96, 64))
    narrow = replace(batch, extent=torch.tensor([[1 / 3, 1.0], [1 / 3, 1.0]]))
    model = detector_model("vit")
    whole, third = run(model, batch), run(model, narrow)
    assert 0 < third.counts["proposals"] < whole.counts["proposals"]
    assert third.counts["proposals"] <= 2 * (4 * 8 + 2 * 4 + 1 * 2)  # 32 x 64 pixels at strides 8, 16 and 32


@pytest.mark.parametrize("deformable", [True, False])
def test_pairs_reach_the_regression_branch_through_the_deformable_module_only(
    detector_model, concept_batch, deformable
):
    model = detector_model(deformable=deformable)
    report = run(model, concept_batch("pairs", images=4))
    report.terms["word_region"].backward()
    gradients = [conv[0].weight.grad for conv in model.detector.head.regression]
    if deformable:
        assert all(float(g.abs().max()) > 0 for g in gradients)
    else:
        assert gradients == [None] * len(gradients)


def test_the_report_counts_what_it_saw(detector_model, concept_batch):
    batch = concept_batch("detection", images=3, boxes=4)
    report = run(detector_model(), batch)
    assert report.counts["boxes"] == 11
    assert 11 - report.counts["boxes_without_anchor"] <= report.counts["positives"]
    assert 0 < float(report.gauges["positive_iou"]) < 1
    every = run(detector_model(), batch, DetectionTerms(nearest_when_none=True))
    assert every.counts["boxes_without_anchor"] <= report.counts["boxes_without_anchor"]


def test_alignment_is_the_plain_focal_loss_over_positives(detector_model, concept_batch):
    model, batch = detector_model().double(), concept_batch("grounding")
    batch = replace(batch, pixel_values=batch.pixel_values.double())
    outputs = model(batch.pixel_values, batch.concept_ids, batch.concept_attention, with_logits=False)
    found = assign_batch(outputs, batch, DetectionTerms())
    rows, concepts = list_positive_pairs(found, batch, torch.arange(5))
    expected = focal_alignment_plain(
        outputs.class_features.flatten(0, 1),
        outputs.text_embeds,
        outputs.logit_scale,
        outputs.logit_bias,
        rows,
        concepts,
    )
    report = detection_objective(outputs, batch, 0, DetectionTerms())
    torch.testing.assert_close(report.terms["alignment"], expected / len(found.anchor_row), **CLOSE)


def test_what_is_unknown_in_an_image_is_taught_to_no_anchor_of_it(detector_model, concept_batch):
    model, batch = detector_model().double(), known(concept_batch("detection", images=2, boxes=2, concepts=5))
    batch = replace(batch, pixel_values=batch.pixel_values.double())
    outputs = model(batch.pixel_values, batch.concept_ids, batch.concept_attention, with_logits=False)
    found = assign_batch(outputs, batch, DetectionTerms())
    rows, concepts = list_positive_pairs(found, batch, torch.arange(5))
    places = len(outputs.anchors)
    labelled = set(batch.label_concept[:2].tolist())
    unknown = torch.zeros(2 * places, 5, dtype=torch.bool)
    unknown[:places] = torch.tensor([c not in labelled | {3} for c in range(5)])  # the first image knows 3 is absent
    centres = (outputs.anchors[:, :2] + outputs.anchors[:, 2:]) / 2
    crowd = ((centres >= 0.25) & (centres <= 0.75)).all(dim=1)
    unknown[places:, 4] |= crowd
    unknown[places:, 2] = 2 not in batch.label_concept[2:].tolist()
    expected = focal_alignment_plain(
        outputs.class_features.flatten(0, 1), outputs.text_embeds, outputs.logit_scale, outputs.logit_bias, rows,
        concepts, unknown=unknown, group=torch.arange(2 * places),
    )  # fmt: skip
    report = detection_objective(outputs, batch, 0, DetectionTerms())
    torch.testing.assert_close(report.terms["alignment"], expected / len(found.anchor_row), **CLOSE)
    assert 0 < int(crowd.sum()) < places


def test_a_place_in_a_crowd_is_no_background(detector_model, concept_batch):
    model, batch = detector_model(objectness="foreground"), known(concept_batch("detection", images=2, boxes=2))
    outputs = model(batch.pixel_values, batch.concept_ids, batch.concept_attention, with_logits=False)
    outputs.objectness.retain_grad()
    report = detection_objective(outputs, batch, 0, DetectionTerms(proposal_score="foreground"))
    report.terms["objectness"].backward()
    centres = (outputs.anchors[:, :2] + outputs.anchors[:, 2:]) / 2
    crowd = ((centres >= 0.25) & (centres <= 0.75)).all(dim=1)
    place = assign_batch(outputs, batch, DetectionTerms()).anchor_row - len(crowd)
    crowd[place[place >= 0]] = False
    assert (outputs.objectness.grad[1] == 0).flatten().tolist() == crowd.tolist()
    assert (outputs.objectness.grad[0] != 0).all()


def test_a_box_may_have_several_concepts(concept_batch):
    batch = concept_batch("detection", images=1, boxes=2, concepts=4)
    batch = replace(batch, label_box=torch.tensor([0, 0, 0]), label_concept=torch.tensor([1, 3, 3]))
    none = torch.zeros(2, dtype=torch.bool)
    found = Found(torch.tensor([7, 9]), torch.tensor([7, 9]), torch.tensor([0, 1]), none, 0)
    rows, concepts = list_positive_pairs(found, batch, torch.tensor([10, 11, 12, 13]))
    assert list(zip(rows.tolist(), concepts.tolist(), strict=True)) == [(7, 11), (7, 13)]


def test_captions_add_the_image_text_term(detector_config, concept_batch):
    batch = concept_batch("pairs", size=(64, 64))
    ids = batch.concept_ids[:2]
    batch = replace(batch, caption_ids=ids, caption_attention=torch.ones_like(ids), caption_image=torch.arange(2))
    outputs = ClocDetectorForPreTraining(detector_config())(
        batch.pixel_values, batch.concept_ids, batch.concept_attention,
        with_logits=False, caption_ids=ids, caption_attention=torch.ones_like(ids),
    )  # fmt: skip
    report = detection_objective(outputs, batch, 0, DetectionTerms())
    assert list(report.terms) == ["word_region", "image_text"]
    assert report.counts["captions"] == 2


def test_a_wrong_proposal_score_is_refused_at_once():
    with pytest.raises(ValueError, match="proposal_score: expected one of"):
        DetectionTerms(proposal_score="size")


@pytest.mark.parametrize("kind", ["detection", "pairs"])
def test_a_learnt_score_without_its_head_says_so(detector_model, concept_batch, kind):
    with pytest.raises(ValueError, match="'iou': this detector has no class-agnostic score; make it with detector_con"):
        run(detector_model(), concept_batch(kind), DetectionTerms(proposal_score="iou"))


@pytest.mark.parametrize("score", ["foreground", "iou"])
@pytest.mark.parametrize("kind", TERMS)
@pytest.mark.parametrize(("images", "boxes"), [(2, 3), (2, 0), (0, 3)])
def test_a_learnt_score_is_trained_on_detection_alone(detector_model, concept_batch, score, kind, images, boxes):
    model, batch = detector_model(objectness=score), concept_batch(kind, images, boxes)
    report = run(model, batch, DetectionTerms(proposal_score=score))
    assert list(report.terms) == TERMS[kind] + ["objectness"] * (kind == "detection")
    sum(report.terms.values()).backward()
    for name, parameter in model.detector.head.objectness.named_parameters():
        assert (parameter.grad is not None) == (kind == "detection"), name
        if kind == "detection" and images and (boxes or score == "foreground"):
            assert float(parameter.grad.abs().max()) > 0
    if kind == "detection" and score == "foreground" and boxes and images:
        without = detector_model()
        without.load_state_dict(model.state_dict(), strict=False)
        report, without = run(model, batch, DetectionTerms(proposal_score=score)), run(without, batch)
        for name in TERMS[kind]:  # the other weights and terms are those of a detector without the score
            torch.testing.assert_close(report.terms[name], without.terms[name])


def test_a_learnt_score_chooses_the_proposals(detector_model, concept_batch, monkeypatch):
    seen = []
    monkeypatch.setattr(detection, "word_region", lambda *args, **kw: seen.append(args[0]) or word_region(*args, **kw))
    model, batch = detector_model(objectness="iou"), concept_batch("pairs")
    outputs = model(batch.pixel_values, batch.concept_ids, batch.concept_attention, with_logits=False)
    outputs.objectness = torch.zeros_like(outputs.objectness)
    outputs.objectness[:, 41] = 5.0
    detection_objective(outputs, batch, 0, DetectionTerms(proposal_score="iou", num_proposals=1))
    torch.testing.assert_close(seen[0][:, 0], outputs.class_features[:, 41])


@pytest.mark.parametrize("matching", ["max", "largest_box"])
def test_pairs_cut_boxes_at_the_border_before_suppression(detector_model, concept_batch, matching):
    """Boxes that differ only beyond the border, and boxes beyond it, are one proposal and none."""
    model, batch = detector_model(), replace(concept_batch("pairs"), extent=torch.tensor([[1.0, 1.0], [0.6, 1.0]]))
    outputs = model(batch.pixel_values, batch.concept_ids, batch.concept_attention, with_logits=False)
    boxes = torch.tensor([2.0, 2.0, 3.0, 3.0]).repeat(outputs.pred_boxes.shape[1], 1)
    boxes[:40] = torch.tensor([-1.0, -1.0, 1.0, 1.0]) + torch.arange(40)[:, None] * torch.tensor([-1.0, -1, 1, 1])
    outputs.pred_boxes = boxes.expand(2, -1, 4)
    report = detection_objective(outputs, batch, 0, DetectionTerms(matching=matching))
    assert report.counts["proposals"] == 2


def known(batch):
    """The first image is open and knows that concept 3 is absent; the last one has a crowd of concept 4 in its middle,
    and knows nothing of concept 2. Keys are the text ids with a nought behind.
    """
    images, everywhere = len(batch.pixel_values), torch.arange(len(batch.pixel_values)) > 0
    ids = batch.concept_text_id
    knowledge = BatchKnowledge(
        closed=everywhere,
        concept_keys=torch.stack([ids, ids * 10], dim=1),
        known=torch.tensor([[0, 1030]]),
        unknown=torch.tensor([[images - 1, 1020]]),
        partly=torch.tensor([[images - 1, 1040]]),
        partly_boxes=torch.tensor([[0.25, 0.25, 0.75, 0.75]]),
    )
    return replace(batch, knowledge=knowledge)


def share(knowledge, images, words):
    """The part of some images, with the keys of the rank's own concepts."""
    rules = {}
    for name in ("known", "unknown", "partly"):
        table = getattr(knowledge, name)
        mine = (table[:, 0] >= images.start) & (table[:, 0] < images.stop)
        rules[name] = table[mine] - torch.tensor([images.start, 0])
        if name == "partly":
            rules["partly_boxes"] = knowledge.partly_boxes[mine]
    return BatchKnowledge(knowledge.closed[images], knowledge.concept_keys[words], **rules)


def part(batch, rank, kind):
    """Two of three images, or the third; each rank holds the concepts of its own labels and one more."""
    images = slice(0, 2) if rank == 0 else slice(2, 3)
    owner = batch.boxes_mask.nonzero()[:, 0]
    regions = ((owner >= images.start) & (owner < images.stop)).nonzero()[:, 0]
    words = torch.arange(4) if rank == 0 else torch.arange(2, 6)
    pairs = ((batch.pair_image >= images.start) & (batch.pair_image < images.stop)).nonzero()[:, 0]
    return replace(
        batch,
        pixel_values=batch.pixel_values[images],
        extent=batch.extent[images],
        boxes=batch.boxes[images],
        boxes_mask=batch.boxes_mask[images],
        label_box=torch.arange(len(regions)),
        label_concept=batch.label_concept[regions] - int(words[0]),
        concept_ids=batch.concept_ids[words],
        concept_attention=batch.concept_attention[words],
        concept_text_id=batch.concept_text_id[words],
        pair_image=batch.pair_image[pairs] - images.start,
        pair_concept=batch.pair_concept[pairs] - int(words[0]),
        knowledge=None if batch.knowledge is None else share(batch.knowledge, images, words),
    )


def whole(concept_batch, kind, open_=False):
    batch = concept_batch(kind, images=3, boxes=2, concepts=6)
    batch = known(batch) if open_ else batch
    batch = replace(batch, pixel_values=batch.pixel_values.double())
    owner = batch.boxes_mask.nonzero()[:, 0]
    return replace(
        batch,
        label_concept=torch.where(owner < 2, torch.arange(len(owner)) % 4, 2 + torch.arange(len(owner)) % 4),
        pair_concept=torch.where(batch.pair_image < 2, batch.pair_concept % 4, 2 + batch.pair_concept % 4),
    )


def gradients(model, batch, score):
    # All regions are kept, so that the proposals do not depend on the rank's own list of concepts.
    report = run(model, batch, DetectionTerms(proposal_nms=1.0, num_proposals=10_000, proposal_score=score))
    total = sum((n + 1) * term for n, term in enumerate(report.terms.values()))
    leaves = [p for n, p in model.named_parameters() if n.startswith(("detector.", "text", "vision.tower"))]
    found = torch.autograd.grad(total, leaves, allow_unused=True)
    return total.detach(), [torch.zeros_like(p) if g is None else g for p, g in zip(leaves, found, strict=True)]


CASES = [
    ("detection", "foreground", False),
    ("detection", "foreground", True),
    ("detection", "iou", False),
    ("grounding", "iou", True),
    ("pairs", "centerness", False),
]


@pytest.mark.multiprocess
def test_two_ragged_ranks_are_one(detector_model, concept_batch, spine_group):
    model = detector_model(objectness="iou").double()
    batches = [whole(concept_batch, kind, open_) for kind, _, open_ in CASES]

    def work(rank):
        shares = zip(batches, CASES, strict=True)
        return [gradients(model, part(batch, rank, kind), score) for batch, (kind, score, _) in shares]

    answers = spine_group(2, work)
    for row, (batch, (_, score, _)) in enumerate(zip(batches, CASES, strict=True)):
        loss, expected = gradients(model, batch, score)
        torch.testing.assert_close(answers[0][row][0] + answers[1][row][0], loss, **CLOSE)
        for one, other, wanted in zip(answers[0][row][1], answers[1][row][1], expected, strict=True):
            torch.testing.assert_close(one + other, wanted, **CLOSE)
