"""The arithmetic of convolutions and transposed convolutions: sizes, matrices, overlaps.

Sizes and settings are ints, or two ints, (height, width); the names and the order of the arguments are those of
`torch.nn.Conv2d` and `torch.nn.ConvTranspose2d`. Every formula is derived in the book.
"""

from __future__ import annotations

import itertools
from operator import index
from typing import NamedTuple, SupportsIndex, TypeAlias, overload

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

_MAY_BE_ZERO = ("padding", "output_padding")

# What sizes and settings may be: an int, also of NumPy; two, for height and width; or either.
Int: TypeAlias = SupportsIndex
Two: TypeAlias = "tuple[Int, Int] | list[int] | torch.Size"
Ints: TypeAlias = "Int | Two"


class ConvTransposeSetting(NamedTuple):
    """One setting of `torch.nn.ConvTranspose2d`, as `solve_conv_transpose` returns it.

    The first five fields are that layer's own arguments. `even_overlap` is true when every output pixel away from
    the border is reached by equally many kernel taps (on both axes, where the fields are two ints).

    Examples
    --------
    >>> best = solve_conv_transpose(7, 14)[0]
    >>> best
    ConvTransposeSetting(kernel_size=2, stride=2, padding=0, output_padding=0, dilation=1, even_overlap=True)
    >>> *settings, even_overlap = best
    >>> torch.nn.ConvTranspose2d(16, 8, *settings[:4], dilation=best.dilation)(torch.zeros(1, 16, 7, 7)).shape
    torch.Size([1, 8, 14, 14])
    """

    kernel_size: int | tuple[int, int]
    stride: int | tuple[int, int]
    padding: int | tuple[int, int]
    output_padding: int | tuple[int, int]
    dilation: int | tuple[int, int]
    even_overlap: bool


@overload
def conv_output_size(
    input_size: Int, kernel_size: Int, stride: Int = 1, padding: Int = 0, dilation: Int = 1
) -> int: ...
@overload
def conv_output_size(
    input_size: Two, kernel_size: Ints, stride: Ints = 1, padding: Ints = 0, dilation: Ints = 1
) -> tuple[int, int]: ...
@overload
def conv_output_size(
    input_size: Ints, kernel_size: Ints, stride: Ints = 1, padding: Ints = 0, dilation: Ints = 1
) -> int | tuple[int, int]: ...
def conv_output_size(
    input_size: Ints, kernel_size: Ints, stride: Ints = 1, padding: Ints = 0, dilation: Ints = 1
) -> int | tuple[int, int]:
    """Return the output size of `torch.nn.Conv2d`: floor((n + 2p - K) / s) + 1, with K = d(k - 1) + 1.

    Parameters
    ----------
    input_size, kernel_size, stride, dilation : int or (int, int)
        In pixels, at least 1. Two are (height, width).
    padding : int or (int, int)
        Pixels added on each side, at least 0.

    Returns
    -------
    int or (int, int)
        An int if every argument is one, otherwise (height, width).

    Raises
    ------
    TypeError
        If an argument is not an int or two ints (a bool is not an int here).
    ValueError
        If an argument is out of its range, or the kernel does not fit into the padded input.

    See Also
    --------
    conv_transpose_output_size : The size of the way back.
    conv_matrix : The convolution itself, as a matrix.

    Notes
    -----
    The formula of `torch.nn.Conv2d`'s documentation; Dumoulin and Visin 2016, relationship 6, without dilation.

    Examples
    --------
    >>> conv_output_size(28, 3, stride=2, padding=1)
    14
    >>> conv_output_size((17, 32), 5, stride=3, padding=2)
    (6, 11)
    """
    return _on_each_axis(
        _conv_size,
        input_size=input_size,
        kernel_size=kernel_size,
        stride=stride,
        padding=padding,
        dilation=dilation,
    )


