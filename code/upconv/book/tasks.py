"""What the book trains its decoders for, each with all that a run needs but the upsampling.

Fashion-MNIST's images, 28 x 28, can be halved only twice, so networks see them in a frame of zeros, 32 x 32. No measure
counts the frame. A table in `data/results` carries a hash of `Task.protocol`, so a changed task is noticed there.
"""

import math
from functools import lru_cache, partial
from typing import NamedTuple

import numpy as np
import torch
from scipy.ndimage import minimum_filter
from skimage.metrics import structural_similarity
from torch.nn import functional as F
from torch.utils._pytree import tree_map

from upconv.book import pets, scenes
from upconv.book.blocks import BLOCKS
from upconv.book.common import DELAY, check_choice, checked_int, progress_bar
from upconv.book.data import FULL_SHA256, MINI_SHA256, fashion_mnist
from upconv.book.models import Autoencoder, SuperResolution, UNet
from upconv.book.photographs import PHOTOGRAPHS, photograph_crops
from upconv.book.training import psnr, reconstruct
from upconv.cost import macs, parameters
from upconv.phases import checkerboard_energy

__all__ = [
    "AUTOENCODER",
    "FASHION_MNIST",
    "SUPER_RESOLUTION",
    "TASKS",
    "UNET",
    "Task",
    "boundary",
    "image_measures",
    "segmentation_measures",
    "unet_with",
    "variant_of",
    "weight_shapes",
    "without_frame",
]


class Task(NamedTuple):
    """A network with one choice left open, its images and its training.

    `tiers` gives, for "mini" and "full", the channels of the network and the steps and batch size of its training.
    `build(upsampling, channels, tier)` makes the network, with these channels in its decoder; `data(split, tier)` the
    images that it is given and what it should make of them; `decoder(model)` the part in which two networks may differ,
    and an example of its input; `measures(made, wanted)` what is measured. Learning rates are chosen by the measure
    `score`, among the rates with which no run ends more than `broken` below the best of its block; `withdrawn` are
    further (tier, rate) that are not offered. `blocks` are compared, all with one another. `sources` says for each tier
    what the images are made from. `primary` is the measure on which verdicts are given, see `upconv.book.verdicts`, and
    `paired` whether two runs of one seed are a pair in them. `comparisons` are those of `upconv.book.comparison` that
    the task has.
    """

    name: str
    tiers: dict
    build: object
    data: object
    decoder: object
    measures: object
    score: str = "psnr"
    broken: float = 2.0
    withdrawn: tuple = ()
    blocks: tuple = tuple(BLOCKS)
    sources: dict | None = None
    primary: str = "psnr"
    paired: bool = True
    comparisons: tuple = ("channels", "parameters", "time", "folded", "macs", "rates")

    def measure(self, model, split="test", tier="mini", part=slice(None)):
        """Measure a model by the task's `measures` on a split's images, or on a slice of them.

        Returns
        -------
        dict of str to float
        """
        inputs, targets = self.data(split, tier)
        return self.measures(reconstruct(model, inputs[part]), targets[part])

    def protocol(self, upsampling, channels, tier):
        """List what decides a run beside its settings: the network and the images.

        Returns
        -------
        dict
            Of what JSON has.
        """
        network = weight_shapes(lambda: self.build(upsampling, channels, tier))
        return {"task": self.name, "network": network, "images": self.sources[tier]}

    def parameters_and_macs(self, model):
        """Count a decoder's parameters, and its multiply-accumulates for one image (a U-Net's: of 32 x 32 pixels).

        Counted are convolutions and linear layers, by PyTorch's own counter, not what interpolation multiplies.

        Returns
        -------
        (int, int)
        """
        decoder, example = self.decoder(model)
        example = tree_map(lambda tensor: tensor.to(next(decoder.parameters())), example)
        return parameters(decoder), macs(decoder, (example,))


def weight_shapes(build):
    """List the shapes of a network's weights by name; nothing is drawn.

    Parameters
    ----------
    build : callable
        Makes the network.

    Returns
    -------
    dict of str to list of int
    """
    with torch.device("meta"):
        return {name: list(tensor.shape) for name, tensor in build().state_dict().items()}


