"""Models, the graph and the audit in one, two and three dimensions: the number of axes is one more drawn parameter."""

import random

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from written import Model, assert_same, randomised

from upconv import audit, fold_exported, pixel_shuffle_to_conv_transpose, rewrite
from upconv.graph import folded_copy

LINEAR = {1: "linear", 2: "bilinear", 3: "trilinear"}


def layer(kind, axes, *args, **settings):
    return getattr(nn, f"{kind}{axes}d")(*args, **settings)


def drawn(axes, seed):
    """Draw a decoder: a layer that enlarges, what is between, a layer that reads it; and an input."""
    rng = random.Random(1000 * axes + seed)

    def pick(low, high):
        return tuple(rng.randint(low, high) for _ in range(axes))

    mode = rng.choice(["nearest", "nearest", "nearest-exact", LINEAR[axes]])
    padding_mode = rng.choice(["zeros", "zeros", "replicate", "circular"])
    kernel_size, scale = pick(1, 3), pick(1, 3)
    padding = 0 if mode == LINEAR[axes] and padding_mode != "replicate" else pick(0, 1)
    settings = dict(kernel_size=kernel_size, padding=padding, dilation=pick(1, 2), groups=rng.choice([1, 1, 2]))
    if rng.random() < 0.3:
        reader = layer("ConvTranspose", axes, 4, 2, **settings | dict(padding=0))
    else:
        reader = layer("Conv", axes, 4, 2, padding_mode=padding_mode, **settings)
    between = rng.choice([nn.Identity, nn.ReLU, lambda: layer("Dropout", axes) if axes > 1 else nn.Dropout()])()
    shuffled = 8 if axes == 2 else 2
    layers = dict(
        a=layer("ConvTranspose", axes, 4, 4, pick(1, 4), pick(1, 3)),
        u=nn.Upsample(scale_factor=scale, mode=mode),
        b=between,
        c=reader,
        d=layer("Conv", axes, 2, shuffled, 1),
        s=nn.PixelShuffle(2) if axes == 2 else nn.Identity(),
    )
    return randomised(Model(lambda m, x: m.s(m.d(m.c(m.b(m.u(m.a(x)))))), **layers)), torch.randn(
        2, 4, *pick(4, 6)
    ).double()


def folded_sites(model, *inputs):
    """Fold what is captured of a model, hold it against the model, and give what became of each upsampling."""
    sites = []

    def look(gm, inputs):
        gm, found, _ = folded_copy(gm, inputs)
        sites.extend(found)
        return gm.forward

    torch._dynamo.reset()
    assert_same(model, torch.compile(model, backend=look), *inputs)
    return sites


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_every_form_of_a_drawn_model_computes_the_same(axes):
    rewritten = dict.fromkeys(("conv_transpose", "subpixel", "upsample_conv"), 0)
    for seed in range(16):
        model, x = drawn(axes, seed)
        for to in ("conv_transpose", "subpixel"):
            result = rewrite(model, to, x, everything=to == "conv_transpose")
            assert_same(model, result.model, x)
            assert all(row["reason"] for row in result.report if row["became"] is None)
            rewritten[to] += result.counts["rewritten"]
        result = rewrite(model, "upsample_conv", x)
        rewritten["upsample_conv"] += result.counts["rewritten"]
        assert result.model(x).shape == model(x).shape
        rows = audit(model, x)
        assert not any("unsupported" in row["verdict"] for row in rows)
        assert all(len(row["stride"]) == axes for row in rows if row["kind"].startswith("ConvTranspose"))
    assert min(rewritten.values()) >= 10, rewritten


@pytest.mark.parametrize("axes", [1, 3])
def test_the_graph_folds_in_one_and_three_dimensions(axes):
    def forward(model, x, skip):
        large = F.interpolate(F.relu(model.a(x)), scale_factor=2).relu()
        joined = torch.cat([large, skip], dim=-axes - 1)
        added = F.interpolate(x, scale_factor=2) + skip
        return model.c(joined), model.d(F.pad(large, (1, 1))), model.t(added), model.e(F.interpolate(x, scale_factor=3))

    x, skip = torch.randn(2, 4, *(5, 4, 3)[:axes]).double(), torch.randn(2, 4, *(10, 8, 6)[:axes]).double()
    layers = dict(
        a=layer("Conv", axes, 4, 4, 1),
        c=layer("Conv", axes, 8, 3, 3, padding=1),
        d=layer("Conv", axes, 4, 3, (3, 2, 2)[:axes]),
        t=layer("ConvTranspose", axes, 4, 2, 3, padding=1, dilation=2),
        e=layer("Conv", axes, 4, 2, 1),
    )
    model = randomised(Model(forward, **layers))
    sites = folded_sites(model, x, skip)
    texts = [text for site in sites for text in site.became]
    four = "x".join("4" * axes)
    assert f"ConvTranspose{axes}d {four}, stride 2 + Conv{axes}d of the other channels" in texts
    assert f"Conv{axes}d {'x'.join('1' * axes)} before the upsampling" in texts
    assert f"ConvTranspose{axes}d {'x'.join('6' * axes)}, stride 2 + Conv{axes}d of the other summand" in texts
    program = fold_exported(torch.export.export(model, (x, skip)))
    assert_same(model, program.module(), x, skip)
    left = [node for node in program.graph.nodes if "upsample" in str(node.target)]
    assert len(left) == 1  # the 1x1 convolution's, after it


