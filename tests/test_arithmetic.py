"""upconv.arithmetic against torch.nn itself."""

import inspect
import itertools
import re

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from upconv import (
    conv_matrix,
    conv_output_size,
    conv_transpose_output_size,
    output_padding_for,
    overlap_counts,
    solve_conv_transpose,
)

thorough = settings(max_examples=400, deadline=None, derandomize=True)


def int_or_two(low, high):
    """An int, or two, (height, width), which may differ."""
    one = st.integers(low, high)
    return one | st.tuples(one, one)


CONV = dict(
    input_size=int_or_two(1, 20),
    kernel_size=int_or_two(1, 5),
    stride=int_or_two(1, 5),
    padding=int_or_two(0, 4),
    dilation=int_or_two(1, 4),
)


def as_two(value):
    return value if isinstance(value, tuple) else (value, value)


def expected(size, *arguments):
    """What the tools must return for torch's size: two ints if any argument is two, otherwise an int."""
    return tuple(size) if any(isinstance(value, tuple) for value in arguments) else size[0]


def torch_conv(input_size, kernel_size, **layer):
    return F.conv2d(torch.zeros(1, 1, *as_two(input_size)), torch.zeros(1, 1, *as_two(kernel_size)), **layer)


def torch_conv_transpose(input_size, kernel_size, **layer):
    """Ones on ones: the output counts overlaps. float64, since the float32 path lets an output of size 0 pass."""
    image, weight = (torch.ones(1, 1, *as_two(size), dtype=torch.float64) for size in (input_size, kernel_size))
    return F.conv_transpose2d(image, weight, **layer)


def integers(*shape, seed):
    """Random integers from -9 to 9 in float64: sums have no rounding, and an asymmetric kernel shows a flip."""
    return torch.randint(-9, 10, shape, generator=torch.Generator().manual_seed(seed)).double()


# sizes


@thorough
@given(**CONV)
def test_conv_output_size_is_torchs_own(input_size, kernel_size, stride, padding, dilation):
    arguments = (input_size, kernel_size, stride, padding, dilation)
    try:
        output = torch_conv(input_size, kernel_size, stride=stride, padding=padding, dilation=dilation)
    except RuntimeError:
        with pytest.raises(ValueError, match="is too small"):
            conv_output_size(*arguments)
    else:
        assert conv_output_size(*arguments) == expected(output.shape[2:], *arguments)


@thorough
@given(**CONV, output_padding=int_or_two(0, 4))
def test_conv_transpose_output_size_and_overlap_counts_are_torchs_own(
    input_size, kernel_size, stride, padding, output_padding, dilation
):
    """Of ones on ones the output counts overlaps."""
    arguments = (input_size, kernel_size, stride, padding, output_padding, dilation)
    try:
        output = torch_conv_transpose(
            input_size, kernel_size, stride=stride, padding=padding, output_padding=output_padding, dilation=dilation
        )
    except RuntimeError:
        for function in (conv_transpose_output_size, overlap_counts):
            with pytest.raises(ValueError, match=r"crops everything|must be smaller than stride"):
                function(*arguments)
    else:
        assert conv_transpose_output_size(*arguments) == expected(output.shape[2:], *arguments)
        counts = overlap_counts(*arguments)
        assert counts.dtype == torch.int64
        assert counts.dim() == (2 if any(isinstance(value, tuple) for value in arguments) else 1)
        assert torch.equal((counts if counts.dim() == 2 else torch.outer(counts, counts)).double(), output[0, 0])


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: conv_output_size(2, 3), r"input_size=2 is too small.* at least 3"),
        (lambda: conv_output_size(1, 5, padding=1), r"with padding=1 input_size must be at least 3"),
        (lambda: conv_transpose_output_size(1, 4, padding=2), r"padding=2 crops everything.* at most 1"),
        (
            lambda: conv_transpose_output_size(7, 3, stride=2, output_padding=2),
            r"output_padding=2 must be smaller than stride=2 or dilation=1: at most 1",
        ),
        (lambda: conv_transpose_output_size(7, 3, stride=(2, 1), output_padding=1), r"^width: output_padding=1"),
        (lambda: output_padding_for(1, 50, kernel_size=3, stride=20), r"reach only 3 to 22$"),
        (lambda: output_padding_for(1, 50, 3, stride=10), r"reach only 3, 4, 5, 6, 7, 8, 9, 10, 11, 12$"),
    ],
)
def test_a_refusal_says_what_would_be_accepted(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    "function, layer",
    [
        (conv_output_size, torch.nn.Conv2d),
        (conv_transpose_output_size, torch.nn.ConvTranspose2d),
        (output_padding_for, torch.nn.ConvTranspose2d),
        (overlap_counts, torch.nn.ConvTranspose2d),
        (conv_matrix, torch.nn.Conv2d),
    ],
)
def test_defaults_are_those_of_the_layer(function, layer):
    ours, torchs = (inspect.signature(thing).parameters for thing in (function, layer))
    shared = [name for name in ours if name in torchs and ours[name].default is not inspect.Parameter.empty]
    assert len(shared) >= 3
    assert {name: ours[name].default for name in shared} == {name: torchs[name].default for name in shared}


