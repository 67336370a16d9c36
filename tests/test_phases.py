"""upconv.phases: gains against what a constant image becomes, energies against patterns of known strength."""

import itertools
import random
import re

import numpy as np
import pytest
import torch
from skimage import data
from torch import nn
from torch.nn import functional as F

from upconv import checkerboard_energy, phase_gains, radial_spectrum
from upconv.book.data import fashion_mnist


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_gains_are_what_each_phase_shows_of_a_constant_image(axes):
    rng = random.Random(axes)
    conv_transpose = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[axes - 1]
    for _ in range(1000):
        channels, outputs = rng.randint(1, 3), rng.randint(1, 2)
        kernel_size = [rng.randint(1, 7 if axes < 3 else 5) for _ in range(axes)]
        stride = tuple(rng.randint(1, 4) for _ in range(axes))
        weight = torch.randint(-9, 10, (channels, outputs, *kernel_size)).double()
        gains = phase_gains(weight, stride)
        assert gains.shape == (channels, outputs, *stride)
        # so many that each of the last pixel's phases has all its taps; a phase without taps may lie beyond the output
        size = [(k - 2) // s + 2 for k, s in zip(kernel_size, stride, strict=True)]
        flat = torch.eye(channels).double().view(channels, channels, *(1,) * axes).expand(-1, -1, *size)
        middle = [slice((n - 1) * s, n * s) for n, s in zip(size, stride, strict=True)]
        padded = F.pad(conv_transpose(flat, weight, stride=stride), [0, 4] * axes)
        assert torch.equal(padded[(..., *middle)], gains)
        if len(set(stride)) == 1:
            assert torch.equal(phase_gains(weight, stride[0]), gains)


def test_gains_keep_dtype_and_gradient():
    weight = torch.ones(1, 1, 3, 3, dtype=torch.float16, requires_grad=True)
    gains = phase_gains(weight, 2)
    assert gains.dtype == torch.float16
    gains.sum().backward()
    assert torch.equal(weight.grad, torch.ones_like(weight))


def test_errors_name_the_argument():
    with pytest.raises(TypeError, match=r"weight must be a torch\.Tensor"):
        phase_gains([[1]], 2)
    for dims in (2, 6):
        with pytest.raises(ValueError, match=r"weight must have the shape .* 1 to 3 kernel sizes, not \(3, 3"):
            phase_gains(torch.ones((3,) * dims), 2)
    with pytest.raises(ValueError, match=r"stride=\(2, 2\) has 2 entries"):
        phase_gains(torch.ones(1, 1, 3), (2, 2))
    with pytest.raises(ValueError, match="stride=0"):
        phase_gains(torch.ones(1, 1, 3, 3), 0)
    with pytest.raises(TypeError, match="stride=True"):
        phase_gains(torch.ones(1, 1, 3, 3), True)


# the checkerboard energy


def board(*size, period=2):
    """A pattern with one bright pixel in each cell of `period` pixels on each axis."""
    pattern = torch.zeros(1, 1, *size, dtype=torch.float64)
    pattern[(..., *(slice(None, None, period) for _ in size))] = 1
    return pattern


def photographs():
    """Patches of 64 x 64 pixels: (N, 3, 64, 64)."""
    return torch.cat([patches(getattr(data, name)()) for name in ("chelsea", "astronaut", "coffee")])


def patches(image):
    image = torch.from_numpy(image.copy()).double()
    image = image.permute(2, 0, 1) if image.dim() == 3 else image[None]
    return image.unfold(1, 64, 64).unfold(2, 64, 64).flatten(1, 2).transpose(0, 1)


@pytest.mark.parametrize(
    "size", [(8, 8), (9, 15), (28, 28), (31, 64), (65, 33), (200, 41), (8,), (501,), (9, 8, 11), (8, 40, 70)]
)
@pytest.mark.parametrize("stride", [2, 3, 4])
def test_a_pure_pattern_scores_1_whatever_its_size_and_a_flat_image_0(size, stride):
    pattern = board(*size, period=stride)
    assert checkerboard_energy(pattern, stride).item() == pytest.approx(1, abs=1e-12)
    assert checkerboard_energy(0.001 * pattern - 7, stride).item() == pytest.approx(1, abs=1e-9)
    assert checkerboard_energy(torch.full_like(pattern, 0.1), stride).item() == 0
    assert checkerboard_energy(torch.zeros_like(pattern), stride).item() == 0


def written_out(image, stride, double):
    """The share and the mean square, by the formula of the docstring, window by window: of an image (C, *size)."""
    period = 2 * stride if double else stride
    windows = []  # on each axis: where it begins, and its weights
    for size in image.shape[1:]:
        extent = min(size, 16 * period)
        hann = np.sin(np.pi * (np.arange(extent) + 0.5) / extent) ** 2
        count = 1 + -(-2 * (size - extent) // extent)
        starts = [round(number * (size - extent) / max(1, count - 1)) for number in range(count)]
        windows.append([(start, hann / hann.sum()) for start in starts])
    above = below = 0.0
    for channel in image.numpy():
        patches = []
        for window in itertools.product(*windows):
            weights = np.ones(())
            for _, hann in window:
                weights = np.multiply.outer(weights, hann)
            patch = channel[tuple(slice(start, start + len(hann)) for start, hann in window)]
            places = np.meshgrid(*(np.arange(start, start + len(hann)) for start, hann in window), indexing="ij")
            patches.append((weights, patch, places))
        level = np.mean([(weights * patch).sum() for weights, patch, _ in patches])
        for weights, patch, places in patches:
            below += (weights * (patch - level) ** 2).sum()
            fine, coarse = (means_by_phase(weights, patch, places, p) for p in (period, stride if double else 1))
            above += (weights * (fine - coarse) ** 2).sum()
    return above / below, above / len(patches)


def means_by_phase(weights, patch, places, period):
    """For every pixel the weighted mean of its phase."""
    phase = sum(place % period * period**axis for axis, place in enumerate(places))
    sums = (np.bincount(phase.ravel(), values.ravel()) for values in (weights * patch, weights))
    return np.divide(*sums)[phase]


@pytest.mark.parametrize("axes, draws, largest", [(1, 300, 400), (2, 100, 90), (3, 40, 40)])
def test_the_energy_is_the_formula_in_one_two_and_three_dimensions(axes, draws, largest):
    rng = random.Random(axes)
    for _ in range(draws):
        stride, double = rng.randint(2, 5 - axes // 3), rng.random() < 0.5
        smallest = (4 if double else 2) * stride
        size = [rng.randint(smallest, largest if rng.random() < 0.5 else smallest + 9) for _ in range(axes)]
        images = 3 + torch.randn(2, rng.randint(1, 2), *size).double().cumsum(-1) * rng.choice([1, 0.001])
        images = images + rng.choice([0, 1]) * board(*size, period=rng.choice([stride, 2 * stride]))
        expected = torch.tensor([written_out(image, stride, double) for image in images]).T
        for relative, values in ((True, expected[0]), (False, expected[1])):
            found = checkerboard_energy(images, stride, double=double, relative=relative)
            torch.testing.assert_close(found, values, rtol=1e-9, atol=1e-12)


def test_what_an_axis_repeats_it_does_not_change():
    for size, period in (((50,), 2), ((100,), 3), ((30, 41), 2)):
        images = torch.randn(3, 2, *size).double() + 0.3 * board(*size, period=period)
        for place in range(2, images.dim() + 1):
            repeated = images.unsqueeze(place).expand(*images.shape[:place], 37, *images.shape[place:])
            for double in (False, True):
                expected = checkerboard_energy(images, period, double=double)
                torch.testing.assert_close(checkerboard_energy(repeated, period, double=double), expected)


@pytest.mark.parametrize("axes, size, stride", [(1, 5000, 2), (1, 5000, 3), (1, 80_000, 256), (2, 200, 2), (3, 70, 2)])
def test_white_noise_scores_what_the_docstring_says(axes, size, stride):
    noise = torch.randn(16, 1, *(size,) * axes)
    expected = (stride**axes - 1) * (3 / (32 * stride)) ** axes
    assert checkerboard_energy(noise, stride).mean().item() == pytest.approx(expected, rel=0.1)
    text = " ".join(checkerboard_energy.__doc__.split())
    assert "(stride**n - 1) * (3 / (32 * stride))**n" in text
    if stride != 3:
        assert f" {float(f'{expected:.2g}')} in {['signals', 'images', 'volumes'][axes - 1]}" in text


def test_a_long_signal_is_measured_window_by_window():
    signal = torch.randn(1, 1, 2**20)  # whose windows as a dense matrix would have 500 GB
    buzz = 0.5 * torch.sin(torch.arange(2**20) * (2 * torch.pi * 3 / 256))
    for stride in (2, 256):
        quiet, loud = checkerboard_energy(torch.cat([signal, signal + buzz]), stride).tolist()
        share = 0.125 / 1.125 if stride == 256 else 0
        assert loud - quiet * (1 - share) == pytest.approx(share, abs=0.01)


@pytest.mark.parametrize("axes, strides", [(1, (2, 3)), (1, (8, 8, 2, 2)), (2, (2, 2)), (2, (3, 2)), (3, (2, 2))])
def test_the_stride_of_several_layers_is_the_product_of_theirs(axes, strides):
    """Which stride? The pattern of all layers is found at the product, and at the last one's stride a part of it."""
    kind = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)[axes - 1]
    period = int(np.prod(strides))
    for _ in range(5):
        model = nn.Sequential()
        for stride in strides:
            model.extend([kind(2, 2, stride + 1, stride, padding=1, output_padding=1), nn.LeakyReLU()]).double()
        with torch.no_grad():
            output = model(torch.randn(1, 2, *(1,) * axes).double().expand(1, 2, *(12 if axes < 3 else 7,) * axes))
        middle = output[(..., *(slice(2 * period, -2 * period),) * axes)]  # flat inputs, so all else is pattern
        assert checkerboard_energy(middle, period).item() == pytest.approx(1, abs=1e-9)
        assert 0 < checkerboard_energy(middle, strides[-1]).item() < 0.99


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.uint8])
def test_rounding_on_a_flat_image_is_no_pattern(dtype):
    flat = torch.full((2, 3, 40, 41), 0.3).double()
    noise = torch.zeros_like(flat) if dtype == torch.uint8 else torch.finfo(dtype).eps * 0.3 * board(40, 41)
    scaled = ((flat + noise) * (255 if dtype == torch.uint8 else 1)).to(dtype)
    assert checkerboard_energy(scaled, 2).tolist() == [0, 0]


