"""upconv.book.tasks: what is trained and measured, against other libraries and by hand."""

import json
import math

import numpy as np
import pytest
import torch
from scipy.ndimage import distance_transform_cdt
from skimage.metrics import mean_squared_error, structural_similarity
from sklearn.metrics import jaccard_score
from torch import nn
from torch.nn import functional as F

from upconv import checkerboard_energy
from upconv.book import tasks
from upconv.book.blocks import BLOCKS
from upconv.book.data import FULL_SHA256, MINI_SHA256, fashion_mnist
from upconv.book.photographs import photograph_crops
from upconv.book.scenes import garment_scenes
from upconv.book.tasks import (
    AUTOENCODER,
    SUPER_RESOLUTION,
    TASKS,
    UNET,
    Task,
    boundary,
    image_measures,
    segmentation_measures,
    unet_with,
    variant_of,
    weight_shapes,
    without_frame,
)


@pytest.fixture
def pair():
    generator = torch.Generator().manual_seed(0)
    reference = torch.rand(3, 1, 28, 28, generator=generator)
    return reference + 0.2 * torch.randn(3, 1, 28, 28, generator=generator), reference


def test_each_measure_is_the_mean_over_the_images(pair):
    images, reference = pair
    found = image_measures(images, reference)
    a, b = (some.double().squeeze(1).numpy() for some in pair)
    assert found["mse"] == pytest.approx(mean_squared_error(a, b))
    pairs = list(zip(a, b, strict=True))
    assert found["psnr"] == pytest.approx(np.mean([-10 * math.log10(mean_squared_error(x, y)) for x, y in pairs]))
    ssim = dict(data_range=1, gaussian_weights=True, sigma=1.5, use_sample_covariance=False)
    assert found["ssim"] == pytest.approx(np.mean([structural_similarity(x, y, **ssim) for x, y in pairs]))
    for name, options in (
        ("share", {}),
        ("share_double", {"double": True}),
        ("pattern", {"relative": False}),
    ):
        assert found[name] == pytest.approx(checkerboard_energy(images.double(), 2, **options).mean().item()), name
    assert found["share_of_mean"] == pytest.approx(checkerboard_energy(images.double().mean(0, keepdim=True), 2).item())
    assert all(type(value) is float for value in found.values())
    assert image_measures(images[:1], reference[:1])["mse"] != pytest.approx(found["mse"])


def test_bytes_are_images_from_0_to_1(pair):
    images = (pair[0].clamp(0, 1) * 255).round().to(torch.uint8)
    found, expected = image_measures(images, images.flip(0)), image_measures(images / 255, images.flip(0) / 255)
    assert found == pytest.approx(expected, rel=1e-5)
    exact = image_measures(images, images.flip(0).double() / 255)
    assert exact == pytest.approx(image_measures(images.double() / 255, images.flip(0).double() / 255), rel=1e-12)
    with pytest.raises(TypeError, match="uint8"):
        image_measures(images.long(), images.long())


def test_only_the_images_decide_the_checkerboard_and_only_the_difference_the_error(pair):
    images, reference = pair
    one, other = image_measures(images, reference), image_measures(images, images)
    assert (other["mse"], other["psnr"], other["ssim"]) == (0, math.inf, 1)
    assert all(one[name] == other[name] for name in ("share", "share_double", "pattern", "share_of_mean"))


def test_the_frame_is_cut_off_and_other_sizes_are_refused():
    images = torch.rand(2, 1, 32, 32)
    assert torch.equal(without_frame(images), images[:, :, 2:30, 2:30])
    assert without_frame(images[..., :28, :28]).shape == (2, 1, 28, 28)
    with pytest.raises(ValueError, match="must be 28 x 28 or 32 x 32, not 28 x 32"):
        without_frame(images[..., :28, :])


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_a_protocol_has_the_network_and_the_files_of_its_tier(task):
    for tier, files in (("mini", MINI_SHA256), ("full", FULL_SHA256["train-images-idx3-ubyte.gz"])):
        channels = task.tiers[tier]["channels"]
        found = task.protocol("pixel_shuffle", channels, tier)
        assert json.loads(json.dumps(found)).keys() == {"task", "network", "images"} and found["task"] == task.name
        state = task.build("pixel_shuffle", channels, tier).state_dict()
        assert found["network"] == {name: list(tensor.shape) for name, tensor in state.items()}
        assert (files in json.dumps(found)) is (tier == "mini" or task is not UNET)
        assert found != task.protocol("pixel_shuffle", tuple(width + 1 for width in channels), tier)


