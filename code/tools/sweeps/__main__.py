"""The command line of all sweeps: `python -m tools.sweeps` makes every missing row of every table, in order."""

import sys

from tools.sweeps import (
    checkerboard,
    decoders,
    engine,
    learning_rates,
    replacing,
    schedules,
    step_time,
    unet,
    unet_sizes,
)

__all__ = ["SWEEPS"]

SWEEPS = [  # the comparisons read the first two tables
    step_time.SWEEP,
    learning_rates.SWEEP,
    checkerboard.SWEEP,
    schedules.SWEEP,
    replacing.SWEEP,
    *decoders.SWEEPS,
    unet.SWEEP,
    unet_sizes.SWEEP,
]

if __name__ == "__main__":
    sys.exit(engine.main(SWEEPS))
