"""Settings for every test, the kernels in which nbval runs the chapters included."""

import os

import pytest

os.environ["TQDM_DISABLE"] = "1"  # as in code/tools/notebooks/run.py: no progress bar in an output
os.environ.pop("MPLBACKEND", None)  # kernels draw into the notebook


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Give tests to processes one by one, so that both end together; a chapter and the built site stay in one each."""
    from xdist.scheduler import LoadScopeScheduling  # noqa: PLC0415 - there is no pytest-xdist without the option -n

    class Scheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            file = nodeid.partition("::")[0]
            return file if file.endswith((".ipynb", "test_site.py")) else nodeid

    return Scheduling(config, log)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item):
    """Start the chapters' kernels on the CPU and in its tier, whose outputs are stored, whatever this machine has."""
    with pytest.MonkeyPatch.context() as patch:
        if type(item).__name__ == "IPyNbCell":  # of nbval; its first cell starts the kernel
            patch.setenv("CUDA_VISIBLE_DEVICES", "")
            patch.delenv("UPCONV_TIER", raising=False)
            patch.delenv("UPCONV_DEVICE", raising=False)
        return (yield)
