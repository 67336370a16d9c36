"""The arithmetic of convolutions and transposed convolutions: sizes, matrices, overlaps.

Sizes and settings are ints, or tuples of 1 to 3 ints, one for each axis: (length,), (height, width) or (depth, height,
width). The names and the order of the arguments are those of `torch.nn.Conv1d` to `Conv3d` and of `ConvTranspose1d` to
`ConvTranspose3d`. Every formula is for one axis, and is derived in the book.
"""

from __future__ import annotations

import heapq
import itertools
import math
from functools import reduce
from inspect import signature
from operator import and_, index
from typing import Any, NamedTuple, SupportsIndex, TypeAlias, overload

import torch

__all__ = [
    "ConvTransposeSetting",
    "conv_matrix",
    "conv_output_size",
    "conv_transpose_output_size",
    "output_padding_for",
    "overlap_counts",
    "solve_conv_transpose",
]

AXES = {1: ("length",), 2: ("height", "width"), 3: ("depth", "height", "width")}  # by their number
_MAY_BE_ZERO = ("padding", "output_padding")

# What sizes and settings may be: an int, also of NumPy; a tuple of 1 to 3; or either.
Int: TypeAlias = SupportsIndex
Ints: TypeAlias = "Int | tuple[Int, ...] | list[int]"


class ConvTransposeSetting(NamedTuple):
    """One setting of `torch.nn.ConvTranspose1d` to `ConvTranspose3d`, as `solve_conv_transpose` returns it.

    The first five fields are the layer's own arguments: ints, or tuples with an entry for each axis. Each of the others
    is true if it is so on all axes:

    - `even_overlap`: every output pixel away from the border is reached by equally many kernel taps.
    - `reaches_all`: every output pixel, at the border too, is reached by at least one tap. (One that is not is the bias
      alone.)
    - `in_place`: the layer does not move the picture. The kernel that input pixel i puts down has the same centre as
      the pixels that i becomes, `stride` of them from i * stride on. It is so if and only if
      dilation * (kernel_size - 1) + 1 = stride + 2 * padding. What `output_padding` adds lies behind them all and moves
      nothing; without it, n pixels become n * stride.

    Examples
    --------
    >>> best = solve_conv_transpose(7, 14)[0]
    >>> best  # doctest: +NORMALIZE_WHITESPACE
    ConvTransposeSetting(kernel_size=2, stride=2, padding=0, output_padding=0, dilation=1,
                         even_overlap=True, reaches_all=True, in_place=True)
    >>> torch.nn.ConvTranspose2d(16, 8, *best[:4], dilation=best.dilation)(torch.zeros(1, 16, 7, 7)).shape
    torch.Size([1, 8, 14, 14])
    """

    # of Any: a layer's own types count a tuple's entries
    kernel_size: int | tuple[Any, ...]
    stride: int | tuple[Any, ...]
    padding: int | tuple[Any, ...]
    output_padding: int | tuple[Any, ...]
    dilation: int | tuple[Any, ...]
    even_overlap: bool
    reaches_all: bool
    in_place: bool


@overload
def conv_output_size(
    input_size: Int, kernel_size: Int, stride: Int = 1, padding: Int = 0, dilation: Int = 1
) -> int: ...
@overload
def conv_output_size(
    input_size: Ints, kernel_size: Ints, stride: Ints = 1, padding: Ints = 0, dilation: Ints = 1
) -> tuple[int, ...]: ...
def conv_output_size(
    input_size: Ints, kernel_size: Ints, stride: Ints = 1, padding: Ints = 0, dilation: Ints = 1
) -> int | tuple[int, ...]:
    """Return the output size of `torch.nn.Conv1d` to `Conv3d`: floor((n + 2p - K) / s) + 1, with K = d(k - 1) + 1.

    Parameters
    ----------
    input_size, kernel_size, stride, dilation : int or tuple of int
        In pixels, at least 1: an int for all axes, or a tuple with one for each.
    padding : int or tuple of int
        Pixels added on each side, at least 0.

    Returns
    -------
    int or tuple of int
        An int if every argument is one, otherwise a tuple with an entry for each axis.

    Raises
    ------
    TypeError
        If an argument is not an int or a tuple of ints (a bool is not an int here).
    ValueError
        If an argument is out of its range, or the kernel does not fit into the padded input.

    See Also
    --------
    conv_transpose_output_size : The size of the way back.
    conv_matrix : The convolution itself, as a matrix.

    Notes
    -----
    The formula of PyTorch's documentation; Dumoulin and Visin 2016, relationship 6, without dilation.

    Examples
    --------
    >>> conv_output_size(28, 3, stride=2, padding=1)
    14
    >>> conv_output_size((17, 32), 5, stride=3, padding=2)
    (6, 11)
    """
    return _on_each_axis(_conv_size, input_size, kernel_size, stride, padding, dilation)


