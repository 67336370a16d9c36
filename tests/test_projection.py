"""upconv.projection: decisions against polynomial division, residuals against least squares written out in full."""

import copy
import itertools
import math
import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from upconv import (
    conv_transpose_to_upsample_conv,
    is_upsample_conv,
    phase_gains,
    upsample_conv_to_conv_transpose,
)

thorough = settings(max_examples=150, deadline=None, derandomize=True)


CONVS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
CONV_TRANSPOSES = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
MODES = {1: ["linear"], 2: ["bilinear", "bicubic"], 3: ["trilinear"]}  # beside the nearest ones
DEEPER = [(axes, mode) for axes, modes in MODES.items() for mode in modes]


def layer_with(weight, stride, axes=2, **others):
    """A transposed convolution in float64 with this weight, (in, out / groups, *kernel) or (*kernel)."""
    weight = weight.reshape((1,) * (2 + axes - weight.dim()) + weight.shape).double()
    groups = others.get("groups", 1)
    others = {"bias": False, **others}
    kind = CONV_TRANSPOSES[axes - 1]
    layer = kind(weight.shape[0], groups * weight.shape[1], weight.shape[2:], stride, **others).double()
    with torch.no_grad():
        layer.weight.copy_(weight)
        if layer.bias is not None:
            layer.bias.copy_(torch.randint(-9, 10, layer.bias.shape))
    return layer


def integers(*shape):
    return torch.randint(-9, 10, shape).double()


def pair_kernel(small, stride):
    """The kernel of nearest upsampling and this convolution, by stamping: m taps become m + s - 1 on the last axes."""
    size = small.shape[-len(stride) :]
    kernel = small.new_zeros(*small.shape[: -len(stride)], *(m + s - 1 for m, s in zip(size, stride, strict=True)))
    for corner in itertools.product(*map(range, stride)):
        kernel[(..., *(slice(first, first + m) for first, m in zip(corner, size, strict=True)))] += small
    return kernel


def divisible(kernel, stride):
    """Whether every line of the kernel, taken as a polynomial, is divided by its axis's box without a remainder."""
    for axis, step in enumerate(stride):
        lines = kernel.movedim(axis, 0).clone()
        for power in reversed(range(step - 1, len(lines))):  # long division by 1 + y + ... + y**(step - 1)
            lines[power - step + 1 : power + 1] -= lines[power].clone()
        if lines.any():
            return False
    return True


# decisions


@st.composite
def layers(draw, axes):
    """Draw a kernel, perhaps a pair's, perhaps spoilt at one entry, in its rows, or everywhere but in its gains."""
    stride, dilation, size = (draw(st.tuples(*[st.integers(1, 3)] * axes)) for _ in range(3))
    count = math.prod(size)
    kernel = torch.tensor(draw(st.lists(st.integers(-3, 3), min_size=count, max_size=count))).double().reshape(size)
    spoil = draw(st.sampled_from(["no", "entry", "stripes", "corners", "no pair"]))
    if spoil != "no pair":
        kernel = pair_kernel(kernel, stride)
    place = tuple(draw(st.integers(0, n - 1)) for n in kernel.shape)
    if spoil == "entry":
        kernel[place] += 1
    elif spoil == "stripes":  # lines along the first axis stay even, those along others do not
        kernel[: stride[0], *place[1:]] += 1
    elif spoil == "corners":  # all gains stay as they are
        kernel[place] += 1
        kernel[tuple(at % s for at, s in zip(place, stride, strict=True))] -= 1
    return kernel, stride, dilation, spoil


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_the_decision_is_that_of_polynomial_division(axes):
    seen = {True: 0, False: 0}

    @settings(thorough, max_examples=1100)
    @given(layers(axes))
    def decide(case):
        kernel, stride, dilation, spoil = case
        spread = kernel.new_zeros([(size - 1) * d + 1 for size, d in zip(kernel.shape, dilation, strict=True)])
        spread[tuple(slice(None, None, d) for d in dilation)] = kernel
        layer = layer_with(kernel, stride, axes, dilation=dilation)
        is_pair = is_upsample_conv(layer, tolerance=0)
        assert is_pair == divisible(spread, stride)
        assert is_pair or not (spoil == "no" and set(dilation) == {1})
        gains = phase_gains(spread[None, None], stride)
        even = bool((gains == gains.flatten()[0]).all())
        assert even == is_pair if axes == 1 else even or not is_pair  # the gains decide on one axis, not on more
        seen[is_pair] += 1

    decide()
    assert sum(seen.values()) >= 1000 and min(seen.values()) > 200, seen


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


