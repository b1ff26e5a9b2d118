"""The sigmoid form: full matrix and tiles against the plain definition, and over ranks."""

import math

import pytest
import torch
from torch.nn import functional as F

from cloc.losses.sigmoid import sigmoid_contrast, sigmoid_contrast_chunked, sigmoid_contrast_plain

CASES = {
    "nothing filtered": (False, None),
    "equal strings": (True, None),
    "cosine": (False, 0.6),
    "both": (True, 0.6),
}
CLOSE = {"rtol": 1e-10, "atol": 1e-10}


def pairs(count, width=5, seed=0):
    """Rows and texts in float64, an inverse temperature, a bias, and ids with repeats."""
    random = torch.Generator().manual_seed(seed)
    rows, texts = (torch.randn(count, width, dtype=torch.float64, generator=random) for _ in range(2))
    if count > 2:
        texts[2] = texts[0] + 0.2 * texts[1]  # close to text 0
    ids = torch.randint(0, max(count // 2, 1), (count,), generator=random)
    leaves = [rows, texts, torch.tensor(3.0, dtype=torch.float64), torch.tensor(-1.5, dtype=torch.float64)]
    return [leaf.requires_grad_() for leaf in leaves], ids


def loss_of(function, leaves, ids, case, **more):
    use_ids, threshold = CASES[case]
    rows, texts = (F.normalize(leaf, dim=-1) for leaf in leaves[:2])
    found = function(rows, texts, leaves[2], leaves[3], ids if use_ids else None, threshold, **more)
    return found if torch.is_tensor(found) else found.loss


def with_gradients(loss, leaves):
    return [loss.detach(), *torch.autograd.grad(0.7 * loss, leaves)]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("count", [0, 1, 2, 7])
def test_agrees_with_the_plain_definition(count, case):
    leaves, ids = pairs(count)
    plain = with_gradients(loss_of(sigmoid_contrast_plain, leaves, ids, case), leaves)
    full = with_gradients(loss_of(sigmoid_contrast, leaves, ids, case), leaves)
    torch.testing.assert_close(full, plain, **CLOSE)
    for chunk in (1, 3, 100, None):
        tiled = with_gradients(loss_of(sigmoid_contrast_chunked, leaves, ids, case, chunk=chunk), leaves)
        torch.testing.assert_close(tiled, plain, **CLOSE)


def test_two_pairs_by_hand():
    rows = torch.eye(2)
    found = sigmoid_contrast(rows, rows, torch.tensor(4.0), torch.tensor(-1.0))
    expected = (2 * math.log(1 + math.exp(-3.0)) + 2 * math.log(1 + math.exp(-1.0))) / 2
    assert float(found.loss) == pytest.approx(expected, rel=1e-6)
    assert (float(found.accuracy), float(found.filtered), found.count) == (1.0, 0.0, 2)


def test_gauges_are_those_of_the_full_matrix():
    leaves, ids = pairs(9)
    arguments = [F.normalize(leaf.detach(), dim=-1) for leaf in leaves[:2]] + [leaf.detach() for leaf in leaves[2:]]
    full = sigmoid_contrast(*arguments, ids, 0.6)
    tiled = sigmoid_contrast_chunked(*arguments, ids, 0.6, chunk=4)
    assert float(full.filtered) > 0
    assert (tiled.accuracy, tiled.filtered) == (full.accuracy, full.filtered)


SPLITS = {2: [(5, 3), (8, 0), (0, 0)], 4: [(3, 0, 5, 1)]}


def _rank_share(rank, sizes, case, function, more):
    leaves, ids = pairs(sum(sizes), seed=1)
    start = sum(sizes[:rank])
    own = slice(start, start + sizes[rank])
    mine = [*(leaf.detach()[own].requires_grad_() for leaf in leaves[:2]), *leaves[2:]]
    return with_gradients(loss_of(function, mine, ids[own], case, **more), mine)


@pytest.mark.multiprocess
@pytest.mark.parametrize("world", [2, 4])
def test_n_ranks_are_one_rank(world, spine_group):
    ways = [(sigmoid_contrast, {}), (sigmoid_contrast_chunked, {"chunk": 2})]

    def work(rank):
        return [[[_rank_share(rank, s, case, *way) for way in ways] for case in CASES] for s in SPLITS[world]]

    answers = spine_group(world, work)
    for place, sizes in enumerate(SPLITS[world]):
        for number, case in enumerate(CASES):
            leaves, ids = pairs(sum(sizes), seed=1)
            expected = with_gradients(loss_of(sigmoid_contrast_plain, leaves, ids, case), leaves)
            for way in range(len(ways)):
                shares = list(zip(*(answer[place][number][way] for answer in answers), strict=True))
                joined = [torch.cat(share) if share[0].ndim else sum(share) for share in shares]
                torch.testing.assert_close(joined, expected, **CLOSE)
