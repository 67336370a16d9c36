"""The pattern that a model's output shows on flat inputs, against models whose pattern is known."""

import copy
import dataclasses
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from upconv import flat_response, phase_gains
from upconv.book.blocks import BLOCKS, upsampling_block

PATTERNED = {"conv_transpose_2x2", "conv_transpose_3x3", "conv_transpose_4x4", "pixel_shuffle"}


def example(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("name", BLOCKS)
def test_the_books_blocks_when_fresh(name):
    torch.manual_seed(0)
    model = nn.Sequential(upsampling_block(name, 3, 8), nn.ReLU(), upsampling_block(name, 8, 3)).double()
    found = flat_response(model, example(2, 3, 16, 12))
    assert found["relative"] > 0.01 if name in PATTERNED else found["relative"] < 1e-12
    assert found["border_found"] and set(found["per_phase"]) == {2, 4}


@pytest.mark.parametrize(("axes", "kernel_size", "stride"), [(1, 8, 4), (2, (3, 4), (2, 3)), (2, 4, 2), (3, 2, 2)])
def test_one_layer_shows_its_gains_at_their_places(axes, kernel_size, stride):
    kind = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)[axes - 1]
    layer = kind(1, 2, kernel_size, stride, padding=1).double()
    x = torch.full((1, 1, *[12] * axes), 3.0, dtype=torch.float64)
    found = flat_response(layer, x)
    gains = 3 * phase_gains(layer.weight.detach(), stride)[0]
    gains = gains.roll([-pad for pad in layer.padding], list(range(1, axes + 1)))
    gains -= gains.mean(list(range(1, axes + 1)), keepdim=True)
    torch.testing.assert_close(found["per_phase"][math.lcm(*layer.stride)], gains)
    output = layer(x)
    assert found["pattern"] == pytest.approx(gains.square().mean().sqrt().item())
    assert found["relative"] == pytest.approx(found["pattern"] / (output.max() - output.min()).item())


def test_stacked_scales_add_up_in_the_whole_and_the_worst_level_counts():
    torch.manual_seed(0)
    model = nn.Sequential(nn.ConvTranspose2d(1, 1, 2, 2), nn.ReLU(), nn.ConvTranspose2d(1, 1, 2, 2)).double()
    x = example(3, 1, 8, 8)
    found = flat_response(model, x)
    whole, half = found["per_phase"][4], found["per_phase"][2]
    torch.testing.assert_close(whole.reshape(1, 2, 2, 2, 2).mean((1, 3)), half)
    levels = x.min() + (x.max() - x.min()) * torch.linspace(0, 1, 101, dtype=torch.float64)
    tiles = model(levels.reshape(-1, 1, 1, 1)).detach()
    patterns = (tiles - tiles.mean((2, 3), keepdim=True)).square().mean((1, 2, 3)).sqrt()
    assert patterns.median() < found["pattern"] <= patterns.max()


def test_a_unet_is_measured_at_the_period_of_its_deepest_level():
    class UNet(nn.Module):
        def __init__(self):
            super().__init__()
            self.up = nn.ConvTranspose2d(2, 1, 4, 4)

        def forward(self, x):
            return x[:, :1] + self.up(F.max_pool2d(x, 4))

    model = UNet().double()
    found = flat_response(model, example(1, 2, 16, 16))
    assert found["border"] == ((0, 0), (0, 0)) and set(found["per_phase"]) == {2, 4}
    assert found["pattern"] > 1e-3


@pytest.mark.parametrize("convolutions", [1, 3])
def test_the_border_is_as_deep_as_zeros_reach(convolutions):
    same = [nn.Conv2d(2, 2, (3, 5), padding=(1, 2)) for _ in range(convolutions)]
    found = flat_response(nn.Sequential(nn.Upsample(scale_factor=2), *same).double(), example(1, 2, 9, 14))
    assert found["border"] == ((convolutions,) * 2, (2 * convolutions,) * 2) and found["border_found"]
    assert found["pattern"] < 1e-12


def test_where_the_example_has_too_little_inside_a_larger_input_is_measured():
    deep = [nn.Conv2d(2, 2, 7, padding=3) for _ in range(3)]
    torch.manual_seed(0)
    model = nn.Sequential(nn.ConvTranspose2d(2, 2, 2, 2), *deep).double()
    found = flat_response(model, example(1, 2, 6, 6))  # a picture of 12 x 12, and 9 of its pixels from each side
    assert found["border"] == ((9, 9), (9, 9)) and found["border_found"]
    assert found["pattern"] > 1e-4


