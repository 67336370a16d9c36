"""Exact rewrites between the forms of an upsampling layer, for single layers.

Nearest-neighbour `Upsample` + `Conv2d` is one `ConvTranspose2d`; any `ConvTranspose2d` is a `Conv2d` at low
resolution and a `PixelShuffle`. Both hold at every pixel, borders included; chapter 03 of the book proves them. What
is not exact is refused with an error that says why.
"""

from collections import OrderedDict
from typing import NamedTuple

from torch import nn

from upconv._layers import (
    Guard,
    assembled,
    convolved,
    crop_layer,
    expect,
    interpolation,
    made,
    nearest_repeats_evenly,
    pad_layer,
    plain,
    spread,
    swapped_channels,
    working_copy,
)
from upconv.arithmetic import checked_setting

__all__ = ["conv_transpose_to_subpixel", "upsample_conv_to_conv_transpose", "upsample_conv_to_subpixel"]


def upsample_conv_to_conv_transpose(upsample, conv, *, input_size=None):
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
        result then takes inputs of this size only.

    Returns
    -------
    torch.nn.ConvTranspose2d or torch.nn.Sequential
        Maps (N, in_channels, H, W) to what the two layers map it to. It has parameters of its own, with the dtype,
        device and requires_grad of `conv`'s, and its train/eval flag. It refuses inputs without a batch axis: of a
        (C, H, W) tensor Upsample would scale the width alone.

    Raises
    ------
    TypeError
        If `upsample` is no Upsample or `conv` no Conv2d.
    ValueError
        If the pair is not one transposed convolution; the message says why, and what to do instead.

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
    pads, layer, crop, size = _parts(upsample, conv, input_size)
    steps = OrderedDict((f"pad{i}", pad) for i, pad in enumerate(pads))
    return assembled(OrderedDict(**steps, conv_transpose=layer, crop=crop), conv, Guard(size))


def conv_transpose_to_subpixel(layer):
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
        own, with the dtype, device and requires_grad of the layer's, and its train/eval flag.

    Raises
    ------
    TypeError
        If `layer` is no ConvTranspose2d.

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
    return assembled(_subpixel(plain(layer)), layer)


def upsample_conv_to_subpixel(upsample, conv, *, input_size=None):
    """Write `conv(upsample(x))` as a `torch.nn.Conv2d` at low resolution and a pixel shuffle.

    With a 3x3 kernel after nearest-neighbour upsampling by 2 it needs 16 instead of 36 multiplications for each
    low-resolution pixel and pair of channels.

    Parameters
    ----------
    upsample : torch.nn.Upsample
    conv : torch.nn.Conv2d
    input_size : int or (int, int), optional
        All as in `upsample_conv_to_conv_transpose`.

    Returns
    -------
    torch.nn.Sequential
        As of `conv_transpose_to_subpixel`, but it refuses inputs without a batch axis.

    Raises
    ------
    TypeError, ValueError
        As `upsample_conv_to_conv_transpose`.

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
    pads, layer, crop, size = _parts(upsample, conv, input_size)
    steps = OrderedDict((f"pad{i}", pad) for i, pad in enumerate(pads))
    return assembled(OrderedDict(**steps, **_subpixel(layer), trim=crop), conv, Guard(size))


# Upsample + Conv2d as pad, ConvTranspose2d, crop


class _Axis(NamedTuple):
    """One axis of the composite: the interpolation's taps, and where the output begins and ends."""

    taps: list[float]  # of the interpolation
    extension: type  # of the padding layer that extends the input
    pad: tuple[int, int]  # pixels by which it does
    padding: int
    output_padding: int
    crop: tuple[int, int]  # pixels to remove afterwards


def _parts(upsample, conv, input_size):
    expect(upsample, nn.Upsample, "upsample")
    expect(conv, nn.Conv2d, "conv")
    conv = plain(conv)
    if conv.stride != (1, 1):
        raise ValueError(
            f"conv has stride={conv.stride}: this rewrite covers a convolution with stride 1 only; leave this pair as "
            f"it is"
        )
    scale, size = _scale(upsample, input_size)
    pads, kernel, settings, crop = composite(upsample.mode, scale, conv, working_copy(conv.weight))
    layer = made(nn.ConvTranspose2d, kernel, None if conv.bias is None else conv.bias.detach(), conv, **settings)
    return pads, layer, crop, size


def composite(mode, scale, conv, weight):
    """Compose an upsampling and a convolution: pads, kernel in ConvTranspose2d's layout, settings and crop.

    `conv` gives the settings, with a padding of an int or a (before, after) pair for each axis; `weight` the values, of
    which the kernel is a differentiable function. What is not exact is a ValueError.
    """
    height, width = (_axis(mode, conv, scale[axis], axis) for axis in range(2))
    kernel = spread(weight, conv.dilation).flip(2, 3)
    kernel = convolved(convolved(kernel, 2, height.taps), 3, width.taps)
    kernel = swapped_channels(kernel, conv.groups)  # (in, out / groups, kh, kw)
    settings = dict(
        stride=scale,
        padding=(height.padding, width.padding),
        output_padding=(height.output_padding, width.output_padding),
    )
    if height.extension is width.extension:
        pads = [pad_layer(height.extension, height.pad, width.pad)]
    else:
        pads = [pad_layer(height.extension, height.pad, (0, 0)), pad_layer(width.extension, (0, 0), width.pad)]
    return [pad for pad in pads if pad], kernel, settings, crop_layer(height.crop, width.crop)