@overload
def conv_transpose_output_size(
    input_size: Int, kernel_size: Int, stride: Int = 1, padding: Int = 0, output_padding: Int = 0, dilation: Int = 1
) -> int: ...
@overload
def conv_transpose_output_size(
    input_size: Ints,
    kernel_size: Ints,
    stride: Ints = 1,
    padding: Ints = 0,
    output_padding: Ints = 0,
    dilation: Ints = 1,
) -> tuple[int, ...]: ...
def conv_transpose_output_size(
    input_size: Ints,
    kernel_size: Ints,
    stride: Ints = 1,
    padding: Ints = 0,
    output_padding: Ints = 0,
    dilation: Ints = 1,
) -> int | tuple[int, ...]:
    """Return the output size of a transposed convolution: (n - 1)s - 2p + K + op, with K = d(k - 1) + 1.

    Parameters
    ----------
    input_size, kernel_size, stride, dilation : int or tuple of int
        In pixels, at least 1: an int for all axes, or a tuple with one for each.
    padding : int or tuple of int
        Pixels cropped from each side of the full output, at least 0.
    output_padding : int or tuple of int
        Cropped pixels given back at the end of the axis, at least 0 and below max(stride, dilation).

    Returns
    -------
    int or tuple of int
        An int if every argument is one, otherwise a tuple with an entry for each axis.

    Raises
    ------
    TypeError
        If an argument is not an int or a tuple of ints (a bool is not an int here).
    ValueError
        If an argument is out of its range, or nothing is left after the crop.

    See Also
    --------
    output_padding_for : The other way round: the `output_padding` for a wanted size.
    solve_conv_transpose : All settings for a wanted size.

    Notes
    -----
    The formula of PyTorch's documentation; Dumoulin and Visin 2016, relationship 14.

    Examples
    --------
    >>> conv_transpose_output_size(16, 3, stride=2, padding=1)
    31
    >>> conv_transpose_output_size(16, 3, stride=2, padding=1, output_padding=(1, 0))
    (32, 31)
    """
    return _on_each_axis(_conv_transpose_size, input_size, kernel_size, stride, padding, output_padding, dilation)


@overload
def output_padding_for(
    input_size: Int, output_size: Int, kernel_size: Int, stride: Int = 1, padding: Int = 0, dilation: Int = 1
) -> int: ...
@overload
def output_padding_for(
    input_size: Ints, output_size: Ints, kernel_size: Ints, stride: Ints = 1, padding: Ints = 0, dilation: Ints = 1
) -> tuple[Any, ...]: ...
def output_padding_for(
    input_size: Ints, output_size: Ints, kernel_size: Ints, stride: Ints = 1, padding: Ints = 0, dilation: Ints = 1
) -> int | tuple[Any, ...]:
    """Find the `output_padding` with which a transposed convolution takes `input_size` to `output_size`.

    Parameters
    ----------
    input_size, output_size, kernel_size, stride, dilation : int or tuple of int
        In pixels, at least 1: an int for all axes, or a tuple with one for each.
    padding : int or tuple of int
        Pixels cropped from each side, at least 0.

    Returns
    -------
    int or tuple of int
        From 0 to max(stride, dilation) - 1. An int if every argument is one, otherwise a tuple with one for each axis.

    Raises
    ------
    TypeError
        If an argument is not an int or a tuple of ints (a bool is not an int here).
    ValueError
        If an argument is out of its range, or no `output_padding` gives that size; the message names the sizes
        that can be reached, and the crop that helps where no padding does.

    See Also
    --------
    conv_transpose_output_size : The size, with a given `output_padding`.
    solve_conv_transpose : The same, where kernel size, stride and padding are free, too.

    Notes
    -----
    What the layer's own call `layer(input, output_size=...)` works out, without needing the layer. That call
    stops at stride - 1; this function, like the layer's own argument, goes up to max(stride, dilation) - 1.

    Examples
    --------
    >>> output_padding_for(6, 17, kernel_size=5, stride=3, padding=2)
    1
    >>> output_padding_for(6, 19, kernel_size=5, stride=3, padding=2)
    Traceback (most recent call last):
        ...
    ValueError: output_size=19 is out of reach: input_size=6, kernel_size=5, stride=3, padding=2, dilation=1 reach \
only 16, 17, 18
    >>> output_padding_for(10, 10, kernel_size=4, padding=2)
    Traceback (most recent call last):
        ...
    ValueError: output_size=10 is out of reach: input_size=10, kernel_size=4, stride=1, padding=2, dilation=1 reach \
only 9; no other padding reaches it: make 11 with padding=1 and drop the last pixel
    """
    return _on_each_axis(_output_padding, input_size, output_size, kernel_size, stride, padding, dilation)


