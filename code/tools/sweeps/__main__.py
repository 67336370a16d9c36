"""The command line of all sweeps: `python -m tools.sweeps` makes every missing row of every table, in order."""

import sys

from tools.sweeps import (
    collapse,
    decoders,
    engine,
    learning_rates,
    rates,
    replacing,
    schedules,
    step_time,
    unet,
    unet_odd,
    unet_relu,
    unet_sizes,
    variants,
)

__all__ = ["SWEEPS"]

SWEEPS = [  # the comparisons read the first three tables
    step_time.SWEEP,
    learning_rates.SWEEP,
    rates.SWEEP,
    collapse.SWEEP,
    schedules.SWEEP,
    *replacing.SWEEPS,
    *decoders.SWEEPS,
    variants.SWEEP,
    unet.SWEEP,
    unet_relu.SWEEP,
    unet_sizes.SWEEP,
    unet_odd.SWEEP,
]

if __name__ == "__main__":
    sys.exit(engine.main(SWEEPS))
