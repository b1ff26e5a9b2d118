import math

import pytest
import torch
from torch.nn import functional as F

from cloc.losses.contrastive import contrast, contrast_plain

CASES = {
    "nothing filtered": (False, None),
    "equal strings": (True, None),
    "cosine": (False, 0.6),
    "both": (True, 0.6),
}


def pairs(count, width=5, seed=0):
    """Unit-norm rows and texts in float64, an inverse temperature, and ids with repeats."""
    random = torch.Generator().manual_seed(seed)
    rows, texts = (torch.randn(count, width, dtype=torch.float64, generator=random) for _ in range(2))
    if count > 2:
        texts[2] = texts[0] + 0.2 * texts[1]  # close to text 0
    ids = torch.randint(0, max(count // 2, 1), (count,), generator=random)
    leaves = [rows.requires_grad_(), texts.requires_grad_(), torch.tensor(3.0, dtype=torch.float64, requires_grad=True)]
    return leaves, ids


def losses(function, leaves, ids, case):
    use_ids, threshold = CASES[case]
    rows, texts, scale = leaves
    rows, texts = F.normalize(rows, dim=-1), F.normalize(texts, dim=-1)
    found = function(rows, texts, scale, ids if use_ids else None, threshold)
    return found if torch.is_tensor(found) else found.loss


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("count", [0, 1, 2, 7])
def test_agrees_with_the_plain_definition(count, case):
    leaves, ids = pairs(count)
    fast, plain = (losses(function, leaves, ids, case) for function in (contrast, contrast_plain))
    torch.testing.assert_close(fast, plain, rtol=1e-10, atol=1e-12)
    for ours, theirs in zip(torch.autograd.grad(fast, leaves), torch.autograd.grad(plain, leaves), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("function", [contrast, contrast_plain])
def test_gradients_are_those_of_finite_differences(function):
    leaves, ids = pairs(4, width=3)
    assert torch.autograd.gradcheck(lambda *values: losses(function, values, ids, "both"), leaves)


def test_a_perfect_match_has_its_known_minimum():
    count, scale = 6, 4.0
    found = contrast(torch.eye(count), torch.eye(count), torch.tensor(scale))
    assert float(found.loss) == pytest.approx(math.log(1 + (count - 1) * math.exp(-scale)), rel=1e-6)
    assert float(found.accuracy) == 1.0
    assert float(found.filtered) == 0.0


@pytest.mark.parametrize("count", [1, 2, 9])
def test_equal_embeddings_give_exactly_log_g(count):
    same = F.normalize(torch.ones(count, 4, dtype=torch.float64), dim=-1)
    found = contrast(same, same, torch.tensor(10.0, dtype=torch.float64))
    assert float(found.loss) == pytest.approx(math.log(count), abs=1e-12)


def test_positives_always_stay():
    same = F.normalize(torch.ones(5, 4), dim=-1)
    found = contrast(same, same, torch.tensor(10.0), torch.zeros(5, dtype=torch.int64), 0.5)
    assert float(found.loss) == pytest.approx(0.0, abs=1e-6)  # one column left: the positive
    assert float(found.filtered) == 1.0
    assert float(found.accuracy) == 1.0


def test_accuracy_and_filtered_share_by_hand():
    texts = torch.eye(4)
    rows = texts[[0, 1, 3, 2]]  # two of four look like another's text
    ids = torch.tensor([7, 7, 8, 9])  # the pair (0, 1) is filtered in both orders
    found = contrast(rows, texts, torch.tensor(5.0), ids)
    assert float(found.accuracy) == 0.5
    assert float(found.filtered) == pytest.approx(2 / 12)
    assert found.count == 4


def test_a_filtered_text_is_no_wrong_answer():
    texts = F.normalize(torch.tensor([[1.0, 0.0], [1.0, 0.05]]), dim=-1)
    rows = texts.flip(0)
    assert float(contrast(rows, texts, torch.tensor(9.0)).accuracy) == 0.0
    assert float(contrast(rows, texts, torch.tensor(9.0), threshold=0.9).accuracy) == 1.0


def test_the_filter_sends_no_gradient():
    """With everything filtered but the positives, nothing is left to learn from, so every gradient is zero."""
    leaves, _ = pairs(5)
    rows, texts, scale = leaves
    loss = contrast(F.normalize(rows, dim=-1), F.normalize(texts, dim=-1), scale, threshold=-1.0).loss
    for gradient in torch.autograd.grad(loss, leaves):
        assert float(gradient.abs().max()) < 1e-12


def test_a_filtered_pair_has_no_pull():
    """Texts 0 and 2 are alike: row 0 must not be pushed from text 2, nor from row 2's place in the other direction."""
    leaves, _ = pairs(6)
    rows, texts, scale = leaves
    loss = contrast(F.normalize(rows, dim=-1), F.normalize(texts, dim=-1), scale, threshold=0.6).loss
    moved = rows.detach().clone()
    to_text = scale * F.normalize(moved, dim=-1) @ F.normalize(texts, dim=-1).T
    alike = F.normalize(texts, dim=-1) @ F.normalize(texts, dim=-1).T > 0.6
    alike.fill_diagonal_(False)
    assert alike[0, 2]
    expected = F.cross_entropy(to_text.masked_fill(alike, -math.inf), torch.arange(6))
    expected = expected + F.cross_entropy(to_text.T.masked_fill(alike, -math.inf), torch.arange(6))
    assert float(loss.detach()) == pytest.approx(float(expected.detach()) / 2, rel=1e-9)


def test_half_precision_embeddings_are_compared_in_fp32():
    leaves, ids = pairs(7)
    rows, texts, _ = (leaf.detach() for leaf in leaves)
    rows, texts = (F.normalize(value, dim=-1).to(torch.bfloat16) for value in (rows, texts))
    found = contrast(rows, texts, torch.tensor(30.0), ids)
    exact = contrast(rows.float(), texts.float(), torch.tensor(30.0), ids)
    assert found.loss.dtype == torch.float32
    assert float(found.loss) == float(exact.loss)


SPLITS = {2: [(5, 3), (8, 0), (0, 8), (0, 0)], 3: [(3, 0, 5), (1, 6, 1)]}


def _rank_share(rank, sizes, case, total):
    leaves, ids = pairs(total, seed=1)
    start = sum(sizes[:rank])
    own = slice(start, start + sizes[rank])
    mine = [leaves[0].detach()[own].requires_grad_(), leaves[1].detach()[own].requires_grad_(), leaves[2]]
    loss = losses(contrast, mine, ids[own], case)
    gradients = torch.autograd.grad(loss, mine)
    return loss.detach(), gradients


@pytest.mark.multiprocess
@pytest.mark.parametrize("world", [2, 3])
def test_n_ranks_are_one_rank(world, spine_group):
    def work(rank):
        return [[_rank_share(rank, sizes, case, sum(sizes)) for case in CASES] for sizes in SPLITS[world]]

    found = spine_group(world, work)
    for place, sizes in enumerate(SPLITS[world]):
        for number, case in enumerate(CASES):
            shares = [answer[place][number] for answer in found]
            leaves, ids = pairs(sum(sizes), seed=1)
            loss = losses(contrast, leaves, ids, case)
            rows, texts, scale = torch.autograd.grad(loss, leaves)
            close = {"rtol": 1e-10, "atol": 1e-10}
            torch.testing.assert_close(sum(share[0] for share in shares), loss.detach(), **close)
            torch.testing.assert_close(torch.cat([share[1][0] for share in shares]), rows, **close)
            torch.testing.assert_close(torch.cat([share[1][1] for share in shares]), texts, **close)
            torch.testing.assert_close(sum(share[1][2] for share in shares), scale, **close)


@pytest.mark.multiprocess
def test_gauges_add_up_over_ranks(spine_group):
    def work(rank):
        leaves, ids = pairs(8, seed=1)
        own = slice(0, 3) if rank == 0 else slice(3, 8)
        rows, texts = (F.normalize(leaf.detach(), dim=-1)[own] for leaf in leaves[:2])
        found = contrast(rows, texts, leaves[2].detach(), ids[own], 0.6)
        return float(found.accuracy), float(found.filtered), found.count

    found = spine_group(2, work)
    leaves, ids = pairs(8, seed=1)
    one = contrast(*(F.normalize(leaf.detach(), dim=-1) for leaf in leaves[:2]), leaves[2].detach(), ids, 0.6)
    assert sum(f[0] for f in found) == pytest.approx(float(one.accuracy))
    assert sum(f[1] for f in found) == pytest.approx(float(one.filtered))
    assert float(one.filtered) > 0
    assert [f[2] for f in found] == [8, 8]
