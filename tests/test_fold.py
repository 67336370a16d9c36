"""upconv.fold: the jump form against the two layers, on integers bit for bit, in one, two and three dimensions."""

import copy
import io
import random
import warnings

import pytest
import torch
from torch import nn

from upconv import upsample_conv_to_jump

MODES = ("zeros", "zeros", "replicate", "circular", "reflect")


def filled(module):
    for parameter in module.double().parameters():
        parameter.data = torch.randint(-9, 10, parameter.shape).double()
    return module


def drawn(axes, count):
    """Draw pairs and inputs that PyTorch takes."""
    rng, made = random.Random(axes), 0
    torch.manual_seed(axes)
    while made < count:

        def pick(low, high):
            return tuple(rng.randint(low, high) for _ in range(axes))

        groups, kernel_size, scale = rng.choice((1, 1, 2)), pick(1, 5 if axes < 3 else 3), pick(1, 4 if axes < 3 else 3)
        if rng.random() < 0.2:
            conv = getattr(nn, f"ConvTranspose{axes}d")(
                2 * groups, 3 * groups, kernel_size, 1, pick(0, 3), groups=groups
            )
        else:
            mode = rng.choice(MODES)
            padding = rng.choice([pick(0, 4), "same", "valid"]) if mode == "zeros" else pick(0, 2)
            settings = dict(groups=groups, padding=padding, padding_mode=mode, bias=rng.random() < 0.7)
            conv = getattr(nn, f"Conv{axes}d")(2 * groups, 3 * groups, kernel_size, **settings)
        upsample = nn.Upsample(scale_factor=scale, mode=rng.choice(("nearest", "nearest-exact")))
        x = torch.randint(-9, 10, (2, 2 * groups, *pick(1, 5))).double()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                expected = filled(conv)(upsample(x))
        except RuntimeError:
            continue
        if 0 not in expected.shape:
            made += 1
            yield upsample, conv, x, expected


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_the_jump_form_is_the_pair_bit_for_bit(axes):
    exact = 0
    for upsample, conv, x, expected in drawn(axes, 200):
        try:
            jump = upsample_conv_to_jump(upsample, conv)
        except ValueError as error:
            assert 'padding_mode="reflect"' in str(error)
            continue
        exact += 1
        found = jump(x)
        assert found.shape == expected.shape and torch.equal(found, expected), (upsample, conv)
        assert sum(p.numel() for p in jump.parameters()) == sum(p.numel() for p in conv.parameters())
    assert exact > 180


def test_there_are_as_many_products_as_taps():
    jump = upsample_conv_to_jump(nn.Upsample(scale_factor=2), nn.Conv2d(8, 4, 3, padding=1))
    convs = [module for module in jump.modules() if isinstance(module, nn.Conv2d)]
    assert all(conv.kernel_size == (1, 1) for conv in convs)
    assert sum(conv.out_channels for conv in convs) == 9 * 4


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_the_jump_form_is_an_ordinary_module(axes):
    conv = getattr(nn, f"Conv{axes}d")(4, 3, 3, padding=1).double()
    upsample, x = nn.Upsample(scale_factor=2), torch.randn(2, 4, *(6, 5, 4)[:axes]).double()
    jump, other = upsample_conv_to_jump(upsample, conv), torch.randn(1, 4, *(3, 7, 5)[:axes]).double()
    expected, at_other = conv(upsample(x)), conv(upsample(other))
    shapes = ({dim: torch.export.Dim.AUTO for dim in (0, *range(2, 2 + axes))},)
    versions = {
        "copied": copy.deepcopy(jump),
        "traced": torch.fx.symbolic_trace(jump),
        "exported": torch.export.export(jump, (x,), dynamic_shapes=shapes).module(),
        "compiled": torch.compile(jump, backend="aot_eager", dynamic=True),
    }
    for name, version in versions.items():
        torch.testing.assert_close(version(x), expected, msg=name)
        torch.testing.assert_close(version(other), at_other, msg=name)
    x.requires_grad_()
    [ours] = torch.autograd.grad(jump(x).square().sum(), x)
    [theirs] = torch.autograd.grad(conv(upsample(x)).square().sum(), x)
    torch.testing.assert_close(ours, theirs)


def test_the_jump_form_runs_in_onnxruntime():
    onnxruntime = pytest.importorskip("onnxruntime")
    jump = upsample_conv_to_jump(nn.Upsample(scale_factor=2), nn.Conv2d(4, 3, 3, padding=1)).eval()
    x, file = torch.randn(1, 4, 6, 5), io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(jump, (x,), file, dynamo=False, input_names=["x"], dynamic_axes={"x": {2: "height"}})
    session = onnxruntime.InferenceSession(file.getvalue())
    for image in (x, torch.randn(1, 4, 9, 5)):
        [found] = session.run(None, {"x": image.numpy()})
        torch.testing.assert_close(torch.from_numpy(found), jump(image), rtol=1e-4, atol=1e-5)


def test_flags_and_format_are_the_convolutions():
    conv = nn.Conv2d(4, 3, 3, padding=1).to(torch.bfloat16, memory_format=torch.channels_last).eval()
    conv.weight.requires_grad_(False)
    jump = upsample_conv_to_jump(nn.Upsample(scale_factor=2), conv)
    assert not jump.training
    parameters = dict(jump.named_parameters())
    assert {value.dtype for value in parameters.values()} == {torch.bfloat16}
    assert {name.split(".")[-1] for name, value in parameters.items() if value.requires_grad} == {"bias"}
    x = torch.randn(1, 4, 6, 5, dtype=torch.bfloat16).to(memory_format=torch.channels_last)
    assert jump(x).is_contiguous(memory_format=torch.channels_last)


def test_the_error_in_float32_is_of_the_size_of_the_pairs():
    torch.manual_seed(0)
    conv, upsample = nn.Conv2d(256, 64, 3, padding=1), nn.Upsample(scale_factor=2)
    jump, x = upsample_conv_to_jump(upsample, conv), torch.randn(1, 256, 32, 32)
    exact = copy.deepcopy(conv).double()(upsample(x.double()))
    ours, theirs = ((y - exact).square().mean().sqrt() for y in (jump(x), conv(upsample(x))))
    assert ours < 3 * theirs


def test_what_is_no_jump_form_is_refused():
    nearest, conv = nn.Upsample(scale_factor=2), nn.Conv2d(4, 3, 3, padding=1)
    for upsample, layer, message in (
        (nn.Upsample(scale_factor=2, mode="bilinear"), conv, "leaves no constant blocks"),
        (nearest, nn.Conv2d(4, 3, 3, dilation=2), "see jumps that their taps do not"),
        (nearest, nn.Conv2d(4, 3, 3, stride=2), "stride 1 only"),
        (nn.Upsample(scale_factor=1.5), conv, "whole-numbered scale"),
        (nn.Upsample(size=12), conv, "no scale of its own"),
    ):
        with pytest.raises(ValueError, match=message):
            upsample_conv_to_jump(upsample, layer)
    with pytest.raises(TypeError, match="conv must be a"):
        upsample_conv_to_jump(nearest, nn.Linear(3, 3))
    sized = upsample_conv_to_jump(nn.Upsample(size=(12, 10)), conv, input_size=(6, 5))
    torch.testing.assert_close(sized(x := torch.randn(1, 4, 6, 5)), conv(nearest(x)))
