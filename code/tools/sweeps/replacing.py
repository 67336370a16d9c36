"""Exchanging the transposed convolutions of a trained decoder, and training on: with a constant rate, and annealed."""

from functools import partial

import torch
from torch import nn

from tools.sweeps.engine import Sweep
from upconv import rewrite
from upconv.book.data import fashion_mnist
from upconv.book.models import Autoencoder
from upconv.book.tasks import FASHION_MNIST, weight_shapes
from upconv.book.training import psnr, reconstruct, train

__all__ = ["SWEEPS", "annealed_settings", "run", "settings"]

BLOCK = "conv_transpose_4x4"
LOOKS = (0, 30, 100, 300)  # steps of fine-tuning after which the images are measured


SWAPS = ("original", "subpixel", "fitted", "projected", "reinitialised")


def settings(tier):
    """List a tier's settings: five decoders, each trained on with and without a warm-up of the learning rate."""
    common = {
        "mini": dict(steps=1000, batch_size=16, learning_rate=0.004),
        "full": dict(steps=20000, batch_size=64, learning_rate=0.004),
    }[tier]
    return [{"swap": swap, "warmup": warmup, **common} for warmup in (0, 100) for swap in SWAPS]


def annealed_settings(tier):
    """List a tier's settings where both trainings lower the learning rate to 0: five decoders, with a warm-up."""
    return [setting for setting in settings(tier) if setting["warmup"]]


def swapped(model, swap, images):
    """Give the autoencoder with its three ConvTranspose2d exchanged, and the mean residual."""
    if swap == "original":
        return model, 0.0
    to = "subpixel" if swap == "subpixel" else "upsample_conv"
    result = rewrite(model, to, example_inputs=None if swap == "projected" else (images,))
    if swap == "reinitialised":
        for name in ("up1", "up2", "up3"):
            for layer in getattr(result.model.decoder, name).modules():
                if isinstance(layer, nn.Conv2d):
                    layer.reset_parameters()
    return result.model, sum(row["residual"] for row in result.report) / len(result.report)


def run(swap, warmup, steps, batch_size, learning_rate, *, seed, tier, device, decay=False):
    """Train an autoencoder with ConvTranspose2d 4x4, exchange its upsampling, train the decoder on.

    Returns
    -------
    dict
        `trained`, the PSNR of the trained autoencoder on the test images in dB (mean over the images), `residual`, the
        mean of the three layers' (without meaning where the weights are drawn anew), and `psnr_0` to `psnr_300`, after
        so many steps of fine-tuning.
    """
    torch.manual_seed(seed)
    model = Autoencoder(BLOCK)
    train_images, _ = fashion_mnist("train", tier)
    test_images = fashion_mnist("test", tier)[0][:1000]

    def measure(model):
        return psnr(reconstruct(model, test_images), test_images.float() / 255).mean().item()

    common = dict(batch_size=batch_size, learning_rate=learning_rate, decay=decay, device=device, progress=False)
    train(model, train_images, steps=steps, seed=seed, **common)
    measures = {"trained": measure(model)}
    model, measures["residual"] = swapped(model, swap, train_images[:200].to(device).float() / 255)
    for parameter in model.encoder.parameters():
        parameter.requires_grad_(False)

    def look(step):
        if step in LOOKS:
            measures[f"psnr_{step}"] = measure(model)

    train(model, train_images, steps=max(LOOKS), seed=seed + 1000, warmup=warmup, callback=look, **common)
    return measures


def protocol(setting, tier, decay="none"):
    """List what decides a run beside its settings."""
    network = weight_shapes(lambda: Autoencoder(BLOCK))
    schedule = {"optimizer": "Adam", "decay": decay}
    return {"network": network, "images": FASHION_MNIST[tier], **schedule, "measured": LOOKS}


SWEEPS = [
    Sweep("replacing", settings, run, protocol, seeds=20),
    Sweep(
        "replacing_annealed",
        annealed_settings,
        partial(run, decay=True),
        partial(protocol, decay="to 0"),
        seeds=10,
    ),
]
