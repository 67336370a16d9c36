import pytest
import torch
from torch import nn

from upconv.book.blocks import BLOCKS
from upconv.book.models import Autoencoder, SuperResolution


def build(upsampling="nearest_conv_3x3", seed=0, **settings):
    torch.manual_seed(seed)
    return Autoencoder(upsampling, **settings)


def of_a_block(name):
    return name.split(".")[1] in ("up1", "up2", "up3")


@pytest.mark.parametrize("upsampling", BLOCKS)
def test_shapes_with_every_block(upsampling):
    model, images = build(upsampling, code_size=10, channels=(3, 4, 5)).double(), torch.rand(2, 1, 28, 28).double()
    codes = model.encode(images)
    assert codes.shape == (2, 10)
    assert model.decode(codes).shape == images.shape
    assert torch.equal(model(images), model.decode(codes))


@pytest.mark.parametrize("upsampling", BLOCKS)
def test_all_but_the_blocks_starts_from_the_same_weights(upsampling):
    reference, model = build("nearest_conv_3x3", seed=3), build(upsampling, seed=3)
    shared = {name: value for name, value in reference.state_dict().items() if not of_a_block(name)}
    assert len(shared) == 12
    mine = model.state_dict()
    assert {name for name in mine if not of_a_block(name)} == shared.keys()
    assert all(torch.equal(mine[name], value) for name, value in shared.items())
    others = build(upsampling, seed=4).state_dict()
    assert not any(torch.equal(others[name], value) for name, value in shared.items())


@pytest.mark.parametrize("upsampling", ["conv_transpose_4x4", "nearest_conv_3x3"])
def test_the_same_seed_gives_the_same_model(upsampling):
    first, second = (list(build(upsampling).state_dict().values()) for _ in range(2))
    assert all(map(torch.equal, first, second))


def test_only_the_blocks_differ():
    def outside(model):
        return [repr(part) for name, part in model.named_modules() if name.count(".") == 1 and not of_a_block(name)]

    transposed, resized = build("conv_transpose_4x4"), build("nearest_conv_3x3")
    assert len(outside(resized)) == 16
    assert outside(transposed) == outside(resized)
    for name in ("up1", "up2", "up3"):
        assert isinstance(transposed.decoder.get_submodule(name)[0], nn.ConvTranspose2d)
        assert isinstance(resized.decoder.get_submodule(name)[0], nn.Upsample)


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


@pytest.mark.parametrize("upsampling", ["conv_transpose_4x4", "nearest_conv_3x3"])
def test_the_default_is_small_and_learns_with_every_weight(upsampling):
    model = build(upsampling)
    assert 100_000 < sum(parameter.numel() for parameter in model.parameters()) < 200_000
    model(torch.rand(4, 1, 28, 28)).square().mean().backward()
    assert all(parameter.grad.abs().max() > 0 for parameter in model.parameters())


def test_one_image_does_not_reach_another():
    model, images = build().double().train(), torch.rand(3, 1, 28, 28).double()
    torch.testing.assert_close(model(images)[1:2], model(images[1:2]))


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"upsampling": "nearest"}, ValueError, "name='nearest' is not a block; .*nearest_conv_3x3"),
        ({"code_size": 0}, ValueError, "code_size=0 must be an int of at least 1"),
        ({"code_size": 8.0}, TypeError, "code_size=8.0"),
        ({"channels": (8, 16)}, ValueError, r"channels=\(8, 16\) must be 3 ints"),
        ({"channels": 8}, ValueError, "channels=8 must be 3 ints"),
        ({"channels": (8, 16, 0)}, ValueError, r"channels\[2\]=0 must be an int of at least 1"),
        ({"decoder_channels": (8, 16)}, ValueError, r"decoder_channels=\(8, 16\) must be 3 ints"),
    ],
)
def test_errors_of_the_settings(settings, error, message):
    with pytest.raises(error, match=message):
        Autoencoder(**settings)


@pytest.mark.parametrize("shape", [(28, 28), (1, 28, 28), (2, 3, 28, 28), (2, 1, 32, 32), (2, 1, 28, 27)])
def test_wrong_image_shapes(shape):
    with pytest.raises(ValueError, match=r"images must have the shape \(N, 1, 28, 28\), not \(") as caught:
        build()(torch.zeros(shape))
    assert str(shape) in str(caught.value)


@pytest.mark.parametrize("shape", [(64,), (2, 63), (2, 64, 1)])
def test_wrong_code_shapes(shape):
    with pytest.raises(ValueError, match=r"codes must have the shape \(N, 64\), not \("):
        build().decode(torch.zeros(shape))


def test_the_default_network_is_the_one_of_the_chapter():
    counts = {
        name: sum(p.numel() for p in build(name).parameters()) for name in ("conv_transpose_4x4", "nearest_conv_3x3")
    }
    assert counts == {"conv_transpose_4x4": 162_249, "nearest_conv_3x3": 153_737}
    kinds = [type(layer).__name__ for layer in build().encoder]
    assert kinds == ["ZeroPad2d", *["Conv2d", "ELU"] * 3, "Flatten", "Linear"]


def test_the_decoder_can_be_wider_and_the_encoder_stays_the_same():
    plain, wide = build(seed=5), build(seed=5, decoder_channels=(9, 17, 70))
    assert all(map(torch.equal, plain.encoder.state_dict().values(), wide.encoder.state_dict().values()))
    assert [wide.decoder.get_submodule(f"up{i}")[1].out_channels for i in (1, 2, 3)] == [17, 9, 9]
    assert wide.decoder.linear.out_features == 70 * 16
    assert wide(torch.rand(2, 1, 28, 28)).shape == (2, 1, 28, 28)


def enlarger(upsampling="nearest_conv_3x3", seed=0, **settings):
    torch.manual_seed(seed)
    return SuperResolution(upsampling, **settings)


@pytest.mark.parametrize("upsampling", BLOCKS)
def test_super_resolution_enlarges_any_size_fourfold_with_every_block(upsampling):
    model = enlarger(upsampling, channels=(3, 4, 5))
    assert model(torch.rand(2, 1, 8, 8)).shape == (2, 1, 32, 32)
    assert model(torch.rand(1, 1, 5, 7)).shape == (1, 1, 20, 28)
    shared = [name for name in model.state_dict() if not of_a_block(name)]
    reference = enlarger("conv_transpose_3x3", channels=(3, 4, 5)).state_dict()
    assert shared == [f"layers.{conv}.{kind}" for conv in ("conv1", "conv2", "conv3") for kind in ("weight", "bias")]
    assert all(torch.equal(model.state_dict()[name], reference[name]) for name in shared)
    other = enlarger(upsampling, seed=1, channels=(3, 4, 5)).state_dict()
    assert not any(torch.equal(other[name], reference[name]) for name in shared)


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


@pytest.mark.parametrize("shape", [(8, 8), (1, 8, 8), (2, 3, 8, 8)])
def test_super_resolution_takes_grey_images(shape):
    with pytest.raises(ValueError, match=r"images must have the shape \(N, 1, H, W\), not \("):
        enlarger()(torch.zeros(shape))
    with pytest.raises(ValueError, match=r"channels=\(8,\) must be 3 ints: the channels at 1, 2 and 4 times"):
        SuperResolution(channels=(8,))