def test_the_energy_is_the_share_of_the_pattern():
    generator = torch.Generator().manual_seed(0)
    smooth = F.interpolate(torch.rand(1, 1, 6, 6, generator=generator).double(), size=(96, 96), mode="bicubic")
    pattern = board(96, 96) - 0.25
    smooth = smooth - smooth.mean()
    for amplitude in (0.01, 0.1, 1.0):
        share = (amplitude * pattern).square().mean() / (smooth + amplitude * pattern).square().mean()
        assert checkerboard_energy(smooth + amplitude * pattern, 2).item() == pytest.approx(share.item(), rel=0.15)


@pytest.mark.parametrize("stride", [2, 3])
def test_a_stronger_pattern_scores_more_and_brightness_and_contrast_nothing(stride):
    images = photographs()[:20] / 255
    pattern = board(64, 64, period=stride)
    amplitudes = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 5)
    scores = torch.stack([checkerboard_energy(images + a * pattern, stride) for a in amplitudes])
    assert (scores.diff(dim=0) > 0).float().mean() > 0.98
    assert (scores.mean(dim=1).diff() > 0).all()
    torch.testing.assert_close(checkerboard_energy(40 + 3 * images, stride), checkerboard_energy(images, stride))
    torch.testing.assert_close(checkerboard_energy(1 - images, stride), checkerboard_energy(images, stride))


