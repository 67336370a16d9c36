"""Winograd's minimal filtering of the folded pair: the yardstick for the jump form, which needs as few products."""

import torch
from torch import nn
from torch.nn import functional as F

import upconv

__all__ = ["Winograd"]


class Winograd(nn.Module):
    """Nearest upsampling by 2 and a 3x3 convolution with padding 1, by F(2x2, 2x2) in each of its four phases.

    Each phase of the output, its pixels of one parity of row and column, is a 2x2 convolution of the small image. Of a
    tile of 3x3 pixels, whose first is every second, 9 products make 2x2 of its pixels, in place of 16.

    Parameters
    ----------
    upsample : torch.nn.Upsample
    conv : torch.nn.Conv2d
        With one group. Its dtype and device are the result's.

    Notes
    -----
    On one axis, with taps g0, g1 of pixels d0, d1, d2: (d0 - d1) g0 + d1 (g0 + g1) = d0 g0 + d1 g1 and
    d1 (g0 + g1) + (d2 - d1) g1 = d1 g0 + d2 g1. Lavin and Gray 2015, arXiv:1509.09308.
    """

    def __init__(self, upsample, conv):
        super().__init__()
        phases = upconv.upsample_conv_to_subpixel(upsample, conv).conv.weight.detach()
        phases = phases.unflatten(0, (-1, 2, 2)).flip(1, 2)  # (out, parity of the row, of the column, in, 2, 2)
        taps = phases.new_tensor([[1, 0], [1, 1], [0, 1]])
        kernel = torch.einsum("obcirs,ur,vs->bucvio", phases, taps, taps).flatten(0, 3)
        self.kernel = nn.Parameter(kernel.contiguous(), requires_grad=False)  # (36, in, out)
        self.bias = conv.bias

    def forward(self, x):
        """Map (N, in_channels, H, W) to (N, out_channels, 2 * H, 2 * W), in channels_last."""
        height, width = x.shape[2:]
        x = F.pad(x, (1, 1 + width % 2, 1, 1 + height % 2)).permute(0, 2, 3, 1)
        tiles = torch.stack([tile for row in _differences(x, 1) for tile in _differences(row, 2)])
        products = torch.bmm(tiles.flatten(1, 3), self.kernel).unflatten(1, tiles.shape[1:4]).unflatten(0, (6, 6))
        y = torch.stack([torch.stack(_sums(row), 3) for row in _sums(products)], 2)  # (n, rows, 4, columns, 4, out)
        y = y.flatten(3, 4).flatten(1, 2)[:, : 2 * height, : 2 * width]
        return (y if self.bias is None else y + self.bias).permute(0, 3, 1, 2)


def _differences(x, dim):
    """Give, of the tiles of one axis, what is multiplied: three values in the first phase, three in the second."""
    even, odd = x.unflatten(dim, (-1, 2)).unbind(dim + 1)
    size = even.shape[dim] - 1
    d0, d1, d2, d3 = (values.narrow(dim, start, size) for start in (0, 1) for values in (even, odd))
    return d0 - d1, d1, d2 - d1, d1 - d2, d2, d3 - d2


def _sums(products):
    """Give the four pixels that each tile of one axis makes of them, the phases by turns."""
    m0, m1, m2, m3, m4, m5 = products.unbind()
    return m0 + m1, m3 + m4, m1 + m2, m4 + m5
