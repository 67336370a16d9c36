"""The time of a training step, each block's against the reference's; to be measured with nothing else running."""

import statistics
import time

import torch

from tools.sweeps.engine import Sweep
from upconv.book.blocks import FOLDED
from upconv.book.comparison import REFERENCE
from upconv.book.tasks import TASKS
from upconv.book.training import as_target, loss_of

__all__ = ["SWEEP", "run", "settings"]

ROUNDS, STEPS = 12, 5


def settings(tier):
    """List a tier's settings: every block in every task, and the reference trained folded."""
    return [{"task": name, "upsampling": block} for name, task in TASKS.items() for block in (*task.blocks, FOLDED)]


def run(task, upsampling, *, seed, tier, device):
    """Time training steps of a block and of the reference by turns, and give the medians over the rounds.

    Returns
    -------
    dict
        `ms`, of a step with channels_last; `ratio`, of it to the reference's; `format_ratio`, of it to the same step
        without channels_last.
    """
    task = TASKS[task]
    size = task.tiers[tier]["batch_size"]
    batch = [images[:size] for images in task.data("train", tier)]

    def stepper(name, memory_format):
        torch.manual_seed(seed)
        model = task.build(name, task.tiers[tier]["channels"], tier).to(device, memory_format=memory_format)
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
        inputs, targets = (as_target(images, model) for images in batch)

        def step():
            loss = loss_of(model(inputs), targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            return loss.item()  # waits for a GPU

        return step

    steppers = {
        "block": stepper(upsampling, torch.channels_last),
        "reference": stepper(REFERENCE, torch.channels_last),
        "contiguous": stepper(upsampling, torch.contiguous_format),
    }
    times = {name: [] for name in steppers}
    for turn in range(ROUNDS + 1):
        for name, step in steppers.items():
            start = time.perf_counter()
            for _ in range(STEPS):
                step()
            if turn:  # the first round warms up
                times[name].append((time.perf_counter() - start) / STEPS)
    ratios = {
        name: statistics.median(a / b for a, b in zip(times["block"], times[name], strict=True))
        for name in ("reference", "contiguous")
    }
    return {
        "ms": 1000 * statistics.median(times["block"]),
        "ratio": ratios["reference"],
        "format_ratio": ratios["contiguous"],
    }


def protocol(setting, tier):
    """List what decides a run beside its settings."""
    task = TASKS[setting["task"]]
    decides = task.protocol(setting["upsampling"], task.tiers[tier]["channels"], tier)
    timed = {"reference": REFERENCE, "rounds": ROUNDS, "steps": STEPS, "batch_size": task.tiers[tier]["batch_size"]}
    return {**decides, **timed}


SWEEP = Sweep("step_time", settings, run, protocol, alone=True)
