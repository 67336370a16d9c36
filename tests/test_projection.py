"""upconv.projection: decisions against polynomial division, residuals against least squares written out in full."""

import copy
import itertools
import math
import random

import numpy as np
import pytest
import sympy
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from upconv import (
    conv_transpose_to_upsample_conv,
    is_upsample_conv,
    upsample_conv_to_conv_transpose,
)

thorough = settings(max_examples=150, deadline=None, derandomize=True)


def layer_with(weight, stride, **others):
    """A ConvTranspose2d in float64 with this weight, (in, out / groups, kh, kw) or (kh, kw)."""
    weight = weight.reshape((1,) * (4 - weight.dim()) + weight.shape).double()
    groups = others.get("groups", 1)
    others = {"bias": False, **others}
    layer = nn.ConvTranspose2d(weight.shape[0], groups * weight.shape[1], weight.shape[2:], stride, **others).double()
    with torch.no_grad():
        layer.weight.copy_(weight)
        if layer.bias is not None:
            layer.bias.copy_(torch.randint(-9, 10, layer.bias.shape))
    return layer


def integers(*shape):
    return torch.randint(-9, 10, shape).double()


def pair_kernel(small, stride):
    """The kernel of nearest upsampling and this convolution, by stamping: (..., m, m) to (..., m + s - 1, same)."""
    sh, sw = stride
    mh, mw = small.shape[-2:]
    kernel = small.new_zeros(*small.shape[:-2], mh + sh - 1, mw + sw - 1)
    for y, x in itertools.product(range(sh), range(sw)):
        kernel[..., y : y + mh, x : x + mw] += small
    return kernel


def divisible(kernel, stride):
    """Whether sympy finds no remainder when it divides the kernel's polynomial by both boxes."""
    y, x = sympy.symbols("y x")
    polynomial = sum(int(v) * y**i * x**j for (i, j), v in np.ndenumerate(kernel.numpy()))
    boxes = (sum(y**i for i in range(stride[0])), y), (sum(x**j for j in range(stride[1])), x)
    return all(sympy.rem(polynomial, box, variable) == 0 for box, variable in boxes)


# decisions


@st.composite
def layers(draw):
    """Draw a kernel, perhaps a pair's, perhaps spoilt at one entry, in its rows, or everywhere but in its gains."""
    stride, dilation, size = (draw(st.tuples(st.integers(1, 3), st.integers(1, 3))) for _ in range(3))
    small = draw(st.lists(st.integers(-3, 3), min_size=size[0] * size[1], max_size=size[0] * size[1]))
    kernel = torch.tensor(small).double().reshape(size)
    spoil = draw(st.sampled_from(["no", "entry", "stripes", "corners", "no pair"]))
    if spoil != "no pair":
        kernel = pair_kernel(kernel, stride)
    height, width = kernel.shape
    row, column = draw(st.integers(0, height - 1)), draw(st.integers(0, width - 1))
    if spoil == "entry":
        kernel[row, column] += 1
    elif spoil == "stripes":  # columns stay even, the rows do not
        kernel[:, column] += torch.tensor([1.0] * stride[0] + [0.0] * (height - stride[0])).double()
    elif spoil == "corners":  # all gains stay as they are
        kernel[row, column] += 1
        kernel[row % stride[0], column % stride[1]] -= 1
    return kernel, stride, dilation


@settings(thorough, max_examples=300)
@given(layers())
def test_the_decision_is_that_of_polynomial_division(case):
    kernel, stride, dilation = case
    spread = kernel.new_zeros([(size - 1) * d + 1 for size, d in zip(kernel.shape, dilation, strict=True)])
    spread[:: dilation[0], :: dilation[1]] = kernel
    assert is_upsample_conv(layer_with(kernel, stride, dilation=dilation), tolerance=0) == divisible(spread, stride)


def test_every_channel_pair_and_group_is_asked():
    small = integers(4, 3, 2, 2)
    layer = layer_with(pair_kernel(small, (2, 3)), (2, 3), groups=2)
    assert is_upsample_conv(layer)
    for i, o in itertools.product(range(4), range(3)):
        spoilt = copy.deepcopy(layer)
        with torch.no_grad():
            spoilt.weight[i, o, 1, 2] += 1
        assert not is_upsample_conv(spoilt)


