"""upconv.init: a learned upsampling starts as a plain one, in one, two and three dimensions."""

import itertools
import math
import random

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from upconv import bilinear_, icnr_, upsample_to_conv_transpose
from upconv.layers import PixelShuffle

LINEAR = {1: "linear", 2: "bilinear", 3: "trilinear"}
AXES = pytest.mark.parametrize("axes", [1, 2, 3])


def layer_of(kind, axes, *arguments, **settings):
    """Make a layer such as Conv2d, for a number of axes, of integers in float64."""
    layer = getattr(nn, f"{kind}{axes}d")(*arguments, **settings).double()
    with torch.no_grad():
        for parameter in layer.parameters():
            integers_(parameter)
    return layer


def integers_(tensor):
    return tensor.copy_(torch.randint(-9, 10, tensor.shape))


class Recorder:
    """An initialiser that fills with integers and keeps what it drew."""

    def __init__(self, returns=True):
        self.drawn, self.returns = [], returns

    def __call__(self, tensor):
        self.drawn.append(integers_(tensor).clone())
        return tensor if self.returns else None


@AXES
def test_icnr_starts_as_nearest_upsampling_of_a_smaller_convolution(axes):
    rng = random.Random(axes)
    for _ in range(60):
        scale = tuple(rng.randint(1, 4) for _ in range(axes))
        conv = layer_of("Conv", axes, 3, 2 * math.prod(scale), tuple(rng.randint(1, 3) for _ in scale), padding=1)
        small = layer_of("Conv", axes, 3, 2, conv.kernel_size, padding=1)
        recorder = Recorder()
        icnr_(conv.weight, scale, recorder)
        with torch.no_grad():
            small.weight.copy_(recorder.drawn[0])
            conv.bias.copy_(small.bias.repeat_interleave(math.prod(scale)))
        x = torch.randint(-9, 10, (2, 3, *(rng.randint(2, 5) for _ in scale))).double()
        expected = nn.Upsample(scale_factor=scale)(small(x))
        assert torch.equal(PixelShuffle(*scale)(conv(x)), expected)
        if axes == 2 and len(set(scale)) == 1:
            assert torch.equal(nn.PixelShuffle(scale[0])(conv(x)), expected)


def test_icnr_draws_one_kernel_for_each_output_channel():
    for scale, shape in ((3, (4, 1, 3)), ((3, 3), (4, 2, 2)), ((1, 9, 1), (4, 1, 3, 2)), (9, (4, 3))):
        recorder = Recorder()
        weight = icnr_(torch.empty(5 * 9, *shape), scale, recorder)
        assert [kernel.shape for kernel in recorder.drawn] == [(5, *shape)]
        assert torch.equal(weight.unflatten(0, (5, 9)), recorder.drawn[0][:, None].expand(-1, 9, *shape))


@AXES
def test_bilinear_starts_as_interpolation_of_a_1x1_convolution_away_from_the_border(axes):
    for stride in itertools.product((1, 2, 3, 4, 5) if axes < 3 else (1, 2, 3), repeat=axes):
        kernel_size = tuple(2 * s - s % 2 for s in stride)
        padding = tuple((k - s) // 2 for k, s in zip(kernel_size, stride, strict=True))
        layer = layer_of("ConvTranspose", axes, 3, 2, kernel_size, stride, padding)
        one = layer_of("Conv", axes, 3, 2, 1)
        recorder = Recorder()
        bilinear_(layer.weight, stride, recorder)
        assert [kernel.shape for kernel in recorder.drawn] == [one.weight.shape]
        with torch.no_grad():
            one.weight.copy_(recorder.drawn[0])
            one.bias.copy_(layer.bias)
        x = torch.randn(2, 3, *(6, 5, 4)[:axes], dtype=torch.float64)
        expected = F.interpolate(one(x), scale_factor=stride, mode=LINEAR[axes], align_corners=False)
        inside = (..., *(slice(s, -s) for s in stride))
        assert layer(x).shape == expected.shape
        torch.testing.assert_close(layer(x)[inside], expected[inside], rtol=1e-12, atol=1e-12)


def test_bilinear_in_two_dimensions_draws_the_values_of_the_books_tables():
    for stride in range(1, 8):
        size, recorder = 2 * stride - stride % 2, Recorder()
        weight = bilinear_(torch.empty(4, 3, size, size), stride, recorder)
        tent = 1 - (torch.arange(size) - (size - 1) / 2).abs() / stride
        assert torch.equal(weight, recorder.drawn[0].transpose(0, 1) * torch.outer(tent, tent))


@AXES
def test_bilinear_of_ones_for_each_channel_is_upsampling_alone(axes):
    scale = (4, 3, 2)[:axes]
    weight = torch.empty(5, 1, *(2 * s - s % 2 for s in scale), dtype=torch.float64)
    alone = upsample_to_conv_transpose(nn.Upsample(scale_factor=scale, mode=LINEAR[axes]), 5)
    torch.testing.assert_close(bilinear_(weight, scale, nn.init.ones_), alone.conv_transpose.weight.double())


@AXES
@pytest.mark.parametrize("initialise, kind", [(icnr_, "Conv"), (bilinear_, "ConvTranspose")])
def test_initialisers_work_in_place_and_leave_no_graph(initialise, kind, axes):
    last = {2: torch.channels_last, 3: torch.channels_last_3d}.get(axes, torch.contiguous_format)
    weight = getattr(nn, f"{kind}{axes}d")(4, 8, 4, dtype=torch.bfloat16).to(memory_format=last).weight
    strides, before = weight.stride(), weight.detach().clone()
    assert initialise(weight, 2) is weight
    assert weight.is_leaf and weight.requires_grad and weight.dtype == torch.bfloat16
    assert weight.stride() == strides and weight.is_contiguous(memory_format=last)
    assert (weight != before).float().mean() > 0.9
    meta = torch.empty(weight.shape, device="meta")
    assert initialise(meta, 2) is meta


@pytest.mark.parametrize("initialise", [icnr_, bilinear_])
def test_an_initializer_may_return_nothing(initialise):
    recorder = Recorder(returns=False)
    weight = initialise(torch.full((4, 4, 4), 0.5), 2, recorder)
    assert len(recorder.drawn) == 1 and weight[0, 0, 1] % 0.25 == 0 and (weight != 0.5).any()


def test_a_parametrized_weight_is_assigned():
    conv = nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 8, 3, padding=1, bias=False))
    conv.weight = icnr_(conv.weight, 2)
    output = nn.PixelShuffle(2)(conv(torch.randn(1, 3, 4, 4)))
    torch.testing.assert_close(output, F.interpolate(output[..., ::2, ::2], scale_factor=2))