@overload
def conv_transpose_output_size(
    input_size: Int, kernel_size: Int, stride: Int = 1, padding: Int = 0, output_padding: Int = 0, dilation: Int = 1
) -> int: ...
@overload
def conv_transpose_output_size(
    input_size: Two,
    kernel_size: Ints,
    stride: Ints = 1,
    padding: Ints = 0,
    output_padding: Ints = 0,
    dilation: Ints = 1,
) -> tuple[int, int]: ...
@overload
def conv_transpose_output_size(
    input_size: Ints,
    kernel_size: Ints,
    stride: Ints = 1,
    padding: Ints = 0,
    output_padding: Ints = 0,
    dilation: Ints = 1,
) -> int | tuple[int, int]: ...
def conv_transpose_output_size(
    input_size: Ints,
    kernel_size: Ints,
    stride: Ints = 1,
    padding: Ints = 0,
    output_padding: Ints = 0,
    dilation: Ints = 1,
) -> int | tuple[int, int]:
    """Return the output size of `torch.nn.ConvTranspose2d`: (n - 1)s - 2p + K + op, with K = d(k - 1) + 1.

    Parameters
    ----------
    input_size, kernel_size, stride, dilation : int or (int, int)
        In pixels, at least 1. Two are (height, width).
    padding : int or (int, int)
        Pixels cropped from each side of the full output, at least 0.
    output_padding : int or (int, int)
        Cropped pixels given back on the bottom and right, at least 0 and below max(stride, dilation).

    Returns
    -------
    int or (int, int)
        An int if every argument is one, otherwise (height, width).

    Raises
    ------
    TypeError
        If an argument is not an int or two ints (a bool is not an int here).
    ValueError
        If an argument is out of its range, or nothing is left after the crop.

    See Also
    --------
    output_padding_for : The other way round: the `output_padding` for a wanted size.
    solve_conv_transpose : All settings for a wanted size.

    Notes
    -----
    The formula of `torch.nn.ConvTranspose2d`'s documentation; Dumoulin and Visin 2016, relationship 14.

    Examples
    --------
    >>> conv_transpose_output_size(16, 3, stride=2, padding=1)
    31
    >>> conv_transpose_output_size(16, 3, stride=2, padding=1, output_padding=(1, 0))
    (32, 31)
    """
    return _on_each_axis(
        _conv_transpose_size,
        input_size=input_size,
        kernel_size=kernel_size,
        stride=stride,
        padding=padding,
        output_padding=output_padding,
        dilation=dilation,
    )


@overload
def output_padding_for(
    input_size: Int, output_size: Int, kernel_size: Int, stride: Int = 1, padding: Int = 0, dilation: Int = 1
) -> int: ...
@overload
def output_padding_for(
    input_size: Two, output_size: Ints, kernel_size: Ints, stride: Ints = 1, padding: Ints = 0, dilation: Ints = 1
) -> tuple[int, int]: ...
@overload
def output_padding_for(
    input_size: Ints, output_size: Ints, kernel_size: Ints, stride: Ints = 1, padding: Ints = 0, dilation: Ints = 1
) -> int | tuple[int, int]: ...
def output_padding_for(
    input_size: Ints, output_size: Ints, kernel_size: Ints, stride: Ints = 1, padding: Ints = 0, dilation: Ints = 1
) -> int | tuple[int, int]:
    """Find the `output_padding` with which `torch.nn.ConvTranspose2d` takes `input_size` to `output_size`.

    Parameters
    ----------
    input_size, output_size, kernel_size, stride, dilation : int or (int, int)
        In pixels, at least 1. Two are (height, width).
    padding : int or (int, int)
        Pixels cropped from each side, at least 0.

    Returns
    -------
    int or (int, int)
        From 0 to max(stride, dilation) - 1. An int if every argument is one, otherwise (height, width).

    Raises
    ------
    TypeError
        If an argument is not an int or two ints (a bool is not an int here).
    ValueError
        If an argument is out of its range, or no `output_padding` gives that size; the message names the sizes
        that can be reached.

    See Also
    --------
    conv_transpose_output_size : The size, with a given `output_padding`.
    solve_conv_transpose : The same, where kernel size, stride and padding are free, too.

    Notes
    -----
    What `torch.nn.ConvTranspose2d.forward(input, output_size=...)` works out, without needing the layer. That call
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
    """
    return _on_each_axis(
        _output_padding,
        input_size=input_size,
        output_size=output_size,
        kernel_size=kernel_size,
        stride=stride,
        padding=padding,
        dilation=dilation,
    )