@pytest.mark.parametrize("magnitude", [1e-6, -1, 1e6])
@pytest.mark.parametrize("share, settings", [(1e-6, {}), (1e-4, dict(tolerance=1e-4))])
def test_the_tolerance_is_relative_to_the_largest_entry_in_size(magnitude, share, settings):
    for error, expected in ((0.99 * share, True), (1.01 * share, False)):
        kernel = pair_kernel(torch.tensor([[4.0, 1.0], [0.0, 2.0]]).double(), (2, 2))
        kernel[0, 0] += 7 * error  # the largest entry is 7
        assert is_upsample_conv(layer_with(kernel * magnitude, 2), **settings) == expected


@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-6), (torch.float16, 1e-2), (torch.bfloat16, 2e-2)])
def test_rounded_pairs_are_recognised(dtype, tolerance):
    conv = nn.Conv2d(16, 16, 3, padding=1).to(dtype)
    layer = upsample_conv_to_conv_transpose(nn.Upsample(scale_factor=2), conv)
    assert is_upsample_conv(layer, tolerance)
    assert not is_upsample_conv(nn.ConvTranspose2d(16, 16, 4, 2, 1).to(dtype), tolerance)


# the module: exact where it can be, of the right size everywhere


def drawn_layers(count, seed=0):
    """Yield layers of any setting and an input of each: pair kernels where the flag is set, others elsewhere."""
    rng = random.Random(seed)
    while count:
        groups = rng.choice([1, 1, 2, 3])
        channels, outputs = groups * rng.randint(1, 2), rng.randint(1, 2)
        stride, padding, dilation, size = (
            [rng.randint(low, high) for _ in "HW"] for low, high in ((1, 4), (0, 5), (1, 3), (1, 4))
        )
        exact = rng.random() < 0.5
        if exact:
            dilation = [1, 1]
            kernel = pair_kernel(integers(channels, outputs, *size), stride)
        else:
            kernel = integers(channels, outputs, *size)
        output_padding = [rng.randrange(max(both)) for both in zip(stride, dilation, strict=True)]
        layer = layer_with(
            kernel,
            stride,
            padding=padding,
            dilation=dilation,
            output_padding=output_padding,
            groups=groups,
            bias=rng.random() < 0.5,
        )
        x = integers(2, channels, rng.randint(1, 6), rng.randint(1, 6))
        try:
            layer(x)
        except RuntimeError:
            continue
        yield layer, x, exact
        count -= 1


def test_whenever_the_kernel_is_a_pair_the_module_is_the_layer():
    seen = {True: 0, False: 0}
    for layer, x, built in drawn_layers(400):
        is_pair = is_upsample_conv(layer, tolerance=0)
        assert is_pair or not built
        for data in ({}, {"inputs": x}):
            module, residual = conv_transpose_to_upsample_conv(layer, **data)
            output = module(x)
            assert output.shape == layer(x).shape
            if is_pair:
                assert residual < 1e-12
                torch.testing.assert_close(output, layer(x), rtol=1e-12, atol=1e-10)
        seen[is_pair] += 1
    assert min(seen.values()) > 100, seen


def test_the_module_has_a_crop_only_where_one_is_needed_and_the_kernel_size_that_was_asked_for():
    module, _ = conv_transpose_to_upsample_conv(nn.ConvTranspose2d(3, 5, 3, 2, 1, 1))
    assert [type(step) for step in module] == [nn.Upsample, nn.Conv2d, nn.ZeroPad2d]
    assert (module.conv.kernel_size, module.conv.padding, module.crop.padding) == ((2, 2), (1, 1), (-1, 0, -1, 0))
    module, _ = conv_transpose_to_upsample_conv(nn.ConvTranspose2d(3, 5, (5, 2), (3, 4)), kernel_size=(1, 4))
    assert module.conv.kernel_size == (1, 4)
    assert module.upsample.scale_factor == (3, 4)


