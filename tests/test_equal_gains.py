"""The kernels with equal gains: exactly this family, by rank, by least squares and by training."""

import copy
import math

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

from upconv import equal_gains, is_upsample_conv, phase_gains, rewrite, upsample_conv_to_conv_transpose
from upconv.equal_gains import _EqualGains

KINDS = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
PAIRS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
SIZES = [
    ((4,), (2,)),
    ((16,), (8,)),
    ((5,), (3,)),
    ((4, 4), (2, 2)),
    ((3, 3), (2, 2)),
    ((5, 5), (3, 3)),
    ((6, 3), (2, 3)),
    ((5, 2), (1, 2)),
    ((2, 2), (2, 2)),
    ((4, 2), (2, 2)),
    ((4, 3), (2, 1)),
    ((4, 1), (2, 1)),
    ((4, 4, 4), (2, 2, 2)),
    ((3, 4, 2), (2, 3, 1)),
]


def layer(kernel_size, stride, channels=(4, 6), **options):
    return KINDS[len(kernel_size)](*channels, kernel_size, stride, **options).double()


def unequal(kernel, stride):
    gains = phase_gains(kernel, stride).flatten(2)
    return (gains.amax(2) - gains.amin(2)).max().item()


def projection_matrix(kernel_size, stride):
    """Column by column, what the parametrization makes of each tap."""
    taps = math.prod(kernel_size)
    unit = torch.eye(taps, dtype=torch.float64).reshape(taps, 1, *kernel_size)
    return _EqualGains(kernel_size, stride)(unit).reshape(taps, taps)


def conditions(kernel_size, stride):
    """One row for each phase: which taps its gain is the sum of, minus the same of phase 0."""
    unit = torch.eye(math.prod(kernel_size), dtype=torch.float64).reshape(-1, 1, *kernel_size)
    gains = phase_gains(unit, stride).flatten(1).T
    return gains[1:] - gains[:1]


@pytest.mark.parametrize(("kernel_size", "stride"), SIZES)
def test_it_is_the_orthogonal_projection_onto_all_kernels_with_equal_gains(kernel_size, stride):
    matrix, rows = projection_matrix(kernel_size, stride), conditions(kernel_size, stride)
    wanted = torch.eye(len(matrix), dtype=torch.float64) - torch.linalg.pinv(rows) @ rows if len(rows) else matrix
    torch.testing.assert_close(matrix, wanted, rtol=0, atol=1e-12)
    dimension = math.prod(kernel_size) - (math.prod(stride) - 1)
    assert torch.linalg.matrix_rank(matrix) == dimension == round(matrix.trace().item())


@pytest.mark.parametrize(("kernel_size", "stride"), [sizes for sizes in SIZES if len(set(sizes[1]) - {1}) > 0])
def test_the_pairs_lie_inside_and_fill_it_on_one_axis(kernel_size, stride):
    axes, taps = len(stride), math.prod(kernel_size)
    size = [k - s + 1 for k, s in zip(kernel_size, stride, strict=True)]
    pairs = []
    for tap in range(math.prod(size)):
        conv = PAIRS[axes](1, 1, size, bias=False).double()
        conv.weight.data = torch.eye(math.prod(size), dtype=torch.float64)[tap].reshape(1, 1, *size)
        pair = upsample_conv_to_conv_transpose(nn.Upsample(scale_factor=tuple(map(float, stride))), conv)
        pairs.append(pair.weight.detach().flatten())
    matrix, pairs = projection_matrix(kernel_size, stride), torch.stack(pairs)
    torch.testing.assert_close(pairs @ matrix, pairs, rtol=0, atol=1e-12)
    dimension = taps - (math.prod(stride) - 1)
    assert torch.linalg.matrix_rank(pairs) == math.prod(size)
    between = any(
        k > s and math.prod(stride) > s
        for k, s in zip(kernel_size, stride, strict=True)  # beside a stride above 1
    )
    assert (math.prod(size) < dimension) == between and math.prod(size) <= dimension
    if kernel_size == (4, 4):
        assert (math.prod(size), dimension, taps) == (9, 13, 16)


@pytest.mark.parametrize("dilation", [1, 3, (5, 3)])
@pytest.mark.parametrize("groups", [1, 2])
def test_flat_inputs_stay_flat_at_every_setting(dilation, groups):
    options = dict(padding=(3, 1), output_padding=(1, 0), dilation=dilation, groups=groups)
    free = layer((5, 4), (2, 2), **options)
    x = torch.randn(2, 4, 1, 1, dtype=torch.float64).expand(-1, -1, 24, 22)
    inside = (..., slice(21, -21), slice(15, -15))
    before = free(x)[inside]
    assert (before.amax((2, 3)) - before.amin((2, 3))).min() > 0.01
    y = equal_gains(free)(x)[inside]
    assert y.numel() and (y.amax((2, 3)) - y.amin((2, 3))).max() < 1e-13


