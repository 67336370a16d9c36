"""The jump form: nearest upsampling and a convolution with one multiplication a tap, not one a tap and phase.

An upsampled image is constant but for jumps between blocks. So a convolution makes of it, everywhere, the sum of its
taps times one pixel, and for each jump in its window the sum of the taps on one side of it times the jump. Over the
phases of an axis these are as many products as the kernel has taps.
"""

from __future__ import annotations

import itertools
from collections import OrderedDict
from typing import NamedTuple

import torch
from torch import fx, nn
from torch.nn import functional as F

from upconv._interpolation import fold, padding_sides
from upconv._layers import (
    CONV_TRANSPOSES,
    CONVS,
    Conv,
    ConvTranspose,
    InputSize,
    eval_settings,
    expect,
    new_layer,
    working_copy,
)
from upconv.arithmetic import Ints
from upconv.layers import as_convolution, scale_of

__all__ = ["upsample_conv_to_jump"]


def upsample_conv_to_jump(
    upsample: nn.Upsample, conv: Conv | ConvTranspose, *, input_size: Ints | None = None
) -> nn.Module:
    """Write `conv(upsample(x))`, of nearest upsampling, with as few multiplications as the kernel has taps.

    A 3x3 convolution after upsampling by 2 needs 36 multiplications for each low-resolution pixel, input channel and
    output channel, as one ConvTranspose2d 16, and so 9: scale * scale times fewer than at first, whatever the kernel.
    The products are 1x1 convolutions of the image and of its differences along each axis, and sums of them the output.

    Parameters
    ----------
    upsample : torch.nn.Upsample
        With mode "nearest" or "nearest-exact" and a whole-numbered scale on each axis.
    conv : torch.nn.Conv1d, Conv2d or Conv3d
        As in `upsample_conv_to_conv_transpose`, with dilation 1 where the kernel has more than one tap.
    input_size : int or tuple of int, optional
        As in `upsample_conv_to_conv_transpose`.

    Returns
    -------
    torch.nn.Module
        Maps (N, in_channels, ...) to what the two layers map it to, for every size and batch. It has parameters of
        its own, as many as `conv`, with the dtype, device, memory format and requires_grad of `conv`'s, and its
        train/eval flag. Trained, it stays a pair: to each value of its parameters belongs one of `conv`'s.

    Raises
    ------
    TypeError, ValueError
        As `upsample_conv_to_conv_transpose`; and if the mode is another, or the kernel dilated.

    See Also
    --------
    upconv.layers.upsample_conv_to_conv_transpose : More multiplications in one layer: fewer steps and less memory.

    Notes
    -----
    Summation by parts. On one axis, with scale 2, taps w0, w1, w2 of sum S, padding 1 and D[q] = x[q] - x[q-1]: y[2q] =
    S x[q] - w0 D[q] and y[2q+1] = S x[q] + w2 D[q+1]. It is close to what Winograd's minimal filtering does
    with each phase (Lavin and Gray 2015, arXiv:1509.09308). Differences round: the result differs from the two
    layers' in the last digits.

    Examples
    --------
    >>> jump = upsample_conv_to_jump(nn.Upsample(scale_factor=2), nn.Conv2d(8, 4, 3, padding=1))
    >>> jump(torch.zeros(1, 8, 16, 16)).shape, sum(p.numel() for p in jump.parameters())
    (torch.Size([1, 4, 32, 32]), 292)
    """
    return jump_module(upsample, conv, input_size)


def jump_module(upsample, conv, input_size=None, between=()):
    """Do `upsample_conv_to_jump`, with padding layers between the two."""
    expect(upsample, nn.Upsample, "upsample")
    expect(conv, CONVS + CONV_TRANSPOSES, "conv")
    settings = as_convolution(eval_settings(conv), isinstance(conv, CONV_TRANSPOSES), between)
    scale, size = scale_of(upsample, input_size, len(settings.kernel_size))
    form = jump(upsample.mode, scale, settings)
    steps = OrderedDict(check=InputSize(*size)) if size else OrderedDict()
    steps |= {f"pad{i}": pad for i, pad in enumerate(form.pads)} | dict(jump=_Jump(settings, form))
    return (nn.Sequential(steps) if len(steps) > 1 else steps["jump"]).train(conv.training)


