"""Single layers: exact rewrites between the forms of an upsampling layer, in one, two and three dimensions.

Nearest-neighbour `Upsample` + `Conv2d` is one `ConvTranspose2d`; any `ConvTranspose2d` is a `Conv2d` at low
resolution and a `PixelShuffle`, and back. All hold at every pixel, borders included; the book proves them. What
is not exact is refused with an error that says why. What is said of 2-D layers holds for 1-D and 3-D ones.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from operator import truediv
from types import SimpleNamespace

import torch
from torch import fx, nn

from upconv._interpolation import PADS, fold, modes, padding_sides, padding_sum, shuffled, whole_scale
from upconv._layers import (
    CONV_TRANSPOSES,
    CONVS,
    Conv,
    ConvTranspose,
    InputSize,
    assembled,
    crop_layer,
    eval_settings,
    expect,
    like_format,
    new_layer,
    pad_layer,
    spread,
    swapped_channels,
    working_copy,
)
from upconv.arithmetic import AXES, Ints, checked_setting

__all__ = [
    "conv_transpose_to_subpixel",
    "pixel_shuffle_to_conv_transpose",
    "upsample_conv_to_conv_transpose",
    "upsample_conv_to_subpixel",
    "upsample_to_conv_transpose",
]


def upsample_conv_to_conv_transpose(
    upsample: nn.Upsample, conv: Conv | ConvTranspose, *, input_size: Ints | None = None
) -> ConvTranspose | nn.Sequential:
    """Write `conv(upsample(x))` as one `torch.nn.ConvTranspose2d`, with a pad before and a crop after it where needed.

    Parameters
    ----------
    upsample : torch.nn.Upsample
        With a whole-numbered scale on each axis. Modes "nearest" and "nearest-exact" are exact for every convolution
        named below; "linear", "bilinear" and "trilinear" (align_corners=False) if `conv` has no padding,
        padding_mode="replicate", or "reflect" with padding < scale / 2; "bicubic" (align_corners=False) if `conv` has
        no padding.
    conv : torch.nn.Conv1d, Conv2d or Conv3d
        With stride 1; any kernel_size, dilation, groups, padding ("same" and "valid" too) and bias. After a nearest
        upsampling padding_mode may be "zeros", "replicate", "circular", or "reflect" with padding < scale. A
        ConvTranspose1d, 2d or 3d with stride 1 is such a convolution, too.
    input_size : int or tuple of int, optional
        The inputs' size on each axis, needed if `upsample` was made with `size=` instead of `scale_factor=`; the
        result then checks that its inputs have this size.

    Returns
    -------
    torch.nn.ConvTranspose1d, ConvTranspose2d, ConvTranspose3d or torch.nn.Sequential
        Maps (N, in_channels, ...) to what the two layers map it to; of a tensor without a batch axis Upsample would
        enlarge all axes but one, and the result enlarges all. It has parameters of its own, with the dtype, device,
        memory format and requires_grad of `conv`'s, and its train/eval flag.

    Raises
    ------
    TypeError
        If `upsample` is no Upsample or `conv` no convolution, or one has a forward of its own.
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
    Inputs are taken to be finite; a parametrized weight is read as in eval mode. Where the scale of an interpolation is
    no power of two, PyTorch rounds positions in float32 inputs hundreds of pixels wide; the result does not.

    Examples
    --------
    >>> upsample_conv_to_conv_transpose(nn.Upsample(scale_factor=2), nn.Conv2d(8, 4, 3, padding=1))
    ConvTranspose2d(8, 4, kernel_size=(4, 4), stride=(2, 2), padding=(1, 1))
    >>> upsample_conv_to_conv_transpose(nn.Upsample(scale_factor=4), nn.Conv1d(8, 4, 5, padding=2))
    ConvTranspose1d(8, 4, kernel_size=(8,), stride=(4,), padding=(2,))
    """
    return assembled(pair_steps(upsample, conv, input_size), conv)


def upsample_to_conv_transpose(
    upsample: nn.Upsample,
    channels: int,
    *,
    axes: int | None = None,
    input_size: Ints | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> ConvTranspose | nn.Sequential:
    """Write an Upsample alone as a `torch.nn.ConvTranspose2d` with a group for each channel.

    For runtimes that have the one layer and not the other. Its weight is all ones after a nearest mode, and the
    interpolation's own kernel after others, whose inputs are extended by replicating their border.

    Parameters
    ----------
    upsample : torch.nn.Upsample
        With a whole-numbered scale on each axis, and align_corners=False.
    channels : int
        Of the inputs, at least 1.
    axes : int, optional
        Of the inputs, 1 to 3, where neither the mode ("bilinear" has 2) nor a tuple among the layer's arguments tells;
        then 2 if omitted.
    input_size : int or tuple of int, optional
        As in `upsample_conv_to_conv_transpose`.
    device, dtype : optional
        As in PyTorch's layers.

    Returns
    -------
    torch.nn.ConvTranspose1d, ConvTranspose2d, ConvTranspose3d or torch.nn.Sequential
        Maps (N, channels, ...) to what `upsample` maps it to. Its weight needs no gradient: like the Upsample, it has
        nothing to train.

    Raises
    ------
    TypeError, ValueError
        As `upsample_conv_to_conv_transpose`; and if `channels` or `axes` is out of its range.

    See Also
    --------
    upsample_conv_to_conv_transpose : Together with a convolution: fewer multiplications than the convolution alone.

    Notes
    -----
    The pair of this Upsample and a 1x1 convolution that changes nothing. As `bilinear_` it is in Long, Shelhamer and
    Darrell 2015, "Fully convolutional networks" (arXiv:1411.4038), but for the border.

    Examples
    --------
    >>> upsample_to_conv_transpose(nn.Upsample(scale_factor=2), 8)
    ConvTranspose2d(8, 8, kernel_size=(2, 2), stride=(2, 2), groups=8, bias=False)
    >>> upsample_to_conv_transpose(nn.Upsample(scale_factor=2, mode="bilinear"), 8)
    Sequential(
      (pad0): ReplicationPad2d((1, 1, 1, 1))
      (conv_transpose): ConvTranspose2d(8, 8, kernel_size=(4, 4), stride=(2, 2), padding=(3, 3), groups=8, bias=False)
    )
    """
    expect(upsample, nn.Upsample, "upsample")
    [channels] = checked_setting("channels", channels, 1)
    settings = dict(size=upsample.size, scale_factor=upsample.scale_factor, input_size=input_size)
    told = {name: len(value) for name, value in settings.items() if isinstance(value, (tuple, list))}
    told |= {"mode": number for number in AXES if upsample.mode in modes(number)[2:]}  # noqa: B035 - at most one
    if axes is not None:
        [told["axes"]] = checked_setting("axes", axes, 1)
    numbers = set(told.values()) or {2}
    if len(numbers) > 1 or not numbers <= AXES.keys():
        raise ValueError(f"upsample has no one number of axes, 1 to 3: {told}")
    conv = CONVS[numbers.pop() - 1](channels, channels, 1, groups=channels, bias=False, device="meta")  # draws nothing
    conv.weight = nn.Parameter(torch.ones(conv.weight.shape, device=device, dtype=dtype), requires_grad=False)
    return assembled(pair_steps(upsample, conv, input_size), upsample)


def pixel_shuffle_to_conv_transpose(
    conv: Conv, shuffle: nn.PixelShuffle | PixelShuffle
) -> ConvTranspose | nn.Sequential:
    """Write `shuffle(conv(x))` as one `torch.nn.ConvTranspose2d`: the sub-pixel form's way back.

    Parameters
    ----------
    conv : torch.nn.Conv1d, Conv2d or Conv3d
        With stride 1; any kernel_size, dilation, padding, padding_mode and bias, and groups that divide the shuffled
        image's channels.
    shuffle : torch.nn.PixelShuffle
        Or the shuffle that `conv_transpose_to_subpixel` makes where PyTorch has none (1-D, 3-D, unequal strides).

    Returns
    -------
    torch.nn.ConvTranspose1d, ConvTranspose2d, ConvTranspose3d or torch.nn.Sequential
        Maps (N, in_channels, ...) to what the two layers map it to. A layer of kernel size s * k, stride s and
        padding s * (k - 1 - p), for a convolution of size k and padding p; with a pad before and a crop after it where
        needed. The layer has one bias a channel: where the bias of `conv` differs between the s * s channels that make
        one, a step that adds what each phase has of its own follows. It has parameters of its own, with the dtype,
        device, memory format and requires_grad of `conv`'s, and its train/eval flag.

    Raises
    ------
    TypeError
        If `conv` is no convolution or `shuffle` no pixel shuffle, or one has a forward of its own.
    ValueError
        If the two are not one transposed convolution, or a layer has hooks or no weights yet; the message says why.

    See Also
    --------
    conv_transpose_to_subpixel : The way there.

    Notes
    -----
    As many multiplications as before. Shi et al. 2016, "Is the deconvolution layer the same as a convolutional layer?"
    (arXiv:1609.07009).

    Examples
    --------
    >>> pixel_shuffle_to_conv_transpose(nn.Conv2d(8, 16, 3, padding=1, bias=False), nn.PixelShuffle(2))
    ConvTranspose2d(8, 4, kernel_size=(6, 6), stride=(2, 2), padding=(2, 2), bias=False)
    """
    return assembled(shuffle_steps(conv, shuffle), conv)


def conv_transpose_to_subpixel(layer: ConvTranspose) -> nn.Sequential:
    """Write a `torch.nn.ConvTranspose2d` as a `torch.nn.Conv2d` at low resolution and a pixel shuffle (polyphase form).

    Parameters
    ----------
    layer : torch.nn.ConvTranspose1d, ConvTranspose2d or ConvTranspose3d
        With any setting.

    Returns
    -------
    torch.nn.Sequential
        Maps (N, in_channels, ...), or (in_channels, ...), to what the layer maps it to: a pad, a crop, a
        convolution with as many times the channels as there are phases, a pixel shuffle, a crop, each where needed. It
        has parameters of its own, with the dtype, device, memory format and requires_grad of the layer's, and its
        train/eval flag.

    Raises
    ------
    TypeError
        If `layer` is no transposed convolution, or one with a forward of its own.
    ValueError
        If the layer has hooks, or no weights yet.

    See Also
    --------
    upsample_conv_to_subpixel : The same form of an Upsample and a Conv2d.
    pixel_shuffle_to_conv_transpose : The way back.
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
    expect(layer, CONV_TRANSPOSES, "layer")
    return assembled(_subpixel(eval_settings(layer)), layer)


