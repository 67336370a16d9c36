"""upconv.layers: equal to the original layers at every pixel, over settings that the tests draw themselves."""

import copy
import io
import math
import operator
import random
import warnings
from collections import Counter

import pytest
import torch
from torch import nn

from upconv import conv_transpose_to_subpixel, upsample_conv_to_conv_transpose, upsample_conv_to_subpixel

PAIR_REWRITES = [upsample_conv_to_conv_transpose, upsample_conv_to_subpixel]
PADDING_MODES = ["zeros", "replicate", "circular", "reflect"]
CATEGORIES = {
    "dilation > 1",
    "dilation not coprime to the stride",
    "groups > 1",
    "unequal H and W",
    "kernel smaller than stride",
    "padding > K - 1",
}


@pytest.fixture(autouse=True)
def quiet():
    """Leave out PyTorch's note on padding="same" with even kernels."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Using padding='same'")
        yield


def fill_with_integers(*modules):
    with torch.no_grad():
        for module in modules:
            for parameter in module.parameters():
                parameter.copy_(torch.randint(-9, 10, parameter.shape))


def integer_input(channels, rng, low=1):
    return torch.randint(-9, 10, (2, channels, rng.randint(low, 6), rng.randint(low, 6))).double()


def kinds_of(kernel_size, stride, padding, dilation, groups):
    """List the categories that a setting belongs to."""
    extents = [d * (k - 1) for d, k in zip(dilation, kernel_size, strict=True)]
    return [
        name
        for name, holds in {
            "dilation > 1": max(dilation) > 1,
            "dilation not coprime to the stride": any(
                math.gcd(d, s) > 1 for d, s in zip(dilation, stride, strict=True)
            ),
            "groups > 1": groups > 1,
            "unequal H and W": any(a != b for a, b in (kernel_size, stride, padding, dilation)),
            "kernel smaller than stride": any(k < s for k, s in zip(kernel_size, stride, strict=True)),
            "padding > K - 1": any(p > e for p, e in zip(padding, extents, strict=True)),
        }.items()
        if holds
    ]


def two(rng, low, high):
    return rng.randint(low, high), rng.randint(low, high)


def drawn_conv_transposes(count):
    """Yield (layer, input, categories) for settings that PyTorch runs."""
    rng = random.Random(0)
    while count:
        groups = rng.choice([1, 1, 2, 3])
        channels = groups * rng.randint(1, 2), groups * rng.randint(1, 2)
        kernel_size, stride, dilation, padding = two(rng, 1, 7), two(rng, 1, 5), two(rng, 1, 4), two(rng, 0, 8)
        output_padding = tuple(rng.randrange(max(s, d)) for s, d in zip(stride, dilation, strict=True))
        layer = nn.ConvTranspose2d(
            *channels, kernel_size, stride, padding, output_padding, groups, rng.random() < 0.7, dilation
        ).double()  # fmt: skip
        fill_with_integers(layer)
        x = integer_input(channels[0], rng)
        try:
            layer(x)
        except RuntimeError:
            continue
        kinds = kinds_of(kernel_size, stride, padding, dilation, groups)
        yield layer, x, kinds + ["output_padding > 0"] * (max(output_padding) > 0)
        count -= 1


def drawn_pairs(count, modes):
    """Yield (upsample, conv, input, categories) for settings that PyTorch runs."""
    rng = random.Random(1)
    while count:
        groups = rng.choice([1, 1, 2, 3])
        channels = groups * rng.randint(1, 2), groups * rng.randint(1, 2)
        kernel_size, scale, dilation = two(rng, 1, 7), two(rng, 1, 5), two(rng, 1, 4)
        padding = tuple(rng.choice([0, rng.randint(1, 3), rng.randint(1, 8)]) for _ in "HW")
        given = rng.choice([padding, padding, padding, "same", "valid"])
        upsample = nn.Upsample(scale_factor=scale, mode=rng.choice(modes))
        conv = nn.Conv2d(
            *channels, kernel_size, 1, given, dilation, groups, rng.random() < 0.7, rng.choice(PADDING_MODES)
        ).double()  # fmt: skip
        fill_with_integers(conv)
        x = integer_input(channels[0], rng)
        try:
            conv(upsample(x))
        except (RuntimeError, ValueError):
            continue
        yield upsample, conv, x, kinds_of(kernel_size, scale, padding if given == padding else (0, 0), dilation, groups)
        count -= 1


# equal at every pixel


def test_subpixel_form_equals_every_conv_transpose_bit_for_bit():
    seen = Counter()
    for layer, x, kinds in drawn_conv_transposes(1100):
        rewritten = conv_transpose_to_subpixel(layer)
        assert torch.equal(rewritten(x), layer(x)), layer
        seen.update(kinds)
    assert set(seen) == CATEGORIES | {"output_padding > 0"}
    assert min(seen.values()) >= 200, seen


def deepest_frame(mode, padding_mode, scale):
    """Give how many pixels of padding are still exact on an axis."""
    nearest = mode.startswith("nearest")
    if scale == 1 or (nearest and padding_mode != "reflect") or (mode == "bilinear" and padding_mode == "replicate"):
        return math.inf
    if padding_mode == "reflect" and mode != "bicubic":
        return scale - 1 if nearest else (scale - 1) // 2
    return 0


@pytest.mark.parametrize("modes, rounding", [(("nearest", "nearest-exact"), 0), (("bilinear", "bicubic"), 1e-10)])
@pytest.mark.parametrize("rewrite", PAIR_REWRITES)
def test_every_pair_is_rewritten_where_that_is_exact_and_otherwise_refused(rewrite, modes, rounding):
    seen = Counter()
    for upsample, conv, x, kinds in drawn_pairs(1300, modes):
        left, right, top, bottom = conv._reversed_padding_repeated_twice
        frames, scale = (max(top, bottom), max(left, right)), map(int, upsample.scale_factor)
        deepest = [deepest_frame(upsample.mode, conv.padding_mode, axis) for axis in scale]
        if exact := all(map(operator.le, frames, deepest)):
            assert ((rewrite(upsample, conv)(x) - conv(upsample(x))).abs() <= rounding).all(), (upsample, conv)
            seen.update(kinds)
        else:
            depth = next(frame - most for frame, most in zip(frames, deepest, strict=True) if frame > most)
            with pytest.raises(ValueError, match=f"a frame {depth} pixels? deep .* would not be equal"):
                rewrite(upsample, conv)
        seen[upsample.mode, conv.padding_mode if any(frames) else "unpadded", exact] += 1
    assert min(seen[kind] for kind in CATEGORIES) >= 50, seen
    assert min(seen.values()) >= 3 and len(seen) == len(CATEGORIES) + (12 if rounding == 0 else 17), seen


@pytest.mark.parametrize("rewrite", PAIR_REWRITES)
def test_an_upsample_with_a_size_is_rewritten_for_that_input_size(rewrite):
    upsample, conv = nn.Upsample(size=(8, 15)), nn.Conv2d(2, 3, 3, padding=1).double()
    fill_with_integers(conv)
    x = torch.randint(-9, 10, (2, 2, 4, 5)).double()
    rewritten = rewrite(upsample, conv, input_size=(4, 5))
    assert torch.equal(rewritten(x), conv(upsample(x)))
    with pytest.raises(AssertionError, match="another size than the input_size that this module was made for"):
        rewritten(torch.zeros(1, 2, 4, 6).double())
    square = torch.randint(-9, 10, (1, 2, 4, 4)).double()
    assert torch.equal(rewrite(nn.Upsample(size=12), conv, input_size=4)(square), conv(nn.Upsample(size=12)(square)))


def test_a_transposed_convolution_takes_inputs_without_a_batch_axis():
    for layer, x, _ in drawn_conv_transposes(50):
        assert torch.equal(conv_transpose_to_subpixel(layer)(x[0]), layer(x[0]))


# ordinary modules


def examples():
    """Yield (name, rewritten, original, input) for one of each kind."""
    torch.manual_seed(0)
    layer = nn.ConvTranspose2d(4, 6, (3, 4), (2, 3), 1, (1, 0), groups=2)
    yield "subpixel, unequal strides", conv_transpose_to_subpixel(layer), layer, torch.randn(2, 4, 5, 3)
    for name, upsample, conv in (
        ("nearest", nn.Upsample(scale_factor=2), nn.Conv2d(4, 6, 3, padding=1)),
        ("circular", nn.Upsample(scale_factor=3), nn.Conv2d(4, 6, 3, padding=2, padding_mode="circular")),
        ("bicubic", nn.Upsample(scale_factor=2, mode="bicubic"), nn.Conv2d(4, 6, 3)),
    ):
        for rewrite in PAIR_REWRITES:
            pair = nn.Sequential(upsample, conv)
            yield f"{name}, {rewrite.__name__}", rewrite(upsample, conv), pair, torch.randn(2, 4, 5, 3)


EXAMPLES = pytest.mark.parametrize("rewritten, original, x", [pytest.param(*e, id=name) for name, *e in examples()])


@EXAMPLES
def test_gradients_of_the_input_are_the_originals(rewritten, original, x):
    one, other = x.clone().requires_grad_(), x.clone().requires_grad_()
    weights = torch.randn(original(x).shape)
    (rewritten(one) * weights).sum().backward()
    (original(other) * weights).sum().backward()
    torch.testing.assert_close(one.grad, other.grad)


@EXAMPLES
def test_results_train_copy_load_and_move(rewritten, original, x):
    twin, other = copy.deepcopy(rewritten), copy.deepcopy(rewritten)
    before = twin(x)
    optimizer = torch.optim.SGD(twin.parameters(), lr=0.01)
    twin(x).square().mean().backward()
    optimizer.step()
    assert twin(x).square().mean() < before.square().mean()
    assert torch.equal(rewritten(x), before)
    other.load_state_dict(twin.state_dict())
    assert torch.equal(other(x), twin(x))
    assert other.to("meta")(x.to("meta")).device.type == "meta"


@EXAMPLES
def test_results_go_through_export_and_compile(rewritten, original, x):
    expected = rewritten(x)
    exported = torch.export.export(rewritten.eval(), (x,)).module()
    torch.testing.assert_close(exported(x), expected)
    torch._dynamo.reset()
    torch.testing.assert_close(torch.compile(rewritten, backend="aot_eager")(x), expected)


@EXAMPLES
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_results_run_in_onnxruntime(rewritten, original, x):
    import onnxruntime  # noqa: PLC0415 - slow to import

    buffer = io.BytesIO()
    torch.onnx.export(rewritten.eval(), (x,), dynamo=True, verbose=False).save(buffer)
    session = onnxruntime.InferenceSession(buffer.getvalue(), providers=["CPUExecutionProvider"])
    (output,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    torch.testing.assert_close(torch.from_numpy(output), original(x).detach(), rtol=1e-4, atol=1e-5)


def test_dtype_and_flags_are_the_given_layers():
    conv = nn.Conv2d(2, 2, 3).to(torch.bfloat16).eval()
    conv.bias.requires_grad_(False)
    layer = nn.ConvTranspose2d(2, 2, 3, 2, bias=False).to(torch.float16)
    layer.weight.requires_grad_(False)
    for rewrite in PAIR_REWRITES:
        rewritten = rewrite(nn.Upsample(scale_factor=2), conv)
        assert [p.dtype for p in rewritten.parameters()] == [torch.bfloat16] * 2
        assert [p.requires_grad for p in rewritten.parameters()] == [True, False]
        assert not any(module.training for module in rewritten.modules())
    rewritten = conv_transpose_to_subpixel(layer)
    assert [(p.dtype, p.requires_grad) for p in rewritten.parameters()] == [(torch.float16, False)]
    assert all(module.training for module in rewritten.modules())


def test_the_given_layers_and_the_random_state_are_untouched():
    upsample, conv, layer = nn.Upsample(scale_factor=2), nn.Conv2d(2, 2, 3, padding=1), nn.ConvTranspose2d(2, 2, 3, 2)
    before = copy.deepcopy((conv.state_dict(), layer.state_dict()))
    state = torch.get_rng_state()
    results = [rewrite(upsample, conv) for rewrite in PAIR_REWRITES] + [conv_transpose_to_subpixel(layer)]
    assert torch.equal(torch.get_rng_state(), state)
    with torch.no_grad():
        for parameter in (p for result in results for p in result.parameters()):
            parameter.zero_()
    for values, module in zip(before, (conv, layer), strict=True):
        assert all(torch.equal(values[name], module.state_dict()[name]) for name in values)
        assert not module._forward_pre_hooks


@pytest.mark.parametrize("name", ["weight_norm", "spectral_norm", "orthogonal"])
def test_parametrized_weights_are_read_as_in_eval_mode_and_left_alone(name):
    parametrization = getattr(nn.utils.parametrizations, name)
    conv, layer = parametrization(nn.Conv2d(2, 2, 3, padding=1)), parametrization(nn.ConvTranspose2d(2, 2, 3, 2))
    before = copy.deepcopy((conv.state_dict(), layer.state_dict()))
    pair, single = upsample_conv_to_subpixel(UP, conv), conv_transpose_to_subpixel(layer)
    for values, module in zip(before, (conv, layer), strict=True):
        assert all(torch.equal(values[key], module.state_dict()[key]) for key in values)
    x = torch.randn(1, 2, 4, 4)
    torch.testing.assert_close(pair(x), conv.eval()(UP(x)))
    torch.testing.assert_close(single(x), layer.eval()(x))
    assert all(parameter.requires_grad for parameter in pair.parameters())


def test_sums_of_taps_are_rounded_once():
    conv = nn.Conv2d(1, 1, 5, bias=False).to(torch.bfloat16)
    rewritten = upsample_conv_to_conv_transpose(nn.Upsample(scale_factor=4), conv)
    unrounded = upsample_conv_to_conv_transpose(nn.Upsample(scale_factor=4), copy.deepcopy(conv).double())
    assert torch.equal(rewritten.weight, unrounded.weight.to(torch.bfloat16))


@pytest.mark.parametrize("device, default", [("meta", "cpu"), ("cpu", "meta")])
@pytest.mark.parametrize("rewrite", PAIR_REWRITES)
def test_the_device_is_the_given_layers_and_not_the_default(rewrite, device, default):
    with torch.device(default):
        rewritten = rewrite(nn.Upsample(scale_factor=2, mode="bicubic"), nn.Conv2d(2, 2, 3, device=device))
        assert {parameter.device.type for parameter in rewritten.parameters()} == {device}


def test_equal_strides_use_the_stock_pixel_shuffle_and_no_stride_none():
    assert type(conv_transpose_to_subpixel(nn.ConvTranspose2d(2, 2, 3, 2)).shuffle) is nn.PixelShuffle
    assert not hasattr(conv_transpose_to_subpixel(nn.ConvTranspose2d(2, 2, 3)), "shuffle")


def test_an_input_may_be_named():
    rewritten = upsample_conv_to_conv_transpose(UP, CONV)
    assert rewritten(input=torch.zeros(1, 2, 4, 4)).shape == (1, 2, 8, 8)


# refusals


CONV, UP = nn.Conv2d(2, 2, 3, padding=1), nn.Upsample(scale_factor=2)


def hooked(register):
    conv = nn.Conv2d(2, 2, 3)
    getattr(conv, register)(lambda *arguments: None)
    return conv


class Doubling(nn.Conv2d):
    """A convolution that is none."""

    def forward(self, x):
        return 2 * super().forward(x)


class Padded(nn.Conv2d):
    """As image models have them: the forward of Conv2d, but not its convolution."""

    def _conv_forward(self, x, weight, bias):
        return super()._conv_forward(nn.functional.pad(x, (1, 1, 1, 1)), weight, bias)


class Larger(nn.Upsample):
    """An upsampling that is none."""

    def forward(self, x):
        return super().forward(super().forward(x))


def by(scale, mode="nearest", **settings):
    return nn.Upsample(scale_factor=scale, mode=mode, **settings)


LOST = "forward hooks .* which a rewrite would lose"
REFUSED = {  # (upsample, conv, a part of the message)
    "stride": (UP, nn.Conv2d(2, 2, 3, stride=2), r"stride=\(2, 2\): .* a convolution with stride 1 only"),
    "stride in the width": (UP, nn.Conv2d(2, 2, 3, stride=(1, 2)), r"stride=\(1, 2\)"),
    "scale 1.5": (by(1.5), CONV, r"scale_factor=1\.5: only with a whole-numbered scale"),
    "scale 0.5": (by(0.5), CONV, r"scale_factor=0\.5: only with a whole-numbered"),
    "scale 0": (by(0), CONV, "neither a scale_factor nor a size"),
    "scale -2": (by(-2), CONV, r"scale_factor=-2\.0: only with a whole-numbered"),
    "scale inf": (by(math.inf), CONV, "scale_factor=inf: only with a whole-numbered"),
    "three scales": (by((2, 2, 2)), CONV, "whole-numbered scale, at least 1, on both"),
    "size alone": (nn.Upsample(size=8), CONV, "size=8 and so no scale .* input_size="),
    "size and scale": (nn.Upsample(size=8, scale_factor=2), CONV, "both size=8 and scale_factor=2.0"),
    "align_corners": (
        by(2, "bilinear", align_corners=True), CONV,
        "align_corners=True: its weights change from pixel to pixel.* align_corners=False",
    ),
    "UpsamplingBilinear2d": (nn.UpsamplingBilinear2d(scale_factor=2), CONV, "align_corners=True"),
    "trilinear": (by(2, "trilinear"), CONV, 'mode="trilinear" and must have'),
    "area": (by(2, "area"), CONV, 'use mode="nearest", which is the same'),
    "frame in the width": (
        by(2, "bilinear"), nn.Conv2d(2, 2, 7, padding=(0, 3)), "a frame 3 pixels deep .on the axis of the width",
    ),
    "bilinear frame": (
        by(2, "bilinear"), nn.Conv2d(2, 2, 5, padding=2),
        'a frame 2 pixels deep .* would not be equal.* padding=0, or padding_mode="replicate"',
    ),
    "bicubic frame": (
        by(2, "bicubic"), nn.Conv2d(2, 2, 3, padding=1, padding_mode="replicate"),
        r"a frame 1 pixel deep \(on the axis of the height\) .* use a convolution with padding=0$",
    ),
    "reflect": (
        UP, nn.Conv2d(2, 2, 5, padding=2, padding_mode="reflect"), 'reflect" with padding=2 .* a frame 1 pixel deep',
    ),
    "rounding": (by(41), CONV, 'scale of 41 .* float32 .* mode="nearest-exact"'),
    "hooks": (UP, hooked("register_forward_hook"), LOST),
    "pre-hooks": (UP, hooked("register_forward_pre_hook"), LOST),
    "backward hooks": (UP, hooked("register_full_backward_hook"), LOST),
    "lazy": (UP, nn.LazyConv2d(2, 3), "LazyConv2d without weights yet"),
    "own convolution": (UP, Padded(2, 2, 3), "Padded with a forward of its own"),
    "own upsampling": (Larger(scale_factor=2), CONV, "Larger with a forward of its own"),
    "own forward": (UP, Doubling(2, 2, 3), "Doubling with a forward of its own"),
    "no conv": (UP, nn.Linear(2, 2), r"conv must be a torch\.nn\.Conv2d, not Linear"),
    "no upsample": (CONV, CONV, r"upsample must be a torch\.nn\.Upsample, not Conv2d"),
}  # fmt: skip


@pytest.mark.parametrize("rewrite", PAIR_REWRITES)
@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_exact_is_refused_with_the_reason(rewrite, case):
    upsample, conv, message = REFUSED[case]
    with pytest.raises(TypeError if case.startswith(("own", "no ")) else ValueError, match=message):
        rewrite(upsample, conv)


@pytest.mark.parametrize(
    "mode, padding_mode, scale, padding",
    [
        ("bilinear", "zeros", 2, 1),
        ("bilinear", "zeros", 3, 2),
        ("bilinear", "circular", 2, 2),
        ("bilinear", "reflect", 3, 3),
        ("bilinear", "reflect", 2, 2),
        ("nearest", "reflect", 2, 3),
        ("nearest", "reflect", 3, 3),
    ],
)
def test_the_refused_frame_is_exactly_as_deep_as_the_message_says(mode, padding_mode, scale, padding):
    """Against the same pair with replicate padding, which is rewritten: it differs in that frame and nowhere else."""
    upsample = nn.Upsample(scale_factor=scale, mode=mode)
    conv = nn.Conv2d(1, 1, 7, padding=padding, padding_mode=padding_mode).double()
    accepted = nn.Conv2d(1, 1, 7, padding=padding, padding_mode="replicate").double()
    accepted.load_state_dict(conv.state_dict())
    x = torch.randn(1, 1, 9, 9).double()
    rewritten = upsample_conv_to_conv_transpose(upsample, accepted)(x)
    differs = ((conv(upsample(x)) - rewritten).abs() > 1e-9)[0, 0]
    middle = differs[len(differs) // 2]
    depth = int(middle[: len(middle) // 2].sum())
    assert depth > 0 and middle[:depth].all()
    with pytest.raises(ValueError, match=f"a frame {depth} pixels? deep"):
        upsample_conv_to_conv_transpose(upsample, conv)


def test_without_a_batch_axis_an_upsample_scales_the_width_alone_and_the_rewrites_both():
    x = torch.randn(2, 4, 5)
    assert CONV(UP(x)).shape == (2, 4, 10)
    for rewrite in PAIR_REWRITES:
        torch.testing.assert_close(rewrite(UP, CONV)(x), CONV(UP(x[None])[0]))


@pytest.mark.parametrize("rewrite", PAIR_REWRITES)
def test_results_are_traced_and_scripted(rewrite):
    for settings, given in ((dict(scale_factor=2), {}), (dict(size=(8, 10)), dict(input_size=(4, 5)))):
        result, x = rewrite(nn.Upsample(**settings), CONV, **given), torch.randn(1, 2, 4, 5)
        for how in (torch.fx.symbolic_trace, torch.jit.script):
            other = how(nn.Sequential(result))
            torch.testing.assert_close(other(x), result(x))
            if given:
                with pytest.raises((AssertionError, torch.jit.Error), match="another size than the input_size"):
                    other(torch.randn(1, 2, 5, 5))


def test_new_weights_have_the_memory_format_of_the_old():
    conv, layer = nn.Conv2d(4, 6, 3, padding=1), nn.ConvTranspose2d(4, 6, 4, 2, 1)
    for given in (conv, layer):
        given.to(memory_format=torch.channels_last)
    for new in (upsample_conv_to_conv_transpose(UP, conv), conv_transpose_to_subpixel(layer).conv):
        assert new.weight.is_contiguous(memory_format=torch.channels_last) and not new.weight.is_contiguous()
    assert upsample_conv_to_conv_transpose(UP, CONV).weight.is_contiguous()


def test_only_scales_that_pytorch_rounds_wrongly_are_refused():
    """Every scale up to 130: refused exactly where float32 upsampling does not repeat each pixel."""
    refused = {"nearest": [], "nearest-exact": []}
    x = torch.arange(64.0).reshape(1, 1, 1, 64)
    conv = nn.Conv2d(1, 1, 1)
    for mode, scales in refused.items():
        for scale in range(1, 131):
            upsample = nn.Upsample(scale_factor=(1, scale), mode=mode)
            exact = torch.equal(upsample(x), x.repeat_interleave(scale, dim=3))
            try:
                upsample_conv_to_conv_transpose(upsample, conv)
            except ValueError:
                scales.append(scale)
                assert not exact, (mode, scale)
            else:
                assert exact, (mode, scale)
    assert refused["nearest"][:6] == [41, 47, 55, 61, 82, 83]


def test_a_layer_of_another_kind_is_refused():
    with pytest.raises(TypeError, match=r"layer must be a torch\.nn\.ConvTranspose2d, not Conv2d"):
        conv_transpose_to_subpixel(CONV)