def _axis(mode, conv, scale, axis):
    reach = conv.dilation[axis] * (conv.kernel_size[axis] - 1)
    if conv.padding == "same":
        before, after = reach // 2, reach - reach // 2
    else:
        padding = 0 if conv.padding == "valid" else conv.padding[axis]
        before, after = padding if isinstance(padding, tuple) else (padding, padding)
    taps, offset, radius = interpolation(mode, scale)
    extension = _extension(mode, conv.padding_mode, max(before, after), scale, ("height", "width")[axis])
    if extension is nn.ZeroPad2d:  # needed only where the convolution looks at nothing but its own zeros
        pad = tuple(_ceil(max(0, p - reach), scale) for p in (before, after))
    elif radius:
        pad = tuple(max(radius, _ceil(2 * p - 1 + scale, 2 * scale)) for p in (before, after))
    else:
        pad = tuple(_ceil(p, scale) for p in (before, after))
    # Of all that the extended input reaches, `start` and `end` pixels are not in the output.
    start = reach - before + offset + scale * pad[0]
    end = reach - after + len(taps) - scale - offset + scale * pad[1]
    if 0 <= start - end < scale:
        return _Axis(taps, extension, pad, start, start - end, (0, 0))
    padding = min(start, end)
    return _Axis(taps, extension, pad, padding, 0, (start - padding, end - padding))


def _scale(upsample, input_size):
    """Give the whole-numbered (H, W) scale, and the only input size it holds for, if there is one."""
    modes = ("nearest", "nearest-exact", "bilinear", "bicubic")
    if upsample.mode not in modes:
        same = ': use mode="nearest", which is the same at a whole-numbered scale' if upsample.mode == "area" else ""
        raise ValueError(f'upsample has mode="{upsample.mode}" and must have one of {", ".join(modes)}{same}')
    if upsample.align_corners:
        raise ValueError(
            "upsample has align_corners=True: its weights change from pixel to pixel (but at special sizes), so one "
            "kernel cannot serve; use align_corners=False, or leave this pair as it is"
        )
    size = None
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
        size = checked_setting("input_size", input_size)
        size = size if isinstance(size, tuple) else (size, size)
        outputs = upsample.size if isinstance(upsample.size, (tuple, list)) else (upsample.size, upsample.size)
        factors = tuple(output / input for output, input in zip(outputs, size, strict=False))
        given = f"size={upsample.size} for input_size={input_size}"
    factors = factors if isinstance(factors, (tuple, list)) else (factors, factors)
    if len(factors) != 2 or any(factor < 1 or not float(factor).is_integer() for factor in factors):
        raise ValueError(
            f"upsample has {given}: only with a whole-numbered scale, at least 1, on both axes is there one kernel for "
            f"all pixels; use such a scale, or leave this pair as it is"
        )
    scale = tuple(int(factor) for factor in factors)
    check_nearest(upsample.mode, scale)
    return scale, size


def check_nearest(mode, scale):
    """Refuse a scale at which PyTorch's nearest upsampling does not repeat every pixel equally often."""
    for factor in scale:
        if mode.startswith("nearest") and not nearest_repeats_evenly(mode, factor):
            raise ValueError(
                f'upsample with mode="{mode}" and a scale of {factor} does not repeat every pixel {factor} '
                f"times: PyTorch rounds 1/{factor} to float32 and reads a wrong pixel at some places; use "
                + ('mode="nearest-exact"' if mode == "nearest" else "a smaller scale")
            )


def _extension(mode, padding_mode, padding, scale, name):
    """Choose the padding layer that does, before the upsampling, what the convolution's padding does after it."""
    interpolates = not mode.startswith("nearest") and scale > 1
    flat = padding  # how deep the convolution's padding repeats the edge, as interpolation assumes
    if padding_mode != "replicate" or mode == "bicubic":
        flat = (scale - 1) // 2 if padding_mode == "reflect" and mode == "bilinear" else 0
    if interpolates and padding <= flat:
        return nn.ReplicationPad2d  # what interpolation assumes beyond the edge
    if interpolates:
        raise ValueError(
            f'padding after mode="{mode}" makes the border differ from any transposed convolution: with '
            f'padding_mode="{padding_mode}", a frame {_pixels(padding - flat)} deep (on the axis of the {name}) would '
            f"not be equal; use a convolution with padding=0" + (', or padding_mode="replicate"' * (mode == "bilinear"))
        )
    if padding_mode == "reflect" and scale == 1 and padding:
        return nn.ReflectionPad2d
    if padding_mode == "reflect" and padding >= scale:
        raise ValueError(
            f'padding_mode="reflect" with padding={padding} reflects more than one block of the upsampled pixels '
            f"(scale {scale}), which no padding of the input does: a frame {_pixels(padding - scale + 1)} deep (on the "
            f'axis of the {name}) would not be equal; use padding_mode="replicate", or a padding below {scale}'
        )
    if padding_mode == "circular" and padding:
        return nn.CircularPad2d
    return nn.ZeroPad2d if padding_mode == "zeros" or padding == 0 else nn.ReplicationPad2d


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
    conv = made(
        nn.Conv2d,
        kernel,
        None if layer.bias is None else layer.bias.detach().repeat_interleave(sh * sw),
        layer,
        padding=tuple(before for before, _ in pads) if even else 0,
    )
    grown, cut = ([] if even else [_sided(pads, sign) for sign in (1, -1)]) or (None, None)
    return OrderedDict(
        pad=grown and pad_layer(nn.ZeroPad2d, *grown),
        cut=cut and crop_layer(*cut),
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


def _pixels(number):
    return f"{number} pixel" + "s" * (number != 1)


def _ceil(numerator, denominator):
    return -(-numerator // denominator)
