"""upconv.layers: equal to the original layers at every pixel, over settings that the tests draw themselves."""

import copy
import io
import itertools
import math
import operator
import random
import warnings
from collections import Counter

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from upconv import (
    conv_transpose_to_subpixel,
    pixel_shuffle_to_conv_transpose,
    upsample_conv_to_conv_transpose,
    upsample_conv_to_subpixel,
    upsample_to_conv_transpose,
)
from upconv.layers import PixelShuffle

PAIR_REWRITES = [upsample_conv_to_conv_transpose, upsample_conv_to_subpixel]
PADDING_MODES = ["zeros", "replicate", "circular", "reflect"]
NEAREST = ["nearest", "nearest-exact"]
INTERPOLATING = {1: ["linear"], 2: ["bilinear", "bicubic"], 3: ["trilinear"]}
AXES = pytest.mark.parametrize("axes", [1, 2, 3])
NAMES = {1: ("length",), 2: ("height", "width"), 3: ("depth", "height", "width")}


@pytest.fixture(autouse=True)
def quiet():
    """Leave out PyTorch's notes on padding="same" with even kernels and on TorchScript."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Using padding='same'")
        warnings.filterwarnings("ignore", "`torch.jit")
        yield


# settings that PyTorch runs, drawn for a number of axes


def several(rng, axes, low, high):
    return tuple(rng.randint(low, high) for _ in range(axes))


def layer_of(kind, axes, *arguments):
    """Make a layer, such as Conv2d, of integers in float64."""
    layer = getattr(nn, f"{kind}{axes}d")(*arguments).double()
    fill_with_integers(layer)
    return layer


def fill_with_integers(*modules):
    with torch.no_grad():
        for module in modules:
            for parameter in module.parameters():
                parameter.copy_(torch.randint(-9, 10, parameter.shape))


def integer_input(channels, rng, axes, low=1):
    return torch.randint(-9, 10, (2, channels, *several(rng, axes, low, 6 if axes < 3 else 4))).double()


def channels_in_groups(rng):
    groups = rng.choice([1, 1, 2, 3])
    return groups, (groups * rng.randint(1, 2), groups * rng.randint(1, 2))


def most(axes):
    """Give the largest kernel_size, stride, dilation and padding to draw."""
    return (7, 5, 4, 8) if axes < 3 else (4, 4, 3, 6)


def categories(axes):
    """Name what has to be among the settings drawn."""
    unequal = {"unequal axes"} if axes > 1 else set()
    return unequal | {
        "dilation > 1",
        "dilation not coprime to the stride",
        "groups > 1",
        "kernel smaller than stride",
        "padding > K - 1",
    }


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
            "unequal axes": any(len(set(of)) > 1 for of in (kernel_size, stride, padding, dilation)),
            "kernel smaller than stride": any(k < s for k, s in zip(kernel_size, stride, strict=True)),
            "padding > K - 1": any(p > e for p, e in zip(padding, extents, strict=True)),
        }.items()
        if holds
    ]


def drawn_conv_transposes(count, axes):
    """Yield (layer, input, categories)."""
    rng = random.Random(axes)
    kernels, strides, dilations, paddings = most(axes)
    while count:
        groups, channels = channels_in_groups(rng)
        kernel_size, stride = several(rng, axes, 1, kernels), several(rng, axes, 1, strides)
        dilation, padding = several(rng, axes, 1, dilations), several(rng, axes, 0, paddings)
        output_padding = tuple(rng.randrange(max(s, d)) for s, d in zip(stride, dilation, strict=True))
        bias = rng.random() < 0.7
        settings = kernel_size, stride, padding, output_padding, groups, bias, dilation
        layer, x = layer_of("ConvTranspose", axes, *channels, *settings), integer_input(channels[0], rng, axes)
        try:
            layer(x)
        except RuntimeError:
            continue
        kinds = kinds_of(kernel_size, stride, padding, dilation, groups)
        yield layer, x, kinds + ["output_padding > 0"] * (max(output_padding) > 0)
        count -= 1


def drawn_conv(rng, axes, channels, groups, bias, paddings=("any", "any", "any", "same", "valid")):
    """Draw a convolution with stride 1."""
    kernels, _, dilations, deepest = most(axes)
    kernel_size, dilation = several(rng, axes, 1, kernels), several(rng, axes, 1, dilations)
    padding = tuple(rng.choice([0, rng.randint(1, 3), rng.randint(1, deepest)]) for _ in range(axes))
    given = rng.choice(paddings)
    given = padding if given == "any" else given
    settings = kernel_size, 1, given, dilation, groups, bias, rng.choice(PADDING_MODES)
    return layer_of("Conv", axes, *channels, *settings)


def drawn_pairs(axes, modes):
    """Yield (upsample, conv, input, categories); every fifth conv is a transposed one, and half pad nothing."""
    rng = random.Random(axes)
    kernels, strides, dilations, deepest = most(axes)
    while True:
        groups, channels = channels_in_groups(rng)
        scale, mode, bias = several(rng, axes, 1, strides), rng.choice(modes), rng.random() < 0.7
        upsample, bare = nn.Upsample(scale_factor=scale, mode=mode), rng.random() < 0.5
        if rng.random() < 0.2:
            kernel_size, dilation = several(rng, axes, 1, kernels), several(rng, axes, 1, dilations)
            more, padding = tuple(map(rng.randrange, dilation)), several(rng, axes, 0, deepest)
            if bare:
                padding = [d * (k - 1) + o for k, d, o in zip(kernel_size, dilation, more, strict=True)]
            conv = layer_of("ConvTranspose", axes, *channels, kernel_size, 1, padding, more, groups, bias, dilation)
            kinds = ["transposed"]
        else:
            conv = drawn_conv(rng, axes, channels, groups, bias, ["valid"] if bare else ["any", "any", "any", "same"])
            padding = (0,) * axes if isinstance(conv.padding, str) else conv.padding
            kinds = kinds_of(conv.kernel_size, scale, padding, conv.dilation, groups)
        x = integer_input(channels[0], rng, axes)
        try:
            conv(upsample(x))
        except (RuntimeError, ValueError):
            continue
        yield upsample, conv, x, kinds


def padding_sides(conv):
    """Give (before, after) on each axis, as of a convolution; a negative number crops."""
    if not conv.transposed:
        sides = conv._reversed_padding_repeated_twice[::-1]  # (after, before), the first axis first
        return [(sides[2 * axis + 1], sides[2 * axis]) for axis in range(len(conv.kernel_size))]
    settings = conv.kernel_size, conv.dilation, conv.padding, conv.output_padding
    return [(d * (k - 1) - p, d * (k - 1) - p + more) for k, d, p, more in zip(*settings, strict=True)]


# equal at every pixel


@AXES
def test_subpixel_form_equals_every_conv_transpose_bit_for_bit(axes):
    seen = Counter()
    for layer, x, kinds in drawn_conv_transposes(1100, axes):
        rewritten = conv_transpose_to_subpixel(layer)
        assert torch.equal(rewritten(x), layer(x)), layer
        seen.update(kinds)
    assert set(seen) == categories(axes) | {"output_padding > 0"}
    assert min(seen.values()) >= 200, seen


def deepest_frame(mode, padding_mode, scale):
    """Give how many pixels of padding are still exact on an axis."""
    nearest = mode.startswith("nearest")
    if scale == 1 or (nearest and padding_mode != "reflect"):
        return math.inf
    if mode.endswith("linear") and padding_mode == "replicate":
        return math.inf
    if padding_mode == "reflect" and mode != "bicubic":
        return scale - 1 if nearest else (scale - 1) // 2
    return 0


@AXES
@pytest.mark.parametrize("nearest", [True, False])
def test_every_pair_is_rewritten_where_that_is_exact_and_otherwise_refused(nearest, axes):
    """Bit for bit after nearest modes, which only copy; after others, which PyTorch computes otherwise, to 1e-12."""
    modes, seen = NEAREST if nearest else INTERPOLATING[axes], Counter()
    for upsample, conv, x, kinds in drawn_pairs(axes, modes):
        frames, scale = [max(sides) for sides in padding_sides(conv)], map(int, upsample.scale_factor)
        deepest = [deepest_frame(upsample.mode, conv.padding_mode, axis) for axis in scale]
        expected = conv(upsample(x))
        if exact := all(map(operator.le, frames, deepest)):
            rounding = 0 if nearest else 1e-12 * expected.abs().max().clamp(min=1)
            for rewrite in PAIR_REWRITES:
                assert ((rewrite(upsample, conv)(x) - expected).abs() <= rounding).all(), (upsample, conv)
            seen.update([*kinds, "exact"])
        else:
            axis = next(i for i, (frame, most) in enumerate(zip(frames, deepest, strict=True)) if frame > most)
            depth = (
                f"a frame {frames[axis] - deepest[axis]} pixels? deep .on the axis of the {NAMES[axes][axis]}. would"
            )
            for rewrite in PAIR_REWRITES:
                with pytest.raises(ValueError, match=depth):
                    rewrite(upsample, conv)
        padded = max(frames) > 0
        kind = "transposed" if conv.transposed else conv.padding_mode if padded else "unpadded"
        seen[upsample.mode, kind, exact] += 1
        if seen["exact"] == 1000:
            break
    assert min(seen[kind] for kind in categories(axes) | {"transposed"}) >= 30, seen
    ways = {True: 7, False: 10}[nearest] * len(modes) + ("bicubic" in modes)  # after which replicating is not exact
    assert min(seen.values()) >= 2 and len(seen) == len(categories(axes)) + 2 + ways, seen


@AXES
def test_pixel_shuffles_are_what_their_name_says(axes):
    for scale in itertools.product((1, 2, 3), repeat=axes):
        x = torch.randn(2, 2 * math.prod(scale), *(3, 2, 4)[:axes])
        expected = interleaved(x, scale)
        assert torch.equal(PixelShuffle(*scale)(x), expected)
        assert torch.equal(PixelShuffle(*scale)(x[0]), expected[0])
        if axes == 2 and len(set(scale)) == 1:
            assert torch.equal(nn.PixelShuffle(scale[0])(x), expected)


def interleaved(x, scale):
    """Shuffle pixels by hand: channel c * phases + i is phase i of channel c."""
    phases = list(itertools.product(*map(range, scale)))
    sizes = [size * s for size, s in zip(x.shape[2:], scale, strict=True)]
    output = x.new_empty(x.shape[0], x.shape[1] // len(phases), *sizes)
    for i, phase in enumerate(phases):
        output[(..., *(slice(r, None, s) for r, s in zip(phase, scale, strict=True)))] = x[:, i :: len(phases)]
    return output


@AXES
def test_a_pixel_shuffle_and_its_convolution_are_one_conv_transpose_bit_for_bit(axes):
    rng, seen = random.Random(axes), Counter()
    while seen["all"] < 1100:
        groups, channels = channels_in_groups(rng)
        largest = 4 if axes < 3 else 3
        scale = several(rng, axes, 1, largest) if rng.random() < 0.7 else (rng.randint(1, largest),) * axes
        biases = rng.choice(["none", "equal", "different"])
        conv = drawn_conv(rng, axes, (channels[0], channels[1] * math.prod(scale)), groups, biases != "none")
        if biases == "equal":
            with torch.no_grad():
                conv.bias.copy_(conv.bias[:: math.prod(scale)].repeat_interleave(math.prod(scale)))
        x = integer_input(channels[0], rng, axes)
        try:
            expected = interleaved(conv(x), scale)
        except (RuntimeError, ValueError):
            continue
        stock = axes == 2 and len(set(scale)) == 1
        shuffle = nn.PixelShuffle(scale[0]) if stock else PixelShuffle(*scale)
        rewritten = pixel_shuffle_to_conv_transpose(conv, shuffle)
        assert torch.equal(rewritten(x), expected), (conv, shuffle)
        if conv.padding_mode == "zeros":  # a circular padding needs a batch axis
            assert torch.equal(rewritten(x[0]), expected[0])
        is_layer = not isinstance(rewritten, nn.Sequential)
        layer = rewritten if is_layer else rewritten.conv_transpose
        extents = [d * (k - 1) + 1 for d, k in zip(conv.dilation, conv.kernel_size, strict=True)]
        assert layer.stride == scale and layer.kernel_size == tuple(map(operator.mul, scale, extents))
        sides = padding_sides(conv)
        if conv.padding_mode == "zeros" and all(a == b < e for (a, b), e in zip(sides, extents, strict=True)):
            assert layer.padding == tuple(s * (e - 1 - a) for s, e, (a, _) in zip(scale, extents, sides, strict=True))
            assert is_layer or biases == "different"
        padding = tuple(map(max, sides))
        seen.update(["all", biases, conv.padding_mode, f"layer {is_layer}", f"stock {stock}"])
        seen.update(kinds_of(conv.kernel_size, scale, padding, conv.dilation, groups))
    assert min(seen.values()) >= 50 and len(seen) == 11 + (axes == 2) + len(categories(axes)), seen


def ways_to_tell(axes, scale, size):
    """Yield what an Upsample and its rewrite are given of a number of axes that the mode does not tell."""
    output = tuple(s * n for s, n in zip(scale, size, strict=True))
    yield dict(scale_factor=scale), {}
    yield dict(scale_factor=scale), dict(axes=axes)
    yield dict(size=output), dict(input_size=size)
    if len(set(scale)) == 1:
        yield dict(scale_factor=scale[0]), dict(axes=axes)
    if len(set(output)) == 1:
        yield dict(size=output[0]), dict(input_size=size)
    if axes == 2 and len(set(scale)) == 1:
        yield dict(scale_factor=scale[0]), {}


@AXES
def test_an_upsample_alone_is_one_grouped_conv_transpose(axes):
    rng, seen = random.Random(axes), Counter()
    with torch.random.fork_rng():
        torch.set_default_dtype(torch.float64)
        try:
            for _ in range(120 if axes < 3 else 80):
                scale = several(rng, axes, 1, 5) if rng.random() < 0.5 else (rng.randint(1, 5),) * axes
                x = integer_input(3, rng, axes)
                for mode, (given, told) in itertools.product(
                    NEAREST + INTERPOLATING[axes], ways_to_tell(axes, scale, tuple(x.shape[2:]))
                ):
                    upsample = nn.Upsample(**given, mode=mode)
                    rewritten, expected = upsample_to_conv_transpose(upsample, 3, **told), upsample(x)
                    torch.testing.assert_close(rewritten(x), expected, rtol=1e-12, atol=1e-12)
                    seen[mode] += 1
                    layer = getattr(rewritten, "conv_transpose", rewritten)
                    assert layer.groups == 3 and layer.bias is None and not layer.weight.requires_grad
                    if mode in NEAREST:
                        assert torch.equal(rewritten(x), expected)
                        assert (layer.weight == 1).all() and layer.kernel_size == scale
        finally:
            torch.set_default_dtype(torch.float32)
    assert min(seen.values()) >= 200, seen


@pytest.mark.parametrize("mode, axes", [("linear", 1), ("bilinear", 2), ("bicubic", 2), ("trilinear", 3)])
def test_the_mode_tells_the_number_of_axes(mode, axes):
    upsample, x = nn.Upsample(scale_factor=3, mode=mode), torch.randn(2, 4, *(5, 3, 2)[:axes])
    rewritten = upsample_to_conv_transpose(upsample, 4)
    torch.testing.assert_close(rewritten(x), upsample(x))
    assert type(rewritten.conv_transpose) is getattr(nn, f"ConvTranspose{axes}d")
    with pytest.raises(ValueError, match=f"no one number of axes, 1 to 3: .*'mode': {axes}"):
        upsample_to_conv_transpose(upsample, 4, axes=axes % 3 + 1)


@AXES
@pytest.mark.parametrize("rewrite", PAIR_REWRITES)
def test_an_upsample_with_a_size_is_rewritten_for_that_input_size(rewrite, axes):
    size, scale = (4, 5, 3)[:axes], (2, 3, 1)[:axes]
    upsample = nn.Upsample(size=tuple(map(operator.mul, size, scale)))
    conv = layer_of("Conv", axes, 2, 3, 3, 1, 1)
    x = torch.randint(-9, 10, (2, 2, *size)).double()
    rewritten = rewrite(upsample, conv, input_size=size)
    assert torch.equal(rewritten(x), conv(upsample(x)))
    with pytest.raises(AssertionError, match="another size than the input_size that this module was made for"):
        rewritten(torch.zeros(1, 2, *size[:-1], size[-1] + 1).double())
    square = torch.randint(-9, 10, (1, 2) + (4,) * axes).double()
    assert torch.equal(rewrite(nn.Upsample(size=12), conv, input_size=4)(square), conv(nn.Upsample(size=12)(square)))


@AXES
def test_a_transposed_convolution_takes_inputs_without_a_batch_axis(axes):
    for layer, x, _ in drawn_conv_transposes(50, axes):
        assert torch.equal(conv_transpose_to_subpixel(layer)(x[0]), layer(x[0]))


PUBLISHED = {  # transposed layers: (axes, kernel_size, stride, padding, output_padding)
    "HiFi-GAN, first": (1, 16, 8, 4, 0),
    "HiFi-GAN, last": (1, 4, 2, 1, 0),
    "BigVGAN": (1, 8, 4, 2, 0),
    "MelGAN, odd": (1, 10, 5, 3, 1),
    "DAC": (1, 16, 8, 4, 0),
    "DAC, odd": (1, 6, 3, 2, 1),
    "EnCodec, trimmed later": (1, 16, 8, 0, 0),
    "Demucs": (1, 8, 4, 0, 0),
    "WaveGlow": (1, 1024, 256, 0, 0),
    "nnU-Net, flat": (3, (1, 2, 2), (1, 2, 2), 0, 0),
    "V-Net": (3, 2, 2, 0, 0),
    "MONAI's UNet": (3, 3, 2, 1, 1),
    "3D-GAN": (3, 4, 2, 1, 0),
    "KernelBench": (3, (3, 5, 7), (2, 2, 2), (1, 2, 3), (1, 1, 1)),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_layers_of_published_models_and_back(name):
    axes, *settings = PUBLISHED[name]
    layer, x = layer_of("ConvTranspose", axes, 3, 2, *settings), torch.randint(-9, 10, (1, 3) + (4,) * axes).double()
    subpixel = conv_transpose_to_subpixel(layer)
    assert torch.equal(subpixel(x), layer(x))
    back = pixel_shuffle_to_conv_transpose(subpixel.conv, subpixel.shuffle)
    cut = getattr(subpixel, "crop", nn.Identity())
    assert torch.equal(cut(back(x)), layer(x))


# ordinary modules


def examples(axes):
    """Yield (name, rewritten, original, input) for one of each kind."""
    torch.manual_seed(axes)
    x, scale = torch.randn(2, 4, *(5, 3, 4)[:axes]), (2, 3, 2)[:axes]
    conv_of, conv_transpose_of = (getattr(nn, f"{kind}{axes}d") for kind in ("Conv", "ConvTranspose"))
    layer = conv_transpose_of(4, 6, (3, 4, 2)[:axes], scale, 1, (1, 0, 1)[:axes], groups=2)
    yield "subpixel", conv_transpose_to_subpixel(layer), layer, x
    for name, upsample, conv in (
        ("nearest", nn.Upsample(scale_factor=2), conv_of(4, 6, 3, padding=1)),
        ("circular", nn.Upsample(scale_factor=scale), conv_of(4, 6, 3, padding=2, padding_mode="circular")),
        ("interpolating", nn.Upsample(scale_factor=scale, mode=INTERPOLATING[axes][-1]), conv_of(4, 6, 3)),
        ("transposed", nn.Upsample(scale_factor=scale), conv_transpose_of(4, 6, 3, padding=1)),
    ):
        for rewrite in PAIR_REWRITES:
            yield f"{name}, {rewrite.__name__}", rewrite(upsample, conv), nn.Sequential(upsample, conv), x
    for bias in (True, False):
        conv, shuffle = conv_of(4, 2 * math.prod(scale), 3, padding=4, bias=bias), PixelShuffle(*scale)
        rewritten = pixel_shuffle_to_conv_transpose(conv, shuffle)
        yield f"shuffle, bias={bias}", rewritten, nn.Sequential(conv, shuffle), x
    for mode in ("nearest", INTERPOLATING[axes][0]):
        upsample = nn.Upsample(scale_factor=scale, mode=mode)
        yield f"{mode} alone", upsample_to_conv_transpose(upsample, 4), upsample, x


class Bundle(nn.Module):
    """Examples as one module: PyTorch's tools take their time once."""

    def __init__(self, modules):
        super().__init__()
        self.bundled = nn.ModuleList(modules)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        results: list[torch.Tensor] = []
        for module in self.bundled:
            results += [module(x)]
        return results


