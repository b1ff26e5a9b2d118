import math

import pytest
import torch

from cloc.losses.alignment import focal_alignment, focal_alignment_plain, gather_concepts


def inputs(anchors, concepts, positives, seed=0):
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(anchors, 4, generator=generator, dtype=torch.float64).requires_grad_()
    texts = torch.randn(concepts, 4, generator=generator, dtype=torch.float64).requires_grad_()
    scale = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    bias = torch.tensor(-2.0, dtype=torch.float64, requires_grad=True)
    chosen = torch.randperm(anchors * concepts, generator=generator)[:positives]
    return [features, texts, scale, bias], chosen // max(concepts, 1), chosen % max(concepts, 1)


@pytest.mark.parametrize("entries", [1, 7, 2**20])
@pytest.mark.parametrize(("anchors", "concepts", "positives"), [(9, 5, 6), (1, 1, 1), (4, 3, 0), (0, 3, 0), (5, 0, 0)])
def test_agrees_with_the_plain_matrix(anchors, concepts, positives, entries):
    leaves, rows, columns = inputs(anchors, concepts, positives)
    for alpha, gamma in ((0.25, 2.0), (0.5, 1.5)):
        found = focal_alignment(*leaves, rows, columns, alpha, gamma, max_entries=entries)
        plain = focal_alignment_plain(*leaves, rows, columns, alpha, gamma)
        torch.testing.assert_close(found, plain, rtol=1e-10, atol=1e-10)
        for one, other in zip(torch.autograd.grad(found, leaves), torch.autograd.grad(plain, leaves), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("entries", [1, 7, 2**20])
@pytest.mark.parametrize(("anchors", "concepts", "positives"), [(9, 5, 6), (1, 1, 1), (4, 3, 0), (0, 3, 0), (5, 0, 0)])
def test_unknown_entries_take_no_part_but_for_positive_ones(anchors, concepts, positives, entries):
    leaves, rows, columns = inputs(anchors, concepts, positives)
    draw = torch.Generator().manual_seed(1)
    masks = {
        "unknown": torch.rand(3, concepts, generator=draw) < 0.5,
        "group": torch.randint(3, (anchors,), generator=draw),
    }
    found = focal_alignment(*leaves, rows, columns, max_entries=entries, **masks)
    plain = focal_alignment_plain(*leaves, rows, columns, **masks)
    torch.testing.assert_close(found, plain, rtol=1e-10, atol=1e-10)
    for one, other in zip(torch.autograd.grad(found, leaves), torch.autograd.grad(plain, leaves), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)
    nothing = {"unknown": torch.zeros(1, concepts, dtype=torch.bool), "group": torch.zeros(anchors, dtype=torch.int64)}
    assert torch.equal(focal_alignment(*leaves, rows, columns, **nothing), focal_alignment(*leaves, rows, columns))
    everything = {"unknown": torch.ones(1, concepts, dtype=torch.bool), "group": nothing["group"]}
    logits = leaves[2] * (leaves[0][rows] * leaves[1][columns]).sum(dim=1) + leaves[3]
    alone = (0.25 * (1 - logits.sigmoid()) ** 2 * torch.nn.functional.softplus(-logits)).sum()
    torch.testing.assert_close(focal_alignment(*leaves, rows, columns, **everything), alone, rtol=1e-10, atol=1e-10)


def test_gradients_are_those_of_finite_differences():
    leaves, rows, columns = inputs(5, 3, 4)
    assert torch.autograd.gradcheck(lambda *x: focal_alignment(*x, rows, columns, max_entries=6), leaves)


def test_by_hand():
    """One anchor, a positive and a negative concept, both at logit 0: p = 1/2 each."""
    features, texts = torch.zeros(1, 2, dtype=torch.float64), torch.ones(2, 2, dtype=torch.float64)
    one = torch.tensor(1.0, dtype=torch.float64)
    found = focal_alignment(features, texts, one, one * 0, torch.tensor([0]), torch.tensor([1]))
    assert float(found) == pytest.approx((0.25 + 0.75) * 0.25 * math.log(2), abs=1e-12)


def test_half_precision_is_computed_in_float32():
    leaves, rows, columns = inputs(6, 4, 3)
    half = [leaf.detach().bfloat16() for leaf in leaves]
    found = focal_alignment(*half, rows, columns)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, focal_alignment(*(h.float() for h in half), rows, columns))


def test_equal_concepts_become_one():
    embeds = torch.arange(8.0).view(4, 2)
    texts, own = gather_concepts(embeds, torch.tensor([9, 3, 9, 5]))
    assert torch.equal(texts, embeds[[1, 3, 0]])
    assert own.tolist() == [2, 0, 2, 1]
    nothing, none = gather_concepts(embeds[:0], torch.zeros(0, dtype=torch.int64))
    assert nothing.shape == (0, 2)
    assert none.shape == (0,)


@pytest.mark.multiprocess
def test_concepts_of_all_ranks_are_one_list(spine_group):
    ids = [torch.tensor([4, 2]), torch.tensor([2, 8, 1]), torch.zeros(0, dtype=torch.int64)]

    def work(rank):
        embeds = (torch.arange(6.0).view(3, 2)[: len(ids[rank])] + 10 * rank).requires_grad_()
        texts, own = gather_concepts(embeds, ids[rank])
        (texts * (rank + 1)).sum().backward()
        return texts.detach(), own, embeds.grad

    found = spine_group(3, work)
    for texts, _, _ in found:
        assert texts.tolist() == [[14.0, 15.0], [2.0, 3.0], [0.0, 1.0], [12.0, 13.0]]
    assert [own.tolist() for _, own, _ in found] == [[2, 1], [1, 3, 0], []]
    assert [grad.tolist() for _, _, grad in found] == [[[6.0, 6.0]] * 2, [[0.0, 0.0], [6.0, 6.0], [6.0, 6.0]], []]