def solve_conv_transpose(
    input_size: Ints,
    output_size: Ints,
    *,
    max_kernel_size: Ints = 7,
    max_stride: Ints = 4,
    dilation: Ints = 1,
    limit: Int = 1000,
) -> list[ConvTransposeSetting]:
    """List the settings of a transposed convolution, within bounds, that take `input_size` to `output_size`.

    Parameters
    ----------
    input_size, output_size : int or tuple of int
        In pixels, at least 1: an int for all axes, or a tuple with one for each.
    max_kernel_size, max_stride : int or tuple of int
        The largest kernel size and stride to consider, at least 1.
    dilation : int or tuple of int
        The dilation of every setting, at least 1.
    limit : int
        How many settings to return at most, at least 1.

    Returns
    -------
    list of ConvTransposeSetting
        The settings with padding from 0 to dilation * (kernel_size - 1) and a legal output_padding, the best `limit` of
        them. (PyTorch takes larger paddings too; they crop pixels away that the whole kernel reaches.) Those that reach
        every pixel come first, then those with even overlap, then the least output_padding, then the smallest kernel,
        then the smallest stride, then the smallest padding.
        If any argument is a tuple then so are the fields: every solution for one axis with every one for the others,
        ordered by the sums over the axes. Of these products, which can be millions, only the first are made.

    Raises
    ------
    TypeError
        If an argument is not an int or a tuple of ints (a bool is not an int here).
    ValueError
        If an argument is out of its range, or no setting reaches that size; the message names the nearest sizes
        that can be reached.

    See Also
    --------
    output_padding_for : Where kernel size, stride and padding are fixed.
    overlap_counts : What `even_overlap` and `reaches_all` are about, pixel by pixel.

    Examples
    --------
    >>> for setting in solve_conv_transpose(4, 8, max_kernel_size=4, max_stride=2):
    ...     print(*setting)
    2 2 0 0 1 True True True
    4 2 1 0 1 True True True
    3 2 1 1 1 False True False
    1 2 0 1 1 False False False
    >>> solve_conv_transpose(2, 9, max_kernel_size=3, max_stride=3)
    Traceback (most recent call last):
        ...
    ValueError: output_size=9 is out of reach of one layer: input_size=2, max_kernel_size=3, max_stride=3, \
dilation=1, padding up to dilation * (kernel_size - 1); nearest reachable: 8
    """
    solutions = _on_each_axis(_settings, input_size, output_size, max_kernel_size, max_stride, dilation)
    (limit,) = checked_setting("limit", limit, axes=1)
    return _first_products(solutions, limit) if isinstance(solutions, tuple) else solutions[:limit]


