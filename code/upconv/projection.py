"""From `ConvTranspose2d` back to `Upsample` + `Conv2d`: exact for some kernels, least squares for the rest.

Nearest `Upsample` + `Conv2d` is always a `ConvTranspose2d`; the converse holds for the kernels that the book
characterises. `is_upsample_conv` decides. `conv_transpose_to_upsample_conv` is the only call of this package that
may approximate, and it always returns by how much. The same holds in one and in three dimensions.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections import OrderedDict
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

from upconv._interpolation import check_nearest, interpolation, modes
from upconv._layers import (
    CONV_TRANSPOSES,
    CONVS,
    ConvTranspose,
    assembled,
    convolved,
    crop_layer,
    eval_settings,
    expect,
    new_layer,
    pad_layer,
    spread,
    swapped_channels,
    working_copy,
)
from upconv.arithmetic import Ints, checked_setting, conv_transpose_output_size
from upconv.phases import phase_sums

__all__ = ["conv_transpose_to_upsample_conv", "is_upsample_conv"]

ROUNDING = 1e-12  # what a residual below this is, in float64
ELEMENTS = 2**24  # of the matrix of windows, at a time


def is_upsample_conv(layer: ConvTranspose, tolerance: float = 1e-6) -> bool:
    """Tell whether a transposed convolution is nearest-neighbour `Upsample` + `Conv2d` in disguise.

    It is if, and only if, in every line of its kernel, along each axis (every row and every column), all phases have
    the same sum.

    Parameters
    ----------
    layer : torch.nn.ConvTranspose1d, ConvTranspose2d or ConvTranspose3d
        With any setting; each axis is judged by its own stride, and a dilated kernel with its gaps filled by zeros.
    tolerance : float
        How far two phase sums may differ, relative to the largest entry of the kernel; at least 0. The default allows
        for float32 rounding; float16 and bfloat16 weights need about 1e-2, large bfloat16 kernels more.

    Returns
    -------
    bool
        True at stride 1, where there is nothing to upsample. Only the kernel is looked at, for all channels and groups:
        whatever the padding, output_padding and bias, the pair can have them too, with a pad or a crop where needed.

    Raises
    ------
    TypeError
        If `layer` is no ConvTranspose1d, 2d or 3d, or one with a forward of its own.
    ValueError
        If the layer has hooks, no weights yet, or weights that are complex or not finite, or `tolerance` is negative.

    See Also
    --------
    conv_transpose_to_upsample_conv : The two layers, or the nearest to them.
    upconv.phases.phase_gains : The sums of whole phases, a weaker condition.

    Notes
    -----
    The theorem is the book's. The sums of whole phases over all axes, `upconv.phase_gains`, being equal is weaker
    (on one axis it is the same).

    Examples
    --------
    >>> layer = nn.ConvTranspose2d(1, 1, kernel_size=2, stride=2, bias=False)
    >>> _ = nn.init.ones_(layer.weight)
    >>> is_upsample_conv(layer)
    True
    >>> with torch.no_grad():
    ...     layer.weight[0, 0, 1, 1] = 2
    >>> is_upsample_conv(layer)
    False
    """
    expect(layer, CONV_TRANSPOSES, "layer")
    if not tolerance >= 0:
        raise ValueError(f"tolerance={tolerance!r} must be a number of at least 0")
    kernel = _kernel(eval_settings(layer))
    allowed = tolerance * kernel.abs().max()
    for dim, stride in enumerate(layer.stride, 2):
        sums = phase_sums(kernel, dim, stride)  # of every line along this axis
        if (sums.amax(dim) - sums.amin(dim)).max() > allowed:
            return False
    return True


def conv_transpose_to_upsample_conv(
    layer: ConvTranspose,
    kernel_size: Ints | None = None,
    mode: str = "nearest",
    inputs: torch.Tensor | None = None,
    targets: torch.Tensor | None = None,
) -> tuple[nn.Sequential, float]:
    """Write a transposed convolution as `Upsample` and a convolution, as nearly as can be, and say how nearly.

    Parameters
    ----------
    layer : torch.nn.ConvTranspose1d, ConvTranspose2d or ConvTranspose3d
        With any setting.
    kernel_size : int or tuple of int, optional
        Of the new convolution, which has dilation 1. By default K - stride + 1, at least 1, where K is what the layer's
        kernel spans, dilation included: with "nearest" the size whose pairs have kernels of just the layer's size.
    mode : str
        Of the Upsample: "nearest", "nearest-exact", or for 1-D layers "linear", for 2-D "bilinear" and "bicubic", for
        3-D "trilinear" (align_corners=False).
    inputs : torch.Tensor, shape (N, in_channels, ...), optional
        Without them the kernel is projected: of the pairs whose kernel, as a transposed convolution, covers the layer's
        kernel or lies inside it, the one with the least distance from it. With them the outputs on these inputs are
        fitted instead, the bias too if the layer has one.
    targets : torch.Tensor, shape (N, out_channels, ...), optional
        What the pair should make of the inputs; by default what the layer makes of them.

    Returns
    -------
    module : torch.nn.Sequential
        `Upsample` and `Conv1d`, `Conv2d` or `Conv3d`, then a crop where the sizes need one; before an upsampling that
        is not nearest a pad of zeros, so that the border obeys the layer's own rule. It gives the sizes of `layer(x)`,
        has parameters of its own with the dtype, device, memory format and requires_grad of the layer's, and its
        train/eval flag. Inputs need a batch axis: `Upsample` refuses others.
    residual : float
        The norm of the difference over the norm of the original, neither squared: of the kernels, without `inputs`; of
        the outputs and the targets, with them. It is that of the module as returned, its weights rounded to their
        dtype. Where the norm of the original is 0, it is 0 if the difference is rounding, otherwise infinite.

    Raises
    ------
    TypeError
        If `layer` is no ConvTranspose1d, 2d or 3d, or one with a forward of its own, or `inputs` or `targets` no
        tensor.
    ValueError
        If an argument is out of its range, complex or not finite, the shapes do not fit, there are targets without
        inputs, the layer has hooks or no weights yet, its stride is one that Upsample gets wrong, or the pair's weights
        would be too large for its dtype.

    See Also
    --------
    is_upsample_conv : Whether that loses nothing.
    upconv.layers.upsample_conv_to_conv_transpose : The way back, which loses nothing.

    Notes
    -----
    If `is_upsample_conv(layer, tolerance=0)`, then a nearest mode with the default kernel size gives the layer itself
    (without `targets`): a residual of rounding alone, below 1e-12 in float64 and about 1e-7 in float32. For random
    kernels the expected square of the residual at the default size is 1 - (k / (k + s - 1))**n for a convolution of
    size k, a stride s and n axes: at stride 2 0.25 for kernels of 4, 0.4375 for 4 x 4 and 0.578 for 4 x 4 x 4. A larger
    `kernel_size` lowers it, but the pattern that the layer draws on a flat input stays missing.

    Of several such positions of the new kernel the one with the least residual (of the kernels) is taken, then the most
    central. The fit solves least squares in float64, leaving out singular values below 1e-12 of the largest, or below
    the rounding of the dtypes of the inputs and the layer: what the inputs do not determine stays at the projection.
    Where rounding the weights makes the fit worse than the projection, the projection is returned. Windows of the
    images are held in memory, of one image at least and otherwise about 128 MiB at a time.

    Examples
    --------
    >>> layer = nn.ConvTranspose2d(8, 4, kernel_size=4, stride=2, padding=1)
    >>> module, residual = conv_transpose_to_upsample_conv(layer)
    >>> module
    Sequential(
      (upsample): Upsample(scale_factor=(2.0, 2.0), mode='nearest')
      (conv): Conv2d(8, 4, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1))
    )
    >>> 0.5 < residual < 0.8
    True
    """
    expect(layer, CONV_TRANSPOSES, "layer")
    settings = eval_settings(layer)
    kernel = _kernel(settings)
    default = tuple(max(1, extent - s + 1) for extent, s in zip(kernel.shape[2:], settings.stride, strict=True))
    size = default if kernel_size is None else checked_setting("kernel_size", kernel_size, len(default))
    if mode not in modes(len(size)):
        raise ValueError(f"mode={mode!r} must be one of {', '.join(modes(len(size)))}")
    check_nearest(mode, settings.stride, "the pair's Upsample")
    with torch.no_grad():
        place, taps = _projected(kernel, [_places(settings, m, mode, axis) for axis, m in enumerate(size)])
        module = _pair(layer, settings, mode, place, taps)
        if inputs is None and targets is None:
            return module, _kernel_residual(kernel, place, _as_taps(module.conv))
        x, wanted = _data(layer, settings, inputs, targets)
        magnitude = (kernel.norm() * x.norm()).item()
        residual = _output_residual(module, x, wanted, magnitude)
        if targets is None and _kernel_residual(kernel, place, taps) <= ROUNDING:
            return module, residual
        projected = copy.deepcopy(module.state_dict())
        dtypes = [value.dtype for value in (inputs, settings.weight) if value.is_floating_point()]
        _fit(module, settings, taps, x, wanted, max(ROUNDING, *(torch.finfo(dtype).eps for dtype in dtypes)))
        fitted = _output_residual(module, x, wanted, magnitude)
        if not fitted <= residual:  # also if it is not a number
            module.load_state_dict(projected)
        return module, min(residual, fitted)


class _Placement(NamedTuple):
    """One axis: how a new kernel and the old one lie on one canvas, and what pads make the outputs agree."""

    basis: torch.Tensor  # (canvas, new kernel size): what each tap of the new kernel stamps
    inverse: torch.Tensor  # (new kernel size, canvas): the taps whose stamps are nearest to what is on the canvas
    margin: tuple[int, int]  # of the canvas, before and after the old kernel
    extension: int  # zeros on each side of the input, before the upsampling
    padding: tuple[int, int]  # of the new convolution, before and after; negative numbers crop


def _kernel(settings):
    """Check and give the kernel, its gaps filled by zeros: (in, out / groups, ...) in float64."""
    if settings.weight.is_complex():
        raise ValueError("layer has complex weights, which Upsample does not take")
    for name in ("weight", "bias"):
        value = getattr(settings, name)
        if value is not None and not value.isfinite().all():
            raise ValueError(f"layer has a {name} with entries that are infinite or not a number")
    return spread(working_copy(settings.weight), settings.dilation)


def _places(settings, size, mode, axis):
    """List the positions of the new kernel in which it covers the old one or lies inside it, the most central first."""
    stride, padding = settings.stride[axis], settings.padding[axis]
    extent = settings.dilation[axis] * (settings.kernel_size[axis] - 1) + 1
    taps, offset, radius = interpolation(mode, stride)
    stamps = convolved(torch.eye(size, dtype=torch.float64, device=settings.weight.device), 0, taps)
    spare = extent - len(stamps)
    places = []
    for shift in sorted(range(min(0, spare), max(0, spare) + 1), key=lambda shift: abs(2 * shift - spare)):
        basis = F.pad(stamps, (0, 0, max(0, shift), max(0, spare - shift)))
        margin = max(0, -shift), max(0, shift - spare)
        before = size - 1 - padding + shift + offset - radius * stride
        after = extent - stride - padding + settings.output_padding[axis] - shift - offset - radius * stride
        places.append(_Placement(basis, torch.linalg.pinv(basis), margin, radius, (before, after)))
    return places


def _projected(kernel, places):
    """Choose the position, of those on each axis, with the least residual; give it and the taps of the new kernel."""
    best, most = None, -1.0
    for place in itertools.product(*places):
        taps = _along(_placed(kernel, place), [axis.inverse for axis in place])
        reached = _along(taps, [axis.basis for axis in place]).square().sum().item()
        if reached > most * (1 + 1e-9):  # equal but for rounding: keep the more central one
            best, most = (place, taps), reached
    return best


def _along(kernel, matrices):
    """Apply one matrix along each axis of the kernel."""
    for matrix in matrices:  # each axis is the last in turn, so in the end they are in order
        kernel = kernel.movedim(2, -1) @ matrix.T
    return kernel


def _placed(kernel, place):
    """Put the old kernel on the canvas."""
    return F.pad(kernel, [side for axis in reversed(place) for side in axis.margin])


def _as_weight(taps, groups):
    return swapped_channels(taps.flip(tuple(range(2, taps.dim()))), groups)  # (out, in / groups, ...)


def _as_taps(conv):
    return swapped_channels(working_copy(conv.weight), conv.groups).flip(tuple(range(2, conv.weight.dim())))


def _pair(layer, settings, mode, place, taps):
    padding = tuple(max(0, *axis.padding) for axis in place)
    crops = [tuple(most - side for side in axis.padding) for most, axis in zip(padding, place, strict=True)]
    conv = new_layer(CONVS[len(place) - 1], _as_weight(taps, settings.groups), settings.bias, settings, padding=padding)
    if not conv.weight.isfinite().all():
        raise ValueError(f"the pair's weights are too large for {conv.weight.dtype}; convert the layer first")
    steps = OrderedDict(
        pad=pad_layer("Zero", [(axis.extension,) * 2 for axis in place]),
        upsample=nn.Upsample(scale_factor=tuple(settings.stride), mode=mode),  # a tuple refuses inputs with other axes
        conv=conv,
        crop=crop_layer(crops),
    )
    return assembled(steps, layer)


def _kernel_residual(kernel, place, taps):
    placed, stamped = _placed(kernel, place), _along(taps, [axis.basis for axis in place])
    return _ratio((placed - stamped).norm().item(), placed.norm().item())


def _ratio(difference, norm, magnitude=0.0):
    if norm == 0:
        return 0.0 if difference <= ROUNDING * magnitude else math.inf
    return difference / norm


# Fitting the outputs


def _data(layer, settings, inputs, targets):
    """Check and give inputs and targets in float64; where there are no targets, what the layer makes of the inputs."""
    if inputs is None:
        raise ValueError("targets were given without inputs; give the inputs that they belong to")
    for name, value in (("inputs", inputs), ("targets", inputs if targets is None else targets)):
        if not isinstance(value, torch.Tensor):
            raise TypeError(f"{name} must be a torch.Tensor of shape (N, C, *size), not {type(value).__name__}")
        if value.is_complex() or not value.isfinite().all():
            raise ValueError(f"{name} must be real and finite")
    axes = len(settings.stride)
    if inputs.dim() != 2 + axes or inputs.shape[1] != settings.in_channels or 0 in inputs.shape:
        shape = f"(N, {settings.in_channels}, *size) with {2 + axes} dimensions"
        raise ValueError(f"inputs must have the shape {shape}, not {tuple(inputs.shape)}")
    given = {name: getattr(settings, name) for name in ("stride", "padding", "output_padding", "dilation")}
    conv_transpose_output_size(tuple(inputs.shape[2:]), settings.kernel_size, **given)
    inputs, weight = working_copy(inputs), working_copy(settings.weight)
    bias = None if settings.bias is None else working_copy(settings.bias)
    outputs = getattr(F, f"conv_transpose{axes}d")(inputs, weight, bias, groups=settings.groups, **given)
    if targets is None:
        return inputs, outputs
    if targets.shape != outputs.shape:
        raise ValueError(
            f"targets must have the shape {tuple(outputs.shape)} of the layer's outputs, not {tuple(targets.shape)}"
        )
    return inputs, working_copy(targets)


def _fit(module, settings, taps, inputs, targets, rounding):
    """Add to the projected kernel what least squares on the data adds, and store the sum in the module's conv."""
    conv, groups = module.conv, settings.groups
    weight = _as_weight(taps, groups).flatten(1)  # (out, in / groups * taps)
    bias = None if settings.bias is None else working_copy(settings.bias)
    triangles = [None] * groups
    level = inputs.square().mean().sqrt()  # of the bias's column, so that it is like the others
    per_image = targets[0, 0].numel() * conv.in_channels * math.prod(conv.kernel_size)
    batch = max(1, ELEMENTS // per_image)
    for images, wanted in zip(inputs.split(batch), targets.split(batch), strict=True):
        columns = _unfolded(module, images).chunk(groups, dim=1)  # each (rows, in / groups * taps)
        values = wanted.movedim(1, -1).flatten(0, -2).chunk(groups, dim=1)  # each (rows, out / groups)
        for group in range(groups):
            missing = values[group] - columns[group] @ weight.chunk(groups)[group].T
            rows = [columns[group], missing]
            if bias is not None:
                missing -= bias.chunk(groups)[group]
                rows.insert(1, level.expand_as(missing[:, :1]))
            triangles[group] = _reduced(triangles[group], torch.cat(rows, dim=1))
    unknowns = weight.shape[1] + (bias is not None)
    added = torch.cat([_solution(rows, unknowns, rounding) for rows in triangles])  # (out, unknowns)
    conv.weight.copy_((weight + added[:, : weight.shape[1]]).view_as(conv.weight))
    if bias is not None:
        conv.bias.copy_(bias + level * added[:, -1])


def _reduced(triangle, rows):
    """Replace all rows so far by a triangle with the same least-squares problems: R of their QR decomposition."""
    return torch.linalg.qr(rows if triangle is None else torch.cat([triangle, rows]), mode="r").R


def _solution(rows, unknowns, rounding):
    """Solve the reduced problem: the smallest of the best solutions, one to each row of the result."""
    left, right = rows[:, :unknowns].cpu(), rows[:, unknowns:].cpu()  # on a GPU, lstsq wants full rank
    return torch.linalg.lstsq(left, right, rcond=rounding, driver="gelsd").solution.T.to(rows.device)


def _unfolded(module, images):
    """Give what the conv sees of each output pixel that the crop keeps: (N * pixels, in * taps)."""
    before_conv, after_conv = (getattr(module, name, nn.Identity()) for name in ("pad", "crop"))
    conv, upsampled = module.conv, module.upsample(before_conv(images))
    padded = F.pad(upsampled, [side for p in reversed(conv.padding) for side in (p, p)])
    windows = after_conv(padded).movedim(1, -1)  # a pixel less of the input is a window less
    for axis, size in enumerate(conv.kernel_size, 1):
        windows = windows.unfold(axis, size, 1)
    return windows.flatten(0, len(conv.kernel_size)).flatten(1)


def _output_residual(module, inputs, targets, magnitude):
    module = copy.deepcopy(module).to(inputs.dtype)
    differences = [
        (module(images) - wanted).norm() for images, wanted in zip(inputs.split(16), targets.split(16), strict=True)
    ]
    return _ratio(torch.stack(differences).norm().item(), targets.norm().item(), magnitude)