def test_shapes_are_listed_and_nothing_is_drawn():
    before = torch.get_rng_state()
    assert weight_shapes(lambda: nn.Conv2d(2, 3, (4, 5))) == {"weight": [3, 2, 4, 5], "bias": [3]}
    assert torch.equal(torch.get_rng_state(), before)


IMAGES = {name: TASKS[name] for name in ("autoencoder", "super_resolution")}


@pytest.mark.parametrize("tier", ["mini", "full"])
@pytest.mark.parametrize("task", IMAGES.values(), ids=IMAGES)
def test_a_network_fits_its_data_in_both_tiers(task, tier):
    plain = task.tiers[tier]
    assert set(plain) == {"channels", "steps", "batch_size"}
    torch.manual_seed(0)
    model = task.build("conv_transpose_2x2", plain["channels"], tier)
    inputs, targets = task.data("train", "mini")
    assert model(inputs[:2].float()).shape == targets[:2].shape
    decoder, example = task.decoder(model)
    assert isinstance(decoder, nn.Module) and decoder(example).shape == (1, *targets.shape[1:])
    torch.manual_seed(0)
    wider = task.build("conv_transpose_2x2", tuple(2 * number for number in plain["channels"]), tier)
    assert task.parameters_and_macs(wider)[0] > 1.5 * task.parameters_and_macs(model)[0]
    if task is AUTOENCODER:  # the encoder is no part of the comparison
        assert all(map(torch.equal, model.encoder.state_dict().values(), wider.encoder.state_dict().values()))


@pytest.mark.parametrize("task", IMAGES.values(), ids=IMAGES)
def test_the_data_are_those_of_the_split_and_the_tier(task, monkeypatch):
    asked = []

    def fake(split, tier):
        asked.append((split, tier))
        return torch.zeros(3, 1, 28, 28, dtype=torch.uint8), None

    monkeypatch.setattr(tasks, "fashion_mnist", fake)
    for split, tier in (("train", "full"), ("test", "mini")):
        task.data(split, tier)
        task.measure(
            nn.Conv2d(1, 1, 1) if task is AUTOENCODER else task.build("pixel_shuffle", (2, 2, 2), tier), split, tier
        )
        assert asked == [(split, tier)] * 2
        asked.clear()


def test_the_encoder_is_that_of_the_tier():
    for tier, channels in (("mini", (8, 16, 64)), ("full", (32, 64, 128))):
        encoder = AUTOENCODER.build("pixel_shuffle", (3, 4, 5), tier).encoder
        assert tuple(layer.out_channels for layer in encoder if isinstance(layer, nn.Conv2d)) == channels


def test_an_autoencoder_is_given_what_it_should_make():
    inputs, targets = AUTOENCODER.data("test", "mini")
    assert inputs is targets and torch.equal(inputs, fashion_mnist("test")[0])


def test_super_resolution_is_given_the_means_of_4x4_pixels_of_the_framed_image():
    inputs, targets = SUPER_RESOLUTION.data("test", "mini")
    images = fashion_mnist("test")[0]
    assert torch.equal(without_frame(targets), images)
    assert targets.sum() == images.sum()
    assert inputs.shape == (1000, 1, 8, 8)
    by_hand = targets[7, 0, 8:12, 16:20].double().mean() / 255
    assert inputs[7, 0, 2, 4].item() == pytest.approx(by_hand.item())


