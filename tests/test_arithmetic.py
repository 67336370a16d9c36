"""upconv.arithmetic against torch.nn itself, with one, two and three axes."""

import inspect
import itertools
import random
import re

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from upconv import (
    arithmetic,
    conv_matrix,
    conv_output_size,
    conv_transpose_output_size,
    output_padding_for,
    overlap_counts,
    solve_conv_transpose,
)

thorough = settings(max_examples=400, deadline=None, derandomize=True)

CONV = dict(input_size=(1, 20), kernel_size=(1, 5), stride=(1, 5), padding=(0, 4), dilation=(1, 4))
CONV_TRANSPOSE = dict(CONV, output_padding=(0, 4))
MATRIX = dict(input_size=(1, 5), kernel_size=(1, 3), stride=(1, 3), padding=(0, 2), dilation=(1, 2))


@st.composite
def drawn(draw, ranges):
    """A number of axes, and arguments: ints, or tuples with a value for each axis, which may differ."""
    axes = draw(st.integers(1, 3))
    arguments = {}
    for name, (low, high) in ranges.items():
        one = st.integers(low, min(high, 9) if axes == 3 else high)
        arguments[name] = draw(one | st.tuples(*[one] * axes))
    return axes, arguments


def drawn_at_random(ranges, axes, generator):
    """Arguments as above, faster and without the smallest counterexample."""
    arguments = {}
    for name, (low, high) in ranges.items():
        each = tuple(generator.randint(low, high) for _ in range(axes))
        arguments[name] = generator.choice([each, each[0]])
    return arguments


def each_axis(value, axes):
    return value if isinstance(value, tuple) else (value,) * axes


def expected(size, arguments):
    """What the tools must return for torch's size: a tuple if any argument is one, otherwise an int."""
    return tuple(size) if any(isinstance(value, tuple) for value in arguments.values()) else size[0]


def torch_conv(axes, input_size, kernel_size, **layer):
    image, weight = (torch.zeros(1, 1, *each_axis(size, axes)) for size in (input_size, kernel_size))
    return getattr(F, f"conv{axes}d")(image, weight, **layer)


def torch_conv_transpose(axes, input_size, kernel_size, **layer):
    """Ones on ones: the output counts overlaps. float64, since the float32 path lets an output of size 0 pass."""
    image, weight = (
        torch.ones(1, 1, *each_axis(size, axes), dtype=torch.float64) for size in (input_size, kernel_size)
    )
    return getattr(F, f"conv_transpose{axes}d")(image, weight, **layer)


def integers(*shape, seed):
    """Random integers from -9 to 9 in float64: sums have no rounding, and an asymmetric kernel shows a flip."""
    return torch.randint(-9, 10, shape, generator=torch.Generator().manual_seed(seed)).double()


# sizes


def check_conv_size(axes, arguments):
    try:
        output = torch_conv(axes, **arguments)
    except RuntimeError:
        with pytest.raises(ValueError, match="is too small"):
            conv_output_size(**arguments)
    else:
        assert conv_output_size(**arguments) == expected(output.shape[2:], arguments)


def check_conv_transpose_size_and_overlap(axes, arguments):
    try:
        output = torch_conv_transpose(axes, **arguments)
    except RuntimeError:
        for function in (conv_transpose_output_size, overlap_counts):
            with pytest.raises(ValueError, match=r"crops everything|must be smaller than stride"):
                function(**arguments)
    else:
        size = conv_transpose_output_size(**arguments)
        assert size == expected(output.shape[2:], arguments)
        counts = overlap_counts(**arguments)
        assert counts.dtype == torch.int64
        if isinstance(size, int):
            assert counts.shape == (size,)
            counts = overlap_counts(**{**arguments, "input_size": (arguments["input_size"],) * axes})
        assert torch.equal(counts.double(), output[0, 0])


@thorough
@given(drawn(CONV))
def test_conv_output_size_is_torchs_own(setting):
    check_conv_size(*setting)


