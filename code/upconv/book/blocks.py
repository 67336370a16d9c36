"""The twelve upsampling blocks that the book compares, each an `nn.Sequential` of layers.

A block maps (N, in_channels, H, W) to (N, out_channels, scale * H, scale * W). `BLOCKS` names them all.
"""

from functools import partial

import torch
from torch import nn
from torch.nn import functional as F

from upconv.book.common import checked_int
from upconv.equal_gains import equal_gains
from upconv.init import bilinear_, icnr_

__all__ = ["BLOCKS", "FOLDED", "ChannelSums", "FoldedPair", "upsampling_block"]

# How nn.Conv2d draws its own weight: uniform, with a variance of 1 / (3 fan_in).
_conv2d_default_ = partial(nn.init.kaiming_uniform_, a=5**0.5)


def upsampling_block(name, in_channels, out_channels, scale=2):
    """Build one of the twelve upsampling blocks, its weights drawn from PyTorch's global generator.

    Parameters
    ----------
    name : str
        A key of `BLOCKS`; or `FOLDED`, which is none of them: "nearest_conv_3x3" as `FoldedPair` trains it.
    in_channels, out_channels : int
        At least 1.
    scale : int
        The factor on H and on W, at least 2; `conv_transpose_4x4_bilinear_init` exists for 2 only, and
        `conv_transpose_4x4_equal_gains` up to 4.

    Returns
    -------
    torch.nn.Sequential
        It maps (N, in_channels, H, W) to (N, out_channels, scale * H, scale * W).

    Raises
    ------
    TypeError
        If the channels or the scale are not ints (a bool is not an int here).
    ValueError
        If there is no block of that name, or a number is out of its range.

    Notes
    -----
    Odena, Dumoulin and Olah (2016) compare the transposed convolution with the resized input; the sub-pixel
    convolution is that of Shi et al. (2016), arXiv:1609.05158; bilinear additive upsampling that of Wojna et al.
    (2017), arXiv:1707.05847. Other sources: `upconv.icnr_`, `upconv.bilinear_`, `upconv.equal_gains`.

    Examples
    --------
    >>> upsampling_block("conv_transpose_3x3", 16, 8)
    Sequential(
      (0): ConvTranspose2d(16, 8, kernel_size=(3, 3), stride=(2, 2), padding=(1, 1), output_padding=(1, 1))
    )
    >>> upsampling_block("bilinear_conv_3x3", 16, 8, scale=3)(torch.zeros(1, 16, 5, 7)).shape
    torch.Size([1, 8, 15, 21])
    """
    builder = FoldedPair if name == FOLDED else BLOCKS.get(name)
    if builder is None:
        raise ValueError(f"name={name!r} is not a block; expected one of {', '.join(BLOCKS)}")
    in_channels = checked_int("in_channels", in_channels, at_least=1)
    out_channels = checked_int("out_channels", out_channels, at_least=1)
    return builder(in_channels, out_channels, checked_int("scale", scale, at_least=2))


class ChannelSums(nn.Module):
    """Sum each `size` channels, one after another; if `size` does not divide their number, the last sum has fewer.

    Parameters
    ----------
    size : int

    Examples
    --------
    >>> ChannelSums(4)(torch.arange(6.0).reshape(1, 6, 1, 1)).flatten()
    tensor([6., 9.])
    """

    def __init__(self, size):
        super().__init__()
        self.size = size

    def forward(self, x):
        """Map (N, C, H, W) to (N, C / size, H, W), rounded up."""
        x = F.pad(x, (0, 0, 0, 0, 0, -x.shape[1] % self.size))
        return x.unflatten(1, (-1, self.size)).sum(2)

    def extra_repr(self):
        return f"size={self.size}"


class FoldedPair(nn.Module):
    """Nearest upsampling and a 3x3 convolution, trained as the one transposed convolution that the two are.

    The parameters are the convolution's. In every call the kernel of (scale + 2) x (scale + 2) taps is composed of
    them, so gradients, and with them the path of a training, are those of the pair, but for rounding.

    Parameters
    ----------
    in_channels, out_channels, scale : int
        As of `upsampling_block`.

    Notes
    -----
    Karras et al. (2018), arXiv:1710.10196, train their generators' layers so; they sum four shifted copies of a
    kernel, which here is one multiplication by a matrix of zeros and ones.

    Examples
    --------
    >>> pair, folded = upsampling_block("nearest_conv_3x3", 4, 2), FoldedPair(4, 2, scale=2)
    >>> folded.conv.load_state_dict(pair[1].state_dict())
    <All keys matched successfully>
    >>> x = torch.rand(1, 4, 5, 6)
    >>> torch.allclose(folded(x), pair(x), atol=1e-6)
    True
    """

    def __init__(self, in_channels, out_channels, scale):
        super().__init__()
        self.conv, self.scale = nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1), scale
        pixel = torch.eye(9).reshape(9, 1, 3, 3).flip(2, 3)  # each tap of the convolution is a stamp of scale x scale
        stamps = F.conv_transpose2d(pixel, torch.ones(1, 1, scale, scale))
        self.register_buffer("stamps", stamps.flatten(1), persistent=False)

    def forward(self, x):
        """Map (N, in_channels, H, W) to (N, out_channels, scale * H, scale * W)."""
        weight, size = self.conv.weight.transpose(0, 1), self.scale + 2
        kernel = (weight.flatten(2) @ self.stamps).unflatten(2, (size, size))
        if self.conv.weight.stride(1) == 1:  # channels_last
            kernel = kernel.contiguous(memory_format=torch.channels_last)
        return F.conv_transpose2d(x, kernel, self.conv.bias, self.scale, padding=1)


