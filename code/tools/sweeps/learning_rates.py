"""Every block's learning rate, chosen on validation images: before the comparisons."""

import torch

from tools.sweeps.engine import Sweep
from upconv.book.comparison import LEARNING_RATES, protocol_of, train_by_protocol
from upconv.book.tasks import TASKS

__all__ = ["SWEEP", "run", "settings"]

SEED = 1000  # the first of the seeds here, of which no comparison makes use


def settings(tier):
    """List a tier's settings: every block with every learning rate, the same budget for each."""
    return [
        {"task": name, "upsampling": block, "learning_rate": rate, "steps": task.tiers[tier]["steps"] // 3}
        for name, task in TASKS.items()
        for block in task.blocks
        for rate in LEARNING_RATES
    ]


def run(task, upsampling, learning_rate, steps, *, seed, tier, device):
    """Train on nine tenths of the training images, measure on the last tenth.

    Returns
    -------
    dict
        `score`, the measure by which the task chooses (the PSNR in dB, or the mean intersection over union), on the
        validation images, and -100 where the training broke off.
    """
    task = TASKS[task]
    torch.manual_seed(SEED + seed)
    model = task.build(upsampling, task.tiers[tier]["channels"], tier)
    inputs, targets = task.data("train", tier)
    count = len(inputs) * 9 // 10
    try:
        train_by_protocol(
            model,
            inputs[:count],
            targets[:count],
            steps=steps,
            batch_size=task.tiers[tier]["batch_size"],
            learning_rate=learning_rate,
            seed=SEED + seed,
            device=device,
            progress=False,
        )
    except FloatingPointError:
        return {"score": -100.0}
    return {"score": task.measure(model, "train", tier, slice(count, None))[task.score]}


def protocol(setting, tier):
    """List what decides a run beside its settings."""
    task = TASKS[setting["task"]]
    network = dict(upsampling=setting["upsampling"], channels=" ".join(map(str, task.tiers[tier]["channels"])))
    here = {"measured": "last tenth", "seeds": SEED, "batch_size": task.tiers[tier]["batch_size"]}
    return {**protocol_of(task, network, tier), **here}


SWEEP = Sweep("learning_rates", settings, run, protocol, seeds=2)
