"""What the book trains its decoders for, each with all that a run needs but the upsampling.

Images are Fashion-MNIST's, 28 x 28, which can be halved only twice, so networks see them in a frame of zeros, 32 x 32.
No measure counts the frame. Whoever changes a tier removes its tables in `data/results`: they do not name the channels.
"""

from typing import NamedTuple

import torch
from skimage.metrics import structural_similarity
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from upconv.book.data import fashion_mnist
from upconv.book.models import Autoencoder, SuperResolution
from upconv.book.training import psnr, reconstruct
from upconv.phases import checkerboard_energy

__all__ = ["AUTOENCODER", "SUPER_RESOLUTION", "TASKS", "Task", "quality", "without_frame"]


class Task(NamedTuple):
    """A network with one choice left open, its images and its training.

    `tiers` gives, for "mini" and "full", the channels of the network and the steps and batch size of its training.
    `build(upsampling, channels, tier)` makes the network, with these channels in its decoder; `data(split, tier)` the
    images that it is given and those that it should make of them; `decoder(model)` the part in which two networks may
    differ, and an example of its input.
    """

    name: str
    tiers: dict
    build: object
    data: object
    decoder: object
    withdrawn: tuple = ()

    def measure(self, model, split="test", tier="mini", part=slice(None)):
        """Measure a model by `quality` on a split's images, or on a slice of them.

        Returns
        -------
        dict of str to float
        """
        inputs, targets = self.data(split, tier)
        return quality(without_frame(reconstruct(model, inputs[part])), without_frame(targets[part]))

    def parameters_and_macs(self, model):
        """Count a decoder's parameters, and its multiply-accumulates for one image.

        Counted are convolutions and linear layers, by PyTorch's own counter, not what interpolation multiplies.

        Returns
        -------
        (int, int)
        """
        decoder, example = self.decoder(model)
        example = example.to(next(decoder.parameters()))
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            decoder(example)
        return sum(parameter.numel() for parameter in decoder.parameters()), counter.get_total_flops() // 2


def quality(images, reference):
    """Measure images against the ones that they should be; each measure is the mean over the images.

    Parameters
    ----------
    images, reference : torch.Tensor, shape (N, 1, H, W)
        uint8 from 0 to 255, or floating point in units of the peak. H and W are at least 11.

    Returns
    -------
    dict of str to float
        `mse`; `psnr` in dB; `ssim`, the structural similarity, at most 1; and of the images alone `energy`, the
        checkerboard energy at stride 2, `double`, the same at the doubled period (that of two stacked layers),
        `pattern`, the mean square of the pattern at stride 2, and `average`, the energy of the mean of all images, in
        which what single images show by chance cancels.

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
    >>> found = quality(images, images)
    >>> found["mse"], found["psnr"], round(found["ssim"], 6)
    (0.0, inf, 1.0)
    """
    decibels = psnr(images, reference).mean().item()  # refuses other types and shapes
    images, reference = (_as_doubles(some) for some in (images, reference))
    similarity = [
        structural_similarity(
            one.numpy(), other.numpy(), data_range=1, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
        )
        for one, other in zip(images.flatten(0, 1), reference.flatten(0, 1), strict=True)
    ]
    return {
        "mse": (images - reference).square().mean().item(),
        "psnr": decibels,
        "ssim": float(sum(similarity) / len(similarity)),
        "energy": checkerboard_energy(images, stride=2).mean().item(),
        "double": checkerboard_energy(images, stride=2, double=True).mean().item(),
        "pattern": checkerboard_energy(images, stride=2, relative=False).mean().item(),
        "average": checkerboard_energy(images.mean(dim=0, keepdim=True), stride=2).item(),
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


def _as_doubles(images):
    images = images.cpu()
    return images.double() / 255 if images.dtype == torch.uint8 else images.double()


def _autoencoder(upsampling, channels, tier):
    return Autoencoder(upsampling, channels=AUTOENCODER.tiers[tier]["channels"], decoder_channels=channels)


def _super_resolution(upsampling, channels, tier):
    return SuperResolution(upsampling, channels=channels)


def _reconstruction(split, tier):
    images, _ = fashion_mnist(split, tier)
    return images, images


def _enlargement(split, tier):
    images, _ = fashion_mnist(split, tier)
    large = F.pad(images, (2, 2, 2, 2))
    return F.avg_pool2d(large.float() / 255, kernel_size=4), large


AUTOENCODER = Task(
    name="autoencoder",
    tiers={
        "mini": dict(channels=(8, 16, 64), steps=6000, batch_size=16),
        "full": dict(channels=(32, 64, 128), steps=40000, batch_size=64),
    },
    build=_autoencoder,
    data=_reconstruction,
    decoder=lambda model: (model.decoder, torch.zeros(1, model.code_size)),
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
    withdrawn=(("mini", 0.016),),  # nearest_conv_3x3, seed 0, ended at 9.5 dB, as the mean image would
)
TASKS = {task.name: task for task in (AUTOENCODER, SUPER_RESOLUTION)}
