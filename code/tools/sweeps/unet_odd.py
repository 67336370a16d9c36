"""U-Nets trained on images of odd sizes, each with a remedy of its own from the first step on."""

from tools.sweeps.engine import Sweep
from upconv.book.comparison import REFERENCE, chosen_learning_rates, protocol_of, train_seeds
from upconv.book.scenes import garment_scenes
from upconv.book.tasks import UNET, segmentation_measures
from upconv.book.training import reconstruct

__all__ = ["REMEDIES", "SIZES", "SWEEP", "TRAINED", "run", "run_together", "settings"]

TRAINED = (35, 33)  # odd at the first level, in H at both
SIZES = (TRAINED, (65, 65), (64, 64))  # that they are measured on; the last needs no remedy
REMEDIES = ("output_size", "interpolate", "pad", "pad_input_reflect")
TRAIN_SCENES, TEST_SCENES = 4000, 200


def settings(tier):
    """List the settings: a transposed and a resizing block with every remedy; none in the tier full."""
    if tier != "mini":
        return []
    plain, rates = UNET.tiers[tier], chosen_learning_rates(UNET, tier)
    return [
        dict(
            remedy=remedy,
            upsampling=name,
            steps=plain["steps"],
            batch_size=plain["batch_size"],
            learning_rate=rates[name],
        )
        for name in ("conv_transpose_2x2", REFERENCE)
        for remedy in REMEDIES
    ]


def run(*, seed, **setting):
    """Train one network, as `run_together` does."""
    [found] = run_together(seeds=[seed], **setting)
    return found


def run_together(remedy, upsampling, steps, batch_size, learning_rate, *, seeds, tier, device):
    """Train U-Nets with a remedy on scenes of an odd size, and measure them on scenes of that and of others.

    Returns
    -------
    list of dict of str to float
        For each seed and every size, as in `iou_65x65`, what `upconv.book.tasks.segmentation_measures` gives.
    """

    def build():
        model = UNET.build(upsampling, UNET.tiers[tier]["channels"], tier)
        model.odd_sizes = remedy
        return model

    found = [{} for _ in seeds]

    def look(model, place, step):
        for height, width in SIZES:
            images, masks = garment_scenes("test", TEST_SCENES, (height, width), seed=1)
            measures = segmentation_measures(reconstruct(model, images, batch_size=20), masks)
            found[place] |= {f"{name}_{height}x{width}": value for name, value in measures.items()}

    options = dict(steps=steps, batch_size=batch_size, learning_rate=learning_rate, device=device)
    train_seeds(build, seeds, *garment_scenes("train", TRAIN_SCENES, TRAINED), look=look, **options)
    return found


def protocol(setting, tier):
    """List what decides a run beside its settings."""
    plain = " ".join(map(str, UNET.tiers[tier]["channels"]))
    decides = protocol_of(UNET, {**setting, "channels": plain}, tier)
    return {**decides, "trained": TRAINED, "sizes": SIZES, "scenes": [TRAIN_SCENES, TEST_SCENES]}


SWEEP = Sweep("unet_odd", settings, run, protocol, run_together=run_together)