def bundle(axes):
    """Give all rewritten examples, all originals, and two inputs of different sizes."""
    names, rewritten, originals, inputs = zip(*examples(axes), strict=True)
    larger = torch.randn(3, 4, *(size + 2 for size in inputs[0].shape[2:]))
    return names, Bundle(rewritten).eval(), Bundle(originals).eval(), (inputs[0], larger)


def assert_all_close(names, outputs, expected, **tolerance):
    for name, output, wanted in zip(names, outputs, expected, strict=True):
        torch.testing.assert_close(
            torch.as_tensor(output), wanted.detach(), msg=lambda text, name=name: f"{name}: {text}", **tolerance
        )


EXAMPLES = pytest.mark.parametrize(
    "rewritten, original, x",
    [pytest.param(*example, id=f"{axes}-D, {name}") for axes in (1, 2, 3) for name, *example in examples(axes)],
)


@EXAMPLES
def test_values_and_gradients_of_the_input_are_the_originals(rewritten, original, x):
    one, other = x.clone().requires_grad_(), x.clone().requires_grad_()
    weights = torch.randn(original(x).shape)
    torch.testing.assert_close(rewritten(x), original(x))
    (rewritten(one) * weights).sum().backward()
    (original(other) * weights).sum().backward()
    torch.testing.assert_close(one.grad, other.grad)