# output_padding_for


@thorough
@given(**CONV, output_padding=int_or_two(0, 4))
def test_output_padding_for_undoes_conv_transpose_output_size(
    input_size, kernel_size, stride, padding, output_padding, dilation
):
    arguments = (input_size, kernel_size, stride, padding, output_padding, dilation)
    try:
        output_size = conv_transpose_output_size(*arguments)
    except ValueError:
        assume(False)
    found = output_padding_for(input_size, output_size, kernel_size, stride, padding, dilation)
    assert found == expected(as_two(output_padding), *arguments)


@thorough
@given(
    input_size=st.integers(1, 12),
    output_size=st.integers(1, 40),
    kernel_size=st.integers(1, 5),
    stride=st.integers(1, 5),
    padding=st.integers(0, 4),
    dilation=st.integers(1, 7),
)
def test_output_padding_for_names_exactly_the_reachable_sizes(
    input_size, output_size, kernel_size, stride, padding, dilation
):
    setting = dict(kernel_size=kernel_size, stride=stride, padding=padding, dilation=dilation)
    reachable = []
    for output_padding in range(max(stride, dilation)):
        try:
            output = torch_conv_transpose(input_size, output_padding=output_padding, **setting)
        except RuntimeError:
            continue
        reachable.append(output.shape[-1])
    try:
        found = output_padding_for(input_size, output_size, **setting)
    except ValueError as error:
        assert output_size not in reachable
        message = str(error)
        named = message.partition(" reach ")[2]
        assert [int(number) for number in re.findall(r"\d+", named)] == reachable
        assert f"output_size={output_size} is out of reach" in message
    else:
        assert torch_conv_transpose(input_size, output_padding=found, **setting).shape[-1] == output_size


# solve_conv_transpose


def brute_force(input_size, output_size, max_kernel_size, max_stride, dilation):
    """Every setting within the bounds that torch runs and that gives the size, by running torch."""
    found = set()
    for kernel_size, stride in itertools.product(range(1, max_kernel_size + 1), range(1, max_stride + 1)):
        for padding, output_padding in itertools.product(
            range(dilation * (kernel_size - 1) + 1), range(max(stride, dilation) + 2)
        ):
            setting = (kernel_size, stride, padding, output_padding, dilation)
            try:
                layer = torch.nn.ConvTranspose2d(1, 1, *setting[:4], dilation=dilation, dtype=torch.float64)
                size = layer(torch.zeros(1, 1, input_size, input_size, dtype=torch.float64)).shape[-1]
            except RuntimeError:
                continue
            if size == output_size:
                found.add(setting)
    return found


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    input_size=st.integers(1, 9),
    output_size=st.integers(1, 30),
    max_kernel_size=st.integers(1, 4),
    max_stride=st.integers(1, 4),
    dilation=st.integers(1, 3),
)
def test_solver_finds_all_settings_once_and_only_those(input_size, output_size, max_kernel_size, max_stride, dilation):
    bounds = dict(max_kernel_size=max_kernel_size, max_stride=max_stride, dilation=dilation)
    reference = brute_force(input_size, output_size, **bounds)
    if reference:
        assert sorted(s[:5] for s in solve_conv_transpose(input_size, output_size, **bounds)) == sorted(reference)
    else:
        with pytest.raises(ValueError, match=f"output_size={output_size} is out of reach"):
            solve_conv_transpose(input_size, output_size, **bounds)


