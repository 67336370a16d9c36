"""Does the GPU's kernel compute a transposed convolution? Without a GPU, Triton's interpreter runs it.

`conftest.py` asks for that before anything imports triton.
"""

import random

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import upconv
from upconv import _folding
from upconv.fastest import fits, fused

triton = pytest.importorskip("triton")
kernel = pytest.importorskip("upconv.kernel")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
DTYPES = {torch.float32: 1e-5, torch.float16: 2e-3} | ({torch.bfloat16: 1e-2} if DEVICE == "cuda" else {})


def tensors(n, ci, co, size, k, dtype, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shapes = (n, ci, *size), (ci, co, *k), (co,)
    return [torch.randn(shape, generator=generator).to(DEVICE, dtype) for shape in shapes]


def settings_of_the_test(seed):
    """Draw odd sizes and channels; strides beyond the kernel leave phases without a tap."""
    draw = random.Random(seed)
    while True:
        k, s, p = ([draw.randint(*ends) for _ in "hw"] for ends in ((1, 5), (1, 3), (0, 2)))
        o, size = [draw.randrange(stride) for stride in s], [draw.randint(1, 7) for _ in "hw"]
        out = [(n - 1) * t - 2 * q + m + r for n, t, q, m, r in zip(size, s, p, k, o, strict=True)]
        if min(out) > 0:
            return draw.randint(1, 2), draw.choice((1, 3, 16, 65)), draw.choice((1, 5, 33)), size, k, s, p, o


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("seed", range(5))
def test_equals_the_float64_result(seed, dtype):
    n, ci, co, size, k, s, p, o = settings_of_the_test(seed)
    x, weight, bias = tensors(n, ci, co, size, k, dtype, seed)
    bias, activation = bias if seed % 3 else None, kernel.ACTIVATIONS[seed % 2]
    expected = F.conv_transpose2d(*(t if t is None else t.double() for t in (x, weight, bias)), s, p, o)
    expected = expected.relu() if activation == "relu" else expected
    found = kernel.conv_transpose2d(x, weight, bias, s, p, o, activation)
    assert found.dtype == dtype and found.is_contiguous(memory_format=torch.channels_last)
    assert (found.double() - expected).abs().max() <= DTYPES[dtype] * expected.abs().max()


@pytest.mark.parametrize("tile", kernel.TILES)
def test_every_tile(tile, monkeypatch):
    monkeypatch.setattr(kernel, "tile_for", lambda *_: tile)
    x, weight, bias = tensors(1, 3, 2, (2, 3), (4, 4), torch.float32)
    found = kernel.conv_transpose2d(x, weight, bias, [2, 2], [1, 1], [0, 0], "none")
    torch.testing.assert_close(found, F.conv_transpose2d(x, weight, bias, 2, 1), rtol=1e-4, atol=1e-5)


def test_tiles_are_those_that_were_measured_to_be_the_fastest():
    """By batch, out_channels and side of a layer's input on 132 multiprocessors; of the tile pixels and channels."""
    measured = {
        (16, 64, 64): (128, 64), (16, 64, 32): (128, 64), (16, 128, 16): (128, 128), (16, 256, 16): (128, 256),
        (16, 512, 64): (128, 256), (1, 64, 64): (128, 64), (1, 64, 32): (64, 32), (1, 128, 16): (64, 32),
        (1, 512, 64): (128, 256),
    }  # fmt: skip
    for (batch, channels, side), tile in measured.items():
        assert kernel.tile_for(batch * side**2, channels, 4, 132)[:2] == tile
    assert kernel.tile_for(10**6, 3, 4, 132)[:2] == (64, 32)


@pytest.mark.slow
def test_many_channels_are_summed_tap_by_tap():
    """From 512 channels on the loops are others."""
    x, weight, bias = tensors(1, 513, 3, (2, 3), (4, 4), torch.float32)
    found = kernel.conv_transpose2d(x, weight, bias, [2, 2], [1, 1], [0, 0], "none")
    torch.testing.assert_close(found, F.conv_transpose2d(x, weight, bias, 2, 1), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("activation", kernel.ACTIVATIONS)
def test_gradients(activation):
    given = [t.requires_grad_() for t in tensors(2, 3, 4, (4, 5), (4, 4), torch.float32)]
    found = kernel.conv_transpose2d(*given, [2, 2], [1, 1], [0, 0], activation)
    expected = F.conv_transpose2d(*given, 2, 1)
    expected = expected.relu() if activation == "relu" else expected
    for one, two in zip(*(torch.autograd.grad((y + 1).square().sum(), given) for y in (found, expected)), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-4)


class Decoder(nn.Module):
    """ReLUs that the kernel takes with it, and one that it cannot: its convolution is read elsewhere, too."""

    def __init__(self):
        super().__init__()
        self.up = nn.Upsample(scale_factor=2)
        self.convs = nn.ModuleList(nn.Conv2d(*io, 3, padding=1) for io in ((5, 4), (4, 3), (5, 3)))
        self.pads = nn.ModuleList([nn.ZeroPad2d((2, 1, 0, 3)), nn.ReLU(inplace=True)])

    def forward(self, x, skip):
        y = F.relu(self.convs[0](self.up(x)))
        y = self.pads[1](self.convs[1](self.pads[0](self.up(y))))
        z = self.convs[2](self.up(torch.cat([y, skip], 1)))
        return y, z, z.relu()


def test_in_a_compiled_graph(monkeypatch):
    monkeypatch.setattr(_folding, "fastest", lambda work: ("fused", "asked for"))
    graphs = []
    lookup = torch._dynamo.lookup_backend
    monkeypatch.setattr(
        torch._dynamo, "lookup_backend", lambda name: lambda gm, inputs: graphs.append(gm) or lookup(name)(gm, inputs)
    )
    torch.manual_seed(0)
    model, x = Decoder().to(DEVICE), torch.randn(1, 5, 3, 2, device=DEVICE)
    skip = torch.randn(1, 2, 15, 11, device=DEVICE)
    torch.compiler.reset()
    new = torch.compile(model, backend=upconv.backend, options=dict(inner="eager", to="fastest"), dynamic=False)
    with torch.no_grad():
        torch.testing.assert_close(new(x, skip), model(x, skip), rtol=1e-4, atol=1e-5)
    nodes = [node for node in graphs[0].graph.nodes if node.target is torch.ops.upconv.conv_transpose2d.default]
    assert [node.args[-1] for node in nodes] == ["relu", "relu", "none"]
    for node in nodes:  # no copy is made of the kernels at a call
        assert getattr(graphs[0], node.args[1].target).permute(2, 3, 0, 1).is_contiguous()


def test_where_it_fits(monkeypatch):
    x, weight, _ = tensors(1, 3, 4, (4, 5), (4, 4), torch.float16)
    assert fits(x, weight) == (DEVICE == "cuda")
    assert not fits(x.float(), weight.float())
    assert not fits(x, weight, 2) and not fits(x, weight, 1, 2)


@pytest.mark.skipif(DEVICE == "cpu", reason="there is no GPU")
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_on_a_gpu(dtype):
    """By inductor, by its CUDA graphs, and as a layer, which a GPU alone can try."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(64, 48, 3, padding=1), nn.ReLU()).to(DEVICE, dtype)
    model = model.to(memory_format=torch.channels_last)
    x = torch.randn(2, 64, 9, 10, device=DEVICE, dtype=dtype).to(memory_format=torch.channels_last)
    expected = model.double()(x.double())
    model.to(dtype)
    scale = expected.abs().max().item()
    for graphs in (False, True):
        torch.compiler.reset()
        new = torch.compile(model, backend=upconv.backend, options={"to": "fastest", "triton.cudagraphs": graphs})
        with torch.no_grad():
            for _ in range(3):
                assert (new(x).double() - expected).abs().max() < 1e-2 * scale
    layer = fused(upconv.upsample_conv_to_conv_transpose(*model[:2]))
    assert (layer(x).relu().double() - expected).abs().max() < 1e-2 * scale
    torch.compiler.reset()
    new = torch.compile(model, backend=upconv.backend, options=dict(to="fastest"))
    new(x).float().square().sum().backward()
    assert model[1].weight.grad.isfinite().all()