@EXAMPLES
def test_results_train_copy_load_and_move(rewritten, original, x):
    twin, other = copy.deepcopy(rewritten), copy.deepcopy(rewritten)
    before = twin(x)
    if before.requires_grad:  # not of an Upsample alone
        optimizer = torch.optim.SGD(twin.parameters(), lr=0.01)
        twin(x).square().mean().backward()
        optimizer.step()
        assert twin(x).square().mean() < before.square().mean()
    assert torch.equal(rewritten(x), before)
    other.load_state_dict(twin.state_dict())
    assert torch.equal(other(x), twin(x))
    assert other.to("meta")(x.to("meta")).device.type == "meta"


@AXES
def test_results_go_through_export_and_compile(axes):
    names, rewritten, originals, (x, larger) = bundle(axes)
    sizes = {0: torch.export.Dim.AUTO} | dict.fromkeys(range(2, 2 + axes), torch.export.Dim.AUTO)
    exported = torch.export.export(rewritten, (x,), dynamic_shapes=(sizes,)).module()
    torch._dynamo.reset()
    assert_all_close(names, torch.compile(rewritten, backend="aot_eager")(x), originals(x))
    for inputs in (x, larger):
        assert_all_close(names, exported(inputs), originals(inputs))


@AXES
def test_results_are_traced_and_scripted(axes):
    names, rewritten, originals, (x, larger) = bundle(axes)
    for how in (torch.fx.symbolic_trace, torch.jit.script, lambda module: torch.jit.trace(module, x, strict=False)):
        assert_all_close(names, how(rewritten)(x), originals(x))
    for how in (torch.fx.symbolic_trace, torch.jit.script):
        assert_all_close(names, how(rewritten)(larger), originals(larger))
        for one, wanted in zip(how(rewritten)(x[0]), originals(x), strict=False):
            assert one.shape == wanted.shape[1:]