@thorough
@given(drawn(CONV_TRANSPOSE))
def test_conv_transpose_output_size_and_overlap_counts_are_torchs_own(setting):
    check_conv_transpose_size_and_overlap(*setting)


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_a_thousand_settings_of_every_function_are_torchs_own(axes):
    generator = random.Random(axes)
    small = dict(CONV, input_size=(1, 6), kernel_size=(1, 3), stride=(1, 3), dilation=(1, 3))
    for seed in range(1000):
        check_conv_size(axes, drawn_at_random(small, axes, generator))
        check_conv_transpose_size_and_overlap(axes, drawn_at_random(CONV_TRANSPOSE | small, axes, generator))
        check_matrix(axes, drawn_at_random(MATRIX, axes, generator), (1 + seed % 2, 1 + seed // 2 % 2), seed)


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
        (lambda: conv_output_size((7, 7, 7), (3, 3, 8)), r"^width: input_size=7 is too small"),
        (lambda: conv_output_size((2, 7, 7), 3), r"^depth: input_size=2 is too small"),
        (lambda: conv_output_size((2,), 3), r"^length: input_size=2 is too small"),
        (
            lambda: overlap_counts((7, 7), (3, 3, 3), stride=(2,)),
            r"^input_size=\(7, 7\), kernel_size=\(3, 3, 3\), stride=\(2,\) must have equally many entries",
        ),
    ],
)
def test_a_refusal_says_what_would_be_accepted(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize(
    "function, layer",
    [
        (conv_output_size, "Conv"),
        (conv_transpose_output_size, "ConvTranspose"),
        (output_padding_for, "ConvTranspose"),
        (overlap_counts, "ConvTranspose"),
        (conv_matrix, "Conv"),
    ],
)
def test_defaults_are_those_of_the_layer(function, layer, axes):
    ours, torchs = (inspect.signature(thing).parameters for thing in (function, getattr(torch.nn, f"{layer}{axes}d")))
    shared = [name for name in ours if name in torchs and ours[name].default is not inspect.Parameter.empty]
    assert len(shared) >= 3
    assert {name: ours[name].default for name in shared} == {name: torchs[name].default for name in shared}


# output_padding_for


@thorough
@given(drawn(CONV_TRANSPOSE))
def test_output_padding_for_undoes_conv_transpose_output_size(setting):
    axes, arguments = setting
    try:
        output_size = conv_transpose_output_size(**arguments)
    except ValueError:
        assume(False)
    wanted = expected(each_axis(arguments["output_padding"], axes), arguments)
    layer = {name: value for name, value in arguments.items() if name != "output_padding"}
    assert output_padding_for(output_size=output_size, **layer) == wanted


@thorough
@given(
    input_size=st.integers(1, 8),
    output_size=st.integers(1, 40),
    kernel_size=st.integers(1, 5),
    stride=st.integers(1, 5),
    padding=st.integers(0, 4),
    dilation=st.integers(1, 6),
)
def test_output_padding_for_names_exactly_the_reachable_sizes(
    input_size, output_size, kernel_size, stride, padding, dilation
):
    setting = dict(input_size=input_size, kernel_size=kernel_size, stride=stride, dilation=dilation)
    reachable = reached(**setting, padding=padding)
    try:
        found = output_padding_for(output_size=output_size, padding=padding, **setting)
    except ValueError as error:
        assert output_size not in reachable
        message, _, remedy = str(error).partition("; ")
        named = message.partition(" reach ")[2]
        assert [int(number) for number in re.findall(r"\d+", named)] == reachable
        assert f"output_size={output_size} is out of reach" in message
        anywhere = [reached(**setting, padding=other) for other in range(30)]
        crops = [other for other, sizes in enumerate(anywhere) if output_size + 1 in sizes]
        if output_size not in itertools.chain(*anywhere) and crops:
            made, padding = map(int, re.findall(r"\d+", remedy))
            assert made == output_size + 1 and [padding] == crops
            assert remedy.startswith("no other padding reaches it") and remedy.endswith("drop the last pixel")
        else:
            assert not remedy
    else:
        output = torch_conv_transpose(1, output_padding=found, padding=padding, **setting)
        assert output.shape[-1] == output_size


def reached(stride, dilation, **setting):
    """The sizes that torch makes, with every output_padding that it takes."""
    sizes = []
    for output_padding in range(max(stride, dilation)):
        try:
            output = torch_conv_transpose(1, stride=stride, dilation=dilation, output_padding=output_padding, **setting)
        except RuntimeError:
            continue
        sizes.append(output.shape[-1])
    return sizes


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


SOLVED = [
    dict(input_size=n, output_size=m, dilation=d, max_kernel_size=k, max_stride=s)
    for n, m, d, k, s in [
        (12, 24, 1, 7, 4),
        (12, 25, 1, 7, 4),
        (12, 34, 2, 7, 4),
        (12, 37, 3, 7, 4),
        (4, 17, 2, 5, 6),
        (1, 5, 1, 6, 7),
        (8, 16, 1, 9, 6),
        (2, 9, 4, 4, 3),
    ]
]


def test_even_overlap_means_that_the_overlap_counts_of_the_interior_agree():
    seen = set()
    for setting in itertools.chain(*(solve_conv_transpose(**arguments) for arguments in SOLVED)):
        counts = torch_conv_transpose(1, 60, setting.kernel_size, stride=setting.stride, dilation=setting.dilation)
        margin = setting.dilation * setting.kernel_size
        assert setting.even_overlap == (len(counts[0, 0, margin:-margin].unique()) == 1), setting
        seen.add(setting.even_overlap)
    assert seen == {True, False}


def test_reaches_all_means_that_every_output_pixel_gets_a_tap():
    seen = set()
    for arguments in SOLVED:
        for setting in solve_conv_transpose(**arguments):
            layer = dict(zip(setting._fields, setting[:5], strict=False))
            counts = torch_conv_transpose(1, arguments["input_size"], **layer)
            assert setting.reaches_all == (counts.min().item() > 0), setting
            seen.add((setting.reaches_all, setting.even_overlap))
    assert seen == {(True, True), (True, False), (False, True), (False, False)}


def test_in_place_means_that_a_pixels_taps_have_the_centre_of_its_block():
    seen = set()
    for setting in itertools.chain(*(solve_conv_transpose(**arguments) for arguments in SOLVED)):
        kernel_size, stride, padding, output_padding, dilation = setting[:5]
        image = torch.zeros(1, 1, 61, dtype=torch.float64)
        image[..., 30] = 1
        taps = torch.ones(1, 1, kernel_size, dtype=torch.float64)
        output = F.conv_transpose1d(image, taps, None, stride, padding, output_padding, dilation=dilation)
        block = torch.arange(30 * stride, 31 * stride).double()
        assert setting.in_place == (output.flatten().nonzero().double().mean() == block.mean()), setting
        assert not setting.in_place or output.shape[-1] == 61 * stride + output_padding
        seen.add((setting.in_place, output_padding > 0))
    assert seen == {(True, True), (True, False), (False, True), (False, False)}


def preference(setting):
    """The order that the docstring promises."""
    fields = [value if isinstance(value, tuple) else (value,) for value in setting[:4]]
    kernel_size, stride, padding, output_padding = map(sum, fields)
    return not setting.reaches_all, not setting.even_overlap, output_padding, kernel_size, stride, padding


@pytest.mark.parametrize("arguments", SOLVED, ids=str)
def test_the_solver_puts_reached_pixels_first_then_even_overlap_output_padding_kernel_stride_and_padding(arguments):
    solutions = solve_conv_transpose(**arguments)
    assert len(solutions) > 1
    assert solutions == sorted(solutions, key=lambda setting: (*preference(setting), setting))
    for limit in (1, len(solutions) - 1, len(solutions), len(solutions) + 1):
        assert solve_conv_transpose(**arguments, limit=limit) == solutions[:limit]


def test_the_first_solution_leaves_no_dead_row_where_another_one_has_none():
    for n in range(2, 40):
        best = solve_conv_transpose(n, 2 * n + 1, max_kernel_size=4, max_stride=2)[0]
        assert overlap_counts(n, *best[:5]).min() > 0
        assert n < 4 or best[:4] == (4, 2, 1, 1)


@pytest.mark.parametrize(
    "arguments",
    [
        dict(input_size=(4, 5), output_size=(8, 9), max_kernel_size=4),
        dict(input_size=(4, 4), output_size=(9, 9), max_kernel_size=(6, 3)),
        dict(input_size=(7, 3), output_size=(15, 12), dilation=(1, 2)),
        dict(input_size=5, output_size=(10,)),
        dict(input_size=(2, 3, 5), output_size=(4, 7, 11), max_kernel_size=4, max_stride=3),
        dict(input_size=3, output_size=(7, 7, 7), max_kernel_size=(4, 3, 4), max_stride=3),
        dict(input_size=(4, 4, 4), output_size=(9, 9, 9), max_kernel_size=5, dilation=(2, 1, 1), max_stride=3),
    ],
    ids=str,
)
def test_the_solutions_of_several_axes_are_the_first_of_all_products(arguments):
    axes = next(len(value) for value in arguments.values() if isinstance(value, tuple))
    by_axis = [
        solve_conv_transpose(**{name: each_axis(value, axes)[axis] for name, value in arguments.items()})
        for axis in range(axes)
    ]
    products = []
    for each in itertools.product(*by_axis):
        *layer, even_overlap, reaches_all, in_place = zip(*each, strict=True)
        products.append(arithmetic.ConvTransposeSetting(*layer, all(even_overlap), all(reaches_all), all(in_place)))
    products.sort(key=lambda setting: (*preference(setting), setting))
    assert len({preference(setting)[:2] for setting in products}) >= (3 if axes > 1 else 2)
    assert solve_conv_transpose(**arguments, limit=len(products) + 1) == products
    for limit in (1, 2, 10, 100, len(products) - 1, len(products)):
        assert solve_conv_transpose(**arguments, limit=limit) == products[:limit]
    assert solve_conv_transpose(**arguments) == products[:1000]
    best = products[0]
    layer = getattr(torch.nn, f"ConvTranspose{axes}d")(1, 1, *best[:4], dilation=best.dilation)
    output = layer(torch.zeros(1, 1, *each_axis(arguments["input_size"], axes)))
    assert output.shape[2:] == arguments["output_size"]


def test_of_ten_million_products_only_the_first_are_made(monkeypatch):
    compared = []
    original = arithmetic._preference
    monkeypatch.setattr(arithmetic, "_preference", lambda setting: compared.append(0) or original(setting))
    for axes, length in ((2, 1000), (3, 10)):
        limit = {} if length == 1000 else dict(limit=length)
        solutions = solve_conv_transpose((7,) * axes, (224,) * axes, max_kernel_size=64, max_stride=32, **limit)
        assert len(solutions) == length and solutions[0][:4] == ((32,) * axes, (32,) * axes, (0,) * axes, (0,) * axes)
    # an axis has 3,173 settings, each looked at twice
    assert len(compared) < 2 * 3173 * (2 + 3) + 5_000


@pytest.mark.parametrize("limit, error", [(0, ValueError), ((1, 2), ValueError), (2.0, TypeError), (None, TypeError)])
def test_a_limit_is_an_int_of_at_least_1(limit, error):
    with pytest.raises(error, match=re.escape(f"limit={limit!r} ") + ".*must be an int of at least 1"):
        solve_conv_transpose(7, 14, limit=limit)


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


def check_matrix(axes, arguments, channels, seed):
    input_size, kernel_size = (each_axis(arguments.pop(name), axes) for name in ("input_size", "kernel_size"))
    weight = integers(*channels, *kernel_size, seed=seed)
    # an int where all axes are equal: then the number of axes is the weight's
    given_size = input_size[0] if len(set(input_size)) == 1 else input_size
    try:
        small = conv_output_size(input_size, kernel_size, **arguments)
    except ValueError:
        with pytest.raises(ValueError, match="is too small"):
            conv_matrix(weight, given_size, **arguments)
        return
    matrix = conv_matrix(weight, given_size, **arguments)
    image = integers(1, channels[1], *input_size, seed=seed + 1)
    output = getattr(F, f"conv{axes}d")(image, weight, **arguments)
    assert torch.equal(matrix @ image.flatten(), output.flatten())

    feature = integers(1, channels[0], *small, seed=seed + 2)
    output_padding = output_padding_for(small, input_size, kernel_size, **arguments)
    transpose = getattr(F, f"conv_transpose{axes}d")
    transposed = transpose(feature, weight, output_padding=output_padding, **arguments)
    assert torch.equal(matrix.T @ feature.flatten(), transposed.flatten())


@thorough
@given(drawn(MATRIX), st.tuples(st.integers(1, 3), st.integers(1, 3)), st.integers(0, 2**31))
def test_conv_matrix_is_the_conv_and_its_transpose_is_the_transposed_conv(setting, channels, seed):
    check_matrix(*setting, channels, seed)


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


def test_conv_matrix_refuses_what_is_no_weight_of_a_convolution():
    with pytest.raises(ValueError, match=r"weight must have the shape .* not \(3, 3\)"):
        conv_matrix(torch.ones(3, 3), 4)
    with pytest.raises(ValueError, match=r"with 1 to 3 axes and .* not \(1, 1, 1, 1, 1, 1\)"):
        conv_matrix(torch.ones(1, 1, 1, 1, 1, 1), 4)
    with pytest.raises(ValueError, match=r"input_size=\(4, 4\), kernel_size=\(3,\) must have equally many entries"):
        conv_matrix(torch.ones(1, 1, 3), (4, 4))
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
    out_of_range = [-1, (2, -1), (-1,), (1, 1, -1), (1, 1, 1, 1), ()] + (
        [] if name.endswith("padding") else [0, (0, 3)]
    )
    for value, error in [(v, TypeError) for v in wrong_types] + [(v, ValueError) for v in out_of_range]:
        with pytest.raises(error, match=re.escape(f"{name}={value!r} ")):
            function(**(good | {name: value}))


@pytest.mark.parametrize("function, name", ARGUMENTS, ids=lambda value: getattr(value, "__name__", value))
def test_numpy_ints_lists_and_torch_sizes_are_accepted(function, name):
    good = SIZE_FUNCTIONS[function]
    for value in (np.int64(good[name]), np.array(good[name])[()]):
        assert str(function(**(good | {name: value}))) == str(function(**good))
    for axes, kind in itertools.product((1, 2, 3), (list, torch.Size)):
        expected_result = function(**(good | {name: (good[name],) * axes}))
        assert str(function(**(good | {name: kind([good[name]] * axes)}))) == str(expected_result)