def test_scores_of_different_sizes_can_be_compared():
    generator = torch.Generator().manual_seed(0)
    scores = {}
    for size in (32, 33, 64, 65, 127, 256):
        noise = torch.rand(60, 1, size, size, generator=generator)
        scores[size] = checkerboard_energy(noise + 0.2 * board(size, size), 2).mean().item()
    assert max(scores.values()) < 1.1 * min(scores.values()), scores


def test_a_pattern_that_changes_its_sign_across_the_image_is_found():
    pattern = (board(128, 128) - 0.25) * torch.linspace(-1, 1, 128)
    by_phase = [pattern[..., r::2, q::2].mean() for r in (0, 1) for q in (0, 1)]
    assert max(by_phase) - min(by_phase) < 0.01  # on average over the whole image there is nothing
    assert checkerboard_energy(pattern, 2).item() > 0.6


def test_the_channels_count_together():
    flat, pattern = torch.zeros(1, 1, 32, 32).double(), board(32, 32)
    waves = torch.sin(torch.arange(32) / 5).double().expand(1, 1, 32, 32)
    assert checkerboard_energy(torch.cat([flat, pattern], dim=1), 2).item() == pytest.approx(1)
    both = checkerboard_energy(torch.cat([waves, pattern], dim=1), 2).item()
    assert 0.1 < both < 0.9
    assert both == pytest.approx(checkerboard_energy(torch.cat([pattern, waves + 50], dim=1), 2).item())