def upsample_conv_to_subpixel(
    upsample: nn.Upsample, conv: Conv | ConvTranspose, *, input_size: Ints | None = None
) -> nn.Sequential:
    """Write `conv(upsample(x))` as a `torch.nn.Conv2d` at low resolution and a pixel shuffle.

    With a 3x3 kernel after nearest-neighbour upsampling by 2 it needs 16 instead of 36 multiplications for each
    low-resolution pixel, input channel and output channel.

    Parameters
    ----------
    upsample : torch.nn.Upsample
    conv : torch.nn.Conv1d, Conv2d or Conv3d
    input_size : int or tuple of int, optional
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


# Upsample + convolution as pad, transposed convolution, crop


def pair_steps(upsample, conv, input_size=None, pads=(), subpixel=False):
    """Give the steps of a pair's other form by name, for `assembled`; with padding layers between the two."""
    expect(upsample, nn.Upsample, "upsample")
    expect(conv, CONVS + CONV_TRANSPOSES, "conv")
    conv = as_convolution(eval_settings(conv), isinstance(conv, CONV_TRANSPOSES), pads)
    axes = len(conv.kernel_size)
    scale, size = scale_of(upsample, input_size, axes)
    form = fold(upsample.mode, scale, conv)
    kernel, bias = form.kernel(working_copy(conv.weight)), None if conv.bias is None else conv.bias.detach()
    layer = new_layer(CONV_TRANSPOSES[axes - 1], kernel, bias, conv, **form.settings)
    return OrderedDict(
        check=InputSize(*size) if size else None,
        **{f"pad{i}": pad for i, pad in enumerate(form.pads)},
        **(_subpixel(layer) if subpixel else dict(conv_transpose=layer)),
        **{"trim" if subpixel else "crop": crop_layer(form.crop)},
    )