def drawn_layers(count, axes, seed=0):
    """Yield layers of any setting and an input of each: pair kernels where the flag is set, others elsewhere."""
    rng = random.Random(seed)
    highest = (4, 5, 3, 4, 6) if axes < 3 else (3, 3, 2, 2, 3)
    while count:
        groups = rng.choice([1, 1, 2, 3])
        channels, outputs = groups * rng.randint(1, 2), rng.randint(1, 2)
        stride, padding, dilation, size, pixels = (
            [rng.randint(low, high) for _ in range(axes)] for low, high in zip((1, 0, 1, 1, 1), highest, strict=True)
        )
        exact = rng.random() < 0.5
        if exact:
            dilation = [1] * axes
            kernel = pair_kernel(integers(channels, outputs, *size), stride)
        else:
            kernel = integers(channels, outputs, *size)
        output_padding = [rng.randrange(max(both)) for both in zip(stride, dilation, strict=True)]
        layer = layer_with(
            kernel,
            stride,
            axes,
            padding=padding,
            dilation=dilation,
            output_padding=output_padding,
            groups=groups,
            bias=rng.random() < 0.5,
        )
        x = integers(2, channels, *pixels)
        try:
            layer(x)
        except RuntimeError:
            continue
        yield layer, x, exact
        count -= 1


@pytest.mark.parametrize("axes, count", [(1, 400), (2, 400), (3, 200)])
def test_whenever_the_kernel_is_a_pair_the_module_is_the_layer(axes, count):
    seen = {True: 0, False: 0}
    for layer, x, built in drawn_layers(count, axes):
        is_pair = is_upsample_conv(layer, tolerance=0)
        assert is_pair or not built
        for data in ({}, {"inputs": x}):
            module, residual = conv_transpose_to_upsample_conv(layer, **data)
            assert type(module.conv) is CONVS[axes - 1]
            output = module(x)
            assert output.shape == layer(x).shape
            if is_pair:
                assert residual < 1e-12
                torch.testing.assert_close(output, layer(x), rtol=1e-12, atol=1e-10)
        seen[is_pair] += 1
    assert min(seen.values()) > count / 4, seen


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


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_an_input_without_a_batch_axis_is_refused_as_upsample_would_misread_it(axes):
    module, _ = conv_transpose_to_upsample_conv(CONV_TRANSPOSES[axes - 1](2, 3, 4, 2, 1))
    assert module.upsample.scale_factor == (2.0,) * axes
    with pytest.raises(ValueError, match="same number of spatial dimensions"):
        module(torch.zeros(2, *(4,) * axes))


# the projection


def least_residual(kernel, stride, size, reach):
    """By numpy.linalg.lstsq over all taps at once, at every position up to `reach` beyond the kernel."""
    stride = (stride,) * kernel.dim() if isinstance(stride, int) else stride
    spans = [m + s - 1 for m, s in zip(size, stride, strict=True)]
    shifts = [range(min(0, k - span), max(0, k - span) + 1) for k, span in zip(kernel.shape, spans, strict=True)]
    target = F.pad(kernel, (reach,) * (2 * kernel.dim())).flatten().numpy()
    found = []
    for shift in itertools.product(*shifts):
        columns = []
        for index in range(math.prod(size)):
            small = torch.zeros(size).double()
            small.view(-1)[index] = 1
            canvas = torch.zeros([k + 2 * reach for k in kernel.shape]).double()
            canvas[tuple(slice(reach + a, reach + a + span) for a, span in zip(shift, spans, strict=True))] = (
                pair_kernel(small, stride)
            )
            columns.append(canvas.flatten().numpy())
        design = np.stack(columns, 1)
        fit = design @ np.linalg.lstsq(design, target, rcond=None)[0]
        found.append(np.linalg.norm(target - fit) / np.linalg.norm(target))
    return min(found)


