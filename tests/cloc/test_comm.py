import os

import pytest
import torch

from cloc import comm


def test_one_process_changes_nothing():
    rows = torch.randn(3, 2)
    gathered, start = comm.gather_rows(rows)
    assert gathered is rows
    assert start == 0
    assert comm.sum_over_ranks([1, 2.5]) == [1.0, 2.5]
    assert comm.from_main("value") == "value"
    assert comm.is_main()


@pytest.mark.multiprocess
def test_ragged_rows_come_in_rank_order(spine_group):
    def work(rank):
        rows = torch.arange(10.0).view(5, 2)[: (0, 4, 1)[rank]] + 100 * rank
        gathered, start = comm.gather_rows(rows)
        return gathered, start, comm.sum_over_ranks([rank, 1]), comm.from_main({"rank": rank}), comm.is_main()

    found = spine_group(3, work)
    expected = torch.cat([torch.arange(8.0).view(4, 2) + 100, torch.arange(2.0).view(1, 2) + 200])
    for rank, (gathered, start, sums, told, main) in enumerate(found):
        assert torch.equal(gathered, expected)
        assert (start, sums, told, main) == ((0, 0, 4)[rank], [3.0, 3.0], {"rank": 0}, rank == 0)


@pytest.mark.multiprocess
def test_no_rows_on_any_rank(spine_group):
    found = spine_group(2, lambda rank: comm.gather_rows(torch.zeros(0, 3))[0].shape)
    assert found == [(0, 3), (0, 3)]


@pytest.mark.multiprocess
def test_gradient_of_a_row_is_what_all_ranks_say_of_it(spine_group):
    def work(rank):
        rows = torch.ones(2 - rank, 2, dtype=torch.float64, requires_grad=True)
        gathered, _ = comm.gather_rows(rows)
        weights = torch.arange(6.0, dtype=torch.float64).view(3, 2) * (rank + 1)
        (gathered * weights).sum().backward()
        return rows.grad

    first, second = spine_group(2, work)
    assert torch.equal(torch.cat([first, second]), 3 * torch.arange(6.0, dtype=torch.float64).view(3, 2))


@pytest.mark.multiprocess
def test_gathering_leaves_other_gradients_alone(spine_group):
    """The exchange of gradients works in place; a tensor that shares the gradient must not see it."""

    def work(rank):
        rows, other = torch.ones(2, 2, requires_grad=True), torch.ones(4, 2, requires_grad=True)
        gathered, _ = comm.gather_rows(rows)
        ((gathered + other) * (rank + 1.0)).sum().backward()
        return rows.grad, other.grad

    for rank, (rows, other) in enumerate(spine_group(2, work)):
        assert torch.equal(other, torch.full((4, 2), rank + 1.0))
        assert torch.equal(rows, torch.full((2, 2), 3.0))


@pytest.mark.multiprocess
def test_join_shares_the_cores_among_the_ranks(spine_ranks):
    def work(rank):
        comm.join("cpu", deepspeed=False)
        comm.barrier()
        found = comm.rank(), comm.world_size(), torch.get_num_threads()
        comm.leave()
        return found

    cores = len(os.sched_getaffinity(0))
    assert spine_ranks(2, work, LOCAL_WORLD_SIZE="2") == [(0, 2, max(1, cores // 2)), (1, 2, max(1, cores // 2))]


@pytest.mark.parametrize(("told", "threads"), [("3", 3), ("", len(os.sched_getaffinity(0))), ("many", None)])
def test_one_process_takes_the_threads_it_is_told(told, threads, monkeypatch):
    """Two runs side by side with all cores each wait for one another: six times as long."""
    monkeypatch.setenv("OMP_NUM_THREADS", told)
    for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE", "LOCAL_SIZE"):
        monkeypatch.delenv(name, raising=False)
    comm.join("cpu", deepspeed=False)
    assert torch.get_num_threads() == (threads or len(os.sched_getaffinity(0)))
