"""The checkerboards of all decoders under a constant learning rate and one that falls to 0, and of averaged weights."""

import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from tools.sweeps.engine import Sweep
from upconv import checkerboard_energy
from upconv.book.blocks import BLOCKS
from upconv.book.data import fashion_mnist
from upconv.book.models import Autoencoder
from upconv.book.tasks import FASHION_MNIST, weight_shapes
from upconv.book.training import psnr, reconstruct, train

__all__ = ["SWEEP", "look", "run", "settings"]

EARLY = (0, 20, 100, 200, 400, 700, 1100)  # steps after which the images are measured, beside the last
DECAY = 0.99  # of the average of the weights: each step brings it a hundredth of the way


def settings(tier):
    """List a tier's settings: every block, with a constant and with a falling learning rate."""
    common = {
        "mini": dict(steps=1500, batch_size=16, learning_rate=0.004),
        "full": dict(steps=20000, batch_size=64, learning_rate=0.004),
    }[tier]
    return [
        {"schedule": schedule, "upsampling": name, **common} for schedule in ("constant", "to 0") for name in BLOCKS
    ]


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


def run(schedule, upsampling, steps, batch_size, learning_rate, *, seed, tier, device):
    """Train one decoder; look at it, and at the average of its weights, in between and at the end.

    Returns
    -------
    dict of str to float
        What `look` gives, after so many steps (`_0`, `_20` and so on, `_end`); and the same, as `averaged_...`, of the
        decoder with the exponential moving average of the weights.
    """
    torch.manual_seed(seed)
    model = Autoencoder(upsampling)
    averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(DECAY))
    train_images, _ = fashion_mnist("train", tier)
    test_images = fashion_mnist("test", tier)[0][:1000]
    measures = {}

    def after(step):
        if step:
            averaged.update_parameters(model)
        if step in EARLY or step == steps:
            name = "end" if step == steps else step
            for which, network in (("", model), ("averaged_", averaged.module)):
                found = look(network, test_images)
                measures.update({f"{which}{measure}_{name}": value for measure, value in found.items()})

    common = dict(steps=steps, batch_size=batch_size, learning_rate=learning_rate, seed=seed, device=device)
    train(model, train_images, decay=schedule == "to 0", progress=False, callback=after, **common)
    return measures


def protocol(setting, tier):
    """List what decides a run beside its settings."""
    network = weight_shapes(lambda: Autoencoder(setting["upsampling"]))
    return {"network": network, "images": FASHION_MNIST[tier], "optimizer": "Adam", "average": DECAY, "measured": EARLY}


SWEEP = Sweep("schedules", settings, run, protocol, seeds=10)