# The builders: (in_channels, out_channels, scale), all checked, to an nn.Sequential.


def _conv_transpose(in_channels, out_channels, scale, *, kernel_size):
    # 2 * padding = kernel_size - scale + output_padding, with the least output_padding that allows a padding
    output_padding = (kernel_size - scale) % 2 if kernel_size >= scale else scale - kernel_size
    padding = (kernel_size - scale + output_padding) // 2
    return nn.Sequential(nn.ConvTranspose2d(in_channels, out_channels, kernel_size, scale, padding, output_padding))


def _conv_transpose_bilinear_init(in_channels, out_channels, scale):
    if scale != 2:
        raise ValueError(
            f"scale={scale} does not exist for conv_transpose_4x4_bilinear_init: the bilinear kernel of a scale has "
            f"kernel_size = 2 * scale - scale % 2, which is {2 * scale - scale % 2}; accepted is scale=2"
        )
    block = _conv_transpose(in_channels, out_channels, scale, kernel_size=4)
    bilinear_(block[0].weight, stride=scale, initializer=_conv2d_default_)
    return block


def _conv_transpose_equal_gains(in_channels, out_channels, scale):
    block = _conv_transpose(in_channels, out_channels, scale, kernel_size=4)
    equal_gains(block[0])
    return block


def _nearest_conv_2x2(in_channels, out_channels, scale):
    return nn.Sequential(
        nn.Upsample(scale_factor=scale, mode="nearest"),
        nn.ZeroPad2d((0, 1, 0, 1)),  # right and bottom, so that the output keeps the upsampled size
        nn.Conv2d(in_channels, out_channels, kernel_size=2),
    )


def _upsample_conv_3x3(in_channels, out_channels, scale, **upsample):
    return nn.Sequential(
        nn.Upsample(scale_factor=scale, **upsample),
        nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1),
    )


def _bilinear_additive(in_channels, out_channels, scale):
    return nn.Sequential(
        nn.Upsample(scale_factor=scale, mode="bilinear", align_corners=False),
        ChannelSums(scale**2),
        nn.Conv2d(-(-in_channels // scale**2), out_channels, kernel_size=3, padding=1),
    )


def _pixel_shuffle(in_channels, out_channels, scale):
    conv = nn.Conv2d(in_channels, out_channels * scale**2, kernel_size=3, padding=1)
    return nn.Sequential(conv, nn.PixelShuffle(scale))


def _pixel_shuffle_icnr(in_channels, out_channels, scale):
    block = _pixel_shuffle(in_channels, out_channels, scale)
    conv = block[0]
    icnr_(conv.weight, scale, initializer=_conv2d_default_)
    with torch.no_grad():
        conv.bias.copy_(conv.bias[:: scale**2].repeat_interleave(scale**2))
    return block


BLOCKS = {
    "conv_transpose_2x2": partial(_conv_transpose, kernel_size=2),
    "conv_transpose_3x3": partial(_conv_transpose, kernel_size=3),
    "conv_transpose_4x4": partial(_conv_transpose, kernel_size=4),
    "conv_transpose_4x4_bilinear_init": _conv_transpose_bilinear_init,
    "conv_transpose_4x4_equal_gains": _conv_transpose_equal_gains,
    "nearest_conv_2x2": _nearest_conv_2x2,
    "nearest_conv_3x3": partial(_upsample_conv_3x3, mode="nearest"),
    "bilinear_conv_3x3": partial(_upsample_conv_3x3, mode="bilinear", align_corners=False),
    "bilinear_additive": _bilinear_additive,
    "bicubic_conv_3x3": partial(_upsample_conv_3x3, mode="bicubic", align_corners=False),
    "pixel_shuffle": _pixel_shuffle,
    "pixel_shuffle_icnr": _pixel_shuffle_icnr,
}
FOLDED = "nearest_conv_3x3_folded"