UNEVEN = [(2, 3, None), (5, 3, 4), (6, (2, 3), (2, 5)), (3, 4, 2)]
SIGNALS = [((16,), (8,), None), ((16,), 8, 3), ((3,), 2, 5), ((7,), 3, 1), ((2,), 4, 2)]
VOLUMES = [((4, 4, 4), 2, None), ((3, 4, 2), (2, 2, 1), 2), ((4, 2, 3), 2, (1, 3, 2))]


@pytest.mark.parametrize(
    "extent, stride, size",
    [(4, 2, 3), (4, 2, 1), (4, 2, 2), (4, 2, 5), (3, 2, None), (2, 2, 2), *UNEVEN, *SIGNALS, *VOLUMES],
)
def test_the_residual_is_the_least_there_is(extent, stride, size):
    extent = extent if isinstance(extent, tuple) else (extent, extent)
    reach = 8 if len(extent) < 3 else 4
    for _ in range(5 if len(extent) < 3 else 2):
        kernel = torch.randn(extent).double()
        layer = layer_with(kernel, stride, len(extent))
        module, residual = conv_transpose_to_upsample_conv(layer, kernel_size=size)
        least = least_residual(kernel, stride, module.conv.kernel_size, reach)
        assert residual == pytest.approx(least, abs=1e-12)


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("stride, size", [(2, 1), (2, 3), (3, 3), (4, 2)])
def test_random_kernels_have_the_residual_of_the_formula(stride, size, axes):
    extent, channels = size + stride - 1, (200, 60, 30)[axes - 1]
    layer = layer_with(torch.randn(channels, channels, *(extent,) * axes), stride, axes)
    residual = conv_transpose_to_upsample_conv(layer)[1]
    assert residual**2 == pytest.approx(1 - (size / extent) ** axes, abs=0.01)
    text = " ".join(conv_transpose_to_upsample_conv.__doc__.split())
    assert "1 - (k / (k + s - 1))**n" in text
    assert (stride, size) != (2, 3) or f"{1 - 0.75**axes:.4g}"[:5] in text


def test_the_central_position_is_taken_among_equals():
    module, _ = conv_transpose_to_upsample_conv(layer_with(torch.randn(4, 4), 2, padding=1), kernel_size=5)
    assert module.conv.padding == (2, 2) and not hasattr(module, "crop")
    module, _ = conv_transpose_to_upsample_conv(layer_with(torch.randn(2, 2), 2), kernel_size=2)
    assert module.crop.padding == (-1, 0, -1, 0)  # as if one row and column had been padded at the end only


@pytest.mark.parametrize("axes, mode", DEEPER)
@pytest.mark.parametrize("stride", [(2, 2, 2), (3, 3, 3), (2, 1, 2), (4, 3, 1)])
def test_interpolated_pairs_come_back_borders_included(axes, mode, stride):
    stride = stride[:axes]
    conv = CONVS[axes - 1](2, 3, 3, bias=False).double()
    kernel = upsample_conv_to_conv_transpose(nn.Upsample(scale_factor=stride, mode=mode), conv)[-1].weight.detach()
    for padding, output_padding in ((0, 0), (3, 0), ((4, 1, 2)[:axes], (1, 0, 0)[:axes])):
        layer = layer_with(kernel, stride, axes, padding=padding, output_padding=output_padding)
        module, residual = conv_transpose_to_upsample_conv(layer, kernel_size=3, mode=mode)
        assert residual < 1e-12
        torch.testing.assert_close(module.conv.weight, conv.weight)
        x = torch.randn(2, 2, *(4, 5, 6)[:axes]).double()
        torch.testing.assert_close(module(x), layer(x))