def test_the_pair_gets_dtype_flags_and_bias_and_the_layer_keeps_everything():
    layer = nn.ConvTranspose2d(2, 3, 4, 2, 1).half().eval()
    layer.weight.requires_grad_(False)
    before, state = copy.deepcopy(layer.state_dict()), torch.get_rng_state()
    module, residual = conv_transpose_to_upsample_conv(layer)
    conv_transpose_to_upsample_conv(layer, inputs=torch.ones(1, 2, 3, 3))
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(value, before[name]) for name, value in layer.state_dict().items())
    assert module.conv.weight.dtype == torch.float16
    assert not module.training and not module.conv.training
    assert not module.conv.weight.requires_grad and module.conv.bias.requires_grad
    assert torch.equal(module.conv.bias, layer.bias)
    assert module.conv.bias.data_ptr() != layer.bias.data_ptr()
    assert isinstance(residual, float)


def test_an_input_without_a_batch_axis_is_refused_as_upsample_would_misread_it():
    module, _ = conv_transpose_to_upsample_conv(nn.ConvTranspose2d(2, 3, 4, 2, 1))
    with pytest.raises(ValueError, match="same number of spatial dimensions"):
        module(torch.zeros(2, 4, 4))


# the projection


def least_residual(kernel, stride, size, reach):
    """By numpy.linalg.lstsq over all taps at once, at every position up to `reach` beyond the kernel."""
    stride, size = ((v, v) if isinstance(v, int) else v for v in (stride, size))
    kh, kw = kernel.shape
    found = []
    spans = [m + s - 1 for m, s in zip(size, stride, strict=True)]
    shifts = [range(min(0, k - span), max(0, k - span) + 1) for k, span in zip((kh, kw), spans, strict=True)]
    for up, left in itertools.product(*shifts):
        columns = []
        for index in range(size[0] * size[1]):
            small = torch.zeros(size).double()
            small.view(-1)[index] = 1
            canvas = torch.zeros(kh + 2 * reach, kw + 2 * reach).double()
            canvas[reach + up : reach + up + spans[0], reach + left : reach + left + spans[1]] = pair_kernel(
                small, stride
            )
            columns.append(canvas.flatten().numpy())
        target = F.pad(kernel, (reach,) * 4).flatten().numpy()
        design = np.stack(columns, 1)
        fit = design @ np.linalg.lstsq(design, target, rcond=None)[0]
        found.append(np.linalg.norm(target - fit) / np.linalg.norm(target))
    return min(found)


UNEVEN = [(2, 3, None), (5, 3, 4), (6, (2, 3), (2, 5)), (3, 4, 2)]


@pytest.mark.parametrize(
    "extent, stride, size", [(4, 2, 3), (4, 2, 1), (4, 2, 2), (4, 2, 5), (3, 2, None), (2, 2, 2), *UNEVEN]
)
def test_the_residual_is_the_least_there_is(extent, stride, size):
    for _ in range(5):
        kernel = torch.randn(extent, extent).double()
        module, residual = conv_transpose_to_upsample_conv(layer_with(kernel, stride), kernel_size=size)
        least = least_residual(kernel, stride, module.conv.kernel_size, reach=8)
        assert residual == pytest.approx(least, abs=1e-12)


@pytest.mark.parametrize("stride, size", [(2, 1), (2, 3), (3, 3), (4, 2)])
def test_random_kernels_have_the_residual_of_the_formula(stride, size):
    extent = size + stride - 1
    layer = layer_with(torch.randn(60, 60, extent, extent), stride)
    residual = conv_transpose_to_upsample_conv(layer)[1]
    assert residual**2 == pytest.approx(1 - (size / extent) ** 2, abs=0.01)