def jump(mode, scale, conv):
    """Write nearest upsampling and a convolution in the jump form; what has none is a ValueError.

    `conv` has the settings of a convolution with stride 1; its padding may be (before, after) for each axis.
    """
    if not mode.startswith("nearest"):
        raise ValueError(
            f'upsample has mode="{mode}", which leaves no constant blocks: the jump form is one of nearest '
            "upsampling; use upsample_conv_to_conv_transpose"
        )
    if any(d > 1 and k > 1 for d, k in zip(conv.dilation, conv.kernel_size, strict=True)):
        raise ValueError(
            f"conv has dilation={conv.dilation}: windows with gaps see jumps that their taps do not, so the jump "
            "form saves nothing; use upsample_conv_to_conv_transpose"
        )
    pads = fold(mode, scale, conv).pads if conv.padding_mode != "zeros" else []
    paddings = padding_sides(conv.padding, conv.kernel_size, conv.dilation)
    for pad in pads:
        sides = list(zip(pad.padding[::2], pad.padding[1::2], strict=True))[::-1]
        paddings = [
            (before - s * b, after - s * a) for (before, after), s, (b, a) in zip(paddings, scale, sides, strict=True)
        ]
    axes = zip(scale, conv.kernel_size, paddings, strict=True)
    return Jump(tuple(_axis(*settings) for settings in axes), conv.groups, tuple(pads))


class _Axis(NamedTuple):
    """Which jumps the phases of an axis see."""

    scale: int
    bases: tuple  # of each phase: the pixel that its taps' sum is multiplied with
    jumps: tuple  # (phase, place): the jump from pixel place - 1 to pixel place
    signs: tuple  # for the taps' sum and each jump: which taps count, and their sign
    more: int  # blocks of the output beyond the input's pixels
    crop: int  # pixels of the last block that are none
    reach: tuple  # pixels before the first and behind the last of the output's blocks that are read


