"""The checkerboards of ten decoders before, early in and after training."""

import torch

from tools.sweeps.engine import Sweep
from upconv import checkerboard_energy
from upconv.book.blocks import BLOCKS
from upconv.book.data import fashion_mnist
from upconv.book.models import Autoencoder
from upconv.book.tasks import FASHION_MNIST, weight_shapes
from upconv.book.training import psnr, reconstruct, train

__all__ = ["SWEEP", "look", "run", "settings"]

EARLY = (0, 20, 200)  # steps after which the images are measured, beside the last


def settings(tier):
    """List a tier's settings: every block, the same training for all."""
    common = {
        "mini": dict(steps=1500, batch_size=16, learning_rate=0.004),
        "full": dict(steps=20000, batch_size=64, learning_rate=0.004),
    }[tier]
    return [{"upsampling": name, **common} for name in BLOCKS]


def look(model, test_images):
    """Measure a decoder's images.

    Returns
    -------
    dict of str to float
        `share`, the share of an image's energy that is a pattern at stride 2, the images' mean; `share_median`, their
        median; `pattern`, the mean square of the pattern itself; `share_double`, the share at the doubled period;
        `share_of_mean`, `pattern_of_mean` and `share_double_of_mean`, the same of the mean of all images, in which what
        images show by chance cancels; and `psnr`, mean over the images, in dB.
    """
    images = reconstruct(model, test_images)
    average = images.mean(dim=0, keepdim=True)
    energy = checkerboard_energy(images, stride=2)
    found = dict(
        share=energy.mean(),
        share_median=energy.median(),
        pattern=checkerboard_energy(images, stride=2, relative=False).mean(),
        share_double=checkerboard_energy(images, stride=2, double=True).mean(),
        share_of_mean=checkerboard_energy(average, stride=2),
        pattern_of_mean=checkerboard_energy(average, stride=2, relative=False),
        share_double_of_mean=checkerboard_energy(average, stride=2, double=True),
        psnr=psnr(images, test_images.float() / 255).mean(),
    )
    return {name: value.item() for name, value in found.items()}


def run(upsampling, steps, batch_size, learning_rate, *, seed, tier, device):
    """Train one decoder; measure its test images after 0, 20, 200 and all steps.

    Returns
    -------
    dict of str to float
        What `look` gives, for each of these (`_0`, `_20`, `_200`, `_end`).
    """
    torch.manual_seed(seed)
    model = Autoencoder(upsampling)
    train_images, _ = fashion_mnist("train", tier)
    test_images = fashion_mnist("test", tier)[0][:1000]
    measures = {}

    def measure(step):
        if step in EARLY or step == steps:
            name = "end" if step == steps else step
            measures.update({f"{measure}_{name}": value for measure, value in look(model, test_images).items()})

    common = dict(steps=steps, batch_size=batch_size, learning_rate=learning_rate, seed=seed, device=device)
    train(model, train_images, progress=False, callback=measure, **common)
    return measures


def protocol(setting, tier):
    """List what decides a run beside its settings."""
    network = weight_shapes(lambda: Autoencoder(setting["upsampling"]))
    schedule = {"optimizer": "Adam", "warmup": 0, "decay": "none"}
    return {"network": network, "images": FASHION_MNIST[tier], **schedule, "measured": EARLY}


SWEEP = Sweep("checkerboard", settings, run, protocol, seeds=10)