def test_the_central_position_is_taken_among_equals():
    module, _ = conv_transpose_to_upsample_conv(layer_with(torch.randn(4, 4), 2, padding=1), kernel_size=5)
    assert module.conv.padding == (2, 2) and not hasattr(module, "crop")
    module, _ = conv_transpose_to_upsample_conv(layer_with(torch.randn(2, 2), 2), kernel_size=2)
    assert module.crop.padding == (-1, 0, -1, 0)  # as if one row and column had been padded at the end only


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
@pytest.mark.parametrize("stride", [2, 3, (2, 1), (4, 3)])
def test_interpolated_pairs_come_back_borders_included(mode, stride):
    conv = nn.Conv2d(2, 3, 3, bias=False).double()
    kernel = upsample_conv_to_conv_transpose(nn.Upsample(scale_factor=stride, mode=mode), conv)[-1].weight.detach()
    for padding, output_padding in ((0, 0), (3, 0), ((4, 1), (1, 0))):
        layer = layer_with(kernel, stride, padding=padding, output_padding=output_padding)
        module, residual = conv_transpose_to_upsample_conv(layer, kernel_size=3, mode=mode)
        assert residual < 1e-12
        torch.testing.assert_close(module.conv.weight, conv.weight)
        x = torch.randn(2, 2, 4, 5).double()
        torch.testing.assert_close(module(x), layer(x))


@pytest.mark.parametrize("mode", ["nearest-exact", "bilinear", "bicubic"])
def test_other_modes_give_the_size_and_their_own_residual(mode):
    for layer, x, _ in drawn_layers(60, seed=1):
        module, residual = conv_transpose_to_upsample_conv(layer, mode=mode)
        assert module(x).shape == layer(x).shape
        assert module.upsample.mode == mode
        assert 0 <= residual <= 1 + 1e-12


# fitting outputs


def explicit_residual(layer, size, x, targets, mode="nearest"):
    """Least squares on outputs: a column for every weight of the pair, made by running it on that weight alone."""
    module, _ = conv_transpose_to_upsample_conv(layer, kernel_size=size, mode=mode)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.zero_()
        columns = []
        for parameter in module.parameters():
            for index in range(parameter.numel()):
                parameter.view(-1)[index] = 1
                columns.append(module(x).flatten().numpy())
                parameter.view(-1)[index] = 0
    design, target = np.stack(columns, 1), targets.detach().flatten().numpy()
    fit = design @ np.linalg.lstsq(design, target, rcond=1e-11)[0]
    return np.linalg.norm(target - fit) / np.linalg.norm(target)


@pytest.mark.parametrize("mode", ["nearest", "bilinear", "bicubic"])
@pytest.mark.parametrize("groups, bias, stride, size", [(1, True, 2, None), (2, True, 2, 3), (2, False, (3, 2), None)])
@pytest.mark.parametrize("data", ["random", "one small image", "flat", "a channel of zeros", "twice the same channel"])
def test_the_fit_is_the_least_squares_solution_rank_deficient_or_not(groups, bias, stride, size, data, mode):
    layer = layer_with(torch.randn(4, 2, 4, 4), stride, padding=1, groups=groups, bias=bias)
    x = torch.randn((1, 4, 2, 2) if data == "one small image" else (3, 4, 6, 5)).double()
    if data == "flat":
        x = torch.ones_like(x)
    elif data == "a channel of zeros":
        x[:, 1] = 0
    elif data == "twice the same channel":
        x[:, 1] = x[:, 0]
    for targets in (None, torch.randn_like(layer(x))):
        module, residual = conv_transpose_to_upsample_conv(layer, size, mode, inputs=x, targets=targets)
        wanted = layer(x) if targets is None else targets
        assert residual == pytest.approx(explicit_residual(layer, size, x, wanted, mode), abs=1e-9)
        measured = (module(x) - wanted).norm() / wanted.norm()
        assert residual == pytest.approx(measured.item(), abs=1e-12)


def test_many_images_are_fitted_in_pieces(monkeypatch):
    layer = layer_with(torch.randn(3, 2, 4, 4), 2, padding=1, bias=True)
    x = torch.randn(7, 3, 5, 5).double()
    whole, residual = conv_transpose_to_upsample_conv(layer, inputs=x)
    monkeypatch.setattr("upconv.projection.ELEMENTS", 1)
    pieces, same = conv_transpose_to_upsample_conv(layer, inputs=x)
    torch.testing.assert_close(whole.conv.weight, pieces.conv.weight)
    assert residual == pytest.approx(same, rel=1e-12)