def as_convolution(layer, is_transposed, pads=()):
    """Give the settings of a stride-1 convolution, or of a transposed one as such, with padding layers before it.

    `padding` is (before, after) for each axis.
    """
    if set(layer.stride) != {1}:
        raise ValueError(
            f"conv has stride={layer.stride}: this rewrite covers a convolution with stride 1 only; leave this pair as "
            f"it is"
        )
    layer = SimpleNamespace(**vars(layer))
    if is_transposed:
        axes = zip(layer.kernel_size, layer.padding, layer.output_padding, layer.dilation, strict=True)
        layer.padding = [(d * (k - 1) - p, d * (k - 1) - p + more) for k, p, more, d in axes]
        weight = swapped_channels(layer.weight, layer.groups).flip(tuple(range(2, layer.weight.dim())))
        layer.weight = like_format(weight.detach(), layer.weight).requires_grad_(layer.weight.requires_grad)
    else:
        layer.padding = padding_sides(layer.padding, layer.kernel_size, layer.dilation)
    for pad in reversed(pads):
        sides = list(zip(pad.padding[::2], pad.padding[1::2], strict=True))[::-1]
        layer.padding, layer.padding_mode = padding_sum(layer.padding, layer.padding_mode, sides, PADS[type(pad)])
    return layer