@pytest.mark.parametrize("axes, mode", [*DEEPER, *((axes, "nearest-exact") for axes in (1, 2, 3))])
def test_other_modes_give_the_size_and_their_own_residual(axes, mode):
    for layer, x, _ in drawn_layers(60, axes, seed=1):
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


@pytest.mark.parametrize("axes", [1, 3])
def test_signals_and_volumes_are_fitted_too(axes):
    kinds = ["nearest", *MODES[axes]]
    stride, padding, output_padding, size = ((3, 2, 2)[:axes], (1, 2, 0)[:axes], (1, 0, 0)[:axes], (5, 3, 4)[:axes])
    for mode, groups, kernel_size in itertools.product(kinds, (1, 2), (None, 2)):
        weight = torch.randn(2 * groups, 1, *(4, 3, 3)[:axes])
        others = dict(padding=padding, output_padding=output_padding, groups=groups, bias=groups == 1)
        layer, x = layer_with(weight, stride, axes, **others), torch.randn(3, 2 * groups, *size).double()
        for targets in (None, torch.randn_like(layer(x))):
            module, residual = conv_transpose_to_upsample_conv(layer, kernel_size, mode, inputs=x, targets=targets)
            wanted = layer(x) if targets is None else targets
            assert residual == pytest.approx(explicit_residual(layer, kernel_size, x, wanted, mode), abs=1e-9)
            assert residual == pytest.approx(((module(x) - wanted).norm() / wanted.norm()).item(), abs=1e-12)


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_many_images_are_fitted_in_pieces(monkeypatch, axes):
    layer = layer_with(torch.randn(3, 2, *(4,) * axes), 2, axes, padding=1, bias=True)
    x = torch.randn(7, 3, *(5,) * axes).double()
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


@pytest.mark.parametrize("function", [is_upsample_conv, conv_transpose_to_upsample_conv])
def test_transposed_convolutions_of_one_to_three_axes_are_taken_and_nothing_else(function):
    for kind in CONV_TRANSPOSES:
        function(kind(1, 1, 2, 2))
    for layer in (*(kind(1, 1, 2) for kind in CONVS), nn.Upsample(scale_factor=2), "layer"):
        with pytest.raises(TypeError, match=r"layer must be a .*ConvTranspose2d or torch\.nn\.ConvTranspose3d, not"):
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
        (ValueError, r"the shape \(N, 2, \*size\) .* not \(1, 3, 4, 4\)", dict(inputs=torch.zeros(1, 3, 4, 4))),
        (ValueError, r"with 4 dimensions, not \(1, 2, 4\)", dict(inputs=torch.zeros(1, 2, 4))),
        (ValueError, r"inputs must have the shape", dict(inputs=torch.zeros(2, 4, 4))),
        (ValueError, r"inputs must have the shape", dict(inputs=torch.zeros(0, 2, 4, 4))),
        (ValueError, "inputs must be real and finite", dict(inputs=x / 0)),
        (ValueError, "inputs must be real and finite", dict(inputs=x + 1j)),
        (ValueError, "targets must be real and finite", dict(inputs=x, targets=layer(x) / 0)),
        (ValueError, r"targets must have the shape \(1, 3, 8, 8\) .*, not \(1, 2, 4, 4\)", dict(inputs=x, targets=x)),
    ):
        with pytest.raises(error, match=message):
            conv_transpose_to_upsample_conv(layer, **arguments)
    for axes, mode in ((1, "bilinear"), (1, "bicubic"), (2, "trilinear"), (3, "bilinear"), (3, "bicubic")):
        with pytest.raises(ValueError, match=f"mode='{mode}' must be one of nearest, nearest-exact, {MODES[axes][0]}"):
            conv_transpose_to_upsample_conv(CONV_TRANSPOSES[axes - 1](1, 1, 2, 2), mode=mode)
    with pytest.raises(ValueError, match=r"kernel_size=\(2, 2\) has 2 entries"):
        conv_transpose_to_upsample_conv(nn.ConvTranspose3d(1, 1, 2, 2), kernel_size=(2, 2))
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
