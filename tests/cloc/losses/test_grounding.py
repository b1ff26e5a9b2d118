import pytest
import torch

from cloc.losses.objectives import grounding


def test_mean_squared_error_by_hand():
    predicted = torch.tensor([[0.0, 0.0, 1.0, 1.0], [0.5, 0.5, 0.5, 0.5]])
    loss, count = grounding(predicted, torch.tensor([[0.0, 0.0, 0.5, 1.0], [0.5, 0.5, 0.5, 0.9]]))
    assert count == 2
    assert float(loss) == pytest.approx((0.25 + 0.16) / 8)


def test_no_box_costs_nothing_and_stays_in_the_graph():
    predicted = torch.zeros(0, 4, requires_grad=True)
    loss, count = grounding(predicted, torch.zeros(0, 4))
    loss.backward()
    assert (float(loss), count, predicted.grad.shape) == (0.0, 0, (0, 4))


def test_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"expected predictions of shape \(2, 4\), got \(1, 4\)"):
        grounding(torch.zeros(1, 4), torch.zeros(2, 4))


@pytest.mark.multiprocess
def test_shares_add_up_over_uneven_ranks(spine_group):
    predicted, boxes = torch.rand(5, 4, dtype=torch.float64), torch.rand(5, 4, dtype=torch.float64)

    def work(rank):
        own = slice(0, 5) if rank == 0 else slice(5, 5)
        loss, count = grounding(predicted[own], boxes[own])
        return float(loss), count

    found = spine_group(2, work)
    assert sum(loss for loss, _ in found) == pytest.approx(float((predicted - boxes).square().mean()), rel=1e-6)
    assert [count for _, count in found] == [5, 5]