@pytest.mark.parametrize("axes, size", [(1, 700), (2, 70), (3, 40)])
@pytest.mark.parametrize("stride", [2, 3])
def test_the_doubled_period_is_a_band_of_its_own(stride, axes, size):
    single, double = (board(*(size,) * axes, period=period) for period in (stride, 2 * stride))
    assert checkerboard_energy(single, stride, double=True).item() == pytest.approx(0, abs=1e-9)
    shares = [checkerboard_energy(double, stride, double=flag).item() for flag in (False, True)]
    # one pixel in p x p: p**2 - 1 equal components, of which stride**2 - 1 have the shorter period
    assert shares[0] == pytest.approx((stride**axes - 1) / ((2 * stride) ** axes - 1), abs=0.01)
    assert sum(shares) == pytest.approx(1, abs=0.01)


def test_nearest_upsampling_and_a_convolution_leave_nothing_at_the_strides_period_but_something_at_its_double():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(20, 4, 40, 40, generator=generator)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        pair = nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(4, 1, 3))
        transposed = nn.ConvTranspose2d(4, 1, 4, stride=2, padding=1)
    with torch.no_grad():
        assert checkerboard_energy(pair(x), 2).mean() < 2e-4
        assert checkerboard_energy(pair(x), 2, double=True).mean() > 10 * checkerboard_energy(pair(x), 2).mean()
        assert checkerboard_energy(transposed(x), 2).mean() > 20 * checkerboard_energy(pair(x), 2).mean()


