"""Decoders with all blocks in an autoencoder and in super-resolution, each compared in several ways."""

from functools import partial

from tools.sweeps.engine import Sweep
from upconv.book.comparison import protocol_of, run_seeds, run_setting, seeds_of, settings_of
from upconv.book.tasks import AUTOENCODER, SUPER_RESOLUTION

__all__ = ["SWEEPS"]

SWEEPS = [
    Sweep(
        task.name,
        partial(settings_of, task),
        partial(run_setting, task),
        partial(protocol_of, task),
        seeds_of,
        run_together=partial(run_seeds, task),
    )
    for task in (AUTOENCODER, SUPER_RESOLUTION)
]
