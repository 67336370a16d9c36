import copy
import itertools

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.parametrize import is_parametrized, remove_parametrizations

from upconv.book.blocks import BLOCKS, FOLDED, ChannelSums, FoldedPair, upsampling_block

NAMES = list(BLOCKS)
ONLY_2 = "conv_transpose_4x4_bilinear_init"
CASES = [(name, scale) for name in NAMES for scale in (2, 3, 4) if scale == 2 or name != ONLY_2]
PATTERNED_AT_START = {"conv_transpose_2x2", "conv_transpose_3x3", "conv_transpose_4x4", "pixel_shuffle"}


def build(name, in_channels=3, out_channels=2, scale=2):
    return upsampling_block(name, in_channels, out_channels, scale).double()


def images(*shape):
    return torch.randn(*shape, dtype=torch.float64)


def interior(output, frame):
    return output[..., frame:-frame, frame:-frame]


@pytest.mark.parametrize(("name", "scale"), CASES)
@pytest.mark.parametrize("size", [(1, 1), (5, 7), (8, 6)])
def test_output_size_is_exact(name, scale, size):
    output = build(name, scale=scale)(images(2, 3, *size))
    assert output.shape == (2, 2, scale * size[0], scale * size[1])


@pytest.mark.parametrize(("name", "scale"), CASES)
def test_only_stock_layers_in_a_sequential(name, scale):
    block = upsampling_block(name, 3, 2, scale)
    assert type(block) is nn.Sequential
    for layer in block:
        if is_parametrized(layer):  # stock again, as it is exported
            remove_parametrizations(layer, "weight")
        kinds = getattr(nn, type(layer).__name__, None), ChannelSums
        assert type(layer) in kinds and (type(layer) is not ChannelSums or name == "bilinear_additive")