@pytest.mark.parametrize("rewrite", PAIR_REWRITES)
def test_the_check_of_the_input_size_is_traced_and_scripted(rewrite):
    result, x = rewrite(nn.Upsample(size=(8, 10)), CONV, input_size=(4, 5)), torch.randn(1, 2, 4, 5)
    for how in (torch.fx.symbolic_trace, torch.jit.script):
        other = how(nn.Sequential(result))
        torch.testing.assert_close(other(x), result(x))
        with pytest.raises((AssertionError, torch.jit.Error), match="another size than the input_size"):
            other(torch.randn(1, 2, 5, 5))


@AXES
@pytest.mark.parametrize("dynamo", [False, True])
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_results_run_in_onnxruntime_at_every_size(dynamo, axes):
    """The exporter before `dynamo` killed Python where strides were unequal and sizes dynamic."""
    import onnxruntime  # noqa: PLC0415 - slow to import

    names, rewritten, originals, (x, larger) = bundle(axes)
    names_of = {0: "batch"} | {axis: f"size{axis}" for axis in range(2, 2 + axes)}
    buffer, outputs = io.BytesIO(), [f"output{i}" for i in range(len(names))]
    settings = dict(input_names=["x"], output_names=outputs, verbose=False)
    if dynamo:
        sizes = {axis: torch.export.Dim(name, min=2, max=64) for axis, name in names_of.items()}
        torch.onnx.export(rewritten, (x,), dynamo=True, dynamic_shapes=(sizes,), **settings).save(buffer)
    else:
        dynamic_axes = {name: names_of for name in ("x", *outputs)}
        torch.onnx.export(rewritten, (x,), buffer, dynamo=False, dynamic_axes=dynamic_axes, **settings)
    session = onnxruntime.InferenceSession(buffer.getvalue(), providers=["CPUExecutionProvider"])
    for inputs in (x, larger):
        found = session.run(None, {"x": inputs.numpy()})
        assert_all_close(names, found, originals(inputs), rtol=1e-4, atol=1e-5)