def image_measures(images, reference):
    """Measure images against the ones that they should be; each measure is the mean over the images.

    Parameters
    ----------
    images, reference : torch.Tensor, shape (N, C, H, W)
        uint8 from 0 to 255, or floating point in units of the peak. H and W are at least 11.

    Returns
    -------
    dict of str to float
        `mse`; `psnr` in dB; `ssim`, the structural similarity, at most 1, the mean over the channels; and of the images
        alone `share`, the share of an image's energy that is a pattern at stride 2, `share_double`, the same at the
        doubled period (that of two stacked layers), `pattern`, the mean square of the pattern at stride 2, and
        `share_of_mean`, the share in the mean of all images, in which what single images show by chance cancels.

    Raises
    ------
    TypeError
        If the images are not uint8 or floating point.
    ValueError
        If the shapes differ, or a value is not finite.

    Notes
    -----
    The structural similarity is Wang et al.'s (2004), doi 10.1109/TIP.2003.819861, with its Gaussian window of 11 x 11
    pixels, by scikit-image.

    Examples
    --------
    >>> images = torch.rand(2, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    >>> found = image_measures(images, images)
    >>> found["mse"], found["psnr"], round(found["ssim"], 6)
    (0.0, inf, 1.0)
    """
    decibels = psnr(images, reference).mean().item()  # refuses other types and shapes
    images, reference = (_as_doubles(some) for some in (images, reference))
    similarity = []
    with progress_bar(len(images), "SSIM", unit="image", delay=DELAY) as bar:
        for one, other in zip(images.flatten(0, 1).numpy(), reference.flatten(0, 1).numpy(), strict=True):
            source = dict(gaussian_weights=True, sigma=1.5, use_sample_covariance=False)  # the settings of the paper
            similarity.append(structural_similarity(one, other, data_range=1, **source))
            bar.update()
    return {
        "mse": (images - reference).square().mean().item(),
        "psnr": decibels,
        "ssim": float(sum(similarity) / len(similarity)),
        "share": checkerboard_energy(images, stride=2).mean().item(),
        "share_double": checkerboard_energy(images, stride=2, double=True).mean().item(),
        "pattern": checkerboard_energy(images, stride=2, relative=False).mean().item(),
        "share_of_mean": checkerboard_energy(images.mean(dim=0, keepdim=True), stride=2).item(),
    }


def without_frame(images):
    """Crop images of 32 x 32 to the 28 x 28 in the middle; those of 28 x 28 are returned as they are.

    Parameters
    ----------
    images : torch.Tensor, shape (..., H, W)

    Returns
    -------
    torch.Tensor, shape (..., 28, 28)

    Raises
    ------
    ValueError
        If the images have another size.
    """
    size = tuple(images.shape[-2:])
    if size not in ((28, 28), (32, 32)):
        raise ValueError(f"images must be 28 x 28 or 32 x 32, not {size[0]} x {size[1]}")
    return images if size == (28, 28) else images[..., 2:-2, 2:-2]


def segmentation_measures(logits, masks, thickness=None):
    """Measure a segmentation against the classes that the pixels have, over all images together.

    Parameters
    ----------
    logits : torch.Tensor, shape (N, classes, H, W)
        Floating point; the class of a pixel is the one with the largest number, the first of equal ones.
    masks : torch.Tensor, shape (N, H, W)
        int64, from 0 (background) to classes - 1.
    thickness : int, optional
        That of the boundaries in pixels, at least 1; by default 2% of the image's diagonal, rounded, or 1 if that is
        less, as in the source.

    Returns
    -------
    dict of str to float
        `accuracy`, the share of the pixels with the right class; `iou`, intersection over union, the mean over the
        classes, and `boundary_iou`, the same of the boundaries of each class's pixels; `foreground_iou` and
        `foreground_boundary_iou`, the same with all classes but the background taken as one. A class that occurs in
        neither is left out of the means; a foreground that occurs in neither is not a number.

    Raises
    ------
    TypeError
        If the logits are not floating point or the masks not int64.
    ValueError
        If the shapes do not fit, there is no pixel, a value is not finite, a mask has another class, or `thickness` is
        below 1.

    Notes
    -----
    Intersection over union is the index of Jaccard (1912). Boundaries: Cheng et al. (2021), arXiv:2103.16562; at
    32 x 32 their thickness is 1 pixel. See `boundary`.

    Examples
    --------
    >>> masks = torch.zeros(1, 4, 4, dtype=torch.int64)
    >>> masks[0, 1:3, 1:3] = 1
    >>> found = segmentation_measures(torch.stack([torch.ones(1, 4, 4), torch.zeros(1, 4, 4)], dim=1), masks)
    >>> found["accuracy"], found["iou"], found["foreground_iou"]
    (0.75, 0.375, 0.0)
    """
    if not logits.is_floating_point() or masks.dtype != torch.int64:
        raise TypeError(f"logits must be floating point and masks int64, not {logits.dtype} and {masks.dtype}")
    if logits.dim() != 4 or masks.shape != (len(logits), *logits.shape[2:]):
        raise ValueError(f"{tuple(masks.shape)} masks do not fit {tuple(logits.shape)} logits")
    classes = logits.shape[1]
    if masks.numel() == 0:
        raise ValueError(f"there is no pixel in {tuple(masks.shape)} masks")
    if thickness is None:
        thickness = max(1, round(0.02 * math.hypot(*masks.shape[1:])))
    if not logits.isfinite().all() or masks.min() < 0 or masks.max() >= classes:
        raise ValueError(f"logits must be finite, and masks from 0 to {classes - 1}")
    found, truth = logits.argmax(dim=1).cpu().numpy(), masks.cpu().numpy()

    def overlap(one, other):
        union = np.count_nonzero(one | other)
        return np.count_nonzero(one & other) / union if union else np.nan

    each, edges = [], []
    for number in range(classes):
        both = found == number, truth == number
        each.append(overlap(*both))
        edges.append(overlap(*(boundary(one, thickness) for one in both)))
    foreground = found > 0, truth > 0
    measures = {
        "accuracy": (found == truth).mean(),
        "iou": np.nanmean(each),
        "boundary_iou": np.nanmean(edges),
        "foreground_iou": overlap(*foreground),
        "foreground_boundary_iou": overlap(*(boundary(one, thickness) for one in foreground)),
    }
    return {name: float(value) for name, value in measures.items()}