def reference_scores(double=False):
    grey = torch.cat([patches(data.camera()).expand(-1, 3, -1, -1), photographs()])
    textures = torch.cat([patches(getattr(data, name)()) for name in ("brick", "grass", "gravel")])
    noise = torch.randn(2000, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    sets = grey, textures, noise, fashion_mnist("test")[0]
    scores = [checkerboard_energy(images, 2, double=double) for images in sets]
    return [(score.median().item(), score.quantile(0.99).item()) for score in scores]


def test_the_docstring_says_what_images_score():
    text = " ".join(checkerboard_energy.__doc__.split())
    for double, sentence in (
        (False, "photographs {} and {}, of textures (brick, grass, gravel) {} and {}, white noise of that size {} "
         "and {}; Fashion-MNIST with its 28 x 28 pixels {} and {},"),
        (True, "With `double`: {} and {}, {} and {}, {} and {}; {} and {}."),
    ):  # fmt: skip
        pattern = re.escape(sentence).replace(r"\{\}", r"([\d.]+)")
        said = [float(number) for number in re.search(pattern, text).groups()]
        measured = [value for both in reference_scores(double) for value in both]
        for number, value in zip(said, measured, strict=True):
            assert value == pytest.approx(number, rel=0.25), (said, measured)


@pytest.mark.parametrize("size", [(70,), (12, 12), (5, 4, 6)])
def test_the_energy_is_differentiable(size):
    images = torch.rand(2, 1, *size, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: checkerboard_energy(x, 2), images)
    flat = torch.zeros(1, 1, 12, 12, requires_grad=True)
    checkerboard_energy(flat, 2).sum().backward()
    assert flat.grad.abs().sum() == 0


def test_energy_and_spectrum_refuse_what_they_cannot_measure():
    images = torch.rand(1, 1, 8, 8)
    for function in (lambda x: checkerboard_energy(x, 2), radial_spectrum):
        with pytest.raises(TypeError, match=r"images must be a real torch\.Tensor .* not list"):
            function([1])
        with pytest.raises(TypeError, match="complex64"):
            function(images + 1j)
        with pytest.raises(ValueError, match=r"images must have the shape .* not \(8, 8\)"):
            function(images[0, 0])
        with pytest.raises(ValueError, match="infinite or not a number"):
            function(images / 0)
    with pytest.raises(ValueError, match=r"at least 10 pixels on each axis, not \(1, 1, 8, 8\)"):
        checkerboard_energy(images, 5)
    with pytest.raises(ValueError, match=r"at least 12 pixels on each axis"):
        checkerboard_energy(images, 3, double=True)
    with pytest.raises(ValueError, match=r"at least 10 pixels on each axis, not \(1, 1, 9\)"):
        checkerboard_energy(torch.rand(1, 1, 9), 5)
    with pytest.raises(ValueError, match=r"images must have the shape \(N, C, \*size\) .* not \(1, 1, 8, 8, 8, 8\)"):
        checkerboard_energy(torch.rand(1, 1, 8, 8, 8, 8), 2)
    for dims in (3, 5):
        with pytest.raises(ValueError, match=r"images must have the shape \(N, C, H, W\)"):
            radial_spectrum(torch.rand((8,) * dims))
    with pytest.raises(ValueError, match="stride=1 must be at least 2"):
        checkerboard_energy(images, 1)
    with pytest.raises(TypeError, match=r"stride=\(2, 2\)"):
        checkerboard_energy(images, (2, 2))


# the spectrum


def test_white_noise_has_its_variance_at_every_frequency():
    noise = 3 * torch.randn(40, 2, 64, 80, generator=torch.Generator().manual_seed(0))
    spectrum = radial_spectrum(noise)
    assert spectrum.shape == (40, 33)
    assert spectrum[:, 0].max() < 1e-20
    torch.testing.assert_close(spectrum[:, 5:].mean(dim=0), torch.full((28,), 9.0).double(), rtol=0.1, atol=0)


@pytest.mark.parametrize("size", [(32, 32), (31, 31), (32, 48), (48, 32)])
@pytest.mark.parametrize("cycles", [2, 5, 11])
def test_a_wave_stands_at_its_frequency_in_any_direction(size, cycles):
    height, width = size
    rows = torch.arange(height).double()[:, None]
    columns = torch.arange(width).double()[None]
    shorter = min(size)
    for wave in (torch.cos(2 * torch.pi * cycles * rows / height), torch.cos(2 * torch.pi * cycles * columns / width)):
        image = (7 + wave).expand(1, 1, height, width)
        frequency = cycles / (height if wave.shape[1] == 1 else width)
        assert radial_spectrum(image).argmax().item() == round(frequency * shorter)


def test_power_inside_the_circle_is_counted_once():
    image = torch.randn(1, 1, 16, 16, generator=torch.Generator().manual_seed(0)).double()
    frequencies = torch.fft.fftfreq(16)
    radius = torch.hypot(frequencies[:, None], frequencies)
    nearest = torch.where(radius <= 0.5, (radius * 16).round().long(), -1)
    power = torch.fft.fft2(image - image.mean()).abs().square()[0, 0] / 256
    for entry, value in enumerate(radial_spectrum(image)[0]):
        assert value.item() == pytest.approx(power[nearest == entry].mean().item(), abs=1e-12)


@pytest.mark.parametrize("size", [(7, 8), (8, 7), (11, 40), (15, 64), (5, 8), (8, 8)])
def test_the_finest_stripes_are_in_the_last_entry(size):
    stripes = torch.tensor([1.0, -1.0]).repeat(32)[: size[1]].expand(1, 1, *size)
    spectrum = radial_spectrum(stripes if size[1] % 2 == 0 else stripes[..., : size[1]])
    assert spectrum.argmax().item() == min(size) // 2


def test_the_pattern_itself_is_measured_in_the_images_units():
    smooth = torch.sin(torch.arange(64) / 9).double().expand(1, 1, 64, 64)
    for amplitude in (0.01, 0.1, 1):
        pattern = amplitude * (board(64, 64) - 0.25)
        for contrast in (0.5, 2):
            found = checkerboard_energy(contrast * smooth + pattern, 2, relative=False).item()
            assert found == pytest.approx(pattern.square().mean().item(), rel=0.05)
    both = torch.cat([board(64, 64), 2 * board(64, 64)], dim=1)
    assert checkerboard_energy(both, 2, relative=False).item() == pytest.approx(5 * 0.1875)


def test_a_bright_flat_channel_hides_nothing():
    bright, pattern = torch.full((1, 1, 32, 32), 1e6), 0.1 * board(32, 32).float()
    assert checkerboard_energy(torch.cat([bright, pattern], dim=1), 2).item() == pytest.approx(1)
    steps = (0.5 + 0.03 * board(32, 32)).to(torch.bfloat16)
    assert checkerboard_energy(steps, 2).item() == pytest.approx(checkerboard_energy(steps.double(), 2).item())


def test_an_image_is_measured_by_itself():
    images = torch.rand(4, 2, 20, 31, generator=torch.Generator().manual_seed(0))
    together = checkerboard_energy(images, 2)
    torch.testing.assert_close(together, torch.cat([checkerboard_energy(image[None], 2) for image in images]))
