"""upconv.book.integers: whole numbers in float64, whose sums are exact."""

import torch
from torch import nn

from upconv.book.integers import integers, with_integers


def test_integers_are_whole_numbers_of_one_digit_in_float64():
    torch.manual_seed(0)
    drawn = integers(40, 50)
    assert drawn.shape == (40, 50) and drawn.dtype == torch.float64
    assert drawn.unique().tolist() == list(range(-9, 10))
    torch.manual_seed(0)
    assert torch.equal(integers(40, 50), drawn)
    assert integers().shape == ()


def test_with_integers_changes_every_parameter_and_the_sums_are_exact_in_any_order():
    layer = with_integers(nn.Sequential(nn.Conv2d(64, 32, 3), nn.BatchNorm2d(32)))
    for parameter in layer.parameters():
        assert parameter.dtype == torch.float64 and torch.equal(parameter, parameter.round())
    conv, x = layer[0], integers(1, 64, 9, 9)
    turned = nn.Conv2d(64, 32, 3).double()
    turned.weight.data, turned.bias.data = conv.weight.flip(1), conv.bias
    assert torch.equal(turned(x.flip(1)), conv(x))


def test_with_integers_gives_the_same_module():
    layer = nn.ConvTranspose2d(2, 2, 3)
    assert with_integers(layer) is layer