def scale_of(upsample, input_size, axes):
    """Give the scale on each axis, and the only input size it holds for, if there is one."""
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
        size = checked_setting("input_size", input_size, axes)
        sizes = upsample.size if isinstance(upsample.size, (tuple, list)) else (upsample.size,) * axes
        factors = tuple(map(truediv, sizes, size)) if len(sizes) == axes else sizes
        given = f"size={upsample.size} for input_size={input_size}"
    return whole_scale(upsample.mode, upsample.align_corners, factors, given, axes), size


# Transposed convolution as pad, convolution, pixel shuffle, crop; and back


def _subpixel(layer):
    taps, pads, crops = [], [], []
    settings = layer.stride, layer.padding, layer.output_padding, layer.dilation, layer.kernel_size
    for stride, padding, output_padding, dilation, kernel_size in zip(*settings, strict=True):
        reach = dilation * (kernel_size - 1)
        taps.append(reach // stride + 1)
        last = reach - padding + output_padding
        pads.append((reach // stride - padding // stride, last // stride))
        crops.append((padding % stride, stride - 1 - last % stride))
    axes, phases = len(taps), math.prod(layer.stride)
    kernel = spread(working_copy(layer.weight), layer.dilation)  # (in, out / groups, K1, K2, ...)
    sizes = zip(taps, layer.stride, kernel.shape[2:], strict=True)
    missing = [side for number, stride, size in list(sizes)[::-1] for side in (0, number * stride - size)]
    kernel = nn.functional.pad(kernel, missing)
    for dim in reversed(range(axes)):
        kernel = kernel.unflatten(2 + dim, (taps[dim], layer.stride[dim]))
    kernel = kernel.flip(tuple(range(2, 2 + 2 * axes, 2))).unflatten(0, (layer.groups, -1))
    kernel = kernel.permute(0, 2, *range(4, 4 + 2 * axes, 2), 1, *range(3, 3 + 2 * axes, 2))
    kernel = kernel.flatten(0, 1 + axes)  # of (groups, out / groups, s1, s2, ..., in / groups, T1, T2, ...)
    even = all(before == after >= 0 for before, after in pads)
    stock = axes == 2 and len(set(layer.stride)) == 1
    conv = new_layer(
        CONVS[axes - 1],
        kernel,
        None if layer.bias is None else layer.bias.detach().repeat_interleave(phases),
        layer,
        padding=tuple(before for before, _ in pads) if even else 0,
    )
    grown, cut = ([(0, 0)] * axes if even else _sided(pads, sign) for sign in (1, -1))
    return OrderedDict(
        pad=pad_layer("Zero", grown),
        cut=crop_layer(cut),
        conv=conv,
        shuffle=None if phases == 1 else nn.PixelShuffle(layer.stride[0]) if stock else PixelShuffle(*layer.stride),
        crop=crop_layer(crops),
    )


def _sided(pads, sign):
    return [tuple(max(0, sign * side) for side in pad) for pad in pads]


def shuffle_steps(conv, shuffle):
    """Give the steps of a convolution's and a pixel shuffle's other form by name, for `assembled`."""
    expect(conv, CONVS, "conv")
    expect(shuffle, (nn.PixelShuffle, PixelShuffle), "shuffle")
    conv = as_convolution(eval_settings(conv), False)
    scale = shuffle.factors if isinstance(shuffle, PixelShuffle) else (shuffle.upscale_factor,) * 2
    form = shuffled(scale, conv)
    bias = None if conv.bias is None else conv.bias.detach().unflatten(0, (-1, *scale))
    # on the meta device a bias has no values to compare
    same = bias is None or (not bias.is_meta and bool((bias.flatten(1) == bias.flatten(1)[:, :1]).all()))
    common = bias.flatten(1)[:, 0] if same and bias is not None else None
    layer = new_layer(CONV_TRANSPOSES[len(scale) - 1], form.kernel(conv.weight.detach()), common, conv, **form.settings)
    return OrderedDict(
        pad=next(iter(form.pads), None),
        conv_transpose=layer,
        crop=crop_layer(form.crop),
        bias=None if same else _PhaseBias(conv.bias, scale),
    )


class PixelShuffle(nn.Module):
    """`torch.nn.PixelShuffle` with a factor for each axis: (..., C * s1 * s2, n1, n2) to (..., C, n1 * s1, n2 * s2)."""

    def __init__(self, *factors: int):
        super().__init__()
        self.factors = list(factors)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Take and give tensors with or without a batch axis."""
        return _shuffled(x, self.factors)

    def extra_repr(self):
        return ", ".join(map(str, self.factors))


class _PhaseBias(nn.Module):
    """Adds what each phase has of its own, C * s1 * s2 ... values, to (..., C, n1 * s1, n2 * s2, ...)."""

    def __init__(self, bias, scale):
        super().__init__()
        self.bias, self.factors = nn.Parameter(bias.detach().clone(), bias.requires_grad), list(scale)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return _added(x, self.bias, self.factors)


# torch.fx takes these as single steps: how many axes there are is not known where it traces.


@fx.wrap
def _shuffled(x: torch.Tensor, factors: list[int]) -> torch.Tensor:
    axes = len(factors)
    x = x.unflatten(-axes - 1, [-1] + factors)  # noqa: RUF005 - TorchScript knows no star; (..., C, s1, s2, n1, n2)
    start = x.dim() - 2 * axes
    order = list(range(start))
    for axis in range(start, start + axes):
        order += [axis + axes, axis]
    x = x.permute(order)
    for axis in range(start, start + axes):
        x = x.flatten(axis, axis + 1)
    return x


@fx.wrap
def _added(x: torch.Tensor, bias: torch.Tensor, factors: list[int]) -> torch.Tensor:
    repeats = [1]
    for axis in range(len(factors)):
        repeats += [x.shape[axis - len(factors)] // factors[axis]]
    return x + bias.unflatten(0, [-1] + factors).repeat(repeats)  # noqa: RUF005 - as above
