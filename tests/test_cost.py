"""upconv.cost against closed forms."""

import math
import random

import pytest
import torch
from torch import nn

from upconv import macs, parameters
from upconv.book.models import UNet


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_layers_cost_what_their_settings_say(axes):
    rng = random.Random(axes)
    for _ in range(100):

        def pick(low, high):
            return tuple(rng.randint(low, high) for _ in range(axes))

        groups, kernel_size, bias = rng.choice((1, 2)), pick(1, 3), rng.random() < 0.5
        inputs, outputs, x_size = 2 * groups, 3 * groups, pick(4, 6)
        settings = dict(stride=pick(1, 3), padding=pick(0, 1), groups=groups, bias=bias)
        x = torch.zeros(2, inputs, *x_size)
        conv = getattr(nn, f"Conv{axes}d")(inputs, outputs, kernel_size, **settings)
        transposed = getattr(nn, f"ConvTranspose{axes}d")(inputs, outputs, kernel_size, **settings)
        taps = math.prod(kernel_size)
        assert parameters(conv) == parameters(transposed) == taps * inputs * outputs // groups + outputs * bias
        pixels = conv(x).shape[2:].numel()
        assert macs(conv, x) == 2 * pixels * outputs * taps * inputs // groups
        if min(transposed(x).shape[2:]) > 0:
            assert macs(transposed, (x,)) == 2 * math.prod(x_size) * inputs * taps * outputs // groups


def test_models_are_counted_and_left_as_they_are():
    model = UNet("conv_transpose_2x2").train()
    kept = {name: value.clone() for name, value in model.state_dict().items()}
    one, two = (macs(model, torch.zeros(n, 1, 32, 32)) for n in (1, 2))
    assert two == 2 * one > 0
    assert model.training and all(torch.equal(value, kept[name]) for name, value in model.state_dict().items())
    linear = nn.Linear(3, 3, bias=False)
    assert parameters(nn.Sequential(linear, nn.ReLU(), linear)) == 9
    assert macs(nn.Sequential(linear, nn.ReLU(), linear), torch.zeros(5, 3)) == 90
    with pytest.raises(TypeError, match="example_inputs must be"):
        macs(linear, [torch.zeros(5, 3)])
