import math

import pytest
import torch
from torch.nn import functional as F

from cloc.losses.detection import on_image
from cloc.losses.proposals import LEARNT_SCORES, PROPOSAL_SCORES, cut_at_border, propose
from cloc.losses.word_region import word_region, word_region_plain

CLOSE = {"rtol": 1e-10, "atol": 1e-10}


def inputs(images, concepts, pairs, proposals=4, seed=0):
    """Leaves (regions, texts, scale), a ragged mask, and pairs (image, concept) sorted by image."""
    generator = torch.Generator().manual_seed(seed)
    regions = torch.randn(images, proposals, 5, generator=generator, dtype=torch.float64).requires_grad_()
    texts = torch.randn(concepts, 5, generator=generator, dtype=torch.float64).requires_grad_()
    scale = torch.tensor(0.8, dtype=torch.float64, requires_grad=True)
    mask = torch.arange(proposals)[None] < torch.randint(1, proposals + 1, (images, 1), generator=generator)
    owner = torch.randint(max(images, 1), (pairs,), generator=generator).sort().values
    return [regions, texts, scale], mask, owner, torch.randint(max(concepts, 1), (pairs,), generator=generator)


MATCHINGS, DIRECTIONS = ("max", "softmax", "largest_box"), ("text_to_image", "image_to_text", "both")


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("matching", MATCHINGS)
@pytest.mark.parametrize(("images", "concepts", "pairs"), [(4, 6, 9), (1, 1, 1), (5, 3, 2), (3, 2, 0), (0, 0, 0)])
def test_agrees_with_the_plain_loop(images, concepts, pairs, matching, direction):
    (regions, texts, scale), mask, owner, concept = inputs(images, concepts, pairs)
    how = {"matching": matching, "direction": direction, "matching_temperature": 0.7}
    plain = word_region_plain(regions, mask, texts, scale, owner, concept, **how)
    leaves = [regions, texts, scale]
    expected = torch.autograd.grad(plain, leaves)
    for entries in (1, 100, 2**20):
        found = word_region(regions, mask, texts, scale, owner, concept, max_entries=entries, **how)
        assert found.texts == len(owner.unique())
        torch.testing.assert_close(found.loss, plain, **CLOSE)
        for one, other in zip(torch.autograd.grad(found.loss, leaves), expected, strict=True):
            torch.testing.assert_close(one, other, **CLOSE)


def test_equal_images_give_exactly_the_logarithm_of_their_number():
    regions = torch.ones(6, 3, 4, dtype=torch.float64)
    pairs = torch.arange(6)
    found = word_region(regions, torch.ones(6, 3).bool(), torch.eye(6, 4).double(), torch.tensor(2.0), pairs, pairs)
    assert float(found.loss) == pytest.approx(math.log(6), abs=1e-12)


def test_by_hand():
    """Two images of two regions, two texts of one concept: best similarities [[2, 0], [1, 1]], no smoothing."""
    regions = torch.tensor([[[2.0, 1.0], [0.0, 0.0]], [[0.0, 1.0], [-3.0, -3.0]]])
    pairs = torch.arange(2)
    found = word_region(
        regions, torch.ones(2, 2).bool(), torch.eye(2), torch.tensor(1.0), pairs, pairs, label_smoothing=0.0
    )
    expected = (math.log(1 + math.exp(-4)) + math.log(2)) / 2
    assert float(found.loss) == pytest.approx(expected, abs=1e-6)


def test_image_to_text_is_a_similarity_of_its_own():
    """By hand: image 0 has the regions (2, 0), (0, 1) and (-1, 0), image 1 one (0, 4); text 0 has both concepts.

    s_T  (text 0: mean of its words' best; text 1: its one word): [[1.5, 2], [1, 4]]
    s_I  (mean over the regions of the best word):               [[1, 4], [1/3, 4]], by text and image; the third region
         of image 0 finds the word (0, 1) at 0 in both texts.
    """
    regions = torch.tensor([[[2.0, 0.0], [0.0, 1.0], [-1.0, 0.0]], [[0.0, 4.0], [9.0, 9.0], [9.0, 9.0]]])
    mask = torch.tensor([[True, True, True], [True, False, False]])
    owner, concept = torch.tensor([0, 0, 1]), torch.tensor([0, 1, 1])
    settings = {"temperature": 1.0, "label_smoothing": 0.0}

    def asked(direction):
        found = word_region(
            regions, mask, torch.eye(2), torch.tensor(1.0), owner, concept, direction=direction, **settings
        )
        return float(found.loss)

    s_t, s_i = torch.tensor([[1.5, 2.0], [1.0, 4.0]]), torch.tensor([[1.0, 4.0], [1 / 3, 4.0]])
    own = torch.arange(2)
    to_image, to_text = float(F.cross_entropy(s_t, own)), float(F.cross_entropy(s_i.T, own))
    assert asked("text_to_image") == pytest.approx(to_image, abs=1e-6)
    assert asked("image_to_text") == pytest.approx(to_text, abs=1e-6)
    assert asked("both") == pytest.approx((to_image + to_text) / 2, abs=1e-6)
    assert to_text != pytest.approx(float(F.cross_entropy(s_t.T, own)), abs=0.1)  # s_T on the other axis is not it


