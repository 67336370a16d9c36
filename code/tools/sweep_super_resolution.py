"""Ten decoders in super-resolution, compared three ways: a table of chapter 10.

`python code/tools/sweep_super_resolution.py --jobs 2`, after `sweep_step_time.py` and `sweep_learning_rates.py`
"""

import sys

import sweep
from upconv.book.comparison import comparison_settings, run_comparison
from upconv.book.tasks import SUPER_RESOLUTION

__all__ = ["SWEEP", "run", "settings"]


def settings(tier):
    """List a tier's settings: every block in the three comparisons."""
    return comparison_settings(SUPER_RESOLUTION, tier)


def run(**setting):
    """Train one network and measure it on the test images."""
    return run_comparison(SUPER_RESOLUTION, **setting)


SWEEP = sweep.Sweep("super_resolution", settings, run)

if __name__ == "__main__":
    sys.exit(sweep.main(SWEEP))