@AXES
def test_dtype_and_flags_are_the_given_layers(axes):
    conv, layer = getattr(nn, f"Conv{axes}d")(2, 4**axes, 3), getattr(nn, f"ConvTranspose{axes}d")
    conv.to(torch.bfloat16).eval().bias.requires_grad_(False)
    layer = layer(2, 2, 3, 2, bias=False).to(torch.float16)
    layer.weight.requires_grad_(False)
    shuffled = pixel_shuffle_to_conv_transpose(conv, PixelShuffle(*[2] * axes))
    for rewritten in (*(rewrite(UP, conv) for rewrite in PAIR_REWRITES), shuffled):
        assert [p.dtype for p in rewritten.parameters()] == [torch.bfloat16] * 2
        assert [p.requires_grad for p in rewritten.parameters()] == [True, False]
        assert not any(module.training for module in rewritten.modules())
    rewritten = conv_transpose_to_subpixel(layer)
    assert [(p.dtype, p.requires_grad) for p in rewritten.parameters()] == [(torch.float16, False)]
    assert all(module.training for module in rewritten.modules())
    alone = upsample_to_conv_transpose(copy.deepcopy(UP).eval(), 2, axes=axes)
    assert not alone.training and alone.weight.dtype == torch.float32


@AXES
def test_the_given_layers_and_the_random_state_are_untouched(axes):
    conv, layer = (
        getattr(nn, f"Conv{axes}d")(2, 2**axes, 3, padding=1),
        getattr(nn, f"ConvTranspose{axes}d")(2, 2, 3, 2),
    )
    before = copy.deepcopy((conv.state_dict(), layer.state_dict()))
    state = torch.get_rng_state()
    results = [rewrite(UP, conv) for rewrite in PAIR_REWRITES] + [conv_transpose_to_subpixel(layer)]
    results += [pixel_shuffle_to_conv_transpose(conv, PixelShuffle(*[2] * axes))]
    results += [upsample_to_conv_transpose(UP, 3, axes=axes)]
    assert torch.equal(torch.get_rng_state(), state)
    with torch.no_grad():
        for parameter in (p for result in results for p in result.parameters()):
            parameter.zero_()
    for values, module in zip(before, (conv, layer), strict=True):
        assert all(torch.equal(values[name], module.state_dict()[name]) for name in values)
        assert not module._forward_pre_hooks


