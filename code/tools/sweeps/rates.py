"""Four blocks at six learning rates, trained at full length, on images and seeds of which no comparison makes use."""

import contextlib
import math

from tools.sweeps.engine import Sweep
from tools.sweeps.learning_rates import SEED
from upconv.book.comparison import FOUR, RATES, protocol_of, train_seeds
from upconv.book.tasks import AUTOENCODER, SUPER_RESOLUTION, TASKS
from upconv.book.training import reconstruct

__all__ = ["LOOKS", "SWEEP", "run", "run_together", "settings"]

LOOKS = (100, 200, 400, 800, 1500, 2900)  # steps after which a run is measured, beside the last
BROKEN = -100.0  # the score of a run that has values that are not finite


def settings(tier):
    """List a tier's settings: each of the four blocks with every learning rate."""
    return [
        {"task": task.name, "upsampling": block, "learning_rate": rate, "steps": task.tiers[tier]["steps"]}
        for task in (AUTOENCODER, SUPER_RESOLUTION)
        for block in FOUR
        for rate in RATES
    ]


def run(*, seed, **setting):
    """Train one network, as `run_together` does."""
    [found] = run_together(seeds=[seed], **setting)
    return found


def run_together(task, upsampling, learning_rate, steps, *, seeds, tier, device):
    """Train on nine tenths of the training images, measure on the last tenth.

    Returns
    -------
    list of dict
        For each seed `score_100` and so on to `score_end`: the PSNR on the validation images after so many steps, in
        dB, -100 where the network has a value that is not finite or its training broke off.
    """
    task = TASKS[task]
    inputs, targets = task.data("train", tier)
    count = len(inputs) * 9 // 10
    found = [{f"score_{step}": BROKEN for step in (*LOOKS, "end")} for _ in seeds]

    def look(model, place, step):
        made = reconstruct(model, inputs[count:])
        score = task.measures(made, targets[count:])["psnr"] if made.isfinite().all() else math.nan
        for name in [step] * (step in LOOKS) + ["end"] * (step == steps):
            found[place][f"score_{name}"] = score if math.isfinite(score) else BROKEN

    options = dict(steps=steps, batch_size=task.tiers[tier]["batch_size"], learning_rate=learning_rate, device=device)
    with contextlib.suppress(FloatingPointError):  # what it had reached before is measured
        train_seeds(
            lambda: task.build(upsampling, task.tiers[tier]["channels"], tier),
            [SEED + seed for seed in seeds],
            inputs[:count],
            targets[:count],
            look=look,
            looks=LOOKS,
            **options,
        )
    return found


def protocol(setting, tier):
    """List what decides a run beside its settings."""
    task = TASKS[setting["task"]]
    network = dict(upsampling=setting["upsampling"], channels=" ".join(map(str, task.tiers[tier]["channels"])))
    here = {"on": "last tenth", "seeds": SEED, "batch_size": task.tiers[tier]["batch_size"], "measured": LOOKS}
    return {**protocol_of(task, network, tier), **here}


SWEEP = Sweep("rates", settings, run, protocol, seeds=10, run_together=run_together)
