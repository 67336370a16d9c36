"""Single layers: exact rewrites between the forms of an upsampling layer.

Nearest-neighbour `Upsample` + `Conv2d` is one `ConvTranspose2d`; any `ConvTranspose2d` is a `Conv2d` at low
resolution and a `PixelShuffle`. Both hold at every pixel, borders included; the book proves them. What
is not exact is refused with an error that says why.
"""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from upconv._interpolation import PADS, fold, padding_sides, padding_sum, whole_scale
from upconv._layers import (
    InputSize,
    assembled,
    crop_layer,
    eval_settings,
    expect,
    new_layer,
    pad_layer,
    spread,
    working_copy,
)
from upconv.arithmetic import Ints, both_axes, checked_setting

__all__ = ["conv_transpose_to_subpixel", "upsample_conv_to_conv_transpose", "upsample_conv_to_subpixel"]


def upsample_conv_to_conv_transpose(
    upsample: nn.Upsample, conv: nn.Conv2d, *, input_size: Ints | None = None
) -> nn.ConvTranspose2d | nn.Sequential:
    """Write `conv(upsample(x))` as one `torch.nn.ConvTranspose2d`, with a pad before and a crop after it where needed.

    Parameters
    ----------
    upsample : torch.nn.Upsample
        With a whole-numbered scale on each axis. Modes "nearest" and "nearest-exact" are exact for every convolution
        named below; "bilinear" (align_corners=False) if `conv` has no padding, padding_mode="replicate", or "reflect"
        with padding < scale / 2; "bicubic" (align_corners=False) if `conv` has no padding.
    conv : torch.nn.Conv2d
        With stride 1; any kernel_size, dilation, groups, padding ("same" and "valid" too) and bias. After a nearest
        upsampling padding_mode may be "zeros", "replicate", "circular", or "reflect" with padding < scale.
    input_size : int or (int, int), optional
        Height and width of the inputs, needed if `upsample` was made with `size=` instead of `scale_factor=`; the
        result then checks that its inputs have this size.

    Returns
    -------
    torch.nn.ConvTranspose2d or torch.nn.Sequential
        Maps (N, in_channels, H, W) to what the two layers map it to; of a (C, H, W) tensor Upsample would enlarge
        the width alone, and the result enlarges both axes. It has parameters of its own, with the dtype, device, memory
        format and requires_grad of `conv`'s, and its train/eval flag.

    Raises
    ------
    TypeError
        If `upsample` is no Upsample or `conv` no Conv2d, or one has a forward of its own.
    ValueError
        If the pair is not one transposed convolution, or a layer has hooks or no weights yet; the message says why, and
        what to do instead.

    See Also
    --------
    upconv.projection.conv_transpose_to_upsample_conv : The way back, with what it loses.
    upconv.models.rewrite : The same for a whole model.

    Notes
    -----
    The kernel is that of `conv`, flipped and convolved with the interpolation's own: a box of ones for "nearest".
    Inputs are taken to be finite; a parametrized weight is read as in eval mode. Where a bilinear or bicubic scale is
    no power of two, PyTorch rounds positions in float32 inputs hundreds of pixels wide; the result does not.

    Examples
    --------
    >>> upsample_conv_to_conv_transpose(nn.Upsample(scale_factor=2), nn.Conv2d(8, 4, 3, padding=1))
    ConvTranspose2d(8, 4, kernel_size=(4, 4), stride=(2, 2), padding=(1, 1))
    """
    return assembled(pair_steps(upsample, conv, input_size), conv)


