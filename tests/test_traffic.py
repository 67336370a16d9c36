"""Are the bytes those of the arithmetic?"""

import torch
from torch import nn

from upconv import upsample_conv_to_conv_transpose, upsample_conv_to_jump
from upconv.book.traffic import bytes_moved, bytes_saved_for_backward

PAIR = nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(6, 4, 3, padding=1))
SMALL, LARGE, OUT, WEIGHT = 2 * 6 * 5 * 7 * 4, 2 * 6 * 10 * 14 * 4, 2 * 4 * 10 * 14 * 4, (6 * 4 * 9 + 4) * 4


def image():
    return torch.randn(2, 6, 5, 7)


def test_moved():
    assert bytes_moved(PAIR, image()) == SMALL + LARGE + LARGE + WEIGHT + OUT
    folded = upsample_conv_to_conv_transpose(*PAIR)
    assert bytes_moved(folded, image()) == SMALL + (6 * 4 * 16 + 4) * 4 + OUT
    assert bytes_moved(nn.Flatten(), image()) == 0  # a view
    assert bytes_moved(nn.ReLU(inplace=True), image()) == 0


def test_saved():
    """The pair keeps the enlarged image, the other forms the small one; a frozen layer keeps nothing of it."""
    x = image()
    assert bytes_saved_for_backward(PAIR, x) == LARGE
    assert bytes_saved_for_backward(upsample_conv_to_conv_transpose(*PAIR), x) == SMALL
    assert bytes_saved_for_backward(nn.Sequential(PAIR, nn.ReLU()), x) == LARGE + OUT
    assert bytes_saved_for_backward(nn.Conv2d(6, 4, 3).requires_grad_(False), x) == 0
    assert bytes_saved_for_backward(upsample_conv_to_jump(*PAIR), x) > SMALL
