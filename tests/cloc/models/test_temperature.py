"""The cap of the inverse temperature: held, and left again."""

import math

import pytest
import torch

from cloc.models.temperature import MAX_LOG_SCALE, inverse_temperature


@pytest.mark.parametrize(("value", "expected"), [(2.0, math.exp(2.0)), (MAX_LOG_SCALE, 100.0), (7.0, 100.0)])
def test_it_is_at_most_100(value, expected):
    assert float(inverse_temperature(torch.tensor([value]))) == pytest.approx(expected)


@pytest.mark.parametrize("value", [2.0, MAX_LOG_SCALE - 1e-3])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_below_the_cap_the_gradient_is_that_of_exp(value, sign):
    log_scale = torch.tensor([value], dtype=torch.float64, requires_grad=True)
    (sign * inverse_temperature(log_scale)).backward()
    assert float(log_scale.grad) == pytest.approx(sign * math.exp(value))


def test_above_the_cap_only_the_way_down_is_open():
    log_scale = torch.nn.Parameter(torch.tensor([5.0]))
    optimiser = torch.optim.SGD([log_scale], lr=0.01)
    (-inverse_temperature(log_scale)).backward()
    optimiser.step()
    assert float(log_scale.detach()) == 5.0
    optimiser.zero_grad()
    inverse_temperature(log_scale).backward()
    optimiser.step()
    assert float(log_scale.detach()) == pytest.approx(4.0)