def conv_matrix(
    weight: torch.Tensor, input_size: Ints, stride: Ints = 1, padding: Ints = 0, dilation: Ints = 1
) -> torch.Tensor:
    """Write the convolution with this weight as one matrix acting on the flattened input.

    Its transpose is the matrix of the transposed convolution with the same arguments and the output_padding that gives
    `input_size` back.

    Parameters
    ----------
    weight : torch.Tensor, shape (C_out, C_in, ...)
        As in Conv1d, Conv2d or Conv3d, with one group.
    input_size : int or tuple of int
        In pixels: an int for all axes, or a tuple with one for each.
    stride, padding, dilation : int or tuple of int
        As in the layer.

    Returns
    -------
    torch.Tensor, shape (C_out * output pixels, C_in * input pixels)
        Rows and columns in the order of `flatten()`: channel, then the axes in turn. It has the weight's dtype and
        device, and is differentiable with respect to the weight.

    Raises
    ------
    TypeError
        If `weight` is not a tensor, or another argument is not an int or a tuple of ints.
    ValueError
        If `weight` does not have 3 to 5 dimensions and a tap, another argument is out of its range, or the kernel does
        not fit.

    See Also
    --------
    conv_output_size : The size alone.
    overlap_counts : The column sums of such a matrix, for a kernel of ones.

    Notes
    -----
    The unrolled matrix of Dumoulin and Visin 2016, section 4.1, for several channels.

    Examples
    --------
    >>> weight = torch.arange(1.0, 5.0).reshape(1, 1, 2, 2)
    >>> conv_matrix(weight, (2, 3))
    tensor([[1., 2., 0., 3., 4., 0.],
            [0., 1., 2., 0., 3., 4.]])
    """
    shape = "the shape (C_out, C_in, *kernel_size)"
    if not isinstance(weight, torch.Tensor):
        raise TypeError(f"weight must be a torch.Tensor of {shape}, not {type(weight).__name__}")
    kernel_size = tuple(weight.shape[2:])
    if len(kernel_size) not in AXES or 0 in kernel_size:
        raise ValueError(f"weight must have {shape} with 1 to 3 axes and at least one tap, not {tuple(weight.shape)}")
    taps = _on_each_axis(_conv_taps, input_size, kernel_size, stride, padding, dilation)
    # of each axis (output size, input size), and a 1 for every size of the axes after it
    taps = [axis[(..., *[None] * 2 * after)].to(weight.device) for after, axis in enumerate(reversed(taps))][::-1]
    entries = weight[:, :, *taps]  # (C_out, C_in, H_out, H_in, W_out, W_in)
    matrix = torch.where(reduce(and_, (axis >= 0 for axis in taps)), entries, weight.new_zeros(()))
    matrix = matrix.permute(*range(0, matrix.dim(), 2), *range(1, matrix.dim(), 2))  # the outputs, then the inputs
    return matrix.flatten(0, len(taps)).flatten(1)


def overlap_counts(
    input_size: Ints,
    kernel_size: Ints,
    stride: Ints = 1,
    padding: Ints = 0,
    output_padding: Ints = 0,
    dilation: Ints = 1,
) -> torch.Tensor:
    """Count the products, of an input pixel and a tap, that each output pixel of a transposed convolution sums.

    Parameters
    ----------
    input_size, kernel_size, stride, padding, output_padding, dilation : int or tuple of int
        As in `conv_transpose_output_size`.

    Returns
    -------
    torch.Tensor of int64
        Its shape is the output size, with one dimension if every argument is an int.

    Raises
    ------
    TypeError, ValueError
        As `conv_transpose_output_size`.

    See Also
    --------
    upconv.phases.phase_gains : The same with a kernel's own values, phase by phase.
    solve_conv_transpose : Settings of even overlap for a wanted size.

    Notes
    -----
    The overlap of Odena, Dumoulin and Olah 2016. It is what the layer computes with ones as input and kernel.

    Examples
    --------
    >>> overlap_counts(4, kernel_size=3, stride=2)
    tensor([1, 1, 2, 1, 2, 1, 2, 1, 1])
    >>> overlap_counts((2, 2), kernel_size=3, stride=2)
    tensor([[1, 1, 2, 1, 1],
            [1, 1, 2, 1, 1],
            [2, 2, 4, 2, 2],
            [1, 1, 2, 1, 1],
            [1, 1, 2, 1, 1]])
    """
    counts = _on_each_axis(_overlap, input_size, kernel_size, stride, padding, output_padding, dilation)
    return reduce(lambda product, axis: product[..., None] * axis, counts) if isinstance(counts, tuple) else counts


# One axis. Everything below works on ints that have been checked.