@pytest.mark.parametrize("name", ["weight_norm", "spectral_norm", "orthogonal"])
@AXES
def test_parametrized_weights_are_read_as_in_eval_mode_and_left_alone(name, axes):
    parametrization = getattr(nn.utils.parametrizations, name)
    of = (getattr(nn, f"{kind}{axes}d") for kind in ("Conv", "ConvTranspose"))
    conv, layer = parametrization(next(of)(2, 2**axes, 3, padding=1)), parametrization(next(of)(2, 2, 3, 2))
    before = copy.deepcopy((conv.state_dict(), layer.state_dict()))
    shuffle = PixelShuffle(*[2] * axes)
    pair, single = upsample_conv_to_subpixel(UP, conv), conv_transpose_to_subpixel(layer)
    shuffled = pixel_shuffle_to_conv_transpose(conv, shuffle)
    for values, module in zip(before, (conv, layer), strict=True):
        assert all(torch.equal(values[key], module.state_dict()[key]) for key in values)
    x = torch.randn(1, 2, *[4] * axes)
    torch.testing.assert_close(pair(x), conv.eval()(UP(x)))
    torch.testing.assert_close(shuffled(x), shuffle(conv(x)))
    torch.testing.assert_close(single(x), layer.eval()(x))
    assert all(parameter.requires_grad for parameter in pair.parameters())


def test_sums_of_taps_are_rounded_once():
    conv = nn.Conv2d(1, 1, 5, bias=False).to(torch.bfloat16)
    rewritten = upsample_conv_to_conv_transpose(nn.Upsample(scale_factor=4), conv)
    unrounded = upsample_conv_to_conv_transpose(nn.Upsample(scale_factor=4), copy.deepcopy(conv).double())
    assert torch.equal(rewritten.weight, unrounded.weight.to(torch.bfloat16))


@pytest.mark.parametrize("device, default", [("meta", "cpu"), ("cpu", "meta")])
@AXES
def test_the_device_is_the_given_layers_and_not_the_default(device, default, axes):
    with torch.device(default):
        conv = getattr(nn, f"Conv{axes}d")(2, 4**axes, 3, device=device)
        layer = getattr(nn, f"ConvTranspose{axes}d")(2, 2, 3, 2, device=device)
        upsample = nn.Upsample(scale_factor=2, mode=INTERPOLATING[axes][-1])
        results = [rewrite(upsample, conv) for rewrite in PAIR_REWRITES] + [conv_transpose_to_subpixel(layer)]
        results += [pixel_shuffle_to_conv_transpose(conv, PixelShuffle(*[2] * axes))]
        for rewritten in results:
            assert {parameter.device.type for parameter in rewritten.parameters()} == {device}
        assert next(upsample_to_conv_transpose(upsample, 2).parameters()).device.type == default