@pytest.mark.parametrize("task", IMAGES.values(), ids=IMAGES)
def test_a_model_is_measured_on_the_part_that_was_asked_for_and_without_its_frame(task):
    class Known(nn.Module):
        """Give the right images, and something else in the frame, whatever it is given."""

        def __init__(self, targets):
            super().__init__()
            self.anything = nn.Parameter(torch.zeros(1))
            self.targets = targets

        def forward(self, images):
            made, self.targets = self.targets[: len(images)], self.targets[len(images) :]
            return F.pad(without_frame(made).float() / 255, (2, 2, 2, 2), value=9.0)

    targets = task.data("train", "mini")[1]
    assert task.measure(Known(targets[4500:]), "train", part=slice(4500, None))["psnr"] > 100
    assert task.measure(Known(targets[:100]), "train", part=slice(100))["psnr"] > 100
    assert task.measure(Known(targets), "train", part=slice(4500, None))["psnr"] < 30
    assert task.measure(Known(task.data("test", "mini")[1]))["psnr"] > 100


@pytest.mark.parametrize("upsampling", BLOCKS)
def test_parameters_and_macs_are_those_of_the_formulas(upsampling):
    """Each convolution: taps x channels x channels x the size at which it runs, low or high."""
    taps = {"conv_transpose_2x2": 4, "conv_transpose_3x3": 9, "nearest_conv_2x2": 4, "pixel_shuffle": 36}
    taps |= {"conv_transpose_4x4": 16, "conv_transpose_4x4_bilinear_init": 16, "pixel_shuffle_icnr": 36}
    taps |= {"conv_transpose_4x4_equal_gains": 16, "bilinear_additive": 9 / 4}  # of a quarter of the channels
    of_block = taps.get(upsampling, 9)
    projection = 16**2 if upsampling.endswith("equal_gains") else 0  # of each kernel, once a forward pass
    low = upsampling.startswith(("conv_transpose", "pixel_shuffle"))
    torch.manual_seed(0)
    parameters, macs = AUTOENCODER.parameters_and_macs(AUTOENCODER.build(upsampling, (8, 16, 64), "mini"))
    biases = 4 * (16 + 8 + 8) if upsampling.startswith("pixel") else 16 + 8 + 8
    pairs = ((64 * 16, 4), (16 * 8, 8), (8 * 8, 16))  # channels, and the size before the block
    linear, last = 64 * 1024, 9 * 8
    assert parameters == linear + 1024 + last + 1 + biases + of_block * sum(channels for channels, _ in pairs)
    sizes = 1 if low else 4
    expected = linear + last * 32**2 + of_block * sizes * sum(channels * size**2 for channels, size in pairs)
    assert macs == expected + projection * sum(channels for channels, _ in pairs)
    torch.manual_seed(0)
    parameters, macs = SUPER_RESOLUTION.parameters_and_macs(SUPER_RESOLUTION.build(upsampling, (32, 16, 8), "mini"))
    first, last = 9 * (1 * 32 + 32 * 32), 9 * 8
    expected = first * 64 + last * 1024 + of_block * sizes * (32 * 16 * 64 + 16 * 8 * 256)
    assert macs == expected + projection * (32 * 16 + 16 * 8)


