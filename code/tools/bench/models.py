"""What is measured: single layers and whole models, with inputs for a CPU and for a GPU."""

import itertools
import warnings
from typing import NamedTuple

from torch import nn
from torch.nn import functional as F

from upconv.book.models import Autoencoder, UNet

__all__ = ["LAYERS", "MODELS", "Model", "pair_of"]

# Nearest upsampling by 2 and a 3x3 convolution: in_channels, out_channels, height and width of the input.
LAYERS = {
    f"{i}-{o}@{size}": (i, o, size)
    for i, o, size in ((64, 64, 32), (256, 128, 16), (128, 64, 64), (512, 256, 16), (512, 512, 64))
}


def pair_of(in_channels, out_channels):
    """Make a layer of `LAYERS`."""
    return nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(in_channels, out_channels, 3, padding=1))


class Functional(nn.Module):
    """A resize-convolution block as most code has it: F.interpolate in forward."""

    def __init__(self, in_channels, out_channels):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(in_channels, out_channels, 3, padding=1), nn.BatchNorm2d(out_channels)

    def forward(self, x):
        return F.relu(self.norm(self.conv(F.interpolate(x, scale_factor=2))))


def generator(channels, functional=False):
    """Make Upsample + Conv2d, batch norm and ReLU, from these channels to the next, then a picture."""
    steps = []
    for i, o in itertools.pairwise(channels):
        steps += [Functional(i, o)] if functional else [*pair_of(i, o), nn.BatchNorm2d(o), nn.ReLU()]
    return nn.Sequential(*steps, nn.Conv2d(channels[-1], 3, 3, padding=1))


class Part(nn.Module):
    """A method of a published model as a model: of an autoencoder, the half that diffusion models end with."""

    def __init__(self, model, call):
        super().__init__()
        self.model, self.call = model, call

    def forward(self, x):
        return self.call(self.model, x)


def decoder():
    """Make diffusers' AutoencoderKL, its decoder alone."""
    import diffusers  # noqa: PLC0415 - slow to import, and not everywhere

    autoencoder = diffusers.AutoencoderKL(
        block_out_channels=(64, 128, 256), layers_per_block=2, latent_channels=4, mid_block_add_attention=False,
        down_block_types=("DownEncoderBlock2D",) * 3, up_block_types=("UpDecoderBlock2D",) * 3,
    )  # fmt: skip
    autoencoder.encoder = autoencoder.quant_conv = None
    return Part(autoencoder, lambda model, z: model.decode(z).sample)


def denoiser():
    """Make diffusers' UNet2DModel, at one time step."""
    import diffusers  # noqa: PLC0415

    unet = diffusers.UNet2DModel(
        sample_size=32, block_out_channels=(64, 128, 256), layers_per_block=1, attention_head_dim=None,
        down_block_types=("DownBlock2D",) * 3, up_block_types=("UpBlock2D",) * 3,
    )  # fmt: skip
    return Part(unet, lambda model, x: model(x, 3).sample)


def flexible_unet():
    """Make MONAI's FlexibleUNet."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from monai.networks import nets  # noqa: PLC0415

        return nets.FlexibleUNet(3, 2, "resnet18", pretrained=False)


class Model(NamedTuple):
    """A model of `MODELS`: what makes it, by the type of device, and the sizes of its inputs on both."""

    make: object
    cpu: tuple
    cuda: tuple


SMALL, LARGE = (256, 128, 64, 32), (1024, 512, 256, 128, 64)
# What is published comes with weights drawn anew. The book's U-Net has eight times its channels on a GPU.
MODELS = {
    "generator": Model(lambda kind: generator(LARGE if kind == "cuda" else SMALL), (4, 256, 8, 8), (32, 1024, 8, 8)),
    "generator, functional": Model(
        lambda kind: generator(LARGE if kind == "cuda" else SMALL, functional=True), (4, 256, 8, 8), (32, 1024, 8, 8)
    ),
    "UNet": Model(
        lambda kind: UNet(channels=(64, 128, 256) if kind == "cuda" else (8, 16, 32)), (8, 1, 64, 64), (16, 1, 128, 128)
    ),
    "Autoencoder": Model(lambda kind: Autoencoder(), (8, 1, 28, 28), (256, 1, 28, 28)),
    "AutoencoderKL.decode": Model(lambda kind: decoder(), (1, 4, 32, 32), (4, 4, 64, 64)),
    "UNet2DModel": Model(lambda kind: denoiser(), (1, 3, 32, 32), (16, 3, 64, 64)),
    "FlexibleUNet": Model(lambda kind: flexible_unet(), (1, 3, 128, 128), (16, 3, 256, 256)),
}