def test_a_sequence_is_no_image_without_a_batch():
    """(C, H, W) is read by a Conv2d as an image, and enlarged by an Upsample along its last axis alone."""
    model = randomised(Model(lambda m, x: m.c(m.u(x)), u=nn.Upsample(scale_factor=2), c=nn.Conv2d(4, 2, 3, padding=1)))
    x = torch.randn(4, 5, 6).double()
    assert folded_sites(model, x)[0].became == []
    result = rewrite(model, "conv_transpose", x)
    assert result.counts["rewritten"] == 0
    assert_same(model, result.model, x)


def test_output_size_is_taken_in_one_and_three_dimensions():
    for axes in (1, 3):
        model = Model(
            lambda m, x: m.t(x, output_size=[2 * n for n in x.shape[2:]]),
            t=layer("ConvTranspose", axes, 4, 3, 3, stride=2, padding=1),
        )
        model, x = randomised(model), torch.randn(2, 4, *(5, 4, 3)[:axes]).double()
        result = rewrite(model, "subpixel", x)
        assert result.counts["rewritten"] == 1
        assert_same(model, result.model, x)
        assert_same(model, result.model, torch.cat([x, x], dim=-1))


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_what_remains_is_a_transposed_convolution_on_request(axes):
    def forward(model, x):
        y = F.interpolate(x, scale_factor=2, mode=LINEAR[axes]) + F.interpolate(x, scale_factor=2).relu()
        return F.pixel_shuffle(model.c(y), 2) if axes == 2 else model.c(y)

    model = randomised(Model(forward, c=layer("Conv", axes, 4, 8, 3, padding=1)))
    x = torch.randn(2, 4, *(5, 4, 3)[:axes]).double()
    exported = torch.export.export(model, (x,))
    kept, all_of_it = (fold_exported(exported, everything=everything) for everything in (False, True))
    targets = [str(node.target) for node in all_of_it.graph.nodes]
    assert not any("upsample" in target or "shuffle" in target for target in targets)
    assert any("upsample" in str(node.target) for node in kept.graph.nodes)
    assert_same(model, all_of_it.module(), x)
    assert_same(model, kept.module(), x)
    for inner in ("eager", "aot_eager"):
        torch._dynamo.reset()
        compiled = torch.compile(model, backend="upconv", options=dict(inner=inner, everything=True))
        assert_same(model, compiled, x)
        ours = torch.autograd.grad(compiled(x).square().sum(), list(model.parameters()))
        theirs = torch.autograd.grad(model(x).square().sum(), list(model.parameters()))
        for one, two in zip(ours, theirs, strict=True):
            torch.testing.assert_close(one, two)


# name: the layers that a published decoder doubles (or more) with, their input's size, and which forms are exact
PUBLISHED = {
    "HiFi-GAN": (nn.ConvTranspose1d(8, 4, 16, 8, padding=4), (20,), ["subpixel"]),
    "HiFi-GAN, second": (nn.ConvTranspose1d(8, 4, 4, 2, padding=1), (20,), ["subpixel"]),
    "DAC, stride 5": (nn.ConvTranspose1d(8, 4, 10, 5, padding=3, output_padding=1), (13,), ["subpixel"]),
    "EnCodec": (nn.utils.parametrizations.weight_norm(nn.ConvTranspose1d(8, 4, 16, 8)), (9,), ["subpixel"]),
    "MONAI UNet": (nn.ConvTranspose3d(4, 3, 3, 2, padding=1, output_padding=1), (4, 5, 3), ["subpixel"]),
    "nnU-Net, flat": (nn.ConvTranspose3d(4, 3, (1, 2, 2), (1, 2, 2)), (4, 5, 3), ["subpixel"]),
    "V-Net": (nn.ConvTranspose3d(4, 3, 2, 2), (4, 5, 3), ["subpixel"]),
    "diffusers, 1-D": (
        nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv1d(8, 4, 3, padding=1)),
        (20,),
        ["conv_transpose", "subpixel"],
    ),
    "3-D U-Net": (
        nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv3d(4, 3, 3, padding=1)),
        (4, 5, 3),
        ["conv_transpose", "subpixel"],
    ),
    "video VAE": (
        nn.Sequential(nn.Upsample(scale_factor=(1, 2, 2)), nn.Conv3d(4, 3, (1, 3, 3), padding=(0, 1, 1))),
        (4, 5, 3),
        ["conv_transpose", "subpixel"],
    ),
    "WaveGAN": (nn.Sequential(nn.Upsample(scale_factor=4), nn.ConstantPad1d(12, 0), nn.Conv1d(8, 4, 25)), (16,), []),
}  # fmt: skip


