"""Four decoders of a U-Net with a ReLU after the block, so that block and convolution are no longer one linear map."""

from tools.sweeps.engine import Sweep
from upconv.book.comparison import protocol_of, run_seeds, run_setting, settings_of
from upconv.book.tasks import unet_with

__all__ = ["BLOCKS", "SWEEP", "settings"]

BLOCKS = ("conv_transpose_2x2", "conv_transpose_4x4", "nearest_conv_3x3", "pixel_shuffle")
TASK = unet_with(activation=True)


def settings(tier):
    """List a tier's settings: the four blocks with equal channels."""
    return [row for row in settings_of(TASK, tier, ("channels",)) if row["upsampling"] in BLOCKS]


def run(**setting):
    """Train one network and measure it on the test scenes."""
    return run_setting(TASK, **setting)


def run_together(**setting):
    """Train networks of several seeds together."""
    return run_seeds(TASK, **setting)


def protocol(setting, tier):
    """List what decides a run beside its settings."""
    return {**protocol_of(TASK, setting, tier), "activation": "ReLU"}


SWEEP = Sweep("unet_relu", settings, run, protocol, seeds=10, run_together=run_together)