def test_even_overlap_means_that_the_overlap_counts_of_the_interior_agree():
    seen = set()
    for dilation, output_size in itertools.product((1, 2, 3), (24, 34)):
        for kernel_size, stride, _, _, _, even in solve_conv_transpose(12, output_size, dilation=dilation):
            counts = overlap_counts(30, kernel_size, stride, dilation=dilation)
            interior = counts[dilation * kernel_size : -dilation * kernel_size]
            assert even == (len(interior.unique()) == 1), (kernel_size, stride, dilation)
            seen.add(even)
    assert seen == {True, False}


def test_solver_puts_even_overlap_first_then_output_padding_then_kernel_then_stride():
    solutions = solve_conv_transpose(8, 16, max_kernel_size=9, max_stride=6)
    keys = [(not s.even_overlap, s.output_padding, s.kernel_size, s.stride) for s in solutions]
    assert keys == sorted(keys)
    assert {s.even_overlap for s in solutions} == {True, False}


def test_solver_takes_two_ints_and_solves_each_axis():
    heights, widths = (solve_conv_transpose(n, m, max_kernel_size=4) for n, m in [(4, 8), (5, 9)])
    solutions = solve_conv_transpose((4, 5), (8, 9), max_kernel_size=4)
    assert len(solutions) == len(heights) * len(widths)
    for solution in solutions:
        *layer, dilation, even = solution
        assert torch.nn.ConvTranspose2d(1, 1, *layer, dilation=dilation)(torch.zeros(1, 1, 4, 5)).shape[2:] == (8, 9)
        by_axis = zip(*solution[:5], strict=True)
        assert even == all(
            next(s.even_overlap for s in axis if s[:5] == one)
            for axis, one in zip((heights, widths), by_axis, strict=True)
        )
    for ordered in (solutions, solve_conv_transpose((7, 7), (14, 14))):
        keys = [(not s[5], sum(s.output_padding), sum(s.kernel_size), sum(s.stride), sum(s.padding)) for s in ordered]
        assert keys == sorted(keys)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (dict(input_size=7, output_size=100), r"output_size=100 .*; nearest reachable: 34$"),
        (dict(input_size=4, output_size=6, max_kernel_size=1, max_stride=2), r"; nearest reachable: 4 and 7$"),
        (dict(input_size=4, output_size=1, max_kernel_size=1), r"padding up to .*; nearest reachable: 4$"),
        (dict(input_size=(4, 7), output_size=(8, 100)), r"^width: output_size=100"),
    ],
)
def test_solver_names_the_nearest_sizes_when_there_is_none(arguments, message):
    with pytest.raises(ValueError, match=message):
        solve_conv_transpose(**arguments)


# conv_matrix


@thorough
@given(
    input_size=int_or_two(1, 7),
    kernel_size=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    stride=int_or_two(1, 3),
    padding=int_or_two(0, 2),
    dilation=int_or_two(1, 2),
    channels=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    seed=st.integers(0, 2**31),
)
def test_conv_matrix_is_the_conv_and_its_transpose_is_the_transposed_conv(
    input_size, kernel_size, stride, padding, dilation, channels, seed
):
    weight = integers(*channels, *kernel_size, seed=seed)
    layer = dict(stride=stride, padding=padding, dilation=dilation)
    large = as_two(input_size)
    try:
        small = as_two(conv_output_size(large, kernel_size, **layer))
    except ValueError:
        with pytest.raises(ValueError, match="is too small"):
            conv_matrix(weight, input_size, **layer)
        return
    matrix = conv_matrix(weight, input_size, **layer)
    image = integers(1, channels[1], *large, seed=seed + 1)
    output = F.conv2d(image, weight, **layer)
    assert torch.equal(matrix @ image.flatten(), output.flatten())

    feature = integers(1, channels[0], *small, seed=seed + 2)
    output_padding = output_padding_for(small, large, kernel_size, **layer)
    transposed = F.conv_transpose2d(feature, weight, output_padding=output_padding, **layer)
    assert torch.equal(matrix.T @ feature.flatten(), transposed.flatten())