@pytest.mark.parametrize("case", PUBLISHED)
def test_published_layers_in_one_and_three_dimensions(case):
    model, size, forms = PUBLISHED[case]
    model, x = randomised(nn.Sequential(model, nn.ReLU())), torch.randn(2, 8 if len(size) == 1 else 4, *size).double()
    for to in ("conv_transpose", "subpixel"):
        result = rewrite(model, to, x)
        assert result.counts["rewritten"] == (to in forms), result.report
        assert_same(model, result.model, x)
    [row] = audit(model, x)
    assert set(forms) <= set(row["exact_targets"]) or not forms
    projected = rewrite(model, "upsample_conv", x)
    if isinstance(model[0], nn.Sequential):
        assert "Upsample already" in projected.report[0]["reason"]
    else:
        assert 0 < projected.report[0]["residual"] < 1 and row["dc_spread"] > 0


# found by an attack


def test_a_layer_whose_settings_the_model_reads_is_exchanged():
    """As vocoders trim what their transposed convolutions make too much."""
    model = Model(
        lambda m, x: m.t(x)[..., : -(m.t.kernel_size[0] - m.t.stride[0])], t=nn.ConvTranspose1d(4, 3, 8, stride=4)
    )
    model, x = randomised(model), torch.randn(2, 4, 6).double()
    result = rewrite(model, "subpixel", x)
    assert result.counts["rewritten"] == 1
    assert_same(model, result.model, x)


def test_a_subpixel_form_goes_back_in_every_dimension():
    for axes, stride in ((1, 3), (2, (1, 2)), (3, 2)):
        layers = [layer("ConvTranspose", axes, 4, 3, 4, stride, 1), nn.ReLU()]
        model, x = randomised(nn.Sequential(*layers)), torch.randn(2, 4, *(5, 4, 3)[:axes]).double()
        subpixel = rewrite(model, "subpixel", x).model
        back = rewrite(subpixel, "conv_transpose", x)
        assert back.counts["rewritten"] == 1, back.report
        assert_same(model, back.model, x)
        [row] = audit(subpixel, x)
        assert row["kind"] == "PixelShuffle" and len(row["stride"]) == axes and row["off_dc_energy"] > 0
        assert row["exact_targets"] == ("conv_transpose",)


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_a_transposed_reader_has_one_row(axes):
    model = nn.Sequential(nn.Upsample(scale_factor=2), layer("ConvTranspose", axes, 4, 3, 3))
    model, x = randomised(model), torch.randn(1, 4, *(5, 4, 3)[:axes]).double()
    for to in ("conv_transpose", "subpixel"):
        assert rewrite(model, to, x).counts == dict(rewritten=1, left=0, refused=0)


@pytest.mark.parametrize("norm", ["weight_norm", "spectral_norm"])
@pytest.mark.parametrize("place", [nn.utils, nn.utils.parametrizations])
def test_normalised_convolutions_are_exchanged_before_a_shuffle_and_after_an_upsample(norm, place):
    normalised = getattr(place, norm)
    layers = [normalised(nn.Conv2d(4, 16, 3, padding=1)), nn.PixelShuffle(2), nn.ReLU()]
    layers += [nn.Upsample(scale_factor=2), normalised(nn.Conv2d(4, 3, 3))]
    model, x = randomised(nn.Sequential(*layers)), torch.randn(2, 4, 6, 5).double()
    result = rewrite(model, "conv_transpose", x)
    assert result.counts == dict(rewritten=2, left=0, refused=0), result.report
    assert result.report[0]["macs_before"] == result.report[0]["macs_after"] == 2 * 30 * 4 * 16 * 9
    assert_same(model, result.model, x)
    assert len(audit(model, x)) == 2