@pytest.mark.parametrize(("kernel_size", "scale"), list(itertools.product((2, 3, 4), (2, 3, 4, 5, 6))))
def test_conv_transpose_keeps_its_kernel_and_takes_the_least_output_padding(kernel_size, scale):
    layer = upsampling_block(f"conv_transpose_{kernel_size}x{kernel_size}", 3, 2, scale)[0]
    surplus = kernel_size - scale
    output_padding = next(op for op in range(9) if surplus + op >= 0 and (surplus + op) % 2 == 0)
    assert (layer.kernel_size, layer.stride) == ((kernel_size,) * 2, (scale,) * 2)
    assert layer.output_padding == (output_padding,) * 2
    assert layer.padding == ((surplus + output_padding) // 2,) * 2


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_upsample_then_conv(scale):
    x = images(2, 3, 4, 5)
    for mode, options in (
        ("nearest", {}),
        ("bilinear", {"align_corners": False}),
        ("bicubic", {"align_corners": False}),
    ):
        block = build(f"{mode}_conv_3x3", scale=scale)
        resized = F.interpolate(x, scale_factor=scale, mode=mode, **options)
        torch.testing.assert_close(block(x), F.conv2d(resized, block[1].weight, block[1].bias, padding=1))


def test_nearest_conv_2x2_pads_right_and_bottom():
    block, x = build("nearest_conv_2x2"), images(2, 3, 4, 5)
    full = F.conv2d(F.interpolate(x, scale_factor=2), block[2].weight, block[2].bias, padding=1)
    torch.testing.assert_close(block(x), full[..., 1:, 1:])


@pytest.mark.parametrize(("name", "scale"), CASES)
def test_a_constant_input_stays_constant_only_without_a_pattern(name, scale):
    output = build(name, scale=scale)(images(1, 3, 1, 1).expand(1, 3, 9, 8))
    inside = interior(output, 2 * scale)
    spread = ((inside.amax((2, 3)) - inside.amin((2, 3))) / inside.abs().mean((2, 3))).max()
    assert spread > 0.01 if name in PATTERNED_AT_START else spread < 1e-6


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_icnr_starts_as_nearest_upsampling_of_a_smaller_conv(scale):
    block, x = build("pixel_shuffle_icnr", out_channels=5, scale=scale), images(2, 3, 6, 7)
    weight, bias = block[0].weight[:: scale**2], block[0].bias[:: scale**2]
    assert weight.shape[0] == 5 and bias.unique().numel() == 5
    small = F.conv2d(x, weight, bias, padding=1)
    torch.testing.assert_close(block(x), F.interpolate(small, scale_factor=scale, mode="nearest"))


def test_the_initialised_blocks_start_at_the_scale_of_a_default_conv():
    def check(weight, fan_in):
        assert weight.abs().max() <= fan_in**-0.5
        assert weight.std().item() == pytest.approx((3 * fan_in) ** -0.5, rel=0.05)

    check(upsampling_block("pixel_shuffle_icnr", 40, 50)[0].weight, 40 * 9)
    check(upsampling_block(ONLY_2, 40, 50)[0].weight.sum((2, 3)) / 4, 40)


def pair_and_folded(scale, seed=0, last=False):
    """Give the pair and the one layer that trains as it does, of one seed."""
    blocks = []
    for name in ("nearest_conv_3x3", FOLDED):
        torch.manual_seed(seed)
        block = build(name, 4, 5, scale)
        blocks.append(block.to(memory_format=torch.channels_last) if last else block)
    return blocks


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("scale", [2, 3, 4])
def test_the_folded_pair_is_the_pair_in_values_and_gradients(scale, last):
    pair, folded = pair_and_folded(scale, last=last)
    assert type(folded) is FoldedPair
    for one, other in zip(pair.parameters(), folded.parameters(), strict=True):
        assert torch.equal(one, other)  # one seed draws the same
    x = images(2, 4, 5, 7)
    made, weights = [], images(2, 5, 5 * scale, 7 * scale)
    for block in (pair, folded):
        inputs = x.clone().requires_grad_()
        output = block(inputs)
        (output * weights).sum().backward()
        made.append([output, inputs.grad, *(parameter.grad for parameter in block.parameters())])
        assert output.is_contiguous(memory_format=torch.channels_last) is last  # as the weights lie, whatever x does
    for one, other in zip(*made, strict=True):
        torch.testing.assert_close(other, one, rtol=1e-12, atol=1e-12)


def test_the_folded_pair_takes_the_pairs_path_in_training():
    """Adam's steps, each with another batch: were a gradient another linear map of the pair's, they would part."""
    blocks = pair_and_folded(2)
    start = copy.deepcopy(blocks[1])
    target, paths = images(6, 5, 10, 14), []
    x = images(6, 4, 5, 7)
    for block in blocks:
        optimizer = torch.optim.Adam(block.parameters(), lr=0.01)
        for step in range(12):
            optimizer.zero_grad()
            (block(x[step % 6][None]) - target[step % 6][None]).square().mean().backward()
            optimizer.step()
        paths.append([*block.parameters()])
    for one, other, before in zip(*paths, start.parameters(), strict=True):
        torch.testing.assert_close(other, one, rtol=0, atol=1e-6)
        assert (other - before).abs().mean() > 0.01


def test_the_folded_pair_is_none_of_the_blocks_and_keeps_the_convolution_alone():
    assert FOLDED not in BLOCKS and len(BLOCKS) == 12
    pair, folded = pair_and_folded(2)
    assert list(folded.state_dict()) == ["conv.weight", "conv.bias"]
    pair[1].load_state_dict({name: 2 * value for name, value in folded.conv.state_dict().items()})
    x = images(1, 4, 3, 3)
    folded(x)
    folded.conv.load_state_dict(pair[1].state_dict())  # the kernel is composed of what the weight is now
    torch.testing.assert_close(folded(x), pair(x))


@pytest.mark.parametrize(("name", "scale"), CASES)
def test_parameter_counts(name, scale):
    i, o = 3, 2
    if "pixel" in name:
        expected = (9 * i + 1) * o * scale**2
    elif name == "bilinear_additive":
        expected = (9 * -(-i // scale**2) + 1) * o  # the sums of so many channels, the last of fewer
    else:
        expected = next(int(part[0]) for part in name.split("_") if part[1:2] == "x") ** 2 * i * o + o
    block = upsampling_block(name, i, o, scale)
    assert sum(parameter.numel() for parameter in block.parameters()) == expected


@pytest.mark.parametrize("name", NAMES)
def test_the_global_seed_decides_the_weights(name):
    def state(seed):
        torch.manual_seed(seed)
        return list(upsampling_block(name, 3, 2).parameters())

    assert all(map(torch.equal, state(1), state(1)))
    assert not any(map(torch.equal, state(1), state(2)))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("nearest", 3, 2), ValueError, r"name='nearest' .* conv_transpose_2x2, .*, pixel_shuffle_icnr$"),
        ((FOLDED, 3, 2, 1), ValueError, "scale=1 must be an int of at least 2"),
        (("pixel_shuffle", 0, 2), ValueError, "in_channels=0 must be an int of at least 1"),
        (("pixel_shuffle", 3, -1), ValueError, "out_channels=-1 must be an int of at least 1"),
        (("pixel_shuffle", 3, 2, 1), ValueError, "scale=1 must be an int of at least 2"),
        (("pixel_shuffle", 3, 2, 2.0), TypeError, "scale=2.0 must be an int of at least 2"),
        (("pixel_shuffle", 3, True), TypeError, "out_channels=True must be an int"),
        (("pixel_shuffle", 3, np.bool_(True)), TypeError, r"out_channels=(np\.)?True_? must be an int"),
        (("pixel_shuffle", 3, 2, torch.tensor(2)), TypeError, "scale=tensor"),
        ((ONLY_2, 3, 2, 3), ValueError, r"scale=3 .*conv_transpose_4x4_bilinear_init.* is 5; accepted is scale=2"),
        ((ONLY_2, 3, 2, 4), ValueError, r"scale=4 .* is 8; accepted is scale=2"),
    ],
)
def test_errors_name_the_argument(arguments, error, message):
    with pytest.raises(error, match=message):
        upsampling_block(*arguments)
