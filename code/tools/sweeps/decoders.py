"""Ten decoders in an autoencoder and in super-resolution, each compared three ways."""

from functools import partial

from tools.sweeps.engine import Sweep
from upconv.book.comparison import protocol_of, run_setting, settings_of
from upconv.book.tasks import AUTOENCODER, SUPER_RESOLUTION

__all__ = ["SWEEPS"]

SWEEPS = [
    Sweep(
        task.name,
        partial(settings_of, task),
        partial(run_setting, task),
        partial(protocol_of, task),
    )
    for task in (AUTOENCODER, SUPER_RESOLUTION)
]