def conv_transpose_to_subpixel(layer: nn.ConvTranspose2d) -> nn.Sequential:
    """Write a `torch.nn.ConvTranspose2d` as a `torch.nn.Conv2d` at low resolution and a pixel shuffle (polyphase form).

    Parameters
    ----------
    layer : torch.nn.ConvTranspose2d
        With any setting.

    Returns
    -------
    torch.nn.Sequential
        Maps (N, in_channels, H, W), or (in_channels, H, W), to what the layer maps it to: a pad, a crop, a Conv2d with
        stride_h * stride_w times the channels, a pixel shuffle, a crop, each where needed. It has parameters of its
        own, with the dtype, device, memory format and requires_grad of the layer's, and its train/eval flag.

    Raises
    ------
    TypeError
        If `layer` is no ConvTranspose2d, or one with a forward of its own.
    ValueError
        If the layer has hooks, or no weights yet.

    See Also
    --------
    upsample_conv_to_subpixel : The same form of an Upsample and a Conv2d.
    upconv.models.rewrite : The same for a whole model.

    Notes
    -----
    The sub-pixel convolution of Shi et al. 2016, "Is the deconvolution layer the same as a convolutional layer?"
    (arXiv:1609.07009), for every stride, padding, output_padding, dilation and number of groups.

    Examples
    --------
    >>> conv_transpose_to_subpixel(nn.ConvTranspose2d(8, 4, 4, stride=2, padding=1))
    Sequential(
      (conv): Conv2d(8, 16, kernel_size=(2, 2), stride=(1, 1), padding=(1, 1))
      (shuffle): PixelShuffle(upscale_factor=2)
      (crop): ZeroPad2d((-1, -1, -1, -1))
    )
    """
    expect(layer, nn.ConvTranspose2d, "layer")
    return assembled(_subpixel(eval_settings(layer)), layer)


def upsample_conv_to_subpixel(
    upsample: nn.Upsample, conv: nn.Conv2d, *, input_size: Ints | None = None
) -> nn.Sequential:
    """Write `conv(upsample(x))` as a `torch.nn.Conv2d` at low resolution and a pixel shuffle.

    With a 3x3 kernel after nearest-neighbour upsampling by 2 it needs 16 instead of 36 multiplications for each
    low-resolution pixel, input channel and output channel.

    Parameters
    ----------
    upsample : torch.nn.Upsample
    conv : torch.nn.Conv2d
    input_size : int or (int, int), optional
        All as in `upsample_conv_to_conv_transpose`.

    Returns
    -------
    torch.nn.Sequential
        As of `conv_transpose_to_subpixel`.

    Raises
    ------
    TypeError, ValueError
        As `upsample_conv_to_conv_transpose`.

    See Also
    --------
    upsample_conv_to_conv_transpose : As one transposed convolution.
    upconv.models.rewrite : The same for a whole model.

    Notes
    -----
    `conv_transpose_to_subpixel` after `upsample_conv_to_conv_transpose`.

    Examples
    --------
    >>> upsample_conv_to_subpixel(nn.Upsample(scale_factor=2), nn.Conv2d(8, 4, 3, padding=1))
    Sequential(
      (conv): Conv2d(8, 16, kernel_size=(2, 2), stride=(1, 1), padding=(1, 1))
      (shuffle): PixelShuffle(upscale_factor=2)
      (crop): ZeroPad2d((-1, -1, -1, -1))
    )
    """
    return assembled(pair_steps(upsample, conv, input_size, subpixel=True), conv)


# Upsample + Conv2d as pad, ConvTranspose2d, crop


def pair_steps(upsample, conv, input_size=None, pads=(), subpixel=False):
    """Give the steps of a pair's other form by name, for `assembled`; with padding layers between the two."""
    expect(upsample, nn.Upsample, "upsample")
    expect(conv, nn.Conv2d, "conv")
    conv = eval_settings(conv)
    if conv.stride != (1, 1):
        raise ValueError(
            f"conv has stride={conv.stride}: this rewrite covers a convolution with stride 1 only; leave this pair as "
            f"it is"
        )
    conv.padding = padding_sides(conv.padding, conv.kernel_size, conv.dilation)
    for pad in reversed(pads):
        left, right, top, bottom = pad.padding
        sides = (top, bottom), (left, right)
        conv.padding, conv.padding_mode = padding_sum(conv.padding, conv.padding_mode, sides, PADS[type(pad)])
    scale, size = _scale(upsample, input_size)
    form = fold(upsample.mode, scale, conv)
    kernel, bias = form.kernel(working_copy(conv.weight)), None if conv.bias is None else conv.bias.detach()
    layer = new_layer(nn.ConvTranspose2d, kernel, bias, conv, **form.settings)
    return OrderedDict(
        check=InputSize(*size) if size else None,
        **{f"pad{i}": pad for i, pad in enumerate(form.pads)},
        **(_subpixel(layer) if subpixel else dict(conv_transpose=layer)),
        **{"trim" if subpixel else "crop": crop_layer(*form.crop)},
    )