def test_equal_strides_use_the_stock_pixel_shuffle_and_no_stride_none():
    assert type(conv_transpose_to_subpixel(nn.ConvTranspose2d(2, 2, 3, 2)).shuffle) is nn.PixelShuffle
    assert not hasattr(conv_transpose_to_subpixel(nn.ConvTranspose2d(2, 2, 3)), "shuffle")
    assert repr(conv_transpose_to_subpixel(nn.ConvTranspose1d(2, 2, 3, 2)).shuffle) == "PixelShuffle(2)"


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
    "three scales": (by((2, 2, 2)), CONV, "whole-numbered scale, at least 1, on each of 2 axes"),
    "two scales in 3-D": (by((2, 2)), nn.Conv3d(2, 2, 3), "whole-numbered scale, at least 1, on each of 3 axes"),
    "one scale of two": (by((2,)), CONV, "on each of 2 axes"),
    "scale 1.5 in 1-D": (by(1.5), nn.Conv1d(2, 2, 3), "on each of 1 axes"),
    "size alone": (nn.Upsample(size=8), CONV, "size=8 and so no scale .* input_size="),
    "stride in 1-D": (UP, nn.Conv1d(2, 2, 3, stride=2), r"stride=\(2,\): .* a convolution with stride 1 only"),
    "stride of a transposed layer": (UP, nn.ConvTranspose3d(2, 2, 3, 2), r"stride=\(2, 2, 2\): .* with stride 1 only"),
    "size and scale": (nn.Upsample(size=8, scale_factor=2), CONV, "both size=8 and scale_factor=2.0"),
    "align_corners": (
        by(2, "bilinear", align_corners=True), CONV,
        "align_corners=True: its weights change from pixel to pixel.* align_corners=False",
    ),
    "UpsamplingBilinear2d": (nn.UpsamplingBilinear2d(scale_factor=2), CONV, "align_corners=True"),
    "trilinear": (
        by(2, "trilinear"), CONV, 'mode="trilinear" and must have one of nearest, nearest-exact, bilinear, bicubic$',
    ),
    "linear": (
        by(2, "linear"), nn.Conv3d(2, 2, 3), 'mode="linear" and must have one of nearest, nearest-exact, trilinear$',
    ),
    "bicubic in 1-D": (by(2, "bicubic"), nn.Conv1d(2, 2, 3), "must have one of nearest, nearest-exact, linear$"),
    "area": (by(2, "area"), CONV, 'use mode="nearest", which is the same'),
    "frame in the width": (
        by(2, "bilinear"), nn.Conv2d(2, 2, 7, padding=(0, 3)), "a frame 3 pixels deep .on the axis of the width",
    ),
    "frame in the depth": (
        by(2, "trilinear"), nn.Conv3d(2, 2, 3, padding=1), "a frame 1 pixel deep .on the axis of the depth",
    ),
    "frame in 1-D": (
        by(2, "linear"), nn.Conv1d(2, 2, 3, padding=1),
        'of the length. would not be equal; use a convolution with padding=0, or padding_mode="replicate"',
    ),
    "frame of a transposed layer": (by(2, "bilinear"), nn.ConvTranspose2d(2, 2, 3), "a frame 2 pixels deep"),
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
    "lazy in 3-D": (UP, nn.LazyConvTranspose3d(2, 3), "LazyConvTranspose3d without weights yet"),
    "own convolution": (UP, Padded(2, 2, 3), "Padded with a forward of its own"),
    "own upsampling": (Larger(scale_factor=2), CONV, "Larger with a forward of its own"),
    "own forward": (UP, Doubling(2, 2, 3), "Doubling with a forward of its own"),
    "no conv": (UP, nn.Linear(2, 2), r"conv must be a torch\.nn\.Conv1d, .* or torch\.nn\.ConvTranspose3d, not Linear"),
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


@pytest.mark.parametrize("axes, last", [(2, torch.channels_last), (3, torch.channels_last_3d)])
@pytest.mark.parametrize("groups", [1, 2])
def test_new_weights_have_the_memory_format_of_the_old(axes, last, groups):
    conv_of, conv_transpose_of = (getattr(nn, f"{kind}{axes}d") for kind in ("Conv", "ConvTranspose"))
    shuffle = PixelShuffle(*[2] * axes)

    cases = [
        (conv_of(4, 16 * groups, 3, groups=groups), lambda conv: upsample_conv_to_conv_transpose(UP, conv)),
        (conv_of(4, 16 * groups, 3, groups=groups), lambda conv: upsample_conv_to_subpixel(UP, conv).conv),
        (conv_of(4, 16 * groups, 3, groups=groups), lambda conv: pixel_shuffle_to_conv_transpose(conv, shuffle)[0]),
        (conv_transpose_of(4, 6, 3, groups=groups), lambda conv: upsample_conv_to_conv_transpose(UP, conv)),
        (conv_transpose_of(4, 6, 4, 2, 1, groups=groups), lambda layer: conv_transpose_to_subpixel(layer).conv),
    ]
    for given, rewrite in cases:
        assert rewrite(given).weight.is_contiguous()
        given.to(memory_format=last)
        weight = rewrite(given).weight
        assert weight.is_contiguous(memory_format=last) and not weight.is_contiguous()
    lies_in_both = conv_of(4, 16, 1)
    assert upsample_conv_to_conv_transpose(UP, lies_in_both).weight.is_contiguous()


@AXES
def test_only_scales_that_pytorch_rounds_wrongly_are_refused(axes):
    """Every scale up to 130: refused exactly where float32 upsampling does not repeat each pixel."""
    refused = {"nearest": [], "nearest-exact": []}
    x = torch.arange(64.0).reshape((1, 1) + (1,) * (axes - 1) + (64,))
    conv = getattr(nn, f"Conv{axes}d")(1, 1, 1)
    for mode, scales in refused.items():
        for scale in range(1, 131):
            upsample = nn.Upsample(scale_factor=(1,) * (axes - 1) + (scale,), mode=mode)
            exact = torch.equal(upsample(x), x.repeat_interleave(scale, dim=-1))
            try:
                upsample_conv_to_conv_transpose(upsample, conv)
            except ValueError:
                scales.append(scale)
                assert not exact, (mode, scale)
            else:
                assert exact, (mode, scale)
    assert refused["nearest"][:6] == [41, 47, 55, 61, 82, 83]


