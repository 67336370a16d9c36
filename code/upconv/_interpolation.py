"""Which interpolation is the same at every pixel, and what it is with a convolution after it. Not for users.

And what a convolution is with a pixel shuffle after it: both are a transposed convolution, with pads before and a crop.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import nn

from upconv._layers import convolved, pad_layer, spread, swapped_channels
from upconv.arithmetic import AXES

__all__ = [
    "PADS",
    "Fold",
    "Shuffled",
    "check_nearest",
    "fold",
    "interpolation",
    "modes",
    "padding_sides",
    "padding_sum",
    "shuffled",
    "whole_scale",
]

LINEAR = {1: "linear", 2: "bilinear", 3: "trilinear"}  # by the number of axes
EXTENSIONS = dict(zeros="Zero", replicate="Replication", reflect="Reflection", circular="Circular")
PADS = {getattr(nn, f"{kind}Pad{axes}d"): mode for mode, kind in EXTENSIONS.items() for axes in AXES}


def modes(axes):
    """List the modes of interpolation that can be the same at every pixel, for a number of axes."""
    return ("nearest", "nearest-exact", LINEAR[axes], *(("bicubic",) * (axes == 2)))


def check_nearest(mode, scale, name="upsample"):
    """Refuse a scale at which PyTorch's nearest upsampling does not repeat every pixel equally often."""
    for factor in scale:
        if mode.startswith("nearest") and not _repeats_evenly(mode, factor):
            raise ValueError(
                f'{name} with mode="{mode}" and a scale of {factor} does not repeat every pixel {factor} '
                f"times: PyTorch rounds 1/{factor} to float32 and reads a wrong pixel at some places; use "
                + ('mode="nearest-exact"' if mode == "nearest" else "a smaller scale")
            )


