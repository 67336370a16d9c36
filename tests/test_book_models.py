import re
from functools import partial
from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from upconv.book.blocks import BLOCKS, FOLDED
from upconv.book.models import ODD_SIZES, Autoencoder, SuperResolution, UNet


def made(network, upsampling="nearest_conv_3x3", seed=0, **settings):
    torch.manual_seed(seed)
    return network(upsampling, **settings)


build, enlarger, unet = (partial(made, network) for network in (Autoencoder, SuperResolution, UNet))


# all networks


@pytest.mark.parametrize("upsampling", (*BLOCKS, FOLDED))
@pytest.mark.parametrize(
    "network, count, options",
    [
        (Autoencoder, 12, {}),
        (Autoencoder, 24, dict(convolutions=3, image_channels=3, image_size=32)),
        (SuperResolution, 6, {}),
        (SuperResolution, 10, dict(convolutions=2, image_channels=3)),
        (UNet, 62, {}),
        (UNet, 62, dict(activation=True)),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_all_but_the_blocks_starts_from_the_same_weights(network, count, options, upsampling):
    def outside(upsampling, seed):
        state = made(network, upsampling, seed, **options).state_dict()
        return {name: value for name, value in state.items() if not name.split(".")[1].startswith("up")}

    reference, mine, others = (outside(*given) for given in (("nearest_conv_3x3", 3), (upsampling, 3), (upsampling, 4)))
    assert list(mine) == list(reference) and len(mine) == count
    assert all(torch.equal(mine[name], value) for name, value in reference.items())
    assert not any(torch.equal(others[name], value) for name, value in reference.items() if "norm" not in name)


@pytest.mark.parametrize(
    ("network", "settings", "error", "message"),
    [
        (Autoencoder, {"upsampling": "nearest"}, ValueError, "name='nearest' is not a block; .*nearest_conv_3x3"),
        (Autoencoder, {"code_size": 0}, ValueError, "code_size=0 must be an int of at least 1"),
        (Autoencoder, {"code_size": 8.0}, TypeError, "code_size=8.0"),
        (Autoencoder, {"channels": (8, 16)}, ValueError, r"channels=\(8, 16\) must be 3 ints"),
        (Autoencoder, {"channels": 8}, ValueError, "channels=8 must be 3 ints"),
        (Autoencoder, {"channels": (8, 16, 0)}, ValueError, r"channels\[2\]=0 must be an int of at least 1"),
        (Autoencoder, {"decoder_channels": (8, 16)}, ValueError, r"decoder_channels=\(8, 16\) must be 3 ints"),
        (Autoencoder, {"image_channels": 0}, ValueError, "image_channels=0 must be an int of at least 1"),
        (Autoencoder, {"image_size": 30}, ValueError, "image_size=30 must be 28 or 32"),
        (Autoencoder, {"image_size": 28.0}, TypeError, "image_size=28.0 must be an int"),
        (Autoencoder, {"convolutions": 0}, ValueError, "convolutions=0 must be an int of at least 1"),
        (Autoencoder, {"convolutions": True}, TypeError, "convolutions=True"),
        (SuperResolution, {"image_channels": 3.0}, TypeError, "image_channels=3.0"),
        (SuperResolution, {"convolutions": 0}, ValueError, "convolutions=0 must be an int of at least 1"),
        (SuperResolution, {"channels": (8,)}, ValueError, r"\(8,\) must be 3 ints: the channels at 1, 2 and 4 times"),
        (UNet, {"upsampling": "nearest"}, ValueError, "name='nearest' is not a block"),
        (UNet, {"channels": (8,)}, ValueError, r"channels=\(8,\) must be at least 2 ints: two levels or more"),
        (UNet, {"channels": 8}, ValueError, "channels=8 must be at least 2 ints"),
        (UNet, {"channels": (8, 0)}, ValueError, r"channels\[1\]=0 must be an int of at least 1"),
        (UNet, {"decoder_channels": (8,)}, ValueError, r"decoder_channels=\(8,\) must be 2 ints: one for each doubl"),
        (UNet, {"skips": 3}, ValueError, "skips=3 must be at most 2, the number of doublings"),
        (UNet, {"skips": -1}, ValueError, "skips=-1 must be an int of at least 0"),
        (UNet, {"classes": 0}, ValueError, "classes=0"),
        (UNet, {"in_channels": 1.0}, TypeError, "in_channels=1.0"),
        (UNet, {"odd_sizes": "crop"}, ValueError, "odd_sizes='crop' must be one of interpolate, output_size, pad, "),
    ],
)
def test_errors_of_the_settings(network, settings, error, message):
    with pytest.raises(error, match=message):
        network(**settings)


@pytest.mark.parametrize(
    ("make", "wanted", "shapes"),
    [
        (build, "images must have the shape (N, 1, 28, 28)", [(28, 28), (1, 28, 28), (2, 3, 28, 28), (2, 1, 28, 27)]),
        (lambda: build().decode, "codes must have the shape (N, 64)", [(64,), (2, 63), (2, 64, 1)]),
        (enlarger, "images must have the shape (N, 1, H, W)", [(8, 8), (1, 8, 8), (2, 3, 8, 8)]),
        (lambda: build(image_channels=3, image_size=32), "images must have the shape (N, 3, 32, 32)", [(2, 3, 28, 28)]),
        (lambda: enlarger(image_channels=3), "images must have the shape (N, 3, H, W)", [(2, 1, 8, 8)]),
        (lambda: unet(in_channels=3), "images must have the shape (N, 3, H, W)", [(1, 3, 32), (2, 1, 32, 32)]),
    ],
)
def test_inputs_of_other_shapes_are_refused(make, wanted, shapes):
    for shape in shapes:
        with pytest.raises(ValueError, match=re.escape(f"{wanted}, not {shape}")):
            make()(torch.zeros(shape))


# the autoencoder


@pytest.mark.parametrize("upsampling", BLOCKS)
def test_shapes_with_every_block(upsampling):
    model, images = build(upsampling, code_size=10, channels=(3, 4, 5)).double(), torch.rand(2, 1, 28, 28).double()
    codes = model.encode(images)
    assert codes.shape == (2, 10)
    assert model.decode(codes).shape == images.shape
    assert torch.equal(model(images), model.decode(codes))


def test_the_maps_halve_and_double():
    model, sizes = build(channels=(3, 4, 5)), []
    for part in [*model.encoder, *model.decoder]:
        part.register_forward_hook(lambda part, _, output: sizes.append((type(part).__name__, tuple(output.shape[1:]))))
    model(torch.rand(2, 1, 28, 28))
    maps = [shape for kind, shape in sizes if kind in ("ZeroPad2d", "Conv2d", "Unflatten", "Sequential")]
    encoder = [(1, 32, 32), (3, 16, 16), (4, 8, 8), (5, 4, 4)]
    decoder = [(5, 4, 4), (4, 8, 8), (3, 16, 16), (3, 32, 32), (1, 32, 32), (1, 28, 28)]
    assert maps == encoder + decoder
    kinds = [kind for kind, _ in sizes[10:]]
    assert all(kinds[i + 1] == "ELU" for i, kind in enumerate(kinds) if kind == "Sequential")


def test_padding_and_crop_are_centred():
    model, images = build(), torch.rand(2, 1, 28, 28)
    padded = model.encoder[0](images)
    assert torch.equal(padded[..., 2:-2, 2:-2], images)
    assert padded.sum() == pytest.approx(images.sum().item())
    codes = model.encode(images)
    assert torch.equal(model.decoder[:-1](codes)[..., 2:-2, 2:-2], model.decode(codes))


@pytest.mark.parametrize("upsampling, count", [("conv_transpose_4x4", 162_249), ("nearest_conv_3x3", 153_737)])
def test_the_default_network_is_the_one_of_the_chapter_and_learns_with_every_weight(upsampling, count):
    model = build(upsampling)
    assert sum(parameter.numel() for parameter in model.parameters()) == count
    kinds = [type(layer).__name__ for layer in model.encoder]
    assert kinds == ["ZeroPad2d", *["Conv2d", "ELU"] * 3, "Flatten", "Linear"]
    model(torch.rand(4, 1, 28, 28)).square().mean().backward()
    assert all(parameter.grad.abs().max() > 0 for parameter in model.parameters())


def further(model):
    """Name the further convolutions of a network, with their channels, and what stands right before each."""
    layers = list((model.decoder if isinstance(model, Autoencoder) else model.layers).named_children())
    return [
        (name, layer[0].in_channels, before)
        for (before, _), (name, layer) in pairwise(layers)
        if name.startswith("more")
    ]


NAMES = {
    Autoencoder: "encoder.conv1 encoder.conv2 encoder.conv3 encoder.linear decoder.linear "
    "decoder.up1.1 decoder.up2.1 decoder.up3.1 decoder.conv",
    SuperResolution: "layers.conv1 layers.conv2 layers.up1.1 layers.up2.1 layers.conv3",
}


@pytest.mark.parametrize("network, images", [(Autoencoder, (28, 28)), (SuperResolution, (8, 8))])
def test_the_new_options_leave_the_default_network_as_it_was(network, images):
    plain, names = made(network, seed=2), NAMES[network].split()
    assert list(plain.state_dict()) == [f"{name}.{kind}" for name in names for kind in ("weight", "bias")]
    torch.manual_seed(2)  # the blocks come last, and all else in the order of its names
    state = plain.state_dict()
    for name in sorted(names, key=lambda name: ".up" in name):
        channels = state[f"{name}.weight"].shape[:2]
        layer = nn.Linear(*channels[::-1]) if "linear" in name else nn.Conv2d(*channels[::-1], 3)
        assert torch.equal(layer.weight, state[f"{name}.weight"]) and torch.equal(layer.bias, state[f"{name}.bias"])
    spelled = made(network, seed=2, image_channels=1, convolutions=1)
    x = torch.rand(2, 1, *images)
    assert torch.equal(plain(x), spelled(x))


@pytest.mark.parametrize("upsampling", ["conv_transpose_4x4", "bicubic_conv_3x3", FOLDED])
def test_networks_for_colour_and_with_more_convolutions(upsampling):
    model = build(upsampling, code_size=10, channels=(3, 4, 5), image_channels=3, image_size=32, convolutions=3)
    images = torch.rand(2, 3, 32, 32)
    assert model.encode(images).shape == (2, 10) and model(images).shape == images.shape
    expected = [(level, number, width) for level, width in ((1, 4), (2, 3), (3, 3)) for number in (1, 2)]
    assert further(model) == [
        (f"more{level}_{number}", width, f"elu{level}" if number == 1 else f"more{level}_1")
        for level, number, width in expected
    ]
    layers = [part for name, part in model.decoder.named_children() if name.startswith("more")]
    assert all([type(part) for part in layer] == [nn.Conv2d, nn.ELU] for layer in layers)
    assert all(layer(torch.rand(1, layer[0].in_channels, 5, 7)).shape[2:] == (5, 7) for layer in layers)
    small = enlarger(upsampling, channels=(3, 4, 5), image_channels=3, convolutions=2)
    assert small(torch.rand(2, 3, 5, 7)).shape == (2, 3, 20, 28)
    assert further(small) == [("more1_1", 4, "elu3"), ("more2_1", 5, "elu4")]
    for network in (model, small):
        size = (32, 32) if network is model else (8, 8)
        network(torch.rand(2, 3, *size)).square().mean().backward()
        assert all(parameter.grad.abs().max() > 0 for parameter in network.parameters())


def test_images_of_32_x_32_have_no_frame():
    model, images = build(image_size=32), torch.rand(2, 1, 32, 32)
    assert torch.equal(model.encoder[0](images), images)
    made = model.decoder[:-1](model.encode(images))
    assert made.shape == images.shape and torch.equal(model(images), made)


def test_one_image_does_not_reach_another():
    model, images = build().double().train(), torch.rand(3, 1, 28, 28).double()
    torch.testing.assert_close(model(images)[1:2], model(images[1:2]))


def test_the_decoder_can_be_wider_and_the_encoder_stays_the_same():
    plain, wide = build(seed=5), build(seed=5, decoder_channels=(9, 17, 70))
    assert all(map(torch.equal, plain.encoder.state_dict().values(), wide.encoder.state_dict().values()))
    assert [wide.decoder.get_submodule(f"up{i}")[1].out_channels for i in (1, 2, 3)] == [17, 9, 9]
    assert wide.decoder.linear.out_features == 70 * 16
    assert wide(torch.rand(2, 1, 28, 28)).shape == (2, 1, 28, 28)


# super-resolution


@pytest.mark.parametrize("upsampling", BLOCKS)
def test_super_resolution_enlarges_any_size_fourfold_with_every_block(upsampling):
    model = enlarger(upsampling, channels=(3, 4, 5))
    assert model(torch.rand(2, 1, 8, 8)).shape == (2, 1, 32, 32)
    assert model(torch.rand(1, 1, 5, 7)).shape == (1, 1, 20, 28)


def test_super_resolution_works_at_the_small_size_and_activates_after_all_but_the_last():
    model, found = enlarger(channels=(3, 4, 5)), []
    for part in model.layers:
        part.register_forward_hook(lambda part, _, output: found.append((type(part).__name__, *output.shape[1:])))
    model(torch.rand(2, 1, 6, 6))
    assert [f for f in found if f[0] != "ELU"] == [
        ("Conv2d", 3, 6, 6), ("Conv2d", 3, 6, 6), ("Sequential", 4, 12, 12), ("Sequential", 5, 24, 24),
        ("Conv2d", 1, 24, 24),
    ]  # fmt: skip
    assert [f[0] == "ELU" for f in found] == [False, True] * 4 + [False]
    convs = [layer for layer in model.modules() if isinstance(layer, nn.Conv2d)]
    assert {(c.kernel_size, c.padding, c.padding_mode, c.stride) for c in convs} == {((3, 3), (1, 1), "zeros", (1, 1))}


# the U-Net


@pytest.mark.parametrize("odd_sizes", [name for name in ODD_SIZES if name != "refuse"])
@pytest.mark.parametrize("upsampling", BLOCKS)
def test_a_unet_takes_every_size_from_its_minimum_up(upsampling, odd_sizes):
    model = unet(upsampling, channels=(2, 3, 2), classes=3, odd_sizes=odd_sizes).eval()
    sizes = [(4, 4), (5, 4), (4, 7), (9, 6), (65, 65), (97, 61)] + [(n, 145 - n) for n in range(16, 130, 7)]
    if odd_sizes == "output_size" and upsampling.startswith(("pixel", "conv_transpose_3x3")):
        # by chapter 1, kernel 3 with stride 2 and padding 1 makes 2n - 1 or 2n, never 2n + 1
        message = "output_size" if upsampling.startswith("pixel") else "valid sizes range"
        with pytest.raises(ValueError, match=message):
            model(torch.rand(1, 1, 65, 65))
        sizes = [(4, 4), (16, 32)]
    for height, width in sizes:
        assert model(torch.rand(1, 1, height, width)).shape == (1, 3, height, width)


def test_an_activation_behind_the_block_is_a_relu_and_nothing_else():
    plain, active = (unet(channels=(2, 3, 4), activation=activation).eval() for activation in (False, True))
    assert all(map(torch.equal, plain.state_dict().values(), active.state_dict().values()))
    assert list(plain.state_dict()) == list(active.state_dict()) and UNet().decoder.activation is False
    images, found = torch.rand(2, 1, 16, 16), {}
    for name in ("up1", "up0"):
        block = active.decoder.get_submodule(name)
        block.register_forward_hook(lambda block, _, output, name=name: found.setdefault(name, output))
    made = active(images)
    assert not torch.equal(made, plain(images))
    assert all(output.min() < 0 for output in found.values())  # the block itself is as it was
    for name in ("up1", "up0"):  # the ReLU might as well be a part of it
        setattr(plain.decoder, name, nn.Sequential(plain.decoder.get_submodule(name), nn.ReLU()))
    assert torch.equal(made, plain(images))


def test_the_minimum_is_2_to_the_number_of_halvings():
    for depth in (1, 2, 4):
        model = unet(channels=(2,) * (depth + 1)).eval()
        assert model.minimum_size == 2**depth
        assert model(torch.rand(1, 1, 2**depth, 2**depth)).shape == (1, 2, 2**depth, 2**depth)
        for height, width in ((2**depth - 1, 64), (64, 2**depth - 1)):
            message = f"at least {2**depth} x {2**depth} pixels, since the network halves {depth} times; these have "
            with pytest.raises(ValueError, match=f"{message}{height} x {width}"):
                model(torch.rand(1, 1, height, width))


@pytest.mark.parametrize("upsampling", BLOCKS)
def test_every_block_fails_at_an_odd_size_without_a_remedy(upsampling):
    model = unet(upsampling, odd_sizes="refuse").eval()
    with pytest.raises(ValueError, match="the block makes 64 x 64 pixels where the encoder had 65 x 65"):
        model(torch.rand(1, 1, 65, 65))
    with pytest.raises(ValueError, match="the block makes 48 x 60 pixels where the encoder had 48 x 61"):
        model(torch.rand(1, 1, 48, 61))
    assert model(torch.rand(1, 1, 64, 60)).shape == (1, 2, 64, 60)


def test_the_remedies_agree_where_nothing_is_odd_and_do_what_they_say_elsewhere():
    model, images = unet(seed=1).double().eval(), torch.rand(2, 1, 21, 20, dtype=torch.float64)
    made = {}
    for model.odd_sizes in ODD_SIZES:
        made[model.odd_sizes] = model(images[..., :20, :])
        assert torch.equal(made[model.odd_sizes], made["interpolate"])
    for model.odd_sizes in set(ODD_SIZES) - {"refuse"}:
        made[model.odd_sizes] = model(images)
    last, before = images[..., -1:, :], images.flip(2)[..., 1:4, :]
    for name, rows in (("reflect", before), ("zeros", 0 * before)):
        model.odd_sizes = "refuse"
        by_hand = model(torch.cat([images, rows], dim=2))[..., :21, :]
        assert torch.equal(made[f"pad_input_{name}"], by_hand)
    assert last.abs().min() > 0 and len({value.sum().item() for value in made.values()}) == len(made)

    def decode(double):
        """By hand, the last doubling as it is given."""
        at0 = model.encoder.level0(images)
        at1 = model.encoder.level1(at0)
        at2 = model.encoder.level2(at1)
        up1 = model.decoder.up1(at2)
        x = model.decoder.level1(torch.cat([at1, up1], dim=1))
        return model.decoder.head(model.decoder.level0(torch.cat([at0, double(x)], dim=1)))

    up, (upsample, conv) = model.decoder.up0, model.decoder.up0
    assert torch.equal(made["pad"], decode(lambda x: F.pad(up(x), (0, 0, 0, 1))))
    assert torch.equal(
        made["interpolate"], decode(lambda x: F.interpolate(up(x), (21, 20), mode="bilinear", align_corners=False))
    )
    assert torch.equal(made["output_size"], decode(lambda x: conv(F.interpolate(x, (21, 20), mode=upsample.mode))))


@pytest.mark.parametrize(
    "upsampling", ["conv_transpose_2x2", "conv_transpose_4x4", "bilinear_conv_3x3", "bicubic_conv_3x3"]
)
def test_output_size_is_that_of_the_transposed_convolution_or_resizes_as_the_block_does(upsampling):
    model, images = unet(upsampling, channels=(2, 3), odd_sizes="output_size").eval(), torch.rand(1, 1, 9, 8)
    skip, (first, *rest) = model.encoder.level0(images), model.decoder.up0
    up = model.encoder.level1(skip)
    if rest:
        up = rest[0](F.interpolate(up, (9, 8), mode=first.mode, align_corners=False))
    else:
        up = first(up, output_size=[9, 8])
    assert torch.equal(model(images), model.decoder.head(model.decoder.level0(torch.cat([skip, up], dim=1))))


@pytest.mark.parametrize("skips", [0, 1, 2, 3, None])
def test_the_skip_connections_are_those_of_the_smallest_sizes(skips):
    model = unet(channels=(2, 3, 4, 5), decoder_channels=(6, 7, 8), skips=skips, in_channels=3, classes=9).eval()
    kept = 3 if skips is None else skips
    for level, (mine, handed) in enumerate(zip((6, 7, 8), (2, 3, 4), strict=True)):
        into = mine + handed * (level >= 3 - kept)
        assert model.decoder.get_submodule(f"level{level}").conv1.in_channels == into
    images = torch.rand(2, 3, 16, 24)
    features = []
    x = images
    for level in model.encoder:
        features.append(x := level(x))
    assert torch.equal(model.decoder(features), model(images))
    for level in range(3):
        changed = [f + (i == level) for i, f in enumerate(features)]
        assert torch.equal(model.decoder(changed), model(images)) == (level < 3 - kept)


def test_a_unets_parts_are_in_the_order_of_the_paper():
    model, found = unet(channels=(2, 3, 4), decoder_channels=(5, 6), classes=7).eval(), []
    for name, part in model.named_modules():
        if not list(part.children()):
            part.register_forward_hook(
                lambda part, _, out, name=name: found.append((type(part).__name__, *out.shape[1:]))
            )
    model(torch.rand(1, 1, 16, 16))

    def level(channels, size):
        return [(kind, channels, size, size) for kind in ("Conv2d", "BatchNorm2d", "ReLU")] * 2

    expected = [*level(2, 16), ("MaxPool2d", 2, 8, 8), *level(3, 8), ("MaxPool2d", 3, 4, 4), *level(4, 4)]
    expected += [("Upsample", 4, 8, 8), ("Conv2d", 6, 8, 8), *level(6, 8)]
    expected += [("Upsample", 6, 16, 16), ("Conv2d", 5, 16, 16), *level(5, 16), ("Conv2d", 7, 16, 16)]
    assert found == expected
    convs = [part for part in model.modules() if isinstance(part, nn.Conv2d)]
    assert {conv.padding_mode for conv in convs} == {"zeros"} and {conv.stride for conv in convs} == {(1, 1)}
    assert model.decoder.head.bias is not None


def test_the_encoder_stays_the_same_when_the_decoder_is_wider():
    plain, wide = unet(seed=5), unet(seed=5, decoder_channels=(9, 17))
    assert all(map(torch.equal, plain.encoder.state_dict().values(), wide.encoder.state_dict().values()))
    assert wide.decoder.head.in_channels == 9 and wide.decoder.up1[1].out_channels == 17


def test_a_unets_remedy_is_checked_when_it_is_used():
    model = unet().eval()
    model.odd_sizes = "hope"
    with pytest.raises(ValueError, match="odd_sizes='hope'"):
        model(torch.zeros(1, 1, 32, 32))


def test_a_unets_defaults():
    model = UNet()
    assert (model.channels, model.odd_sizes, model.decoder.skips) == ((8, 16, 32), "pad_input_reflect", 2)
    assert (model.decoder.up0[1].out_channels, model.decoder.up1[1].out_channels) == (8, 16)
    assert model.decoder.head.kernel_size == (1, 1) and model.encoder.level0.norm1.momentum == 0.1
    with pytest.raises(ValueError, match="the block makes 8 x 8 pixels where the encoder had 9 x 9"):
        model.decoder([torch.zeros(2, 8, 9, 9), torch.zeros(2, 16, 4, 4), torch.zeros(2, 32, 2, 2)])


@pytest.mark.parametrize("odd_sizes", [name for name in ODD_SIZES if name != "refuse"])
def test_the_gradient_flows_through_every_path_of_a_unet(odd_sizes):
    model = unet(channels=(2, 3, 2), odd_sizes=odd_sizes).double().eval()
    images = torch.rand(1, 1, 5, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert torch.autograd.gradcheck(model, images.requires_grad_())
    assert all(parameter.grad is None for parameter in model.parameters())
    model.train()(images).square().sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in model.parameters())