def test_a_layer_of_another_kind_is_refused():
    with pytest.raises(TypeError, match=r"layer must be a torch\.nn\.ConvTranspose1d, .* not Conv2d"):
        conv_transpose_to_subpixel(CONV)


class Unshuffle(nn.PixelShuffle):
    """A pixel shuffle that is none."""

    def forward(self, x):
        return F.pixel_unshuffle(x, self.upscale_factor)


def hooked_shuffle():
    shuffle = nn.PixelShuffle(2)
    shuffle.register_forward_hook(lambda *arguments: None)
    return shuffle


SHUFFLE = nn.PixelShuffle(2)
REFUSED_SHUFFLES = {  # (conv, shuffle, a part of the message)
    "stride": (nn.Conv2d(2, 4, 3, stride=2), SHUFFLE, r"stride=\(2, 2\): .* a convolution with stride 1 only"),
    "channels": (nn.Conv2d(2, 6, 3), SHUFFLE, "out_channels=6 and groups=1: only of a multiple of 4 .* groups"),
    "groups": (nn.Conv2d(2, 4, 3, groups=2), SHUFFLE, "out_channels=4 and groups=2: .* each channel from one group"),
    "1-D": (nn.Conv1d(2, 4, 3), SHUFFLE, "conv has 1 axes, and shuffle 2"),
    "2-D": (nn.Conv2d(2, 4, 3), PixelShuffle(2, 2, 1), "conv has 2 axes, and shuffle 3"),
    "factor 0": (nn.Conv2d(2, 4, 3), nn.PixelShuffle(0), "factors .*0, 0.* at least 1"),
    "hooks": (hooked("register_forward_hook"), SHUFFLE, LOST),
    "hooks of the shuffle": (nn.Conv2d(2, 4, 3), hooked_shuffle(), LOST),
    "lazy": (nn.LazyConv3d(8, 3), PixelShuffle(2, 2, 2), "LazyConv3d without weights yet"),
    "own forward": (Doubling(2, 4, 3), SHUFFLE, "Doubling with a forward of its own"),
    "own shuffle": (nn.Conv2d(2, 4, 3), Unshuffle(2), "Unshuffle with a forward of its own"),
    "no conv": (nn.ConvTranspose2d(2, 4, 3), SHUFFLE, r"conv must be a torch\.nn\.Conv1d, .*, not ConvTranspose2d"),
    "no shuffle": (nn.Conv2d(2, 4, 3), nn.PixelUnshuffle(2), r"shuffle must be a .*PixelShuffle, not PixelUnshuffle"),
}


@pytest.mark.parametrize("case", REFUSED_SHUFFLES)
def test_a_shuffle_that_is_no_conv_transpose_is_refused_with_the_reason(case):
    conv, shuffle, message = REFUSED_SHUFFLES[case]
    with pytest.raises(TypeError if case.startswith(("own", "no ")) else ValueError, match=message):
        pixel_shuffle_to_conv_transpose(conv, shuffle)


REFUSED_ALONE = {  # (upsample, channels, arguments, a part of the message)
    "axes": (by((2, 3)), 2, dict(axes=3), r"no one number of axes, 1 to 3: \{'scale_factor': 2, 'axes': 3\}"),
    "mode and scales": (by((2, 2), "trilinear"), 2, {}, r"\{'scale_factor': 2, 'mode': 3\}"),
    "mode and axes": (by(2, "bilinear"), 2, dict(axes=1), r"\{'mode': 2, 'axes': 1\}"),
    "sizes": (nn.Upsample(size=(4, 4)), 2, dict(input_size=(2, 2, 2)), r"\{'size': 2, 'input_size': 3\}"),
    "four axes": (UP, 2, dict(axes=4), r"1 to 3: \{'axes': 4\}"),
    "four scales": (by((2, 2, 2, 2)), 2, {}, r"1 to 3: \{'scale_factor': 4\}"),
    "scale 1.5": (by(1.5), 2, dict(axes=3), "on each of 3 axes"),
    "align_corners": (by(2, "linear", align_corners=True), 2, {}, "align_corners=True"),
    "rounding": (by(41), 2, {}, "scale of 41 .* float32"),
    "size alone": (nn.Upsample(size=8), 2, {}, "size=8 and so no scale"),
    "channels 0": (UP, 0, {}, "channels=0 must be an int of at least 1"),
    "axes 0": (UP, 2, dict(axes=0), "axes=0 must be an int of at least 1"),
    "type of channels": (UP, 2.0, {}, r"channels=2\.0 must be an int"),
    "type of axes": (UP, 2, dict(axes=True), "axes=True must be an int"),
    "type of layer": (CONV, 2, {}, r"upsample must be a torch\.nn\.Upsample, not Conv2d"),
}


@pytest.mark.parametrize("case", REFUSED_ALONE)
def test_an_upsample_that_is_no_conv_transpose_is_refused_with_the_reason(case):
    upsample, channels, told, message = REFUSED_ALONE[case]
    with pytest.raises(TypeError if case.startswith("type") else ValueError, match=message):
        upsample_to_conv_transpose(upsample, channels, **told)