def test_the_accuracy_is_that_of_the_direction():
    """Both texts' best image is 0; each image's best text is its own."""
    regions = torch.tensor([[[3.0, 0.0]], [[2.0, 1.0]]])
    pair, mask = torch.arange(2), torch.ones(2, 1, dtype=torch.bool)
    texts = torch.tensor([[1.0, 0.0], [0.95, 0.5]])
    for direction, right in (("text_to_image", 0.5), ("both", 0.5), ("image_to_text", 1.0)):
        found = word_region(regions, mask, texts, torch.tensor(1.0), pair, pair, direction=direction)
        assert float(found.accuracy) == right


def test_unknown_switches_are_named():
    (regions, texts, scale), mask, owner, concept = inputs(2, 2, 2)
    with pytest.raises(ValueError, match="matching: expected one of"):
        word_region(regions, mask, texts, scale, owner, concept, matching="mean")
    with pytest.raises(ValueError, match="direction: expected one of"):
        word_region(regions, mask, texts, scale, owner, concept, direction="sideways")


def propose_on(score, **changes):
    """Four anchors: 0 and 1 overlap by half, 2 and 3 lie apart; concept 0 is image 0's, concept 1 another's."""
    boxes = torch.tensor([[0.0, 0, 4, 4], [0, 0, 4, 3], [10, 0, 14, 4], [20, 0, 24, 4]])[None]
    features = torch.tensor([[3.0, 0.0], [2.0, 0.0], [1.0, 0.0], [0.0, 5.0]])[None]
    centerness = torch.tensor([[0.0, 1.0, 5.0, -1.0]])
    one = torch.tensor(1.0)
    pair = torch.tensor([0])
    return propose(features, boxes, centerness, torch.eye(2), one, one * 0, pair, pair, score, **changes)


@pytest.mark.parametrize(
    ("score", "expected"),
    [
        ("similarity_batch", [3, 0, 2]),
        ("similarity_own", [0, 2, 3]),
        ("centerness", [2, 1, 3]),
        ("similarity_centerness", [2, 1, 3]),  # .727, .95 * .5 < .88 * .73, .993 * .27
        ("foreground", [1, 3, 2]),
        ("iou", [1, 3, 2]),
    ],
)
def test_proposals_by_score_and_suppression(score, expected):
    learnt = {"objectness": torch.tensor([[1.0, 4.0, 2.0, 3.0]])} if score in LEARNT_SCORES else {}
    rows, mask = propose_on(score, **learnt)
    assert rows[0, mask[0]].tolist() == expected
    rows, mask = propose_on(score, num_proposals=2, **learnt)
    assert rows.tolist() == [expected[:2]]
    assert mask.all()
    rows, mask = propose_on(score, iou_threshold=1.0, **learnt)
    assert mask.sum() == 4


def test_proposals_lie_on_the_image_and_not_on_its_padding():
    rows, mask = propose_on("similarity_batch", inside=torch.tensor([[True, True, True, False]]))
    assert rows[0, mask[0]].tolist() == [0, 2]
    rows, mask = propose_on("similarity_batch", inside=torch.zeros(1, 4, dtype=torch.bool))
    assert rows[0, mask[0]].tolist() == [3, 0, 2]  # an image smaller than a cell still has proposals
    anchors = torch.tensor([[0.0, 0.0, 0.2, 0.2], [0.4, 0.0, 0.6, 0.2], [0.8, 0.8, 1.0, 1.0]])
    assert on_image(anchors, torch.tensor([[1.0, 1.0], [0.5, 1.0], [0.55, 0.05]])).tolist() == [
        [True, True, True],
        [True, False, False],
        [False, False, False],
    ]


