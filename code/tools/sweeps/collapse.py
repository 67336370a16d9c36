"""What keeps the nearest pair from collapsing at a high learning rate, in super-resolution."""

import contextlib

import torch
from torch import nn

from tools.sweeps.engine import Sweep
from tools.sweeps.rates import BROKEN
from upconv.book.blocks import FOLDED
from upconv.book.comparison import REFERENCE, protocol_of, train_seeds
from upconv.book.tasks import SUPER_RESOLUTION
from upconv.book.training import reconstruct

__all__ = ["SWEEP", "run", "run_together", "settings"]

RATE = 0.016
CLIP = 0.1  # the largest norm of the gradients that is let through
LOOKS = (50, 100, 200, 400, 800, 1500)  # steps after which a run is measured, beside the last
REMEDIES = ("none", "folded", "clipped", "normalized")


def settings(tier):
    """List a tier's settings: the pair as it is, and three things that might help it."""
    plain = SUPER_RESOLUTION.tiers[tier]
    common = dict(steps=plain["steps"], batch_size=plain["batch_size"], learning_rate=RATE)
    return [{"remedy": remedy, **common} for remedy in REMEDIES]


def build(remedy, tier):
    """Make the network with the pair, composed into one layer, or with `nn.GroupNorm` before every `nn.ELU`."""
    channels = SUPER_RESOLUTION.tiers[tier]["channels"]
    model = SUPER_RESOLUTION.build(FOLDED if remedy == "folded" else REFERENCE, channels, tier)
    if remedy == "normalized":
        c1, c2, c4 = channels
        for name, width in (("elu1", c1), ("elu2", c1), ("elu3", c2), ("elu4", c4)):
            setattr(model.layers, name, nn.Sequential(nn.GroupNorm(1, width), nn.ELU()))
    return model


def run(*, seed, **setting):
    """Train one network, as `run_together` does."""
    [found] = run_together(seeds=[seed], **setting)
    return found


def run_together(remedy, steps, batch_size, learning_rate, *, seeds, tier, device):
    """Train networks; measure them on the test images, and how much of what a network knows still moves.

    Returns
    -------
    list of dict of str to float
        For each seed `psnr_end`, in dB, and `saturated_end`, the share of the last `nn.ELU`'s inputs, over the first
        100 test images, that are below -5, where its slope is below 0.007; `psnr_LOOK` and `saturated_LOOK` after so
        many steps.
    """
    inputs, targets = SUPER_RESOLUTION.data("test", tier)
    found = [{f"{m}_{step}": BROKEN for step in (*LOOKS, "end") for m in ("psnr", "saturated")} for _ in seeds]

    def look(model, place, step):
        before = []
        last = [layer for layer in model.modules() if isinstance(layer, nn.ELU)][-1]
        hook = last.register_forward_pre_hook(lambda layer, args: before.append(args[0]))
        reconstruct(model, inputs[:100])
        hook.remove()
        made = reconstruct(model, inputs)
        if not made.isfinite().all():
            return
        measures = SUPER_RESOLUTION.measures(made, targets)
        low = (torch.cat(before) < -5).double().mean().item()
        for name in [step] * (step in LOOKS) + ["end"] * (step == steps):
            found[place] |= {f"psnr_{name}": measures["psnr"], f"saturated_{name}": low}

    options = dict(steps=steps, batch_size=batch_size, learning_rate=learning_rate, device=device)
    options |= dict(clip=CLIP if remedy == "clipped" else None)
    with contextlib.suppress(FloatingPointError):  # what it had reached before is measured
        train_seeds(
            lambda: build(remedy, tier), seeds, *SUPER_RESOLUTION.data("train", tier), look=look, looks=LOOKS, **options
        )
    return found


def protocol(setting, tier):
    """List what decides a run beside its settings."""
    channels = SUPER_RESOLUTION.tiers[tier]["channels"]
    network = dict(upsampling=REFERENCE, channels=" ".join(map(str, channels)))
    return {**protocol_of(SUPER_RESOLUTION, network, tier), "clip": CLIP, "measured": LOOKS}


SWEEP = Sweep("collapse", settings, run, protocol, seeds=10, run_together=run_together)
