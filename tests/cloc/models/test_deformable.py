"""The deformable convolution: torchvision's op and the one from grid_sample agree in value and gradient."""

import pytest
import torch

from cloc.models.detector.deformable import convolve_sampled, convolve_torchvision


@pytest.mark.parametrize("shape", [(2, 5, 7), (1, 1, 1), (3, 4, 2), (0, 3, 3)], ids=str)
def test_both_forms_agree(shape):
    batch, height, width = shape
    torch.manual_seed(0)
    features = torch.randn(batch, 3, height, width, dtype=torch.float64)
    shifts = 2.0 * torch.randn(batch, 18, height, width, dtype=torch.float64)  # far enough to leave the map
    modulation = torch.rand(batch, 9, height, width, dtype=torch.float64)
    weight, seen = torch.randn(4, 3, 3, 3, dtype=torch.float64), []
    for convolve in (convolve_torchvision, convolve_sampled):
        inputs = [value.clone().requires_grad_() for value in (features, shifts, modulation, weight)]
        found = convolve(*inputs)
        assert found.shape == (batch, 4, height, width)
        gradients = torch.autograd.grad(found.square().sum(), inputs)
        seen.append([found, *gradients])
    for theirs, ours in zip(*seen, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)
