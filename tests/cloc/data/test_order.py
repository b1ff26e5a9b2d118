from collections import Counter

import pytest

from cloc.data.order import Order, draw

SIZES = {"one shard": [10], "several": [7, 12, 3, 9], "with an empty one": [5, 0, 6]}


def walk(order, first, count):
    return [order.locate(position) for position in range(first, first + count)]


@pytest.mark.parametrize("window", [1, 4, 8, 4096])
@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
def test_each_epoch_covers_every_sample_once(sizes, window):
    order, total = Order(sizes, seed=3, window=window), sum(sizes)
    every = {(shard, index) for shard, size in enumerate(sizes) for index in range(size)}
    for epoch in range(3):
        found = walk(order, epoch * total, total)
        assert {e for e, _, _ in found} == {epoch}
        assert Counter((s, i) for _, s, i in found) == Counter(every)


def test_a_pure_function_of_seed_and_position():
    straight = walk(Order([7, 12, 3], seed=1, window=8), 0, 60)
    jumping = Order([7, 12, 3], seed=1, window=8)
    assert [jumping.locate(position) for position in reversed(range(60))] == straight[::-1]


def test_seeds_and_epochs_give_other_orders():
    one, other = (walk(Order([50], seed=seed), 0, 100) for seed in (0, 1))
    assert one != other
    assert [i for _, _, i in one[:50]] != [i for _, _, i in one[50:]]
    assert [i for _, _, i in one[:50]] != list(range(50))


def test_a_window_reads_few_shards():
    order = Order([100] * 20, seed=0, window=200)
    for first in range(0, 2000, 200):
        assert len({shard for _, shard, _ in walk(order, first, 200)}) <= 3


def test_draws_depend_on_their_parts_only():
    assert draw(1, "a", 2).integers(1 << 40) == draw(1, "a", 2).integers(1 << 40)
    parts = [(1, "a", 2), (1, "a", 3), (2, "a", 2), (1, "b", 2), (1, "a2"), (12, "a")]
    assert len({int(draw(*p).integers(1 << 60)) for p in parts}) == len(parts)


def test_shards_without_a_sample_are_refused():
    with pytest.raises(ValueError, match="at least one sample"):
        Order([0, 0], seed=0)