def solve_conv_transpose(
    input_size: Ints, output_size: Ints, *, max_kernel_size: Ints = 7, max_stride: Ints = 4, dilation: Ints = 1
) -> list[ConvTransposeSetting]:
    """List the settings of `torch.nn.ConvTranspose2d`, within bounds, that take `input_size` to `output_size`.

    Parameters
    ----------
    input_size, output_size : int or (int, int)
        In pixels, at least 1. Two are (height, width).
    max_kernel_size, max_stride : int or (int, int)
        The largest kernel size and stride to consider, at least 1.
    dilation : int or (int, int)
        The dilation of every setting, at least 1.

    Returns
    -------
    list of ConvTransposeSetting
        All settings with padding from 0 to dilation * (kernel_size - 1) and a legal output_padding. (PyTorch takes
        larger paddings too; they crop pixels away that the whole kernel reaches.) Those with even overlap come first,
        then the least output_padding, then the smallest kernel, then the smallest stride, then the smallest padding.
        If any argument is two ints then so are the fields: every solution for the height with every one for the width,
        ordered by the sums over both axes; the list is then as long as the two lists' product.

    Raises
    ------
    TypeError
        If an argument is not an int or two ints (a bool is not an int here).
    ValueError
        If an argument is out of its range, or no setting reaches that size; the message names the nearest sizes
        that can be reached.

    See Also
    --------
    output_padding_for : Where kernel size, stride and padding are fixed.
    overlap_counts : What `even_overlap` is about, pixel by pixel.

    Examples
    --------
    >>> for setting in solve_conv_transpose(4, 8, max_kernel_size=4, max_stride=2):
    ...     print(*setting)
    2 2 0 0 1 True
    4 2 1 0 1 True
    1 2 0 1 1 False
    3 2 1 1 1 False
    >>> solve_conv_transpose(2, 9, max_kernel_size=3, max_stride=3)
    Traceback (most recent call last):
        ...
    ValueError: output_size=9 is out of reach of one layer: input_size=2, max_kernel_size=3, max_stride=3, \
dilation=1, padding up to dilation * (kernel_size - 1); nearest reachable: 8
    """
    solutions = _on_each_axis(
        _settings,
        input_size=input_size,
        output_size=output_size,
        max_kernel_size=max_kernel_size,
        max_stride=max_stride,
        dilation=dilation,
    )
    if isinstance(solutions, tuple):
        solutions = [
            ConvTransposeSetting(*zip(height[:-1], width[:-1], strict=True), height.even_overlap and width.even_overlap)
            for height, width in itertools.product(*solutions)
        ]
    return sorted(solutions, key=_preference)


def conv_matrix(
    weight: torch.Tensor, input_size: Ints, stride: Ints = 1, padding: Ints = 0, dilation: Ints = 1
) -> torch.Tensor:
    """Write `torch.nn.functional.conv2d` with this weight as one matrix acting on the flattened input.

    Its transpose is the matrix of `torch.nn.functional.conv_transpose2d` with the same arguments and the
    output_padding that gives `input_size` back.

    Parameters
    ----------
    weight : torch.Tensor, shape (C_out, C_in, kernel height, kernel width)
        In Conv2d's layout, one group.
    input_size : int or (int, int)
        Height and width of the input in pixels; an int is a square.
    stride, padding, dilation : int or (int, int)
        As in Conv2d.

    Returns
    -------
    torch.Tensor, shape (C_out * H_out * W_out, C_in * H_in * W_in)
        Rows and columns in the order of `flatten()`: channel, row, column. It has the weight's dtype and device, and
        is differentiable with respect to the weight.

    Raises
    ------
    TypeError
        If `weight` is not a tensor, or another argument is not an int or two ints.
    ValueError
        If `weight` does not have 4 dimensions and a tap, an argument is out of its range, or the kernel does not fit.

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
    if not isinstance(weight, torch.Tensor):
        raise TypeError(f"weight must be a torch.Tensor of shape (C_out, C_in, kh, kw), not {type(weight).__name__}")
    kernel_size = tuple(weight.shape[2:])
    if weight.dim() != 4 or 0 in kernel_size:
        raise ValueError(
            f"weight must have the shape (C_out, C_in, kh, kw) with at least one tap, not {tuple(weight.shape)}"
        )
    axes = dict(input_size=input_size, kernel_size=kernel_size, stride=stride, padding=padding, dilation=dilation)
    vertical, horizontal = (taps.to(weight.device) for taps in _on_each_axis(_conv_taps, **axes))
    vertical = vertical[:, :, None, None]
    entries = weight[:, :, vertical, horizontal]  # (C_out, C_in, H_out, H_in, W_out, W_in)
    matrix = torch.where((vertical >= 0) & (horizontal >= 0), entries, weight.new_zeros(()))
    matrix = matrix.permute(0, 2, 4, 1, 3, 5)  # (C_out, H_out, W_out, C_in, H_in, W_in)
    return matrix.reshape(matrix.shape[:3].numel(), matrix.shape[3:].numel())


def overlap_counts(
    input_size: Ints,
    kernel_size: Ints,
    stride: Ints = 1,
    padding: Ints = 0,
    output_padding: Ints = 0,
    dilation: Ints = 1,
) -> torch.Tensor:
    """Count the products, of an input pixel and a tap, that each output pixel of `torch.nn.ConvTranspose2d` sums.

    Parameters
    ----------
    input_size, kernel_size, stride, padding, output_padding, dilation : int or (int, int)
        As in `conv_transpose_output_size`.

    Returns
    -------
    torch.Tensor of int64
        Of shape (output size,) if every argument is an int, otherwise (output height, output width).

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
    counts = _on_each_axis(
        _overlap,
        input_size=input_size,
        kernel_size=kernel_size,
        stride=stride,
        padding=padding,
        output_padding=output_padding,
        dilation=dilation,
    )
    return torch.outer(*counts) if isinstance(counts, tuple) else counts


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
    if output_size not in range(least, most + 1):
        least = max(least, 1)
        if most < 1:
            reach = "no size, as padding crops everything"
        elif most - least < 10:
            reach = "only " + ", ".join(map(str, range(least, most + 1)))
        else:
            reach = f"only {least} to {most}"
        raise ValueError(
            f"output_size={output_size} is out of reach: input_size={input_size}, kernel_size={kernel_size}, "
            f"stride={stride}, padding={padding}, dilation={dilation} reach {reach}"
        )
    return output_size - least