def _conv_size(input_size, kernel_size, stride, padding, dilation):
    extent = dilation * (kernel_size - 1) + 1
    if input_size + 2 * padding < extent:
        raise ValueError(
            f"input_size={input_size} is too small: kernel_size={kernel_size} with dilation={dilation} spans {extent} "
            f"pixels, so with padding={padding} input_size must be at least {extent - 2 * padding}"
        )
    return (input_size + 2 * padding - extent) // stride + 1


def _conv_transpose_size(input_size, kernel_size, stride, padding, output_padding, dilation):
    if output_padding >= max(stride, dilation):
        raise ValueError(
            f"output_padding={output_padding} must be smaller than stride={stride} or dilation={dilation}: "
            f"at most {max(stride, dilation) - 1}"
        )
    full = (input_size - 1) * stride + dilation * (kernel_size - 1) + 1 + output_padding
    if full - 2 * padding < 1:
        raise ValueError(
            f"padding={padding} crops everything: input_size={input_size}, kernel_size={kernel_size}, "
            f"stride={stride}, output_padding={output_padding}, dilation={dilation} make {full} pixels, and an output "
            f"of at least 1 needs a padding of at most {(full - 1) // 2}"
        )
    return full - 2 * padding


def _output_padding(input_size, output_size, kernel_size, stride, padding, dilation):
    least = (input_size - 1) * stride + dilation * (kernel_size - 1) + 1 - 2 * padding
    most = least + max(stride, dilation) - 1
    if not least <= output_size <= most:
        too_much, is_odd = divmod(least + 2 * padding - output_size, 2)  # without padding
        least = max(least, 1)
        if most < 1:
            reach = "no size, as padding crops everything"
        elif most - least < 10:
            reach = "only " + ", ".join(map(str, range(least, most + 1)))
        else:
            reach = f"only {least} to {most}"
        if max(stride, dilation) == 1 and is_odd and too_much >= 0:
            reach += (
                f"; no other padding reaches it: make {output_size + 1} with padding={too_much} and drop the last pixel"
            )
        raise ValueError(
            f"output_size={output_size} is out of reach: input_size={input_size}, kernel_size={kernel_size}, "
            f"stride={stride}, padding={padding}, dilation={dilation} reach {reach}"
        )
    return output_size - least


def _settings(input_size, output_size, max_kernel_size, max_stride, dilation):
    found, below, above = [], set(), set()
    for kernel_size, stride in itertools.product(range(1, max_kernel_size + 1), range(1, max_stride + 1)):
        extent, counts = dilation * (kernel_size - 1) + 1, None
        for padding in range(extent):
            least = (input_size - 1) * stride + extent - 2 * padding
            most = least + max(stride, dilation) - 1
            if least <= output_size <= most:
                if counts is None:  # before the crop, and with all that output_padding can add
                    counts = _overlap(input_size, kernel_size, stride, 0, max(stride, dilation) - 1, dilation)
                reaches_all = bool(counts[padding : padding + output_size].all())
                even_overlap = kernel_size % stride == 0 and math.gcd(dilation, stride) == 1
                flags = even_overlap, reaches_all, extent == stride + 2 * padding
                found.append(ConvTransposeSetting(kernel_size, stride, padding, output_size - least, dilation, *flags))
            (below if most < output_size else above).add(most if most < output_size else least)
    if not found:
        nearest = [max((size for size in below if size > 0), default=None), min(above, default=None)]
        nearest = " and ".join(str(size) for size in nearest if size is not None)
        raise ValueError(
            f"output_size={output_size} is out of reach of one layer: input_size={input_size}, "
            f"max_kernel_size={max_kernel_size}, max_stride={max_stride}, dilation={dilation}, padding up to "
            f"dilation * (kernel_size - 1); nearest reachable: {nearest}"
        )
    return sorted(found, key=_preference)


def _preference(setting):
    total = [sum(field) if isinstance(field, tuple) else field for field in setting]
    kernel_size, stride, padding, output_padding, *_ = total
    return not setting.reaches_all, not setting.even_overlap, output_padding, kernel_size, stride, padding, setting