def boundary(regions, thickness=1):
    """Give the pixels of a region that lie at its edge, or at that of the image.

    Parameters
    ----------
    regions : numpy.ndarray of bool, shape (..., H, W)
    thickness : int
        At least 1. A pixel belongs to the boundary if the square of 2 * thickness + 1 pixels around it is not all
        inside the region.

    Returns
    -------
    numpy.ndarray of bool, shape (..., H, W)

    Raises
    ------
    TypeError
        If `thickness` is not an int.
    ValueError
        If `thickness` is below 1.

    Examples
    --------
    >>> int(boundary(np.ones((5, 6), bool)).sum())
    18
    """
    thickness = checked_int("thickness", thickness, at_least=1)
    square = (1,) * (regions.ndim - 2) + (2 * thickness + 1,) * 2
    inside = minimum_filter(regions.astype(np.uint8), square, mode="constant", cval=0)  # an erosion, done by axes
    return regions & (inside == 0)


def _as_doubles(images):
    images = images.cpu()
    return images.double() / 255 if images.dtype == torch.uint8 else images.double()


AUTOENCODER_TIERS = {
    "mini": dict(channels=(8, 16, 64), steps=6000, batch_size=16),
    "full": dict(channels=(32, 64, 128), steps=40000, batch_size=64),
}
UNET_TIERS = {
    "mini": dict(encoder=(8, 16, 32), channels=(8, 16), steps=4000, batch_size=8),
    "full": dict(encoder=(32, 64, 128, 256), channels=(32, 64, 128), steps=20000, batch_size=32),
}


def _autoencoder(upsampling, channels, tier):
    return Autoencoder(upsampling, channels=AUTOENCODER_TIERS[tier]["channels"], decoder_channels=channels)


def _super_resolution(upsampling, channels, tier):
    return SuperResolution(upsampling, channels=channels)


def _unet(upsampling, channels, tier, **options):
    plain = UNET_TIERS[tier]
    return UNet(
        upsampling,
        in_channels=1 if tier == "mini" else 3,
        classes=len(scenes.SCENE_CLASSES) if tier == "mini" else 2,
        channels=plain["encoder"],
        decoder_channels=channels,
        **options,
    )


def _unet_decoder(model):
    sizes = [32 >> level for level in range(len(model.channels))]
    return model.decoder, [torch.zeros(1, n, size, size) for n, size in zip(model.channels, sizes, strict=True)]


SCENES = {"train": 4000, "test": 500}


@lru_cache(maxsize=2)
def _segmentation(split, tier):
    if tier == "mini":
        return scenes.garment_scenes(split, SCENES[split])
    images, masks = pets.oxford_pets(split)
    return images, (masks > 0).long()  # the rim belongs to the pet


def _inside_frame(images, reference):
    return image_measures(without_frame(images), without_frame(reference))


def _reconstruction(split, tier):
    images, _ = fashion_mnist(split, tier)
    return images, images


