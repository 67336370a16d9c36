"""Images whose size cannot be halved evenly, and five remedies, in trained U-Nets."""

import torch

from tools.sweeps.engine import Sweep
from upconv.book.comparison import REFERENCE, chosen_learning_rates, protocol_of, train_by_protocol
from upconv.book.models import ODD_SIZES
from upconv.book.scenes import garment_scenes
from upconv.book.tasks import UNET, segmentation_measures
from upconv.book.training import reconstruct

__all__ = ["EDGE", "REMEDIES", "SIZES", "SWEEP", "run", "settings"]

SIZES = ((64, 64), (65, 65), (97, 61), (67, 66))  # odd: no level, the first, the first, both (H) or the second (W)
REMEDIES = tuple(name for name in ODD_SIZES if name != "refuse")
EDGE = 4  # rows and columns, on the right and below, where every remedy has to invent something
SCENES = 200


def settings(tier):
    """List the settings: a transposed and a resizing block, of which every remedy can make every size.

    There are none in the tier full, since scenes are drawn at every size, and photographs are not.
    """
    if tier != "mini":
        return []
    plain, rates = UNET.tiers[tier], chosen_learning_rates(UNET, tier)
    return [
        dict(upsampling=name, steps=plain["steps"], batch_size=plain["batch_size"], learning_rate=rates[name])
        for name in ("conv_transpose_2x2", REFERENCE)
    ]


def run(upsampling, steps, batch_size, learning_rate, *, seed, tier, device):
    """Train a U-Net on scenes of the usual size, and measure it with every remedy on scenes of others.

    Returns
    -------
    dict of str to float
        For every remedy and size, as in `accuracy_pad_65x65`: `accuracy`, `foreground_iou` and
        `foreground_boundary_iou` of `upconv.book.tasks.segmentation_measures`, and `edge`, the accuracy in the last
        `EDGE` rows and columns.
    """
    torch.manual_seed(seed)
    model = UNET.build(upsampling, UNET.tiers[tier]["channels"], tier)
    train_by_protocol(
        model,
        *UNET.data("train", tier),
        steps=steps,
        batch_size=batch_size,
        learning_rate=learning_rate,
        seed=seed,
        device=device,
        progress=False,
    )
    measures = {}
    for height, width in SIZES:
        images, masks = garment_scenes("test", SCENES, (height, width), seed=1)
        for model.odd_sizes in REMEDIES:
            logits = reconstruct(model, images, batch_size=20)
            wrong = logits.argmax(dim=1) != masks
            wrong[:, :-EDGE, :-EDGE] = False
            found = segmentation_measures(logits, masks)
            found["edge"] = 1 - wrong.sum().item() / (len(masks) * (height * width - (height - EDGE) * (width - EDGE)))
            for name in ("accuracy", "foreground_iou", "foreground_boundary_iou", "edge"):
                measures[f"{name}_{model.odd_sizes}_{height}x{width}"] = found[name]
    return measures


def protocol(setting, tier):
    """List what decides a run beside its settings."""
    plain = UNET.tiers[tier]["channels"]
    decides = protocol_of(UNET, {**setting, "channels": " ".join(map(str, plain))}, tier)
    return {**decides, "sizes": SIZES, "remedies": REMEDIES, "edge": EDGE, "scenes": SCENES}


SWEEP = Sweep("unet_sizes", settings, run, protocol)