def test_it_changes_the_layer_in_place_and_gives_it_back():
    free = layer((4, 4), (2, 2), padding=1)
    weight, bias = free.weight.detach().clone(), free.bias
    assert equal_gains(free) is free and free.bias is bias and isinstance(free, nn.ConvTranspose2d)
    assert set(free.state_dict()) == {
        "bias",
        "parametrizations.weight.original",
        "parametrizations.weight.0.projection",
    }
    torch.testing.assert_close(free.weight, _EqualGains((4, 4), (2, 2))(weight))
    nearest = free.weight.detach().clone()
    other = nearest + 1e-3 * _EqualGains((4, 4), (2, 2))(torch.randn_like(nearest))
    assert (weight - nearest).norm() < (weight - other).norm()
    x = torch.randn(1, 4, 5, 6, dtype=torch.float64)
    y = free(x)
    parametrize.remove_parametrizations(free, "weight")
    assert type(free) is nn.ConvTranspose2d and free.weight.requires_grad and torch.equal(free(x), y)


def test_training_stays_inside_and_what_is_assigned_is_projected():
    free = equal_gains(layer((5, 5), (3, 3)))
    start, optimizer = free.weight.detach().clone(), torch.optim.Adam(free.parameters(), lr=0.1)
    x, y = torch.randn(2, 4, 4, 4, dtype=torch.float64), torch.randn(2, 6, 14, 14, dtype=torch.float64)
    for _ in range(5):
        optimizer.zero_grad()
        (free(x) - y).square().mean().backward()
        optimizer.step()
        assert unequal(free.weight.detach(), 3) < 1e-12
    assert (free.weight - start).abs().mean() > 0.01
    free.weight = torch.randn_like(start)
    assert unequal(free.weight.detach(), 3) < 1e-12
    assert torch.equal(copy.deepcopy(free).weight, free.weight)


def test_no_cast_makes_the_projection_inexact():
    free = equal_gains(layer((5, 4), (2, 2), dilation=(3, 1)).to(memory_format=torch.channels_last))
    assert free.weight.is_contiguous(memory_format=torch.channels_last)
    free.half().double()
    assert unequal(free.weight.detach(), 2) < 1e-14
    with torch.device("meta"):
        empty = equal_gains(nn.ConvTranspose2d(4, 6, (5, 4), 2, dilation=(3, 1))).double()
    empty.to_empty(device="cpu").load_state_dict(free.state_dict())
    torch.testing.assert_close(empty.weight, free.weight, rtol=0, atol=1e-14)


def test_the_gradient_is_that_of_the_projection():
    weight = torch.randn(2, 3, 5, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(_EqualGains((5, 4), (2, 3)), weight)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_several_networks_run_as_one(memory_format):
    """As torch.func trains an ensemble; and the weight keeps the memory format of what is stored."""
    models = [nn.Sequential(equal_gains(nn.ConvTranspose2d(3, 4, 4, 2, 1))) for _ in range(3)]
    for model in models:
        model.to(memory_format=memory_format)
        assert model[0].weight.is_contiguous(memory_format=memory_format)
    x = torch.randn(1, 3, 6, 5)
    state = torch.func.stack_module_state(models)
    made = torch.vmap(lambda state: torch.func.functional_call(models[0], state, (x,)))(state)
    torch.testing.assert_close(made, torch.stack([model(x) for model in models]))


def test_it_exports_and_is_rewritten_as_the_layer_that_it_is():
    model = nn.Sequential(equal_gains(nn.ConvTranspose2d(3, 4, 4, 2, 1)), nn.ReLU()).eval()
    x = torch.randn(1, 3, 6, 5)
    torch.testing.assert_close(torch.export.export(model, (x,)).module()(x), model(x))
    report = rewrite(model, "subpixel", x).report
    assert [row["status"] for row in report] == ["rewritten"]
    assert not is_upsample_conv(model[0])
    assert unequal(model.bfloat16()[0].weight.detach().double(), 2) < 0.01


@pytest.mark.parametrize(
    ("kernel_size", "stride", "dilation", "reached"),
    [((3, 4), (4, 4), (1, 1), "3 of 4"), ((4, 5), (2, 2), (1, 2), "1 of 2"), ((7, 7), (6, 6), (4, 1), "3 of 6")],
)
def test_a_phase_without_a_tap_is_refused_with_the_reason(kernel_size, stride, dilation, reached):
    free = layer(kernel_size, stride, dilation=dilation)
    with pytest.raises(ValueError, match=f"taps reach {reached} phases"):
        equal_gains(free)
    assert not parametrize.is_parametrized(free)


def test_other_layers_are_refused():
    with pytest.raises(TypeError, match=r"layer must be a torch.nn.ConvTranspose1d.*, not Conv2d"):
        equal_gains(nn.Conv2d(1, 1, 3))
    with pytest.raises(ValueError, match="without weights yet"):
        equal_gains(nn.LazyConvTranspose2d(1, 4, 2))
