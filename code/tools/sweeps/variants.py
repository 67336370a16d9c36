"""Five decoders on photographs, and three with two convolutions a doubling: the comparison with equal channels."""

from tools.sweeps.engine import Sweep
from upconv.book.comparison import FOUR, REFERENCE, protocol_of, run_seeds
from upconv.book.tasks import AUTOENCODER, SUPER_RESOLUTION, TASKS, variant_of

__all__ = ["RATES", "SWEEP", "run", "run_together", "seeds", "settings"]

RATES = (0.004, 0.008)  # every network is trained with both: none was chosen by a validation
BILINEAR = "bilinear_conv_3x3"


def settings(tier):
    """List the settings; there are none in the tier full."""
    if tier != "mini":
        return []
    wanted = [("photographs", 1, (*FOUR, BILINEAR))]
    wanted += [(images, 2, ("conv_transpose_4x4", REFERENCE, BILINEAR)) for images in ("photographs", "garments")]
    found = []
    for images, convolutions, blocks in wanted:
        for task in (AUTOENCODER, SUPER_RESOLUTION):
            which = dict(images=images, task=task.name, convolutions=convolutions)
            plain = variant_of(task, images, convolutions).tiers[tier]
            channels = " ".join(map(str, plain["channels"]))
            common = dict(channels=channels, steps=plain["steps"], batch_size=plain["batch_size"])
            found += [
                dict(**which, upsampling=block, **common, learning_rate=rate) for block in blocks for rate in RATES
            ]
    return found


def run(*, seed, **setting):
    """Train one network and measure it on the test images."""
    [found] = run_together(seeds=[seed], **setting)
    return found


def run_together(images, task, convolutions, **setting):
    """Train networks of several seeds and measure them on the test images."""
    return run_seeds(variant_of(TASKS[task], images, convolutions), comparisons="channels", **setting)


def protocol(setting, tier):
    """List what decides a run beside its settings."""
    task = variant_of(TASKS[setting["task"]], setting["images"], setting["convolutions"])
    return protocol_of(task, setting, tier)


def seeds(setting):
    """Give ten for five blocks with one convolution, three for two convolutions."""
    return 10 if setting["convolutions"] == 1 else 3


SWEEP = Sweep("variants", settings, run, protocol, seeds=seeds, run_together=run_together)