def test_their_draws_have_the_scale_of_the_smaller_layer():
    weight = icnr_(torch.empty(64 * 4, 50, 3, 3), 2)
    assert weight.std().item() == pytest.approx((2 / (50 * 9)) ** 0.5, rel=0.05)
    weight = bilinear_(torch.empty(50, 600, 4), 2)
    assert weight.sum(2).div(2).std().item() == pytest.approx((2 / 50) ** 0.5, rel=0.05)


REFUSED = {
    "phases": (icnr_, (8, 3, 3, 3), 3, r"\(out_channels \* 9, in_channels.* scale=3, not \(8, 3, 3, 3\)"),
    "phases of two scales": (icnr_, (8, 3, 3, 3), (2, 3), r"out_channels \* 6, .* scale=\(2, 3\), not \(8,"),
    "phases in 3-D": (icnr_, (4, 3, 3, 3, 3), 2, r"out_channels \* 8, .* scale=2, not \(4,"),
    "a bias": (icnr_, (4,), 2, r"2 axes of channels and 1 to 3 others, not \(4,\)"),
    "a linear layer": (bilinear_, (4, 4), 2, r"1 to 3 others, not \(4, 4\)"),
    "4-D": (bilinear_, (4,) * 6, 2, r"1 to 3 others, not \(4, 4, 4, 4, 4, 4\)"),
    "three scales": (icnr_, (8, 3, 3, 3), (2, 2, 2), r"scale=\(2, 2, 2\) has 3 entries and must be .* 2 such ints"),
    "one stride of two": (bilinear_, (2, 2, 4, 4), (2,), r"stride=\(2,\) has 1 entries"),
    "scale 0": (icnr_, (4, 3, 3, 3), 0, "scale=0 must be an int of at least 1"),
    "kernel": (bilinear_, (2, 2, 4, 4), 3, r"5, 5\) for stride=3.* 2 \* stride - stride % 2; it has \(2, 2, 4, 4\)"),
    "kernel of two": (bilinear_, (2, 2, 4, 4), (2, 3), r"channels, 4, 5\) for stride=\(2, 3\)"),
    "type bool": (bilinear_, (2, 2, 4, 4), True, "stride=True must be an int"),
    "type float": (icnr_, (4, 3, 3), 2.0, r"scale=2\.0 must be an int"),
    "type tensor": (icnr_, (4, 3, 3), torch.tensor(2), r"scale=tensor\(2\) must be an int"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused(case):
    initialise, shape, scale, message = REFUSED[case]
    with pytest.raises(TypeError if case.startswith("type") else ValueError, match=message):
        initialise(torch.empty(shape), scale)


@pytest.mark.parametrize("initialise", [icnr_, bilinear_])
def test_a_layer_is_no_tensor(initialise):
    with pytest.raises(TypeError, match=r"torch\.Tensor, such as a layer's weight, not Conv2d"):
        initialise(nn.Conv2d(4, 4, 4), 2)