def test_a_shuffle_with_a_forward_of_its_own_and_one_that_crosses_groups_are_left():
    class Doubling(nn.PixelShuffle):
        def forward(self, x):
            return super().forward(x) * 2

    x = torch.randn(2, 4, 6, 5).double()
    for conv, shuffle in (
        (nn.Conv2d(4, 8, 3), Doubling(2)),
        (nn.Conv2d(4, 8, 3, groups=4), nn.PixelShuffle(2)),
    ):
        model = randomised(nn.Sequential(nn.Upsample(scale_factor=2), conv, shuffle))
        result = rewrite(model, "conv_transpose", x, everything=True)
        assert result.counts["rewritten"] == 1 and result.counts["left"] == 1
        assert_same(model, result.model, x)
        assert len(audit(model, x)) == 2
        program = fold_exported(torch.export.export(model, (x,)), everything=True)
        assert not any("upsample" in str(node.target) for node in program.graph.nodes)
        if type(shuffle) is nn.PixelShuffle:
            assert any("pixel_shuffle" in str(node.target) for node in program.graph.nodes)
        assert_same(model, program.module(), x)


def test_a_model_that_cannot_train_on_the_example_is_rewritten_as_far_as_that_does_not_matter():
    pooled = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.BatchNorm2d(4), nn.ConvTranspose2d(4, 4, 2, 2))
    x = torch.randn(1, 4, 6, 5).double()
    assert rewrite(randomised(pooled), "subpixel", x).counts["rewritten"] == 1
    model = randomised(nn.Sequential(*pooled, nn.Upsample(scale_factor=2), nn.Conv2d(4, 4, 3, padding=1)))
    result = rewrite(model, "conv_transpose", x)
    assert "does not run in training mode on these inputs (ValueError" in result.report[1]["reason"]
    assert rewrite(model, "conv_transpose", torch.cat([x, x])).counts["rewritten"] == 1
    assert len(audit(model, x)) == 2


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_a_normalisation_of_single_pixels_is_done_before_the_upsampling(axes):
    model = nn.Sequential(nn.Upsample(scale_factor=2), nn.GroupNorm(4, 4), layer("Conv", axes, 4, 4, 1))
    assert folded_sites(randomised(model), torch.randn(1, 4, *[1] * axes).double())[0].became


def test_nothing_is_rounded_that_was_not():
    """Under autocast, and of whole numbers, an upsampling keeps what a convolution would not."""
    model, x = nn.Sequential(nn.Upsample(scale_factor=2), nn.ReLU()), torch.randn(2, 4, 6)

    def compiled():
        torch._dynamo.reset()
        return torch.compile(model, backend="upconv", options=dict(inner="eager", everything=True))

    with torch.autocast("cpu", torch.bfloat16):
        [row] = rewrite(model, "conv_transpose", x, everything=True).report
        assert "autocast" in row["reason"]
        assert compiled()(x).dtype == torch.float32
    inside = Model(lambda m, x: torch.autocast("cpu", torch.bfloat16)(F.interpolate)(x, scale_factor=2))
    program = fold_exported(torch.export.export(inside, (x,)), everything=True)
    torch.testing.assert_close(program.module()(x), inside(x), rtol=0, atol=0)
    whole = torch.randint(256, (2, 3, 4, 4), dtype=torch.uint8)
    model = nn.Upsample(scale_factor=2)
    [row] = rewrite(model, "conv_transpose", whole, everything=True).report
    assert "uint8" in row["reason"] and torch.equal(compiled()(whole), model(whole))


def test_complex_layers_are_rewritten_and_listed():
    model = nn.Sequential(nn.ConvTranspose1d(4, 3, 4, 2)).to(torch.complex64)
    x = torch.randn(2, 4, 5, dtype=torch.complex64)
    result = rewrite(model, "subpixel", x)
    assert result.counts["rewritten"] == 1
    torch.testing.assert_close(result.model(x), model(x))
    assert "complex" in audit(model, x)[0]["verdict"]


def test_the_volume_forms_take_the_memory_format_of_volumes():
    conv, shuffle = (
        nn.Conv3d(4, 16, 3),
        rewrite(nn.Sequential(nn.ConvTranspose3d(1, 4, 2, (2, 2, 1))), "subpixel").model,
    )
    model = pixel_shuffle_to_conv_transpose(conv, shuffle[0].shuffle).to(memory_format=torch.channels_last_3d)
    x = torch.randn(1, 4, 4, 3, 3)
    torch.testing.assert_close(model(x), shuffle[0].shuffle(conv(x)))


def test_a_layer_behind_a_graph_break_is_found():
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.u, self.c = nn.Upsample(scale_factor=2), nn.Conv1d(4, 4, 3)

        def forward(self, x):
            torch._dynamo.graph_break()
            return self.c(F.relu(self.u(x)))

    [row] = audit(nn.Sequential(Block()), torch.randn(1, 4, 6))
    assert "the same as ConvTranspose1d 4, stride 2" in row["verdict"]