def test_what_the_data_leave_open_stays_at_the_projection():
    layer = layer_with(torch.randn(2, 2, 4, 4), 2, padding=1)
    projected, _ = conv_transpose_to_upsample_conv(layer)
    x = torch.randn(3, 2, 6, 6).double()
    x[:, 1] = 0
    fitted, _ = conv_transpose_to_upsample_conv(layer, inputs=x)
    torch.testing.assert_close(fitted.conv.weight[:, 1], projected.conv.weight[:, 1])
    assert not torch.allclose(fitted.conv.weight[:, 0], projected.conv.weight[:, 0], atol=1e-3)


def test_ordinary_float32_layers_and_integer_images_are_fitted_too():
    layer = nn.ConvTranspose2d(3, 4, 4, 2, 1)
    images = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8)
    module, residual = conv_transpose_to_upsample_conv(layer, inputs=images)
    assert module.conv.weight.dtype == torch.float32
    expected = layer(images.float())
    assert residual == pytest.approx(((module(images.float()) - expected).norm() / expected.norm()).item(), rel=1e-3)


def test_an_exact_layer_that_is_silent_on_the_inputs_has_no_residual():
    layer = layer_with(torch.ones(2, 2), 2, padding=1, dilation=3)  # of one pixel nothing is left
    assert is_upsample_conv(layer, tolerance=0)
    for _ in range(20):
        assert conv_transpose_to_upsample_conv(layer, inputs=torch.rand(1, 1, 1, 1))[1] == 0


def test_kernels_outputs_and_targets_of_zeros_are_matched():
    assert conv_transpose_to_upsample_conv(layer_with(torch.zeros(2, 2), 3))[1] == 0
    layer = layer_with(torch.randn(1, 1, 4, 4), 2, padding=1)
    silent, x = torch.zeros(1, 1, 3, 3).double(), torch.rand(1, 1, 3, 3).double()
    assert conv_transpose_to_upsample_conv(layer, inputs=silent)[1] == 0
    module, residual = conv_transpose_to_upsample_conv(layer, inputs=x, targets=torch.zeros(1, 1, 6, 6))
    assert residual == 0
    torch.testing.assert_close(module(x), torch.zeros(1, 1, 6, 6).double())


def exact_layer(*channels, stride=(2, 2), size=(3, 3), **others):
    return layer_with(pair_kernel(torch.randn(*channels, *size).double(), stride), stride, **others)


def test_targets_are_fitted_also_where_the_kernel_is_exact():
    layer, x = exact_layer(2, 3, padding=1), torch.randn(2, 2, 6, 6).double()
    targets = torch.randn(2, 3, 12, 12).double()
    residual = conv_transpose_to_upsample_conv(layer, inputs=x, targets=targets)[1]
    assert residual == pytest.approx(explicit_residual(layer, None, x, targets), abs=1e-9)


def test_a_kernel_that_is_nearly_exact_is_fitted():
    layer, x = exact_layer(2, 3, padding=1), torch.randn(2, 2, 6, 6).double()
    with torch.no_grad():
        layer.weight += 1e-8 * torch.randn_like(layer.weight)
    residual = conv_transpose_to_upsample_conv(layer, inputs=x)[1]
    assert residual == pytest.approx(explicit_residual(layer, None, x, layer(x)), rel=1e-4)


