"""Ten decoders in an autoencoder, compared three ways: a table of chapter 10.

`python code/tools/sweep_autoencoder.py --jobs 2`, after `sweep_step_time.py` and `sweep_learning_rates.py`
"""

import sys

import sweep
from upconv.book.comparison import comparison_settings, run_comparison
from upconv.book.tasks import AUTOENCODER

__all__ = ["SWEEP", "run", "settings"]


def settings(tier):
    """List a tier's settings: every block in the three comparisons."""
    return comparison_settings(AUTOENCODER, tier)


def run(**setting):
    """Train one network and measure it on the test images."""
    return run_comparison(AUTOENCODER, **setting)


SWEEP = sweep.Sweep("autoencoder", settings, run)

if __name__ == "__main__":
    sys.exit(sweep.main(SWEEP))