def test_boxes_are_cut_at_the_border_of_their_own_image():
    boxes = torch.tensor([[-0.5, 0.2, 0.6, 1.5], [0.7, 0.1, 0.9, 0.3], [0.1, 0.1, 0.2, 0.2]]).expand(2, 3, 4)
    cut = cut_at_border(boxes.requires_grad_(), torch.tensor([[1.0, 1.0], [0.5, 0.75]]))
    assert not cut.requires_grad
    torch.testing.assert_close(cut[0], torch.tensor([[0, 0.2, 0.6, 1], [0.7, 0.1, 0.9, 0.3], [0.1, 0.1, 0.2, 0.2]]))
    expected = torch.tensor([[0, 0.2, 0.5, 0.75], [0.5, 0.1, 0.5, 0.3], [0.1, 0.1, 0.2, 0.2]])
    torch.testing.assert_close(cut[1], expected)


def test_an_unknown_score_is_named():
    with pytest.raises(ValueError, match="proposal_score: expected one of"):
        propose_on("size")


@pytest.mark.parametrize("score", PROPOSAL_SCORES)
def test_no_concept_and_no_image_still_give_proposals(score):
    none, one = torch.zeros(0, dtype=torch.int64), torch.tensor(1.0)
    boxes = torch.tensor([[0.0, 0, 1, 1], [5, 5, 6, 6]])[None]
    told = {"objectness": torch.ones(1, 2)} if score in LEARNT_SCORES else {}
    rows, mask = propose(
        torch.ones(1, 2, 3), boxes, torch.ones(1, 2), torch.ones(0, 3), one, one, none, none, score, **told
    )
    assert rows.shape == (1, 2)
    assert mask.all()
    rows, _ = propose(
        torch.ones(0, 2, 3), boxes[:0], torch.ones(0, 2), torch.ones(0, 3), one, one, none, none, score, **told
    )
    assert rows.shape == (0, 2)


SPLITS = [((3, 2), (4, 2)), ((5, 0), (5, 1)), ((0, 5), (0, 6)), ((0, 0), (0, 0))]
"""Images and concepts of two ranks."""


def rank_inputs(rank, images, concepts):
    total = inputs(sum(images), sum(concepts), 0)[0]
    mask = inputs(sum(images), sum(concepts), 0)[1]
    own = slice(sum(images[:rank]), sum(images[: rank + 1]))
    words = slice(sum(concepts[:rank]), sum(concepts[: rank + 1]))
    pairs = 0 if not concepts[rank] else images[rank] + 2
    generator = torch.Generator().manual_seed(rank + 7)
    owner = torch.randint(max(images[rank], 1), (pairs if images[rank] else 0,), generator=generator).sort().values
    concept = torch.randint(max(concepts[rank], 1), owner.shape, generator=generator)
    leaves = [total[0].detach()[own].requires_grad_(), total[1].detach()[words].requires_grad_(), total[2]]
    return leaves, mask[own], owner, concept


def share(leaves, mask, owner, concept, direction):
    found = word_region(leaves[0], mask, leaves[1], leaves[2], owner, concept, direction=direction)
    return found.loss.detach(), torch.autograd.grad(found.loss, leaves), float(found.accuracy)


@pytest.mark.multiprocess
def test_two_ranks_are_one(spine_group):
    def work(rank):
        return [[share(*rank_inputs(rank, *split), d) for d in DIRECTIONS] for split in SPLITS]

    answers = spine_group(2, work)
    for place, (images, concepts) in enumerate(SPLITS):
        parts = [rank_inputs(rank, images, concepts) for rank in (0, 1)]
        leaves = [torch.cat([p[0][n].detach() for p in parts]).requires_grad_() for n in (0, 1)] + [parts[0][0][2]]
        mask = torch.cat([p[1] for p in parts])
        owner = torch.cat([parts[0][2], parts[1][2] + images[0]])
        concept = torch.cat([parts[0][3], parts[1][3] + concepts[0]])
        for number, direction in enumerate(DIRECTIONS):
            loss, gradients, accuracy = share(leaves, mask, owner, concept, direction)
            got = [answers[rank][place][number] for rank in (0, 1)]
            torch.testing.assert_close(got[0][0] + got[1][0], loss, **CLOSE)
            torch.testing.assert_close(torch.cat([got[0][1][0], got[1][1][0]]), gradients[0], **CLOSE)
            torch.testing.assert_close(torch.cat([got[0][1][1], got[1][1][1]]), gradients[1], **CLOSE)
            torch.testing.assert_close(got[0][1][2] + got[1][1][2], gradients[2], **CLOSE)
            assert got[0][2] + got[1][2] == pytest.approx(accuracy)
