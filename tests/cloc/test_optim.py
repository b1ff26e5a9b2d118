import itertools
import math

import pytest
import torch

from cloc.train.optim import learning_rate, make_adamw, parameter_groups


def test_the_rate_rises_linearly_and_falls_as_a_cosine_to_zero():
    rates = [learning_rate(step, 110, 1e-3, 10) for step in range(111)]
    assert rates[0] == pytest.approx(1e-4)
    assert rates[9] == rates[10] == pytest.approx(1e-3)
    assert rates[60] == pytest.approx(0.5e-3)
    assert rates[85] == pytest.approx(0.5e-3 * (1 + math.cos(0.75 * math.pi)))
    assert rates[110] == pytest.approx(0.0)
    assert max(rates) == pytest.approx(1e-3)
    assert all(a >= b for a, b in itertools.pairwise(rates[10:]))


def test_the_rate_without_warmup_and_with_a_warmup_longer_than_the_run():
    assert learning_rate(0, 10, 1e-3, 0) == pytest.approx(1e-3)
    assert learning_rate(4, 5, 1e-3, 50) == pytest.approx(1e-4)
    assert learning_rate(5, 5, 1e-3, 5) == pytest.approx(1e-3)


@pytest.fixture
def named_groups(spine_model):
    """Each parameter's (decay, scale) by name."""
    model = spine_model()
    model.logit_scale.requires_grad_(False)
    groups = parameter_groups(model, 0.2, {"text": 0.5, "vision.prompter.": 3.0, "vision.box_head.": 3.0})
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    listed = [(names[id(p)], (g["weight_decay"], g["lr_scale"])) for g in groups for p in g["params"]]
    return model, listed


def test_every_trainable_parameter_is_in_one_group(named_groups):
    model, listed = named_groups
    assert sorted(name for name, _ in listed) == sorted(n for n, p in model.named_parameters() if p.requires_grad)
    assert "logit_scale" not in dict(listed)


def test_only_matrices_that_are_no_positions_decay(named_groups):
    model, listed = named_groups
    shapes = {name: parameter.ndim for name, parameter in model.named_parameters()}
    for name, (decay, _) in listed:
        free = shapes[name] < 2 or "position_embedding" in name or "corner_type" in name
        assert decay == (0.0 if free else 0.2), name
    found = dict(listed)
    assert found["vision.tower.embeddings.position_embedding.weight"][0] == 0.0
    assert found["vision.visual_projection.weight"][0] == 0.2


def test_rates_are_scaled_by_the_name_of_the_part(named_groups):
    found = dict(named_groups[1])
    assert found["text_projection.weight"][1] == 0.5
    assert all(scale == 0.5 for name, (_, scale) in found.items() if name.startswith("text."))
    assert all(scale == 3.0 for name, (_, scale) in found.items() if name.startswith("vision.prompter."))
    assert found["vision.box_head.layers.0.weight"][1] == 3.0
    assert found["vision.visual_projection.weight"][1] == 1.0
    assert found["region_logit_scale"][1] == 1.0


def test_one_step_of_adamw_by_hand():
    weight = torch.nn.Parameter(torch.tensor([[2.0]]))
    optimizer = make_adamw([{"params": [weight], "weight_decay": 0.1, "lr_scale": 1.0}], 0.01, (0.9, 0.98), 1e-6)
    weight.grad = torch.tensor([[0.5]])
    optimizer.step()
    # decay is taken off first; the first step of Adam has length one whatever the gradient
    assert float(weight.detach()) == pytest.approx(2.0 * (1 - 0.01 * 0.1) - 0.01 * 0.5 / (0.5 + 1e-6), abs=1e-7)
