"""The checkerboards of ten decoders before, early in and after training: the table of chapter 06.

`python code/tools/sweep_checkerboard.py --seeds 10 --jobs 2`
"""

import sys

import torch

import sweep
from upconv import checkerboard_energy
from upconv.book.blocks import BLOCKS
from upconv.book.data import fashion_mnist
from upconv.book.models import Autoencoder
from upconv.book.training import psnr, reconstruct, train

__all__ = ["SWEEP", "run", "settings"]

EARLY = (0, 20, 200)  # steps after which the images are measured, beside the last


def settings(tier):
    """List a tier's settings: every block, the same training for all."""
    common = {
        "mini": dict(steps=1500, batch_size=16, learning_rate=0.004),
        "full": dict(steps=20000, batch_size=64, learning_rate=0.004),
    }[tier]
    return [{"upsampling": name, **common} for name in BLOCKS]


def run(upsampling, steps, batch_size, learning_rate, *, seed, tier, device):
    """Train one decoder; measure its test images after 0, 20, 200 and all steps.

    Returns
    -------
    dict
        For each of these (`_0`, `_20`, `_200`, `_end`): `energy`, the checkerboard energy of the images at stride 2,
        their mean; `median`, their median; `pattern`, the mean square of the pattern itself; `double`, the mean energy
        at the doubled period; `average`, `average_pattern` and `average_double`, the same of the mean of all images, in
        which what images show by chance cancels; and `psnr`, mean over the images, in dB.
    """
    torch.manual_seed(seed)
    model = Autoencoder(upsampling)
    train_images, _ = fashion_mnist("train", tier)
    test_images = fashion_mnist("test", tier)[0][:1000]
    measures = {}

    def measure(step):
        if step in EARLY or step == steps:
            images = reconstruct(model, test_images)
            average = images.mean(dim=0, keepdim=True)
            energy = checkerboard_energy(images, stride=2)
            found = dict(
                energy=energy.mean(),
                median=energy.median(),
                pattern=checkerboard_energy(images, stride=2, relative=False).mean(),
                double=checkerboard_energy(images, stride=2, double=True).mean(),
                average=checkerboard_energy(average, stride=2),
                average_pattern=checkerboard_energy(average, stride=2, relative=False),
                average_double=checkerboard_energy(average, stride=2, double=True),
                psnr=psnr(images, test_images.float() / 255).mean(),
            )
            name = "end" if step == steps else step
            measures.update({f"{measure}_{name}": value.item() for measure, value in found.items()})

    train(
        model,
        train_images,
        steps=steps,
        batch_size=batch_size,
        learning_rate=learning_rate,
        seed=seed,
        device=device,
        progress=False,
        callback=measure,
    )
    return measures


SWEEP = sweep.Sweep("checkerboard", settings, run)

if __name__ == "__main__":
    sys.exit(sweep.main(SWEEP))