@pytest.fixture
def segmented():
    """Logits and masks of three classes; regions of several pixels, the second mostly right."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randint(3, (4, 5, 7), generator=generator)
    masks = coarse.repeat_interleave(3, 1).repeat_interleave(3, 2)
    logits = F.one_hot(masks, 3).movedim(-1, 1) + torch.randn(4, 3, 15, 21, generator=generator) / 2
    return logits, masks


def by_pixels(found, truth):
    """Intersection over union, pixel by pixel."""
    pairs = list(zip(found.flatten().tolist(), truth.flatten().tolist(), strict=True))
    return sum(a and b for a, b in pairs) / sum(a or b for a, b in pairs)


def test_a_segmentation_is_measured_over_all_images_together(segmented):
    logits, masks = segmented
    found, classes = segmentation_measures(logits, masks), logits.argmax(dim=1)
    assert found["accuracy"] == pytest.approx((classes == masks).double().mean().item())
    assert found["iou"] == pytest.approx(np.mean([by_pixels(classes == k, masks == k) for k in range(3)]))
    assert found["foreground_iou"] == pytest.approx(by_pixels(classes > 0, masks > 0))
    assert found["iou"] == pytest.approx(jaccard_score(masks.flatten(), classes.flatten(), average="macro"))
    edges = [by_pixels(*(edge_by_hand(some == k) for some in (classes, masks))) for k in range(3)]
    assert found["boundary_iou"] == pytest.approx(np.mean(edges))
    edge = by_pixels(*(edge_by_hand(some > 0) for some in (classes, masks)))
    assert found["foreground_boundary_iou"] == pytest.approx(edge)
    assert all(type(value) is float for value in found.values())
    thick = segmentation_measures(logits, masks, thickness=2)
    assert thick["iou"] == found["iou"] and thick["boundary_iou"] > found["boundary_iou"]
    edge = by_pixels(*(torch.from_numpy(boundary((some > 0).numpy(), 2)) for some in (classes, masks)))
    assert thick["foreground_boundary_iou"] == pytest.approx(edge) != found["foreground_boundary_iou"]
    assert found == segmentation_measures(logits, masks, thickness=1)
    exact = segmentation_measures(F.one_hot(masks, 3).movedim(-1, 1).float(), masks)
    assert set(exact.values()) == {1.0}


@pytest.mark.parametrize(
    "size, thickness", [((32, 32), 1), ((64, 64), 2), ((97, 61), 2), ((128, 128), 4), ((16, 16), 1)]
)
def test_boundaries_are_as_thick_as_2_percent_of_the_diagonal(size, thickness):
    masks = torch.zeros(1, *size, dtype=torch.int64)
    masks[:, 3:-3, 3:-3] = 1
    logits = F.one_hot(masks.roll(1, 2), 2).movedim(-1, 1).double()
    assert segmentation_measures(logits, masks) == segmentation_measures(logits, masks, thickness)
    assert segmentation_measures(logits, masks) != segmentation_measures(logits, masks, thickness + 1)


def edge_by_hand(regions):
    """Where one of the eight neighbours is not in the region, beyond the image nothing is."""
    padded = F.pad(regions, (1, 1, 1, 1), value=False)
    height, width = regions.shape[1:]
    inside = torch.stack([padded[:, y : y + height, x : x + width] for y in range(3) for x in range(3)]).all(dim=0)
    return regions & ~inside


def test_the_boundary_is_what_is_near_the_outside(segmented):
    regions = (segmented[1] > 0).numpy()
    assert np.array_equal(boundary(regions), edge_by_hand(torch.from_numpy(regions)).numpy())
    for thickness in (1, 2, 3):
        for region, edge in zip(regions, boundary(regions, thickness), strict=True):
            distance = distance_transform_cdt(np.pad(region, 1), metric="chessboard")[1:-1, 1:-1]
            assert np.array_equal(edge, region & (distance <= thickness))
            assert np.array_equal(edge, boundary(region, thickness))
    for wrong, error in ((0, ValueError), (1.0, TypeError)):
        with pytest.raises(error, match=f"thickness={wrong}"):
            boundary(regions, wrong)


def test_a_class_that_is_nowhere_counts_for_nothing(segmented):
    logits, masks = segmented
    padded = torch.cat([logits, torch.full_like(logits[:, :1], -9)], dim=1)
    assert segmentation_measures(padded, masks) == segmentation_measures(logits, masks)
    nothing = segmentation_measures(torch.eye(2)[:1].reshape(1, 2, 1, 1).expand(1, 2, 3, 3), masks[:1, :3, :3] * 0)
    assert (nothing["iou"], nothing["accuracy"]) == (1, 1)
    assert math.isnan(nothing["foreground_iou"]) and math.isnan(nothing["foreground_boundary_iou"])
    fewer, classes = (masks > 0).long(), logits.argmax(dim=1)
    each = [by_pixels(classes == k, fewer == k) for k in range(2)]
    assert segmentation_measures(logits, fewer)["iou"] == pytest.approx(sum(each) / 3)  # one that is only found: 0


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16])
def test_the_largest_number_decides_and_the_first_of_equal_ones(dtype):
    logits, masks = torch.ones(1, 3, 4, 4, dtype=dtype), torch.zeros(1, 4, 4, dtype=torch.int64)
    assert segmentation_measures(logits, masks)["accuracy"] == 1
    logits[:, 2] += torch.finfo(dtype).eps
    assert segmentation_measures(logits, masks)["accuracy"] == 0


def test_what_cannot_be_a_segmentation_is_refused(segmented):
    logits, masks = segmented
    for wrong, error in (
        ((logits.long(), masks), TypeError),
        ((logits, masks.int()), TypeError),
        ((logits[:, :, :-1], masks), ValueError),
        ((logits[0], masks[0]), ValueError),
        ((logits[:, :2], masks), ValueError),
        ((logits, masks - 1), ValueError),
        ((logits / 0, masks), ValueError),
        ((logits[:0], masks[:0]), ValueError),
        ((logits, masks, 0), ValueError),
    ):
        with pytest.raises(error):
            segmentation_measures(*wrong)
    with pytest.raises(ValueError, match=r"\(4, 15, 21\) masks do not fit \(1, 3, 15, 21\) logits"):
        segmentation_measures(logits[:1], masks)


def test_the_scenes_of_the_two_splits_and_their_number():
    for split, count in (("train", 4000), ("test", 500)):
        images, masks = UNET.data(split, "mini")
        assert images.shape == (count, 1, 32, 32) and masks.shape == (count, 32, 32)
        few, _ = garment_scenes(split, 3)
        assert torch.equal(images[:3], few)
    kept = [UNET.data(split, "mini")[0] for split in ("train", "test")]  # drawn once
    assert all(UNET.data(split, "mini")[0] is mine for split, mine in zip(("train", "test"), kept, strict=True))


def test_the_full_tier_has_pets_whose_rim_belongs_to_them(monkeypatch):
    images, masks = torch.rand(2, 3, 8, 8), torch.tensor([0, 1, 2]).repeat(2, 8, 3)[..., :8].to(torch.uint8)
    asked = []
    monkeypatch.setattr(tasks.pets, "oxford_pets", lambda split: asked.append(split) or (images, masks))
    tasks._segmentation.cache_clear()
    found = UNET.data("test", "full")
    tasks._segmentation.cache_clear()
    assert asked == ["test"] and found[0] is images
    assert torch.equal(found[1], (masks != 0).long()) and found[1].dtype == torch.int64
    model = UNET.build("conv_transpose_2x2", (5, 6, 7), "full").eval()
    assert model(images).shape == (2, 2, 8, 8) and model.channels == (32, 64, 128, 256)
    assert [model.decoder.get_submodule(f"up{level}")[0].out_channels for level in range(3)] == [5, 6, 7]


@pytest.mark.parametrize("upsampling", UNET.blocks)
@pytest.mark.parametrize("skips", [2, 1, 0])
def test_a_unets_parameters_and_macs_are_those_of_the_formulas(upsampling, skips):
    taps = {"conv_transpose_2x2": 4, "nearest_conv_2x2": 4, "conv_transpose_4x4": 16, "pixel_shuffle": 36}
    taps |= {"conv_transpose_4x4_equal_gains": 16, "bilinear_additive": 9 / 4}
    of_block = taps.get(upsampling, 9)
    projection = 16**2 if upsampling.endswith("equal_gains") else 0
    low = upsampling.startswith(("conv_transpose", "pixel_shuffle"))
    task = unet_with(skips=skips)
    model = task.build(upsampling, (8, 16), "mini")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    parameters, macs = task.parameters_and_macs(model)
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in before.items())  # norms, too
    handed = (8 * (skips == 2), 16 * (skips >= 1))
    weights = {32: 9 * 8 * (8 + handed[0] + 8), 16: 9 * 16 * (16 + handed[1] + 16)}
    blocks = {32: of_block * 16 * 8, 16: of_block * 32 * 16}
    biases = (8 + 16) * (4 if upsampling == "pixel_shuffle" else 1)
    norms, head = 2 * 2 * (8 + 16), 8 * 4
    assert parameters == sum(weights.values()) + sum(blocks.values()) + biases + norms + head + 4
    expected = sum(count * size**2 for size, count in weights.items()) + head * 32**2
    expected += sum(count * (size // 2 if low else size) ** 2 for size, count in blocks.items())
    assert macs == expected + projection * (16 * 8 + 32 * 16)
    assert task.parameters_and_macs(model.double()) == (parameters, macs)


def test_a_unet_is_measured_by_its_masks():
    torch.manual_seed(0)
    model, (images, masks) = UNET.build("pixel_shuffle", (8, 16), "mini"), UNET.data("test", "mini")
    found = UNET.measure(model, part=slice(20, 50))
    assert found == segmentation_measures(model.eval()(images[20:50] / 255), masks[20:50])
    assert 0 < found["boundary_iou"] < found["iou"] < 1 and UNET.score == "iou" and UNET.broken < 0.2
    assert len(UNET.blocks) == 8 and set(UNET.blocks) < set(BLOCKS)


@pytest.mark.parametrize("options", [dict(skips=1), dict(activation=True), dict(skips=0, activation=True)], ids=str)
def test_a_unet_with_an_option_is_the_same_task_otherwise(options):
    task = unet_with(**options)
    assert task.name == "unet" and task._replace(build=None) == UNET._replace(build=None)
    for tier in ("mini", "full"):
        channels = UNET.tiers[tier]["channels"]
        plain, other = (one.build("pixel_shuffle", channels, tier).decoder for one in (UNET, task))
        assert (plain.skips, plain.activation) == (len(channels), False)
        assert (other.skips, other.activation) == (options.get("skips", len(channels)), "activation" in options)
    fewer = "skips" in options  # an activation has no weights, so its sweep says of itself that it has one
    assert (task.protocol("pixel_shuffle", (8, 16), "mini") != UNET.protocol("pixel_shuffle", (8, 16), "mini")) is fewer


# variants


VARIANTS = {
    f"{name}, {images}, {convolutions}": (IMAGES[name], images, convolutions)
    for name in IMAGES
    for images in ("garments", "photographs")
    for convolutions in (1, 2)
}


@pytest.mark.parametrize("task, images, convolutions", VARIANTS.values(), ids=VARIANTS)
def test_a_variant_is_the_task_with_other_images_or_more_convolutions(task, images, convolutions):
    variant = variant_of(task, images, convolutions)
    assert list(variant.tiers) == ["mini"] and variant.tiers["mini"]["steps"] == 3000
    changed = {"tiers", "build", *(("data", "decoder", "measures", "sources") if images == "photographs" else ())}
    same = set(Task._fields) - changed
    assert all(getattr(variant, name) == getattr(task, name) for name in same)
    channels = variant.tiers["mini"]["channels"]
    torch.manual_seed(0)
    model = variant.build("bilinear_conv_3x3", channels, "mini")
    further = {name.split(".")[1] for name in model.state_dict() if ".more" in name}
    assert len(further) == (convolutions - 1) * (2 if task is SUPER_RESOLUTION else 3)
    inputs, targets = variant.data("test", "mini")
    assert model(inputs[:2].float()).shape == targets[:2].shape
    decoder, example = variant.decoder(model)
    made = decoder(example)
    assert made.shape == (1, *targets.shape[1:]) and (decoder is model) is (task is SUPER_RESOLUTION)
    assert variant.measure(model, part=slice(3)).keys() == image_measures(targets[:1], targets[:1]).keys()
    if images == "photographs":
        assert variant.measures is image_measures  # there is no frame around a photograph
    assert variant.parameters_and_macs(model)[0] == sum(one.numel() for one in decoder.parameters())
    wider = variant.build("bilinear_conv_3x3", tuple(2 * width for width in channels), "mini")
    if task is AUTOENCODER:
        assert [one.shape for one in wider.encoder.parameters()] == [one.shape for one in model.encoder.parameters()]
        expected = ((16, 32, 64), 128) if images == "photographs" else ((8, 16, 64), 64)
        assert (channels, model.code_size) == expected
    else:
        assert channels == task.tiers["mini"]["channels"]


@pytest.mark.parametrize("task", IMAGES.values(), ids=IMAGES)
def test_the_plain_variant_is_the_task_but_for_its_steps(task):
    variant, channels = variant_of(task), task.tiers["mini"]["channels"]
    assert variant.tiers == {"mini": {**task.tiers["mini"], "steps": 3000}}
    assert task.tiers["mini"]["batch_size"] == 16 and "full" in task.tiers  # it is left as it was
    models = []
    for one in (task, variant):
        torch.manual_seed(3)
        models.append(one.build("pixel_shuffle", channels, "mini").state_dict())
    assert list(models[0]) == list(models[1]) and all(map(torch.equal, models[0].values(), models[1].values()))
    assert variant.protocol("pixel_shuffle", channels, "mini") == task.protocol("pixel_shuffle", channels, "mini")


def test_the_protocols_of_variants_differ(monkeypatch):
    def protocols():
        return {
            name: json.dumps(variant_of(*given).protocol("pixel_shuffle", (3, 4, 5), "mini"))
            for name, given in VARIANTS.items()
        }

    before = protocols()
    assert len(set(before.values())) == len(before) == 8
    for owner, key, value in ((tasks.CROPS, "test", 999), (tasks.PHOTOGRAPHS, "train", ("astronaut",))):
        with monkeypatch.context() as patch:
            patch.setitem(owner, key, value)
            after = protocols()
        assert {name for name in before if before[name] != after[name]} == {n for n in before if "photographs" in n}


def test_photographs_are_pieces_and_their_means():
    _, pieces = variant_of(AUTOENCODER, "photographs").data("test", "mini")
    assert pieces.shape == (1000, 3, 32, 32) and pieces.dtype == torch.uint8
    assert torch.equal(pieces[:7], photograph_crops("test", 7))
    variant = variant_of(SUPER_RESOLUTION, "photographs")
    small, large = variant.data("train", "mini")
    assert torch.equal(large[:7], photograph_crops("train", 7)) and len(large) == 5000
    assert small.shape == (5000, 3, 8, 8) and small.dtype == torch.float32
    by_hand = large[9, 2, 8:12, 16:20].double().mean() / 255
    assert small[9, 2, 2, 4].item() == pytest.approx(by_hand.item())
    assert variant.data("train", "mini")[0] is small  # cut once


def test_a_variant_of_something_else_is_refused():
    with pytest.raises(ValueError, match="images='paintings' must be one of"):
        variant_of(AUTOENCODER, "paintings")
    with pytest.raises(ValueError, match="convolutions=0 must be an int of at least 1"):
        variant_of(AUTOENCODER, convolutions=0).build("pixel_shuffle", (1, 2, 3), "mini")


def test_images_in_colour_are_measured_channel_by_channel(pair):
    images, reference = (some.reshape(1, 3, 28, 28) for some in pair)
    found = image_measures(images, reference)
    ssim = dict(data_range=1, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, channel_axis=0)
    a, b = (some.double()[0].numpy() for some in (images, reference))
    assert found["ssim"] == pytest.approx(structural_similarity(a, b, **ssim))
    assert found["psnr"] == pytest.approx(-10 * math.log10(mean_squared_error(a, b)))


def test_what_the_tasks_are_compared_by():
    assert [task.primary for task in TASKS.values()] == ["psnr", "psnr", "foreground_boundary_iou"]
    assert [task.paired for task in TASKS.values()] == [True, True, False]
    every = ("channels", "parameters", "time", "folded", "macs", "rates")
    assert [task.comparisons for task in TASKS.values()] == [every, every, every[:3]]
    for task in TASKS.values():
        generator = torch.Generator().manual_seed(0)
        if task is UNET:
            found = task.measures(torch.rand(1, 4, 32, 32, generator=generator), torch.zeros(1, 32, 32).long())
        else:
            found = task.measures(*torch.rand(2, 1, 1, 28, 28, generator=generator))
        assert {task.primary, task.score} <= set(found)
