"""Is the rule what its documentation says, and does every form that it chooses compute the same?"""

import copy

import pytest
import torch
import torch._inductor.config
from torch import nn

import upconv
from upconv import _folding, models
from upconv.fastest import FORMS, FusedConvTranspose2d, Work, fastest, fused
from upconv.graph import folded_copy

CPU, GPU = torch.device("cpu"), torch.device("cuda")
COMMON = dict(device=CPU, dtype=torch.float32, in_channels=256, macs=36 * 10**8, folded=16 * 10**8, jump=9 * 10**8)
COMMON |= dict(fits=False, compiled=True)


@pytest.mark.parametrize(
    ("form", "changes"),
    [
        ("jump", {}),
        ("conv_transpose", dict(in_channels=255)),
        ("conv_transpose", dict(compiled=False)),
        ("jump", dict(compiled=False, in_channels=512)),
        ("conv_transpose", dict(compiled=False, in_channels=512, macs=36 * 10**6, folded=16 * 10**6, jump=9 * 10**6)),
        ("conv_transpose", dict(jump=11 * 10**8)),
        ("conv_transpose", dict(jump=0)),
        ("conv_transpose", dict(dtype=torch.bfloat16)),
        ("conv_transpose", dict(device=GPU)),
        ("fused", dict(device=GPU, fits=True)),
        ("fused", dict(device=GPU, fits=True, macs=10**6, folded=10**6)),
        ("conv_transpose", dict(device=GPU, fits=True, compiled=False)),
        ("fused", dict(device=GPU, fits=True, transposed=True)),
        ("as it is", dict(device=GPU, fits=True, transposed=True, compiled=False)),
        ("as it is", dict(transposed=True)),
        ("as it is", dict(folded=36 * 10**8)),
        ("conv_transpose", dict(kept=False)),
        ("as it is", dict(kept=False, pixels=255)),
        ("conv_transpose", dict(kept=False, pixels=256)),
    ],
)
def test_rule(form, changes):
    found, why = fastest(Work(**(COMMON | changes)))
    assert found == form and found in FORMS and why


def test_rule_on_amd(monkeypatch):
    monkeypatch.setattr(torch.version, "hip", "7.0")
    assert fastest(Work(**(COMMON | dict(device=GPU))))[0] == "subpixel"
    assert fastest(Work(**COMMON))[0] == "jump"


def decoder():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Upsample(scale_factor=2), nn.Conv2d(6, 5, 3, padding=1), nn.ReLU(), nn.Upsample(scale_factor=3),
        nn.ReflectionPad2d(1), nn.Conv2d(5, 4, (3, 4)), nn.ReLU(inplace=True), nn.Upsample(scale_factor=2),
        nn.Conv2d(4, 4, 1), nn.ConvTranspose2d(4, 4, 4, 2, 1),
    ).double()  # fmt: skip


@pytest.mark.parametrize("form", FORMS[1:])
def test_rewrite_to_each_form(form, monkeypatch):
    if form == "fused":
        monkeypatch.setattr(models, "fits", lambda *_: True)
    monkeypatch.setattr(models, "fastest", lambda work: (form, "asked for"))
    model, x = decoder(), torch.randn(2, 6, 4, 5, dtype=torch.float64)
    result = upconv.rewrite(model, "fastest", x)
    rows = {row["name"]: row for row in result.report}
    assert rows["0"]["reason"] == rows["3"]["reason"] == "asked for"
    assert rows["7"]["became"] == "Conv2d 1x1 + nearest Upsample"
    assert (rows["9"]["became"] is not None) == (form in ("subpixel", "fused"))
    kinds = {type(layer).__name__ for layer in result.model.modules()}
    expected = dict(
        conv_transpose="ConvTranspose2d", subpixel="PixelShuffle", jump="_Jump", fused="FusedConvTranspose2d"
    )
    assert expected[form] in kinds
    torch.testing.assert_close(result.model(x), model(x))
    torch.export.export(result.model.eval(), (x,)).module()


def test_rewrite_by_the_clock(monkeypatch):
    """Of the measured times the least decides, and the report has them all."""
    times = dict(jump=1.0, conv_transpose=2.0, subpixel=3.0)

    def clock(calls, rounds=7):
        names = ["as it is", "conv_transpose", "subpixel", "jump"][: len(calls)]
        return tuple(times.get(name, 4.0) for name in names)

    monkeypatch.setattr(models, "_times", clock)
    model, x = nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(3, 2, 3)), torch.randn(1, 3, 4, 4)
    [row] = upconv.rewrite(model, "fastest", x, measure=True).report
    assert row["became"] == "Jump" and "timed: as it is 4e+03 ms" in row["reason"] and "jump 1e+03 ms" in row["reason"]
    times["as it is"] = 0.5
    [row] = upconv.rewrite(model, "fastest", x, measure=True).report
    assert row["became"] is None and row["status"] == "left" and "taken back" not in row["reason"]


def test_rewrite_to_fastest_needs_inputs():
    with pytest.raises(ValueError, match="needs example_inputs"):
        upconv.rewrite(decoder(), "fastest")