def _enlargement(split, tier):
    images, _ = fashion_mnist(split, tier)
    large = F.pad(images, (2, 2, 2, 2))
    return F.avg_pool2d(large.float() / 255, kernel_size=4), large


FASHION_MNIST = {"mini": MINI_SHA256, "full": FULL_SHA256}

AUTOENCODER = Task(
    name="autoencoder",
    tiers=AUTOENCODER_TIERS,
    build=_autoencoder,
    data=_reconstruction,
    decoder=lambda model: (model.decoder, torch.zeros(1, model.code_size)),
    measures=_inside_frame,
    sources=FASHION_MNIST,
)
SUPER_RESOLUTION = Task(
    name="super_resolution",
    tiers={
        "mini": dict(channels=(32, 16, 8), steps=3000, batch_size=16),
        "full": dict(channels=(64, 64, 32), steps=40000, batch_size=64),
    },
    build=_super_resolution,
    data=_enlargement,
    decoder=lambda model: (model, torch.zeros(1, 1, 8, 8)),
    measures=_inside_frame,
    sources=FASHION_MNIST,
    withdrawn=(("mini", 0.016),),  # nearest_conv_3x3, seed 0, ended at 9.5 dB, as the mean image would
)
UNET = Task(
    name="unet",
    tiers=UNET_TIERS,
    build=_unet,
    data=_segmentation,
    decoder=_unet_decoder,
    measures=segmentation_measures,
    score="iou",
    broken=0.15,
    sources={"mini": [MINI_SHA256, scenes.TEXTURES, SCENES], "full": [pets.MD5, pets.DECODING]},
    blocks=(
        "conv_transpose_2x2",
        "conv_transpose_4x4",
        "conv_transpose_4x4_equal_gains",
        "nearest_conv_2x2",
        "nearest_conv_3x3",
        "bilinear_conv_3x3",
        "bilinear_additive",
        "pixel_shuffle",
    ),
    primary="foreground_boundary_iou",
    paired=False,
    comparisons=("channels", "parameters", "time"),
)
TASKS = {task.name: task for task in (AUTOENCODER, SUPER_RESOLUTION, UNET)}


def unet_with(**options):
    """Give the task of a U-Net that differs in something else than its block.

    Parameters
    ----------
    **options
        `skips` or `activation`, as of `upconv.book.models.UNet`.

    Returns
    -------
    Task
        With the name and so the learning rates of `UNET`, which are chosen with all skip connections and no activation.
    """
    return UNET._replace(build=partial(_unet, **options))


CROPS = {"train": 5000, "test": 1000}


def variant_of(task, images="garments", convolutions=1):
    """Give a task with other images, or with further convolutions behind every block; in the tier mini.

    Parameters
    ----------
    task : Task
        `AUTOENCODER` or `SUPER_RESOLUTION`.
    images : str
        "garments", those of the task; or "photographs", of 32 x 32 pixels in colour: see
        `upconv.book.photographs.photograph_crops`. The autoencoder is wider for them, with a code of 128 numbers.
    convolutions : int
        As of `upconv.book.models.Autoencoder`.

    Returns
    -------
    Task
        Trained for 3,000 steps.
    """
    check_choice("images", images, ("garments", "photographs"))
    coloured, small = images == "photographs", task is SUPER_RESOLUTION
    options = dict(convolutions=convolutions, image_channels=3 if coloured else 1)
    plain = {**task.tiers["mini"], "steps": 3000}
    if coloured and not small:
        options |= dict(image_size=32, code_size=128)
        plain["channels"] = (16, 32, 64)
    network = SuperResolution if small else partial(Autoencoder, channels=plain["channels"])

    def build(upsampling, channels, tier):
        sizes = dict(channels=channels) if small else dict(decoder_channels=channels)
        return network(upsampling, **sizes, **options)

    @lru_cache(maxsize=2)
    def crops(split, tier):
        pieces = photograph_crops(split, CROPS[split])
        return (F.avg_pool2d(pieces.float() / 255, kernel_size=4), pieces) if small else (pieces, pieces)

    found = task._replace(tiers={"mini": plain}, build=build)
    if coloured:
        example = torch.zeros(1, 3, 8, 8) if small else torch.zeros(1, options["code_size"])
        found = found._replace(
            data=crops,
            decoder=lambda model: (model if small else model.decoder, example),
            measures=image_measures,
            sources={"mini": [PHOTOGRAPHS, CROPS]},
        )
    return found