@pytest.mark.parametrize("dtype, fitted", [(torch.float64, 4), (torch.float32, 3), (torch.float16, 2)])
def test_directions_below_the_rounding_of_the_data_stay_at_the_projection(dtype, fitted):
    layer = layer_with(torch.randn(4, 2, 4, 4), 2, padding=1)
    projected, _ = conv_transpose_to_upsample_conv(layer)
    x = torch.randn(6, 4, 8, 8) * torch.tensor([1, 0.1, 1e-4, 1e-10])[:, None, None]
    module, _ = conv_transpose_to_upsample_conv(layer, inputs=x.to(dtype))
    moved = (module.conv.weight - projected.conv.weight).square().sum(dim=(0, 2, 3)) > 1e-5
    assert moved.tolist() == [index < fitted for index in range(4)]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_fit_is_never_worse_than_the_projection(dtype):
    for _ in range(5):
        layer = nn.ConvTranspose2d(2, 1, 4, 2, 1).to(dtype)
        x = torch.rand(4, 1, 16, 16).repeat(1, 2, 1, 1)
        x[:, 1] += 1e-6 * torch.randn(4, 16, 16)  # two channels that are the same but for a trace
        projected, _ = conv_transpose_to_upsample_conv(layer)
        wanted = copy.deepcopy(layer).double()(x.double())
        before = (copy.deepcopy(projected).double()(x.double()) - wanted).norm() / wanted.norm()
        module, residual = conv_transpose_to_upsample_conv(layer, inputs=x)
        after = (copy.deepcopy(module).double()(x.double()) - wanted).norm() / wanted.norm()
        assert residual == pytest.approx(after.item(), abs=1e-9)
        assert after <= before + 1e-9


