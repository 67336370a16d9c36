"""Two initialisers with which a learned upsampling starts as a plain one, in one, two and three dimensions."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import reduce

import torch
from torch import nn

from upconv.arithmetic import Ints, checked_setting

__all__ = ["bilinear_", "icnr_"]


def icnr_(
    tensor: torch.Tensor,
    scale: Ints,
    initializer: Callable[[torch.Tensor], torch.Tensor | None] = nn.init.kaiming_normal_,
) -> torch.Tensor:
    """Fill the weight of a convolution before a pixel shuffle so that the two start as nearest upsampling.

    The kernels that become one output channel, scale**2 for `nn.PixelShuffle(scale)`, start equal. A bias has to start
    equal in the same groups; zeros do.

    Parameters
    ----------
    tensor : torch.Tensor, shape (out_channels * phases, in_channels, ...)
        The weight of a Conv1d, Conv2d or Conv3d, changed in place. The phases of an output channel are neighbours, as
        `nn.PixelShuffle` has them; their number is the product of the scales.
    scale : int or tuple of int
        The shuffle's factor on each axis, at least 1.
    initializer : callable
        Fills a weight of shape (out_channels, in_channels, ...) in place.

    Returns
    -------
    torch.Tensor
        The same tensor.

    Raises
    ------
    TypeError
        If `tensor` is no tensor, or `scale` no int and no tuple of them.
    ValueError
        If a scale is below 1, or `tensor` does not have 1 to 3 axes after the channels, or its first axis is not a
        multiple of the phases.

    See Also
    --------
    bilinear_ : A transposed convolution's start.

    Notes
    -----
    Aitken et al. (2017), "Checkerboard artifact free sub-pixel convolution", arXiv:1707.02937. `nn.PixelShuffle` reads
    output channel c at (ry, rx) of each scale x scale cell from channel c * scale**2 + ry * scale + rx. PyTorch has it
    for two equal factors; for others, `conv_transpose_to_subpixel` makes one with the same order. A parametrized weight
    is assigned: `conv.weight = icnr_(conv.weight, 2)`.

    Examples
    --------
    >>> conv = nn.Conv2d(16, 8 * 2**2, kernel_size=3, padding=1)
    >>> weight = icnr_(conv.weight, scale=2)
    >>> bool((weight[0] == weight[3]).all()), bool((weight[3] == weight[4]).all())
    (True, False)
    """
    phases = math.prod(_checked(tensor, "scale", scale))
    if tensor.shape[0] % phases:
        raise ValueError(
            f"tensor must have the shape (out_channels * {phases}, in_channels, ...) for scale={scale}, "
            f"not {tuple(tensor.shape)}"
        )
    with torch.no_grad():
        kernels = _drawn(initializer, tensor, tensor.shape[0] // phases, *tensor.shape[1:])
        return tensor.copy_(kernels.repeat_interleave(phases, dim=0))


def bilinear_(
    tensor: torch.Tensor,
    stride: Ints,
    initializer: Callable[[torch.Tensor], torch.Tensor | None] = nn.init.kaiming_normal_,
) -> torch.Tensor:
    """Fill the weight of a transposed convolution so that it starts as linear upsampling of a random 1x1 convolution.

    So it is away from the border, with padding = (kernel_size - stride) / 2. The interpolation is that of
    `nn.Upsample(scale_factor=stride, align_corners=False)` with mode="linear", "bilinear" or "trilinear".

    Parameters
    ----------
    tensor : torch.Tensor, shape (in_channels, out_channels, ...)
        The weight of a ConvTranspose1d, ConvTranspose2d or ConvTranspose3d, changed in place, with
        kernel_size = 2 * stride - stride % 2 on each axis.
    stride : int or tuple of int
        The layer's, at least 1.
    initializer : callable
        Fills the 1x1 convolution's weight, of shape (out_channels, in_channels, 1, ...), in place.

    Returns
    -------
    torch.Tensor
        The same tensor.

    Raises
    ------
    TypeError
        If `tensor` is no tensor, or `stride` no int and no tuple of them.
    ValueError
        If a stride is below 1, or `tensor` does not have 1 to 3 axes after the channels, with that kernel_size.

    See Also
    --------
    icnr_ : The start of a convolution before a pixel shuffle.
    upconv.layers.upsample_to_conv_transpose : Interpolation alone, exact at the border too.

    Notes
    -----
    Long, Shelhamer and Darrell (2015), arXiv:1411.4038, start their transposed convolutions from bilinear
    interpolation channel by channel; the mixing of the channels by a 1x1 convolution is added here. Theirs is that of
    a layer with groups=channels and `initializer=nn.init.ones_`.

    Examples
    --------
    >>> weight = bilinear_(torch.empty(1, 1, 4, 4), stride=2, initializer=nn.init.ones_)
    >>> weight[0, 0] * 16
    tensor([[1., 3., 3., 1.],
            [3., 9., 9., 3.],
            [3., 9., 9., 3.],
            [1., 3., 3., 1.]])
    >>> bilinear_(torch.empty(1, 1, 8), stride=4, initializer=nn.init.ones_)[0, 0] * 8
    tensor([1., 3., 5., 7., 7., 5., 3., 1.])
    """
    strides = _checked(tensor, "stride", stride)
    kernel_size = tuple(2 * s - s % 2 for s in strides)
    if tensor.shape[2:] != kernel_size:
        raise ValueError(
            f"tensor must have the shape (in_channels, out_channels, {', '.join(map(str, kernel_size))}) for "
            f"stride={stride}, as kernel_size must be 2 * stride - stride % 2; it has {tuple(tensor.shape)}"
        )
    tents = []
    for size, s in zip(kernel_size, strides, strict=True):
        distance = torch.arange(size, dtype=tensor.dtype, device=tensor.device) - (size - 1) / 2
        tents.append(1 - distance.abs() / s)
    with torch.no_grad():
        conv_1x1 = _drawn(initializer, tensor, tensor.shape[1], tensor.shape[0], *[1] * len(strides))
        return tensor.copy_(conv_1x1.transpose(0, 1) * reduce(lambda kernel, tent: kernel[..., None] * tent, tents))


def _checked(tensor, name, value):
    """Give the factor on each of the weight's axes."""
    if not isinstance(tensor, torch.Tensor):
        raise TypeError(f"tensor must be a torch.Tensor, such as a layer's weight, not {type(tensor).__name__}")
    if tensor.dim() not in (3, 4, 5):
        raise ValueError(
            f"tensor must be a weight with 2 axes of channels and 1 to 3 others, not {tuple(tensor.shape)}"
        )
    return checked_setting(name, value, tensor.dim() - 2)


def _drawn(initializer, tensor, *shape):
    empty = tensor.new_empty(shape)
    filled = initializer(empty)
    return empty if filled is None else filled