def test_frames_and_crops_change_no_scale():
    layer = nn.ConvTranspose2d(1, 1, 2, 2, bias=False).double()
    layer.weight.data = torch.tensor([[[[1.0, 1.0], [1.0, 2.0]]]]).double()
    model = nn.Sequential(nn.ReplicationPad2d(8), layer, nn.ZeroPad2d(-16))
    x = torch.full((1, 1, 24, 24), 4.0, dtype=torch.float64)
    found, plain = flat_response(model, x), flat_response(layer, x)
    assert found["pattern"] == plain["pattern"] > 1 and set(found["per_phase"]) == {2}
    assert found["level"].tolist() == [4] and found["patterns"] == [found["pattern"]] * 8


class Fixed(nn.Module):
    def forward(self, x):
        assert x.shape[-1] == 16, "one size only"
        return F.pixel_shuffle(x, 2)


class Whole(nn.Module):
    def forward(self, x):
        return F.interpolate(x - F.pad(x, (1, 1)).mean((2, 3), keepdim=True), scale_factor=2.0)


@pytest.mark.parametrize(("model", "pattern"), [(Fixed(), True), (Whole(), False)])
def test_without_a_border_it_is_a_quarter_of_the_picture(model, pattern):
    found = flat_response(model, example(1, 4, 16, 16))
    assert not found["border_found"] and found["border"] == ((8, 8), (8, 8))
    assert (found["pattern"] > 0.1) is pattern


SEEN = []


class Conditioned(nn.Module):
    def __init__(self):
        super().__init__()
        self.dropout, self.up = nn.Dropout(), nn.ConvTranspose2d(2, 2, 2, 2)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x, step, *, text):
        SEEN.append((x, step, text))
        self.calls += 1
        made = self.up(self.dropout(x)) + text.mean() + step
        return [{"loss": x.mean(), "mask": made > 0, "image": made}]


def test_only_images_become_flat_each_channel_in_its_own_range():
    torch.manual_seed(0)
    model, x = Conditioned().double(), example(2, 2, 8, 8) * torch.tensor([1.0, 100.0]).view(1, 2, 1, 1)
    step, text = torch.tensor([1, 2]).view(2, 1, 1, 1), example(2, 3, 5)
    state, before = torch.get_rng_state(), copy.deepcopy(model.state_dict())
    SEEN.clear()
    found = flat_response(model, (x, step), example_kwargs=dict(text=text))
    assert model.training and torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    flats = [seen for seen, *_ in SEEN if seen.flatten(2).std(2).max() == 0]
    assert len(flats) >= 9 and {tuple(flat.shape[2:]) for flat in flats} == {(8, 8), (16, 16)}
    assert all(torch.equal(one, step) and torch.equal(other, text) for _, one, other in SEEN)
    levels = torch.stack([flat[..., 0, 0] for flat in flats]).flatten(0, 1)
    assert ((levels >= x.amin((0, 2, 3))) & (levels <= x.amax((0, 2, 3)))).all()
    assert (levels.std(0) / (x.amax((0, 2, 3)) - x.amin((0, 2, 3)))).min() > 0.1 and found["pattern"] > 1
    assert found["pattern"] == flat_response(model, (x, step), example_kwargs=dict(text=text))["pattern"]


def test_outputs_in_a_dataclass_and_a_picture_that_is_black():
    @dataclasses.dataclass
    class Output:
        sample: torch.Tensor

    class Black(nn.Module):
        def forward(self, x):
            return Output(0 * F.interpolate(x, scale_factor=2.0))

    found = flat_response(Black(), example(1, 1, 4, 4))
    assert found["pattern"] == found["relative"] == 0
    shuffle = nn.Sequential(nn.PixelShuffle(2))
    assert flat_response(shuffle, example(1, 4, 1, 1).expand(1, 4, 4, 4))["relative"] > 0.1


def test_models_that_cannot_be_measured_are_refused():
    with pytest.raises(ValueError, match="no input is an image"):
        flat_response(nn.Linear(3, 4), torch.rand(2, 3))
    with pytest.raises(ValueError, match="no input is an image"):
        flat_response(nn.Embedding(3, 4), torch.zeros(2, 3, dtype=torch.long))
    with pytest.raises(ValueError, match="no output is an image of floating point with 4 axes"):
        flat_response(nn.Flatten(), torch.rand(1, 1, 4, 4))
    with pytest.raises(ValueError, match="infinite or not a number"):
        flat_response(nn.Sequential(nn.PixelShuffle(2)), torch.full((1, 4, 4, 4), math.inf))
    with pytest.raises(TypeError, match=r"torch.nn.Module, not function"):
        flat_response(F.relu, torch.rand(1, 1, 4, 4))