def _settings(input_size, output_size, max_kernel_size, max_stride, dilation):
    found, sizes = [], set()
    for kernel_size, stride in itertools.product(range(1, max_kernel_size + 1), range(1, max_stride + 1)):
        extent = dilation * (kernel_size - 1) + 1
        for padding, output_padding in itertools.product(range(extent), range(max(stride, dilation))):
            size = (input_size - 1) * stride - 2 * padding + extent + output_padding
            sizes.add(size)
            if size == output_size:
                even = _is_even(kernel_size, stride, dilation)
                found.append(ConvTransposeSetting(kernel_size, stride, padding, output_padding, dilation, even))
    if not found:
        below = max((size for size in sizes if 1 <= size < output_size), default=None)
        above = min((size for size in sizes if size > output_size), default=None)
        nearest = " and ".join(str(size) for size in (below, above) if size is not None)
        raise ValueError(
            f"output_size={output_size} is out of reach of one layer: input_size={input_size}, "
            f"max_kernel_size={max_kernel_size}, max_stride={max_stride}, dilation={dilation}, padding up to "
            f"dilation * (kernel_size - 1); nearest reachable: {nearest}"
        )
    return found


def _is_even(kernel_size, stride, dilation):
    taps = [tap * dilation % stride for tap in range(kernel_size)]
    return len({taps.count(phase) for phase in range(stride)}) == 1


def _preference(setting):
    total = [sum(field) if isinstance(field, tuple) else field for field in setting]
    kernel_size, stride, padding, output_padding, *_ = total
    return not setting.even_overlap, output_padding, kernel_size, stride, padding, setting


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


def _on_each_axis(function, **arguments):
    """Call a function once with ints, or, if any argument is two, once an axis; then the results are two, too."""
    arguments = {name: checked_setting(name, value) for name, value in arguments.items()}
    if not any(isinstance(value, tuple) for value in arguments.values()):
        return function(**arguments)
    results = []
    for axis, axis_name in enumerate(("height", "width")):
        one = {name: value[axis] if isinstance(value, tuple) else value for name, value in arguments.items()}
        try:
            results.append(function(**one))
        except ValueError as error:
            raise ValueError(f"{axis_name}: {error}") from None
    return tuple(results)


def _is_bool_or_tensor(number):
    # the last part is NumPy's own bool, an index before NumPy 2.3
    return isinstance(number, (bool, torch.Tensor)) or str(getattr(number, "dtype", "")) == "bool"


def checked_setting(name, value):
    smallest = 0 if name in _MAY_BE_ZERO else 1
    values = value if isinstance(value, (tuple, list)) else (value,)
    accepted = f"an int of at least {smallest}, or two such ints, (height, width)"
    try:
        numbers = tuple(index(number) for number in values if not _is_bool_or_tensor(number))
    except TypeError:
        numbers = ()
    if len(numbers) != len(values):
        raise TypeError(f"{name}={value!r} must be {accepted}")
    if values is value and len(values) != 2:
        raise ValueError(f"{name}={value!r} has {len(values)} entries and must be {accepted}")
    if min(numbers) < smallest:
        raise ValueError(f"{name}={value!r} must be {accepted}")
    return numbers if values is value else numbers[0]


def both_axes(value):
    """Give a setting for each axis: two as they are, one twice."""
    return tuple(value) * (3 - len(value)) if isinstance(value, (tuple, list)) else (value, value)