def _repeats_evenly(mode, scale):
    """PyTorch's own index computation, in float32, for the first 64 input pixels."""
    position = torch.arange(64 * scale, device="cpu")
    shift = 0.5 if mode == "nearest-exact" else 0.0
    index = ((position.float() + shift) * torch.tensor(1 / scale, dtype=torch.float32, device="cpu")).floor()
    return torch.equal(index.long(), position // scale)


def whole_scale(mode, align_corners, factors, given, axes, name="upsample"):
    """Give the scale on each axis if the interpolation is the same at every pixel; otherwise say why it is not.

    `factors` is a number or one for each axis, `given` says in the message where they come from.
    """
    if mode not in modes(axes):
        same = ': use mode="nearest", which is the same at a whole-numbered scale' if mode == "area" else ""
        raise ValueError(f'{name} has mode="{mode}" and must have one of {", ".join(modes(axes))}{same}')
    if align_corners:
        raise ValueError(
            f"{name} has align_corners=True: its weights change from pixel to pixel (but at special sizes), so one "
            "kernel cannot serve; use align_corners=False, or leave this pair as it is"
        )
    factors = tuple(factors) if isinstance(factors, (tuple, list)) else (factors,) * axes
    if len(factors) != axes or any(factor < 1 or not float(factor).is_integer() for factor in factors):
        raise ValueError(
            f"{name} has {given}: only with a whole-numbered scale, at least 1, on each of {axes} axes is there one "
            f"kernel for all pixels; use such a scale, or leave this pair as it is"
        )
    scale = tuple(int(factor) for factor in factors)
    check_nearest(mode, scale, name)
    return scale


def interpolation(mode, scale):
    """Taps of the interpolation, the position of pixel 0's first copy in them, and how far it looks beyond a pixel."""
    if mode.startswith("nearest") or scale == 1:
        return [1.0] * scale, 0, 0
    if mode != "bicubic":
        length, offset, radius = 2 * scale - scale % 2, scale // 2, 1
    else:
        length, offset, radius = 4 * scale - scale % 2, scale + scale // 2, 2
    distances = [abs((position - offset + 0.5) / scale - 0.5) for position in range(length)]
    return [_cubic(distance) if mode == "bicubic" else 1 - distance for distance in distances], offset, radius


def _cubic(distance):
    """Cubic convolution with a = -0.75, as in PyTorch."""
    if distance <= 1:
        return (1.25 * distance - 2.25) * distance**2 + 1
    return -0.75 * (((distance - 5) * distance + 8) * distance - 4)


# An interpolation and a convolution as pad, transposed convolution, crop


def padding_sides(padding, kernel_size, dilation):
    """Give a convolution's padding, "same" and "valid" too, as (before, after) for each axis."""
    if padding == "same":
        reach = [d * (k - 1) for d, k in zip(dilation, kernel_size, strict=True)]
        return tuple((r // 2, r - r // 2) for r in reach)
    padding = (0,) * len(kernel_size) if padding == "valid" else padding
    return tuple(p if isinstance(p, tuple) else (p, p) for p in padding)


def padding_sum(padding, padding_mode, pad, mode):
    """Add a pad, (before, after) for each axis, to the padding of the next convolution; give the sum and its mode."""
    if not any(map(any, pad)):
        return padding, padding_mode
    if any(map(any, padding)) and not mode == padding_mode == "zeros":
        raise ValueError(f"{mode} padding is followed by a convolution with padding of {padding_mode}")
    if any(map(any, padding)) and min(map(min, pad)) < 0:
        raise ValueError("it is cropped before a convolution that pads with zeros")
    return tuple(tuple(map(sum, zip(*sides, strict=True))) for sides in zip(padding, pad, strict=True)), mode


class _Axis(NamedTuple):
    """One axis: the interpolation's taps, and where the output begins and ends."""

    taps: tuple[float, ...]  # of the interpolation
    extension: str  # the kind of padding that extends the input, "Zero", "Replication", ...
    pad: tuple[int, int]  # pixels by which it does
    padding: int
    output_padding: int
    crop: tuple[int, int]  # pixels to remove afterwards


class Fold(NamedTuple):
    """An interpolation and a stride-1 convolution after it, as pads, one transposed convolution and a crop."""

    scale: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int
    axes: tuple[_Axis, ...]

    def kernel(self, weight):
        """Compose the kernel, (in, out / groups, ...): a differentiable function of the convolution's weight."""
        kernel = spread(weight, self.dilation).flip(tuple(range(2, weight.dim())))
        for dim, axis in enumerate(self.axes, 2):
            kernel = convolved(kernel, dim, axis.taps)
        return swapped_channels(kernel, self.groups)

    @property
    def settings(self):
        """Stride, padding and output_padding of the transposed convolution."""
        padding, output_padding = (tuple(getattr(a, n) for a in self.axes) for n in ("padding", "output_padding"))
        return dict(stride=self.scale, padding=padding, output_padding=output_padding)

    @property
    def pads(self):
        """Padding layers that come first: none, one, or one of each kind where axes differ in that."""
        kinds = dict.fromkeys(axis.extension for axis in self.axes)
        pads = [pad_layer(kind, [a.pad if a.extension == kind else (0, 0) for a in self.axes]) for kind in kinds]
        return [pad for pad in pads if pad]

    @property
    def crop(self):
        """Pixels to remove at the end, (before, after) for each axis."""
        return tuple(axis.crop for axis in self.axes)


def fold(mode, scale, conv):
    """Write an interpolation and a convolution as one transposed convolution; what is not exact is a ValueError.

    `conv` has the settings of a convolution with stride 1; its padding may be (before, after) for each axis.
    """
    sides = padding_sides(conv.padding, conv.kernel_size, conv.dilation)
    axes = tuple(_axis(mode, conv, scale[axis], sides[axis], axis) for axis in range(len(scale)))
    return Fold(tuple(scale), tuple(conv.dilation), conv.groups, axes)


class Shuffled(NamedTuple):
    """A stride-1 convolution and a pixel shuffle after it, in the same terms."""

    scale: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int
    extents: tuple[int, ...]  # of the kernel, dilation included
    extension: str
    outside: tuple[tuple[int, int], ...]  # by how much a layer pads the input
    inside: tuple[tuple[int, int], ...]  # what is left of the padding

    def kernel(self, weight):
        """Give the kernel, (in, out / groups, ...): the taps of the phases side by side, and flipped."""
        axes = len(self.scale)
        kernel = spread(weight, self.dilation).flip(tuple(range(2, weight.dim())))
        kernel = kernel.unflatten(0, (self.groups, -1, *self.scale))  # (groups, out / groups, s1, s2, in / groups, ...)
        order = [axis for dim in range(axes) for axis in (3 + axes + dim, 2 + dim)]
        kernel = kernel.permute(0, 2 + axes, 1, *order).flatten(0, 1)  # (in, out / groups, K1, s1, K2, s2, ...)
        for dim in range(2, 2 + axes):
            kernel = kernel.flatten(dim, dim + 1)
        return kernel

    @property
    def settings(self):
        """Stride, padding and output_padding of the transposed convolution."""
        axes = zip(self.scale, self.extents, self.inside, strict=True)
        padding = tuple(s * (extent - 1 - max(sides)) for s, extent, sides in axes)
        return dict(stride=self.scale, padding=padding, output_padding=(0,) * len(padding))

    @property
    def pads(self):
        """Padding layers that come first, at most one."""
        pad = pad_layer(self.extension, self.outside)
        return [pad] if pad else []

    @property
    def crop(self):
        """Pixels to remove at the end, (before, after) for each axis."""
        return tuple(tuple(s * (max(p) - side) for side in p) for s, p in zip(self.scale, self.inside, strict=True))


def shuffled(scale, conv):
    """Write a convolution with stride 1 and a pixel shuffle as one transposed convolution; `conv` as for `fold`."""
    phases = math.prod(scale)
    if len(scale) != len(conv.kernel_size):
        raise ValueError(f"conv has {len(conv.kernel_size)} axes, and shuffle {len(scale)}")
    if min(scale) < 1:
        raise ValueError(f"shuffle has the factors {tuple(scale)} and must have factors of at least 1")
    if conv.out_channels % (phases * conv.groups):
        raise ValueError(
            f"conv has out_channels={conv.out_channels} and groups={conv.groups}: only of a multiple of {phases} "
            f"* groups does the shuffle make each channel from one group; leave this pair as it is"
        )
    sides = padding_sides(conv.padding, conv.kernel_size, conv.dilation)
    extents = tuple(d * (k - 1) + 1 for d, k in zip(conv.dilation, conv.kernel_size, strict=True))
    own = [extent - 1 if conv.padding_mode == "zeros" else 0 for extent in extents]  # what the layer itself can pad
    both = list(zip(sides, own, strict=True))
    outside, inside = (tuple(tuple(choose(p, k) for p in ps) for ps, k in both) for choose in (_beyond, min))
    extension = EXTENSIONS[conv.padding_mode]
    return Shuffled(tuple(scale), tuple(conv.dilation), conv.groups, extents, extension, outside, inside)


def _beyond(number, most):
    return max(0, number - most)


def _axis(mode, conv, scale, sides, axis):
    (before, after), reach = sides, conv.dilation[axis] * (conv.kernel_size[axis] - 1)
    taps, offset, radius = interpolation(mode, scale)
    name = AXES[len(conv.kernel_size)][axis]
    extension = _extension(mode, conv.padding_mode, max(before, after), scale, name)
    if extension == "Zero":  # needed only where the convolution looks at nothing but its own zeros
        pad = tuple(_ceil(max(0, p - reach), scale) for p in (before, after))
    elif radius:
        pad = tuple(max(radius, _ceil(2 * p - 1 + scale, 2 * scale)) for p in (before, after))
    else:
        pad = tuple(_ceil(p, scale) for p in (before, after))
    # Of all that the extended input reaches, `start` and `end` pixels are not in the output.
    start = reach - before + offset + scale * pad[0]
    end = reach - after + len(taps) - scale - offset + scale * pad[1]
    if 0 <= start - end < scale:
        return _Axis(tuple(taps), extension, pad, start, start - end, (0, 0))
    padding = min(start, end)
    return _Axis(tuple(taps), extension, pad, padding, 0, (start - padding, end - padding))


def _extension(mode, padding_mode, padding, scale, name):
    """Choose the kind of padding that does, before the upsampling, what the convolution's padding does after it."""
    interpolates = not mode.startswith("nearest") and scale > 1
    flat = padding  # how deep the convolution's padding repeats the edge, as interpolation assumes
    if padding_mode != "replicate" or mode == "bicubic":
        flat = (scale - 1) // 2 if padding_mode == "reflect" and mode.endswith("linear") else 0
    if interpolates and padding <= flat:
        return "Replication"  # what interpolation assumes beyond the edge
    if interpolates:
        raise ValueError(
            f'padding after mode="{mode}" makes the border differ from any transposed convolution: with '
            f'padding_mode="{padding_mode}", a frame {_pixels(padding - flat)} deep (on the axis of the {name}) would '
            f"not be equal; use a convolution with padding=0" + ', or padding_mode="replicate"' * (mode != "bicubic")
        )
    if padding_mode == "reflect" and scale == 1 and padding:
        return "Reflection"
    if padding_mode == "reflect" and padding >= scale:
        raise ValueError(
            f'padding_mode="reflect" with padding={padding} reflects more than one block of the upsampled pixels '
            f"(scale {scale}), which no padding of the input does: a frame {_pixels(padding - scale + 1)} deep (on the "
            f'axis of the {name}) would not be equal; use padding_mode="replicate", or a padding below {scale}'
        )
    if padding_mode == "circular" and padding:
        return "Circular"
    return "Zero" if padding_mode == "zeros" or padding == 0 else "Replication"


def _pixels(number):
    return f"{number} pixel" + "s" * (number != 1)


def _ceil(numerator, denominator):
    return -(-numerator // denominator)
