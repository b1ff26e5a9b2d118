"""The contrast in tiles against the full matrix and the plain definition, in value, gradients and gauges."""

import pytest
import torch
from torch.nn import functional as F

from cloc.losses.chunked import contrast_chunked
from cloc.losses.contrastive import contrast, contrast_plain
from cloc.losses.tiles import auto_chunk, make_tiles

CASES = {
    "nothing filtered": (False, None),
    "equal strings": (True, None),
    "cosine": (False, 0.6),
    "both": (True, 0.6),
}
CLOSE = {"rtol": 1e-10, "atol": 1e-10}


def pairs(count, width=5, seed=0):
    """Rows and texts in float64, an inverse temperature, and ids with repeats."""
    random = torch.Generator().manual_seed(seed)
    rows, texts = (torch.randn(count, width, dtype=torch.float64, generator=random) for _ in range(2))
    if count > 2:
        texts[2] = texts[0] + 0.2 * texts[1]  # close to text 0
    ids = torch.randint(0, max(count // 2, 1), (count,), generator=random)
    return [
        rows.requires_grad_(),
        texts.requires_grad_(),
        torch.tensor(3.0, dtype=torch.float64, requires_grad=True),
    ], ids


def found(function, leaves, ids, case, **more):
    use_ids, threshold = CASES[case]
    rows, texts = (F.normalize(leaf, dim=-1) for leaf in leaves[:2])
    return function(rows, texts, leaves[2], ids if use_ids else None, threshold, **more)


def as_answers(result, leaves):
    """Loss, accuracy, filtered share and the gradients, with a factor before the backward pass."""
    gauges = [torch.as_tensor(value).detach().float() for value in (result.accuracy, result.filtered)]
    return [result.loss.detach(), *gauges, *torch.autograd.grad(0.7 * result.loss, leaves)]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(
    ("count", "chunk"), [(0, 2), (1, 4), (2, 1), (7, 1), (7, 2), (7, 3), (7, 7), (11, 4), (7, None)]
)
def test_tiles_agree_with_the_full_matrix(count, chunk, case):
    leaves, ids = pairs(count)
    tiled, full = found(contrast_chunked, leaves, ids, case, chunk=chunk), found(contrast, leaves, ids, case)
    assert tiled.count == full.count == count
    for ours, theirs in zip(as_answers(tiled, leaves), as_answers(full, leaves), strict=True):
        torch.testing.assert_close(ours, theirs, **CLOSE)


@pytest.mark.parametrize("case", CASES)
def test_tiles_agree_with_the_plain_definition(case):
    leaves, ids = pairs(7)
    tiled = found(contrast_chunked, leaves, ids, case, chunk=3)
    plain = found(contrast_plain, leaves, ids, case)
    torch.testing.assert_close(tiled.loss, plain, **CLOSE)
    ours, theirs = torch.autograd.grad(tiled.loss, leaves), torch.autograd.grad(plain, leaves)
    torch.testing.assert_close(ours, theirs, **CLOSE)


def test_gradients_are_those_of_finite_differences():
    leaves, ids = pairs(4, width=3)
    assert torch.autograd.gradcheck(lambda *v: found(contrast_chunked, v, ids, "both", chunk=3).loss, leaves)


def test_equal_columns_count_as_in_the_full_matrix():
    """Ties of rows that are no equal strings: the first of the best columns is the answer."""
    same = F.normalize(torch.ones(5, 4), dim=-1)
    assert float(contrast_chunked(same, same, torch.tensor(9.0), chunk=2).accuracy) == pytest.approx(1 / 5)


def test_half_precision_embeddings_are_compared_in_fp32():
    leaves, ids = pairs(7)
    rows, texts = (F.normalize(leaf.detach(), dim=-1).to(torch.bfloat16).requires_grad_() for leaf in leaves[:2])
    tiled = contrast_chunked(rows, texts, torch.tensor(30.0), ids, 0.6, chunk=3)
    exact = contrast(rows.float(), texts.float(), torch.tensor(30.0), ids, 0.6)
    assert tiled.loss.dtype == torch.float32
    torch.testing.assert_close(tiled.loss, exact.loss, rtol=1e-6, atol=1e-6)
    assert torch.autograd.grad(tiled.loss, [rows])[0].dtype == torch.bfloat16


def test_sharp_temperatures_stay_finite():
    rows = F.normalize(torch.randn(9, 4, generator=torch.Generator().manual_seed(0)), dim=-1).requires_grad_()
    tiled = contrast_chunked(rows, -rows.detach(), torch.tensor(100.0), chunk=4)
    assert torch.isfinite(tiled.loss)
    assert torch.isfinite(torch.autograd.grad(tiled.loss, [rows])[0]).all()


def test_every_place_of_the_matrix_is_walked_once():
    texts = torch.eye(7)
    _, tiles = make_tiles(texts, torch.arange(7), None, 3)
    seen = torch.zeros(7, 7)
    for tile in tiles:
        assert tile.drop.shape == seen[tile.rows, tile.columns].shape
        seen[tile.rows, tile.columns] += 1
    assert bool((seen == 1).all())


def test_the_matrix_is_never_held_as_a_whole():
    """The largest tensor that the forward and backward passes make is a tile or an input, not G x G."""
    sizes = []

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            out = function(*args, **(kwargs or {}))
            sizes.extend(
                value.numel() for value in (out if isinstance(out, tuple) else [out]) if torch.is_tensor(value)
            )
            return out

    rows, texts = (F.normalize(torch.randn(96, 8), dim=-1).requires_grad_() for _ in range(2))
    with Watch():
        loss = contrast_chunked(rows, texts, torch.tensor(9.0), torch.arange(96), 0.6, chunk=16).loss
        torch.autograd.grad(loss, [rows, texts])
    assert max(sizes) == 96 * 8


def test_a_chunk_without_rows_is_refused():
    rows = torch.eye(2)
    with pytest.raises(ValueError, match=r"chunk: expected at least one row a tile, got 0; leave it out"):
        contrast_chunked(rows, rows, torch.tensor(1.0), chunk=0)


def test_the_default_depends_on_the_device():
    assert auto_chunk(torch.device("cpu")) == 1024
    assert auto_chunk(torch.device("cuda")) == 8192


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an accelerator")
def test_bf16_on_an_accelerator_adds_up_in_fp32():
    rows, texts = (F.normalize(torch.randn(300, 64), dim=-1).cuda().bfloat16().requires_grad_() for _ in range(2))
    scale = torch.tensor(20.0, device="cuda", requires_grad=True)
    tiled = contrast_chunked(rows, texts, scale, None, 0.9, chunk=128)
    exact = contrast(rows.float(), texts.float(), scale, None, 0.9)
    torch.testing.assert_close(tiled.loss, exact.loss, rtol=1e-4, atol=1e-4)
    for ours, theirs in zip(
        torch.autograd.grad(tiled.loss, [rows, texts]), torch.autograd.grad(exact.loss, [rows, texts]), strict=True
    ):
        torch.testing.assert_close(ours.float(), theirs.float(), rtol=5e-2, atol=1e-4)


SPLITS = {2: [(5, 3), (8, 0), (0, 8), (0, 0)], 4: [(3, 0, 5, 1), (1, 6, 1, 2)]}


def _rank_answers(rank, sizes, case, chunk):
    leaves, ids = pairs(sum(sizes), seed=1)
    start = sum(sizes[:rank])
    own = slice(start, start + sizes[rank])
    mine = [leaves[0].detach()[own].requires_grad_(), leaves[1].detach()[own].requires_grad_(), leaves[2]]
    return as_answers(found(contrast_chunked, mine, ids[own], case, chunk=chunk), mine)


@pytest.mark.multiprocess
@pytest.mark.parametrize("world", [2, 4])
def test_n_ranks_are_one_rank(world, spine_group):
    chunks = (2, 3, 100)

    def work(rank):
        return [[[_rank_answers(rank, s, case, c) for c in chunks] for case in CASES] for s in SPLITS[world]]

    answers = spine_group(world, work)
    for place, sizes in enumerate(SPLITS[world]):
        for number, case in enumerate(CASES):
            leaves, ids = pairs(sum(sizes), seed=1)
            expected = as_answers(found(contrast, leaves, ids, case), leaves)
            for index in range(len(chunks)):
                shares = list(zip(*(answer[place][number][index] for answer in answers), strict=True))
                joined = [torch.cat(share) if share[0].ndim else sum(share) for share in shares]
                for ours, theirs in zip(joined, expected, strict=True):
                    close = CLOSE if ours.dtype == torch.float64 else {}  # gauges are fp32
                    torch.testing.assert_close(ours, theirs, **close)