def _scale(upsample, input_size):
    """Give the scale on both axes, and the only input size it holds for, if there is one."""
    size = None
    if upsample.size is not None and upsample.scale_factor is not None:
        raise ValueError(
            f"upsample has both size={upsample.size} and scale_factor={upsample.scale_factor}, which PyTorch refuses "
            f"when it is called; give it one of them"
        )
    if upsample.scale_factor is not None:
        factors, given = upsample.scale_factor, f"scale_factor={upsample.scale_factor}"
    elif upsample.size is None:
        raise ValueError("upsample has neither a scale_factor nor a size; give it a scale_factor")
    elif input_size is None:
        raise ValueError(
            f"upsample has size={upsample.size} and so no scale of its own: name the inputs' size with input_size=, "
            f"or give it a scale_factor"
        )
    else:
        size = both_axes(checked_setting("input_size", input_size))
        outputs = upsample.size if isinstance(upsample.size, (tuple, list)) else (upsample.size, upsample.size)
        factors = tuple(output / input for output, input in zip(outputs, size, strict=False))
        given = f"size={upsample.size} for input_size={input_size}"
    return whole_scale(upsample.mode, upsample.align_corners, factors, given), size


# ConvTranspose2d as pad, Conv2d, pixel shuffle, crop


def _subpixel(layer):
    taps, pads, crops = [], [], []
    for axis in range(2):
        stride, padding, output_padding = (value[axis] for value in (layer.stride, layer.padding, layer.output_padding))
        reach = layer.dilation[axis] * (layer.kernel_size[axis] - 1)
        taps.append(reach // stride + 1)
        last = reach - padding + output_padding
        pads.append((reach // stride - padding // stride, last // stride))
        crops.append((padding % stride, stride - 1 - last % stride))
    (height, width), (sh, sw) = taps, layer.stride
    kernel = spread(working_copy(layer.weight), layer.dilation)  # (in, out / groups, Kh, Kw)
    missing = (0, width * sw - kernel.shape[3], 0, height * sh - kernel.shape[2])
    kernel = nn.functional.pad(kernel, missing).unflatten(3, (width, sw)).unflatten(2, (height, sh))
    kernel = kernel.flip(2, 4).unflatten(0, (layer.groups, -1))  # (groups, in / groups, out / groups, Th, sh, Tw, sw)
    kernel = kernel.permute(0, 2, 4, 6, 1, 3, 5).flatten(0, 3)  # (out * sh * sw, in / groups, Th, Tw)
    even = all(before == after >= 0 for before, after in pads)
    conv = new_layer(
        nn.Conv2d,
        kernel,
        None if layer.bias is None else layer.bias.detach().repeat_interleave(sh * sw),
        layer,
        padding=tuple(before for before, _ in pads) if even else 0,
    )
    grown, cut = ([(0, 0), (0, 0)] if even else _sided(pads, sign) for sign in (1, -1))
    return OrderedDict(
        pad=pad_layer(nn.ZeroPad2d, *grown),
        cut=crop_layer(*cut),
        conv=conv,
        shuffle=None if sh == sw == 1 else nn.PixelShuffle(sh) if sh == sw else _PixelShuffle(sh, sw),
        crop=crop_layer(*crops),
    )


def _sided(pads, sign):
    return [tuple(max(0, sign * side) for side in pad) for pad in pads]


class _PixelShuffle(nn.Module):
    """`torch.nn.PixelShuffle` with a factor for each axis: (..., C * sh * sw, H, W) to (..., C, H * sh, W * sw)."""

    def __init__(self, height_factor, width_factor):
        super().__init__()
        self.factors = height_factor, width_factor

    def forward(self, x):
        x = x.unflatten(-3, (-1, *self.factors))  # (..., C, sh, sw, H, W)
        x = x.movedim((-2, -1), (-4, -2))  # (..., C, H, sh, W, sw)
        return x.flatten(-2).flatten(-3, -2)

    def extra_repr(self):
        return f"height_factor={self.factors[0]}, width_factor={self.factors[1]}"