def test_the_scale_of_the_inputs_does_not_decide_what_is_fitted():
    layer = nn.ConvTranspose2d(2, 2, 4, 2, 1)
    x = torch.randn(4, 2, 8, 8)
    large, _ = conv_transpose_to_upsample_conv(layer, inputs=x, targets=layer(x) - layer.bias[:, None, None])
    small, _ = conv_transpose_to_upsample_conv(
        layer, inputs=1e-8 * x, targets=1e-8 * (layer(x) - layer.bias[:, None, None])
    )
    torch.testing.assert_close(large.conv.weight, small.conv.weight, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("more", [1, 2, 3, (0, 2)])
def test_an_exact_layer_stays_exact_with_a_larger_convolution(more):
    for crop in (dict(), dict(padding=2), dict(padding=(1, 4), output_padding=(1, 0))):
        layer = exact_layer(2, 3, stride=(2, 3), **crop)
        size = tuple(3 + m for m in (more if isinstance(more, tuple) else (more, more)))
        module, residual = conv_transpose_to_upsample_conv(layer, kernel_size=size)
        x = torch.randn(2, 2, 5, 4).double()
        assert residual < 1e-12
        torch.testing.assert_close(module(x), layer(x))


def test_large_kernels_are_exact_too():
    layer = layer_with(pair_kernel(torch.randn(130, 130).double(), (2, 2)), 2)
    assert conv_transpose_to_upsample_conv(layer)[1] < 1e-12


def test_the_residual_is_that_of_the_rounded_weights():
    layer = layer_with(integers(5, 4, 2, 2), 3, dilation=3).half()
    module, residual = conv_transpose_to_upsample_conv(layer, kernel_size=2)
    kernel = torch.zeros(5, 4, 4, 4).double()
    kernel[:, :, ::3, ::3] = layer.weight.detach()
    again = upsample_conv_to_conv_transpose(nn.Upsample(scale_factor=3), module.conv.double())
    assert residual == pytest.approx(((kernel - again.weight).norm() / kernel.norm()).item(), rel=1e-12)


def test_the_default_device_plays_no_part():
    layer = layer_with(torch.randn(4, 4), 2, padding=1)
    with torch.device("meta"):
        module, residual = conv_transpose_to_upsample_conv(layer)
        assert not is_upsample_conv(layer)
    assert module.conv.weight.device.type == "cpu" and residual > 0


# refusals


def test_only_2d_transposed_convolutions_are_taken():
    for layer in (nn.ConvTranspose1d(1, 1, 2, 2), nn.ConvTranspose3d(1, 1, 2, 2), nn.Conv2d(1, 1, 2), "layer"):
        for function in (is_upsample_conv, conv_transpose_to_upsample_conv):
            with pytest.raises(TypeError, match=r"layer must be a torch\.nn\.ConvTranspose2d, not"):
                function(layer)


@pytest.mark.parametrize("function", [is_upsample_conv, conv_transpose_to_upsample_conv])
def test_layers_that_cannot_be_judged_are_refused(function):
    broken = layer_with(torch.tensor([[1.0, math.nan], [1.0, 1.0]]), 2)
    for value in (math.nan, math.inf, -math.inf):
        with torch.no_grad():
            broken.weight[0, 0, 0, 1] = value
        with pytest.raises(ValueError, match="a weight with entries that are infinite or not a number"):
            function(broken)
    broken = nn.ConvTranspose2d(1, 1, 2, 2)
    nn.init.constant_(broken.bias, math.inf)
    with pytest.raises(ValueError, match="a bias with entries that are infinite"):
        function(broken)
    with pytest.raises(ValueError, match="complex weights"):
        function(nn.ConvTranspose2d(1, 1, 2, 2, dtype=torch.complex64))
    hooked = nn.ConvTranspose2d(1, 1, 2, 2)
    hooked.register_forward_hook(lambda *_: None)
    with pytest.raises(ValueError, match="forward hooks"):
        function(hooked)


def test_weights_that_do_not_fit_into_their_dtype_are_refused():
    layer = layer_with(torch.tensor([[6e4, -6e4, 6e4, 6e4]]), (1, 2)).half()
    with pytest.raises(ValueError, match=r"too large for torch\.float16"):
        conv_transpose_to_upsample_conv(layer)


def test_arguments_are_checked():
    layer, x = nn.ConvTranspose2d(2, 3, 4, 2, 1), torch.zeros(1, 2, 4, 4)
    for error, message, arguments in (
        (ValueError, "mode='linear' must be one of nearest, nearest-exact", dict(mode="linear")),
        (ValueError, "kernel_size=0", dict(kernel_size=0)),
        (TypeError, "kernel_size=2.5", dict(kernel_size=2.5)),
        (ValueError, "targets were given without inputs", dict(targets=x)),
        (TypeError, "inputs must be a torch.Tensor", dict(inputs=[1])),
        (TypeError, "targets must be a torch.Tensor", dict(inputs=x, targets=[1])),
        (ValueError, r"must have the shape \(N, 2, H, W\), not \(1, 3, 4, 4\)", dict(inputs=torch.zeros(1, 3, 4, 4))),
        (ValueError, r"inputs must have the shape", dict(inputs=torch.zeros(2, 4, 4))),
        (ValueError, r"inputs must have the shape", dict(inputs=torch.zeros(0, 2, 4, 4))),
        (ValueError, "inputs must be real and finite", dict(inputs=x / 0)),
        (ValueError, "inputs must be real and finite", dict(inputs=x + 1j)),
        (ValueError, "targets must be real and finite", dict(inputs=x, targets=layer(x) / 0)),
        (ValueError, r"targets must have the shape \(1, 3, 8, 8\) .*, not \(1, 2, 4, 4\)", dict(inputs=x, targets=x)),
    ):
        with pytest.raises(error, match=message):
            conv_transpose_to_upsample_conv(layer, **arguments)
    with pytest.raises(ValueError, match="padding=3 crops everything"):
        conv_transpose_to_upsample_conv(nn.ConvTranspose2d(1, 1, 4, 2, 3), inputs=torch.zeros(1, 1, 1, 1))
    for tolerance in (-1, math.nan):
        with pytest.raises(ValueError, match="tolerance="):
            is_upsample_conv(layer, tolerance)


def test_a_stride_that_nearest_upsampling_gets_wrong_is_refused():
    layer = layer_with(torch.ones(41, 41), 41)
    assert is_upsample_conv(layer)
    with pytest.raises(ValueError, match=r'a scale of 41 .* use mode="nearest-exact"'):
        conv_transpose_to_upsample_conv(layer)
    module, residual = conv_transpose_to_upsample_conv(layer, mode="nearest-exact")
    x = integers(1, 1, 2, 3)
    torch.testing.assert_close(module(x), layer(x))
    assert residual < 1e-12


def test_a_parametrized_weight_is_read_as_in_eval_mode():
    layer = nn.utils.parametrizations.weight_norm(layer_with(integers(2, 3, 4, 4), 2, padding=1))
    module, residual = conv_transpose_to_upsample_conv(layer)
    plain = layer_with(layer.weight.detach(), 2, padding=1)
    assert residual == pytest.approx(conv_transpose_to_upsample_conv(plain)[1])
    assert type(module.conv) is nn.Conv2d
