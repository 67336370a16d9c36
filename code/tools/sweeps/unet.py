"""Decoders of a U-Net, compared three ways, with fewer skip connections, trained otherwise."""

from tools.sweeps.engine import Sweep
from upconv.book.comparison import REFERENCE, protocol_of, run_seeds, run_setting, settings_of
from upconv.book.tasks import UNET, unet_with

__all__ = ["SWEEP", "run", "settings"]

FEWER = ("conv_transpose_2x2", "conv_transpose_4x4", REFERENCE)  # blocks for fewer skip connections
RATE = 0.016


def settings(tier):
    """List a tier's settings: every block in the three comparisons, some with fewer skip connections.

    Two blocks are also trained for twice the steps ("longer"), and both with one learning rate ("rate").
    """
    every = len(UNET.tiers[tier]["channels"])
    rows = settings_of(UNET, tier)
    two = [
        row for row in settings_of(UNET, tier, ("channels",)) if row["upsampling"] in ("conv_transpose_2x2", REFERENCE)
    ]
    longer = [{**row, "comparisons": "longer", "steps": 2 * row["steps"]} for row in two]
    alike = [{**row, "comparisons": "rate", "learning_rate": RATE} for row in two]
    found = [{"skips": every, **row} for row in rows + longer + alike]
    for skips in reversed(range(every)):
        rows = settings_of(unet_with(skips=skips), tier, ("channels", "parameters"))
        found += [{"skips": skips, **row} for row in rows if row["upsampling"] in FEWER]
    return found


def run(skips, **setting):
    """Train one network and measure it on the test scenes."""
    return run_setting(unet_with(skips=skips), **setting)


def run_together(skips, **setting):
    """Train networks of several seeds together."""
    return run_seeds(unet_with(skips=skips), **setting)


def seeds(setting):
    """Give the seeds of a setting: ten of the comparisons that are asked about most, five of the others."""
    every = len(setting["channels"].split())
    return 10 if setting["skips"] == every and {"channels", "time"} & set(setting["comparisons"].split()) else 5


def protocol(setting, tier):
    """List what decides a run beside its settings."""
    return protocol_of(unet_with(skips=setting["skips"]), setting, tier)


SWEEP = Sweep("unet", settings, run, protocol, seeds, run_together=run_together)