def _first_products(axes, limit):
    """Combine the axes' sorted settings, and give the first combinations in order; the others are never made.

    Where the flags are equal the order is by sums, so with a later setting on one axis a combination comes later. A
    heap that gets, for each one that leaves it, the next on every axis therefore holds the first of those left.
    """
    found, heap = [], []

    def push(groups, places):
        if all(place < len(group) for place, group in zip(places, groups, strict=True)):
            each = [group[place] for place, group in zip(places, groups, strict=True)]
            fields = list(zip(*each, strict=True))
            setting = ConvTransposeSetting(*fields[:5], *map(all, fields[5:]))
            heapq.heappush(heap, (_preference(setting), groups, places))

    # an axis' settings, by the flags that its order begins with
    by_flags = [[list(group) for _, group in itertools.groupby(axis, lambda s: _preference(s)[:2])] for axis in axes]
    for groups in itertools.product(*by_flags):
        push(groups, (0,) * len(groups))
    while heap and len(found) < limit:
        (*_, setting), groups, places = heapq.heappop(heap)
        found.append(setting)
        for axis in reversed(range(len(places))):
            push(groups, (*places[:axis], places[axis] + 1, *places[axis + 1 :]))
            if places[axis]:  # the axes before it had their turn: one way leads to each place
                break
    return found


def _conv_taps(input_size, kernel_size, stride, padding, dilation):
    """Give the tap through which output pixel i reads input pixel y, or -1: shape (output size, input size)."""
    output_size = _conv_size(input_size, kernel_size, stride, padding, dilation)
    distance = torch.arange(input_size) + padding - stride * torch.arange(output_size)[:, None]
    taps = distance.div(dilation, rounding_mode="floor")
    return taps.where((distance % dilation == 0) & (taps >= 0) & (taps < kernel_size), -1)


def _overlap(input_size, kernel_size, stride, padding, output_padding, dilation):
    output_size = _conv_transpose_size(input_size, kernel_size, stride, padding, output_padding, dilation)
    last = (input_size - 1) * stride
    counts = torch.zeros(last + dilation * (kernel_size - 1) + 1 + output_padding, dtype=torch.int64)
    for start in range(0, dilation * kernel_size, dilation):
        counts[start : start + last + 1 : stride] += 1
    return counts[padding : padding + output_size]


def _on_each_axis(function, *values):
    """Call a function once with ints, or, if any argument is a tuple, once an axis; then the results are a tuple."""
    names = signature(function).parameters
    arguments = {name: checked_setting(name, value) for name, value in zip(names, values, strict=True)}
    tuples = {name: value for name, value in arguments.items() if isinstance(value, tuple)}
    if not tuples:
        return function(**arguments)
    if len(set(map(len, tuples.values()))) > 1:
        given = ", ".join(f"{name}={value!r}" for name, value in tuples.items())
        raise ValueError(f"{given} must have equally many entries, one for each axis")
    results = []
    for axis, axis_name in enumerate(AXES[len(next(iter(tuples.values())))]):
        one = {name: value[axis] if name in tuples else value for name, value in arguments.items()}
        try:
            results.append(function(**one))
        except ValueError as error:
            raise ValueError(f"{axis_name}: {error}") from None
    return tuple(results)


def _is_bool_or_tensor(number):
    # the last part is NumPy's own bool, an index before NumPy 2.3
    return isinstance(number, (bool, torch.Tensor)) or str(getattr(number, "dtype", "")) == "bool"


def checked_setting(name, value, axes=None):
    """Check a setting, and give it as an int or a tuple of ints; with `axes`, as a tuple with so many entries."""
    smallest = 0 if name in _MAY_BE_ZERO else 1
    values = value if isinstance(value, (tuple, list)) else (value,)
    accepted = f"an int of at least {smallest}, or {axes or '1 to 3'} such ints, one for each axis"
    try:
        numbers = tuple(index(number) for number in values if not _is_bool_or_tensor(number))
    except TypeError:
        numbers = ()
    if len(numbers) != len(values):
        raise TypeError(f"{name}={value!r} must be {accepted}")
    if values is value and len(values) not in ((axes,) if axes else AXES):
        raise ValueError(f"{name}={value!r} has {len(values)} entries and must be {accepted}")
    if min(numbers) < smallest:
        raise ValueError(f"{name}={value!r} must be {accepted}")
    return numbers if values is value else numbers * axes if axes else numbers[0]


def for_each_axis(value, axes):
    """Give a setting for each axis: of several as they are, of one (or a tuple of one) so many."""
    return tuple(value) * (axes if len(value) == 1 else 1) if isinstance(value, (tuple, list)) else (value,) * axes