def test_conv_matrix_keeps_the_dtype_and_passes_gradients_to_the_weight():
    for dtype in (torch.float16, torch.float32, torch.float64, torch.int64, torch.complex64, torch.bool):
        assert conv_matrix(torch.ones(2, 1, 3, 3, dtype=dtype), 4).dtype == dtype
    with torch.autocast("cpu"):
        assert conv_matrix(torch.ones(2, 1, 3, 3), 4).dtype == torch.float32
    weight = integers(2, 3, 2, 2, seed=0).requires_grad_()
    conv_matrix(weight, 4).sum().backward()
    assert torch.equal(weight.grad, torch.full_like(weight, 9))


def test_conv_matrix_keeps_infinite_weights_out_of_the_zeros():
    matrix = conv_matrix(torch.tensor([1.0, torch.inf]).reshape(1, 1, 1, 2), (1, 3))
    assert matrix.tolist() == [[1, torch.inf, 0], [0, 1, torch.inf]]


def test_conv_matrix_refuses_what_is_no_conv2d_weight():
    with pytest.raises(ValueError, match=r"weight must have the shape .* not \(3, 3\)"):
        conv_matrix(torch.ones(3, 3), 4)
    with pytest.raises(ValueError, match=r"at least one tap, not \(1, 1, 0, 2\)"):
        conv_matrix(torch.ones(1, 1, 0, 2), 4)
    with pytest.raises(TypeError, match=r"weight must be a torch\.Tensor .* not list"):
        conv_matrix([[1.0]], 4)


# arguments

SIZE_FUNCTIONS = {
    conv_output_size: dict(input_size=7, kernel_size=3, stride=1, padding=0, dilation=1),
    conv_transpose_output_size: dict(
        input_size=7, kernel_size=3, stride=2, padding=0, output_padding=0, dilation=1
    ),
    output_padding_for: dict(input_size=7, output_size=15, kernel_size=3, stride=2, padding=0, dilation=1),
    overlap_counts: dict(input_size=7, kernel_size=3, stride=2, padding=0, output_padding=0, dilation=1),
    solve_conv_transpose: dict(input_size=7, output_size=15, max_kernel_size=3, max_stride=2, dilation=1),
}  # fmt: skip
ARGUMENTS = [(function, name) for function, good in SIZE_FUNCTIONS.items() for name in good]


@pytest.mark.parametrize("function, name", ARGUMENTS, ids=lambda value: getattr(value, "__name__", value))
def test_a_bad_argument_is_an_error_that_names_it_and_its_value(function, name):
    good = SIZE_FUNCTIONS[function]
    function(**good)
    wrong_types = [True, False, 2.0, "3", None, (2, True), (1.5, 2), torch.tensor(True), np.bool_(True), {2}]
    out_of_range = [-1, (2, -1), (1, 1, 1), (1,), ()] + ([] if name.endswith("padding") else [0, (0, 3)])
    for value, error in [(v, TypeError) for v in wrong_types] + [(v, ValueError) for v in out_of_range]:
        with pytest.raises(error, match=re.escape(f"{name}={value!r} ")):
            function(**(good | {name: value}))


@pytest.mark.parametrize("function, name", ARGUMENTS, ids=lambda value: getattr(value, "__name__", value))
def test_numpy_ints_lists_and_torch_sizes_are_accepted(function, name):
    good = SIZE_FUNCTIONS[function]
    two = function(**(good | {name: (good[name], good[name])}))
    for value in (np.int64(good[name]), np.array(good[name])[()]):
        assert str(function(**(good | {name: value}))) == str(function(**good))
    for value in ([good[name]] * 2, torch.Size([good[name]] * 2)):
        assert str(function(**(good | {name: value}))) == str(two)
