"""upconv.phases against what a constant image becomes."""

import pytest
import torch
from torch.nn import functional as F

from upconv import phase_gains


@pytest.mark.parametrize("kernel_size", [(1, 1), (2, 2), (3, 4), (5, 2), (7, 7)])
@pytest.mark.parametrize("stride", [1, 2, (2, 3), (4, 1)])
def test_gains_are_what_each_phase_shows_of_a_constant_image(kernel_size, stride):
    generator = torch.Generator().manual_seed(0)
    weight = torch.randint(-9, 10, (3, 2, *kernel_size), generator=generator).double()
    gains = phase_gains(weight, stride)
    sh, sw = stride if isinstance(stride, tuple) else (stride, stride)
    assert gains.shape == (3, 2, sh, sw)
    for channel in range(3):
        flat = torch.zeros(1, 3, 20, 20, dtype=torch.float64)
        flat[:, channel] = 1
        output = F.conv_transpose2d(flat, weight, stride=(sh, sw))[0]  # (2, H, W)
        middle = output[:, 8 * sh : 10 * sh, 8 * sw : 10 * sw]
        assert torch.equal(middle, gains[channel].repeat(1, 2, 2))


def test_gains_keep_dtype_and_gradient():
    weight = torch.ones(1, 1, 3, 3, dtype=torch.float16, requires_grad=True)
    gains = phase_gains(weight, 2)
    assert gains.dtype == torch.float16
    gains.sum().backward()
    assert torch.equal(weight.grad, torch.ones_like(weight))


def test_errors_name_the_argument():
    with pytest.raises(TypeError, match=r"weight must be a torch\.Tensor"):
        phase_gains([[1]], 2)
    with pytest.raises(ValueError, match=r"weight must have the shape .* not \(3, 3\)"):
        phase_gains(torch.ones(3, 3), 2)
    with pytest.raises(ValueError, match="stride=0"):
        phase_gains(torch.ones(1, 1, 3, 3), 0)
    with pytest.raises(TypeError, match="stride=True"):
        phase_gains(torch.ones(1, 1, 3, 3), True)
