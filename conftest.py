"""Settings for every test, the kernels in which nbval runs the chapters included."""

import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "code" / "tools"))  # not a package: tests import its modules by name
os.environ["TQDM_DISABLE"] = "1"  # as in code/tools/notebooks.py: no progress bar in an output
os.environ.pop("MPLBACKEND", None)  # kernels draw into the notebook


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item):
    """Start the chapters' kernels on the CPU and in its tier, whose outputs are stored, whatever this machine has."""
    with pytest.MonkeyPatch.context() as patch:
        if type(item).__name__ == "IPyNbCell":  # of nbval; its first cell starts the kernel
            patch.setenv("CUDA_VISIBLE_DEVICES", "")
            patch.delenv("UPCONV_TIER", raising=False)
            patch.delenv("UPCONV_DEVICE", raising=False)
        return (yield)