class Joined(nn.Module):
    """What a convolution reads beside upsampled channels: others, and a sum."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(7, 5, 3, padding=1), nn.Conv2d(5, 4, 3, padding=1)

    def forward(self, x, skip):
        y = torch.cat([nn.functional.interpolate(x, scale_factor=2.0), skip], 1)
        y = self.first(y).relu()
        return y, self.second(nn.functional.interpolate(y, scale_factor=2.0)).relu() + 1


@pytest.mark.parametrize("form", ["conv_transpose", "jump"])
@pytest.mark.parametrize("dynamic", [False, True])
def test_backend_to_each_form(form, dynamic, monkeypatch):
    seen = []
    monkeypatch.setattr(_folding, "fastest", lambda work: (seen.append(work), (form, "asked for"))[1])
    torch.manual_seed(0)
    model = Joined().double()
    torch.compiler.reset()
    new = torch.compile(model, backend=upconv.backend, options=dict(inner="aot_eager", to="fastest"), dynamic=dynamic)
    for size in (3, 4):
        x, skip = torch.randn(2, 4, size, 5).double(), torch.randn(2, 3, 2 * size, 10).double()
        with torch.no_grad():
            torch.testing.assert_close(new(x, skip), model(x, skip))
    expected = dict(in_channels=7, macs=2 * 6 * 10 * 7 * 5 * 9, folded=2 * 3 * 5 * 4 * 5 * 16 + 2 * 6 * 10 * 3 * 5 * 9)
    assert {name: getattr(seen[0], name) for name in expected} == expected
    assert seen[0].jump == 2 * 3 * 5 * 4 * 5 * 9 + 2 * 6 * 10 * 3 * 5 * 9
    assert (seen[0].pixels, seen[0].kept, seen[0].compiled) == (2 * 3 * 5, True, False)


def test_a_dilated_kernel_has_no_jump_form_to_choose(monkeypatch):
    seen, rule = [], _folding.fastest
    monkeypatch.setattr(_folding, "fastest", lambda work: (seen.append(work), rule(work))[1])
    for dilation in (1, 2):
        model = nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(512, 2, 3, dilation=dilation))
        torch.compiler.reset()
        new = torch.compile(model, backend=upconv.backend, options=dict(inner="eager", to="fastest"), dynamic=True)
        with torch.no_grad():
            new(torch.randn(1, 512, 6, 5))
    assert [work.jump > 0 for work in seen] == [True, False]


def test_backend_in_training_follows_the_weights():
    """Kernels that are composed at each call get their gradients, in the form of the rule."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(3, 2, 3, padding=1)).double()
    twin = copy.deepcopy(model)
    torch.compiler.reset()
    new = torch.compile(twin, backend=upconv.backend, options=dict(inner="aot_eager", to="fastest"))
    x = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    for module in (model, new):
        module(x).square().sum().backward()
    torch.testing.assert_close(twin[1].weight.grad, model[1].weight.grad)


def test_a_jump_form_follows_its_weight():
    """A kernel that is kept is composed anew when the weight has changed."""
    model = nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(512, 4, 3, padding=1)).requires_grad_(False)
    torch.compiler.reset()
    new = torch.compile(model, backend=upconv.backend, options=dict(inner="eager", to="fastest"))
    x = torch.randn(1, 512, 32, 32)
    for _ in range(2):
        torch.testing.assert_close(new(x), model(x), rtol=1e-4, atol=1e-5)
        model[1].weight.mul_(-2)


def test_a_fused_layer_is_a_transposed_convolution_elsewhere():
    layer = nn.ConvTranspose2d(3, 4, 4, 2, 1)
    new = fused(layer)
    assert type(new) is FusedConvTranspose2d and type(layer) is nn.ConvTranspose2d
    assert new.weight.permute(2, 3, 0, 1).is_contiguous() and new.weight.requires_grad
    x = torch.randn(1, 3, 5, 6)
    assert torch.equal(new(x), layer(x)) or torch.allclose(new(x), layer(x), atol=1e-6)
    layer.load_state_dict(new.state_dict())
    program = torch.export.export(new.eval(), (x,))
    assert "conv_transpose2d" in str(program.graph) and "upconv" not in str(program.graph)


def test_under_autocast_the_jump_form_is_not_chosen():
    """Its differences would be rounded on the way."""
    model, x = nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(512, 4, 3, padding=1)), torch.randn(1, 512, 24, 24)
    graphs = []
    for rounds in (False, True):
        torch.compiler.reset()
        new = torch.compile(model, backend=lambda gm, inputs: graphs.append((gm, inputs)) or gm.forward, dynamic=False)
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=rounds):
            new(x)
            [site] = folded_copy(*graphs.pop(), compiled=True)[1]
        assert ("jump" in site.became[0]) is not rounds


def test_a_transposed_layer_without_another_form_is_left(monkeypatch):
    def refuse(layer):
        raise ValueError("it has none")

    monkeypatch.setattr(models, "conv_transpose_to_subpixel", refuse)
    [row] = upconv.rewrite(nn.ConvTranspose2d(3, 2, 4, 2, 1), "fastest", torch.randn(1, 3, 4, 4)).report
    assert row["became"] is None and row["status"] == "left" and "taken back" not in row["reason"]


def test_weights_that_inductor_freezes_are_kept(monkeypatch):
    seen, rule = [], _folding.fastest
    monkeypatch.setattr(_folding, "fastest", lambda work: (seen.append(work), rule(work))[1])
    monkeypatch.setattr(torch._dynamo, "lookup_backend", lambda name: lambda gm, inputs: gm)  # nothing is compiled
    model, x = nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(256, 2, 3)), torch.randn(1, 256, 4, 4)
    for freezing in (False, True):
        torch.compiler.reset()
        with torch._inductor.config.patch(freezing=freezing), torch.no_grad():
            new = torch.compile(model, backend=upconv.backend, options=dict(to="fastest"), dynamic=False)
            torch.testing.assert_close(new(x), model(x), rtol=1e-4, atol=1e-5)
        assert seen.pop().kept
    torch.compiler.reset()
    new = torch.compile(model, backend=upconv.backend, options=dict(to="fastest", inner="aot_eager"))
    new(x)
    assert not seen.pop().kept