def _axis(scale, kernel_size, padding):
    bases, jumps, signs = [], [], [(1.0,) * kernel_size]
    for phase in range(scale):
        pixels = [(phase + tap - padding[0]) // scale for tap in range(kernel_size)]
        bases.append(min(max(0, pixels[0]), pixels[-1]))
        for place in range(pixels[0] + 1, pixels[-1] + 1):
            jumps.append((phase, place))
            signs.append(tuple(float(p >= place) if place > bases[-1] else -float(p < place) for p in pixels))
    longer = sum(padding) - kernel_size + 1
    more, places = -(-longer // scale), [place for _, place in jumps]
    reach = max([0, *(1 - place for place in places), *(-base for base in bases)]), max([0, *places, *bases])
    return _Axis(scale, tuple(bases), tuple(jumps), tuple(signs), more, scale * more - longer, reach)


class Jump(NamedTuple):
    """Nearest upsampling and a stride-1 convolution after it, as pads, products and sums."""

    axes: tuple[_Axis, ...]
    groups: int
    pads: tuple  # layers that come first

    def kernel(self, weight):
        """Give the products' weights, (out, in / groups, 1 + jumps, ...): a differentiable function of the weight."""
        for dim, axis in enumerate(self.axes, 2):
            taps = weight.unbind(dim)
            weight = torch.stack(
                [sum(s * t for s, t in zip(signs, taps, strict=True) if s) for signs in axis.signs], dim
            )
        return weight

    def products(self, kernel):
        """Cut them up by the axes along which a product takes differences: weights of 1x1 convolutions.

        Returns
        -------
        dict of str to torch.Tensor
            "00", "01", ...: (groups * terms * out / groups, in / groups, 1, ...).
        """
        parts = {}
        for which in itertools.product((0, 1), repeat=len(self.axes)):
            if all(axis.jumps or not differs for axis, differs in zip(self.axes, which, strict=True)):
                part = kernel[(..., *(slice(1, None) if differs else slice(1) for differs in which))]
                part = part.flatten(2).unflatten(0, (self.groups, -1)).permute(0, 3, 1, 2).flatten(0, 2)
                parts["".join(map(str, which))] = part.unflatten(1, (-1, *(1,) * len(self.axes)))
        return parts


def jumped(axes, groups, x, products):
    """Compute a jump form of x, (N, in_channels, ...), by its products: functions by the names of `Jump.products`.

    (A list of axes, and no method: Dynamo of PyTorch 2.8 follows that.)
    """
    sizes = [x.shape[dim] + axis.more for dim, axis in enumerate(axes, 2)]
    reaches = [axis.reach for axis in axes]
    sides = [(before, after + axis.more) for (before, after), axis in zip(reaches, axes, strict=True)]
    x, maps = F.pad(x, [side for both in reversed(sides) for side in both]), {}
    for which, product in products.items():
        image = x
        for dim, (differs, axis, size, (before, _)) in enumerate(zip(which, axes, sizes, reaches, strict=True), 2):
            if differs == "1":
                image = image.narrow(dim, 1, image.shape[dim] - 1) - image.narrow(dim, 0, image.shape[dim] - 1)
            else:
                low, high = min(axis.bases), max(axis.bases)
                image = image.narrow(dim, before + low, size + high - low)
        terms = [range(1, 1 + len(a.jumps)) if w == "1" else (0,) for w, a in zip(which, axes, strict=True)]
        terms = list(itertools.product(*terms))
        made = product(image).unflatten(1, (groups, len(terms), -1))
        maps |= {term: made[:, :, place].flatten(1, 2) for place, term in enumerate(terms)}
    for place, (axis, size, (before, _)) in enumerate(zip(axes, sizes, reaches, strict=True)):
        maps = {
            (*key[:place], phase, *key[place + 1 :]): _summed(axis, maps, key, place, phase, size, before)
            for key in maps
            if key[place] == 0
            for phase in range(axis.scale)
        }
    y = _interleaved([maps[phases] for phases in sorted(maps)], [axis.scale for axis in axes])
    for dim, axis in enumerate(axes, 2):
        y = y.narrow(dim, 0, y.shape[dim] - axis.crop) if axis.crop else y
    return y


def _summed(axis, maps, key, place, phase, size, before):
    """Add up, for one phase of an axis, the sum of the taps and the jumps that it sees."""
    dim = 2 + place
    total = maps[key].narrow(dim, axis.bases[phase] - min(axis.bases), size)
    for term, (own, where) in enumerate(axis.jumps, 1):
        if own == phase:
            total = total + maps[(*key[:place], term, *key[place + 1 :])].narrow(dim, where + before - 1, size)
    return total


class _Jump(nn.Module):
    """The products, `products`, by the axes along which they take differences: "00", "01", ..."""

    def __init__(self, conv, form):
        super().__init__()
        self.axes, self.groups, self.products = list(form.axes), form.groups, nn.ModuleDict()
        for which, part in form.products(form.kernel(working_copy(conv.weight))).items():
            bias = None if conv.bias is None or "1" in which else conv.bias.detach()
            self.products[which] = new_layer(CONVS[len(which) - 1], part, bias, conv)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (N, in_channels, ...) to (N, out_channels, ...)."""
        return jumped(self.axes, self.groups, x, self.products)


@fx.wrap  # which has no memory formats where it traces
def _interleaved(maps: list[torch.Tensor], scale: list[int]) -> torch.Tensor:
    """Put the maps of all phases, in order, into one image of their memory format."""
    last = maps[0].stride(1) == 1 and maps[0].shape[1] > 1
    maps, first = ([image.movedim(1, -1) for image in maps], 1) if last else (maps, 2)
    for dim, factor in reversed(list(enumerate(scale, first))):
        rows = [maps[start : start + factor] for start in range(0, len(maps), factor)]
        maps = [torch.stack(row, dim + 1).flatten(dim, dim + 1) for row in rows]
    return maps[0].movedim(-1, 1) if last else maps[0]
